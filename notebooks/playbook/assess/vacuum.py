"""Vacuum: dead rows, bloat, the age of transaction IDs, statistics of the planner gone stale."""

from __future__ import annotations

from collections.abc import Iterator

from playbook import figures
from playbook.assess import bloat
from playbook.assess.check import Answer, Check, judged, needs_role, ok, warn
from playbook.assess.counters import TableCounters
from playbook.assess.session import Session
from playbook.assess.widths import unknown, widths_of
from playbook.target.catalog import Column, Table
from playbook.target.sql import quote

OVERDUE = 2.0
"""Autovacuum comes when dead rows pass autovacuum_vacuum_threshold + autovacuum_vacuum_scale_factor × rows (the manual,
"The Autovacuum Daemon"); at twice that it does not keep up, or is kept from clearing away."""
MANY_DEAD = 10_000
BLOATED_SHARE = 0.4
"""Twice what autovacuum's default lets stand (a fifth of the rows)."""
BLOATED_BYTES = 10 * 1024**2
LARGEST = 200
"""Tables whose bloat is estimated, the largest ones."""
XID_LIMIT = 2**31 - 3_000_000
"""So many transactions after the oldest unfrozen one the server takes no command that writes (the manual, "Preventing
Transaction ID Wraparound Failures": three million before the wraparound at two thousand million)."""
XID_WARN_SHARE = 0.5
"""Of that limit; autovacuum alone begins at autovacuum_freeze_max_age, a tenth of it by default."""
FREEZE_OVERDUE = 1.5
"""Times autovacuum_freeze_max_age: by then the vacuum against wraparound should have been through."""
ENOUGH_CHANGED = 1_000

_TABLE = ("table", "tables")
_FRESH = "the planner's statistics are as fresh as autovacuum keeps them"
_DATABASES = """
SELECT datname::text AS name, age(datfrozenxid) AS xid_age, mxid_age(datminmxid) AS mxid_age
FROM pg_database ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC
"""


def dead_rows(session: Session) -> Iterator[Answer]:
    """Tables in which autovacuum does not keep up with what dies."""
    overdue = []
    for table in session.tables:
        if table.option("autovacuum_enabled") in {"false", "off", "0", "no"} and table.live + table.dead >= MANY_DEAD:
            overdue.append((table, "autovacuum is switched off for it"))
            continue
        due = _due(table, "autovacuum_vacuum_threshold", "autovacuum_vacuum_scale_factor", session)
        if table.dead >= max(MANY_DEAD, OVERDUE * due):
            overdue.append((table, f"autovacuum should have come at {due:,.0f}"))
    found = [
        warn(
            f"{table.qualified}: {table.dead:,} dead rows beside {table.live:,} live ones, {why}",
            f"VACUUM (ANALYZE) {table.qualified};\n{_more_often(table)}",
        )
        for table, why in sorted(overdue, key=lambda pair: -pair[0].dead)
    ]
    yield from judged(found, len(session.tables), _TABLE, "autovacuum keeps up with dead rows")


def _more_often(table: TableCounters) -> str:
    if table.option("autovacuum_enabled") is not None:
        return f"ALTER TABLE {table.qualified} RESET (autovacuum_enabled);"
    return (
        "-- so that it comes earlier to a large table; a transaction held open keeps it from clearing anything\n"
        f"ALTER TABLE {table.qualified} SET (autovacuum_vacuum_scale_factor = 0.05);"
    )


def table_bloat(session: Session) -> Iterator[Answer]:
    """Estimated from statistics, the largest tables only; see `bloat`."""
    heaps = {(table.schema, table.name): table for table in session.catalog.tables if table.kind in "rm"}
    large = [counter for counter in session.tables if counter.pages * bloat.BLOCK_BYTES >= BLOATED_BYTES]
    largest = sorted(large, key=lambda counter: -counter.pages)[:LARGEST]
    pairs = [(c, heaps[c.schema, c.name]) for c in largest if (c.schema, c.name) in heaps]
    widths = widths_of(session, [table for _, table in pairs])
    wasted, hidden = [], 0
    for counter, table in pairs:
        known = [widths.get((table.schema, table.name, column.name)) for column in _stored(table)]
        if counter.estimated_rows < 0 or not known or not all(known):
            hidden += 1
            continue
        fillfactor = int(counter.option("fillfactor") or bloat.TABLE_FILLFACTOR)
        found = bloat.of_table(counter.pages, counter.estimated_rows, [w for w in known if w], fillfactor)
        if found.share >= BLOATED_SHARE and found.wasted_bytes >= BLOATED_BYTES:
            wasted.append((found, counter))
    answers = [
        warn(
            f"{counter.qualified}: {figures.percent(100 * found.share)} of "
            f"{figures.size(counter.pages * bloat.BLOCK_BYTES)} is empty (estimated, give or take 20 %)",
            "-- what is empty is filled again, so this matters where the table is read whole; VACUUM FULL locks\n"
            "-- everybody out, pg_repack (an extension) does not\n"
            f"-- VACUUM (FULL, ANALYZE) {' '.join(counter.qualified.splitlines())};",
        )
        for found, counter in sorted(wasted, key=lambda pair: -pair[0].wasted_bytes)
    ]
    if hidden:
        yield unknown(hidden, _TABLE)
    if len(pairs) > hidden or not hidden:
        fine = f"of those of 10 MB or more (at most the {LARGEST} largest) none is {BLOATED_SHARE:.0%} empty"
        yield from judged(answers, len(session.tables) - hidden, _TABLE, fine)


def _stored(table: Table) -> list[Column]:
    return [column for column in table.columns if column.generated != "v"]


def xid_age(session: Session) -> Iterator[Answer]:
    """How near transaction IDs, and those of row locks (multixacts), have come to running out."""
    ages = (
        ("autovacuum_freeze_max_age", "xid_age", "transactions"),
        ("autovacuum_multixact_freeze_max_age", "mxid_age", "multixacts"),
    )
    found = []
    for setting, age, what in ages:
        limit = min(FREEZE_OVERDUE * int(session.settings[setting].value), XID_WARN_SHARE * XID_LIMIT)
        old = [table for table in session.tables if getattr(table, age) > limit]
        found += [
            warn(
                f"{table.qualified}: its oldest row is {getattr(table, age):,} {what} old; at {XID_LIMIT:,} the server "
                "takes no write any more",
                f"VACUUM (FREEZE, VERBOSE) {table.qualified};",
            )
            for table in sorted(old, key=lambda table: -getattr(table, age))
        ]
        found += [
            warn(
                f"database {each.name}: {getattr(each, age):,} {what} old; at {XID_LIMIT:,} the server takes no write "
                "any more",
                f"-- in database {' '.join(quote(each.name).splitlines())}:\nVACUUM (FREEZE);",
            )
            for each in session.rows(_DATABASES)
            if getattr(each, age) > limit and not old
        ]
    oldest = session.rows(_DATABASES)[0]
    yield from judged(
        found,
        len(session.tables) or 1,
        _TABLE,
        f"the oldest database of the server, {oldest.name}, is {oldest.xid_age:,} transactions old "
        f"({oldest.xid_age / XID_LIMIT:.1%} of what there are)",
    )


def stale_statistics(session: Session) -> Iterator[Answer]:
    """Tables that changed much since the planner's statistics of them were taken."""
    never, stale = [], []
    for table in session.tables:
        due = _due(table, "autovacuum_analyze_threshold", "autovacuum_analyze_scale_factor", session)
        if table.analyzed_at is None and table.estimated_rows <= 0 and table.live >= ENOUGH_CHANGED:
            never.append((table, "was never analysed"))
        elif table.changed >= max(ENOUGH_CHANGED, OVERDUE * due):
            stale.append((table, f"{table.changed:,} rows changed since it was analysed, ANALYZE is due at {due:,.0f}"))
    found = [
        warn(f"{table.qualified}: {why}; {table.live:,} rows", f"ANALYZE {table.qualified};")
        for table, why in sorted([*never, *stale], key=lambda pair: -pair[0].changed)
    ]
    yield from judged(
        found, len(session.tables), _TABLE, "the planner's statistics are as fresh as autovacuum keeps them"
    )


def progress(session: Session) -> Iterator[Answer]:
    """Whether all workers are busy: then tables wait for their turn."""
    if not session.sees_all:
        yield needs_role(session, "pg_read_all_stats", "how many autovacuum workers are at work is hidden")
        return
    row = session.row("SELECT count(*) AS busy FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'")
    most = int(session.settings["autovacuum_max_workers"].value)
    told = f"{row.busy} of {most} autovacuum workers are at work"
    if row.busy >= most:
        yield warn(
            f"{told}: tables wait for their turn",
            "-- let each do more at a time, before there are more of them\n"
            "ALTER SYSTEM SET autovacuum_vacuum_cost_limit = 1000;\nSELECT pg_reload_conf();",
        )
    else:
        yield ok(told)


def _due(table: TableCounters, threshold: str, factor: str, session: Session) -> float:
    """From how many rows on autovacuum comes to the table."""
    rows = max(0.0, table.estimated_rows)
    return table.setting(threshold, session.settings) + table.setting(factor, session.settings) * rows


CHECK = Check(
    8,
    "vacuum",
    "Vacuum, bloat, transaction IDs, stale statistics",
    {
        "dead rows": dead_rows,
        "bloat": table_bloat,
        "transaction IDs": xid_age,
        "stale statistics": stale_statistics,
        "workers": progress,
    },
)
