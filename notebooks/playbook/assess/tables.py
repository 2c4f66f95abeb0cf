"""Tables: where the room goes, which are read whole again and again, whose updates leave their page, which are huge."""

from __future__ import annotations

from collections.abc import Iterator

from playbook import figures
from playbook.assess.check import Answer, Check, counted, judged, not_checked, ok, warn
from playbook.assess.partitions import default_partitions, partitions_ahead
from playbook.assess.session import Session
from playbook.assess.space import space
from playbook.assess.steps import partition_step
from playbook.target.sql import literal

MANY_ROWS = 10_000
"""Below that a sequential scan is what the planner should choose."""
SCANS = 20
HOT_SHARE = 0.5
"""Below it most updates write every index of the table; room in the page (fillfactor) lets them stay in it, where no
indexed column changes (the manual, "Heap-Only Tuples")."""
ENOUGH_UPDATES = 10_000
HUGE_ROWS = 100_000_000
HUGE_BYTES = 64 * 1024**3
"""The manual ("Table Partitioning") speaks of tables larger than the machine's memory; that cannot be asked with SQL,
and 64 GB is the memory of a middling server."""
_TIMES = ("timestamp", "date")
_TABLE = ("table", "tables")


def size(session: Session) -> Iterator[Answer]:
    """Where the room goes; a chart of the notebook shows more of it."""
    spaces = space(session.catalog)
    if not spaces:
        yield not_checked("there is no table to look at")
        return
    whole = sum(each.bytes for each in spaces)
    largest = ", ".join(f"{each.name} {figures.size(each.bytes)}" for each in spaces[:3])
    yield ok(f"{counted(len(spaces), _TABLE)} with their indexes take {figures.size(whole)}: {largest}")


def sequential_scans(session: Session) -> Iterator[Answer]:
    """Large tables that are read whole, again and again, more often than through an index."""
    large = [table for table in session.tables if table.live >= MANY_ROWS]
    scanned = [
        table
        for table in large
        if table.seq_scans >= SCANS
        and table.seq_rows / table.seq_scans >= MANY_ROWS
        and table.seq_scans > table.index_scans
    ]
    found = [
        warn(
            f"{table.qualified}: {table.seq_scans:,} sequential scans read {table.seq_rows:,} rows {session.since}, "
            f"{table.index_scans:,} index scans; {table.live:,} rows",
            "-- which statements those are tells pg_stat_statements; an index for them is a step of kind `index`\n"
            f"SELECT calls, mean_exec_time, query FROM pg_stat_statements\n"
            f"WHERE query ILIKE {_like(table.name)} ORDER BY total_exec_time DESC LIMIT 10;",
        )
        for table in sorted(scanned, key=lambda table: -table.seq_rows)
    ]
    fine = f"none of {MANY_ROWS:,} rows or more is mostly read whole"
    yield from judged(found, len(session.tables), _TABLE, fine)


def hot_updates(session: Session) -> Iterator[Answer]:
    """Tables whose updates mostly write every index."""
    updated = [table for table in session.tables if table.updated >= ENOUGH_UPDATES]
    cold = [table for table in updated if table.hot_updated < HOT_SHARE * table.updated]
    found = [
        warn(
            f"{table.qualified}: {figures.percent(100 * table.hot_updated / table.updated)} of {table.updated:,} "
            f"updates stayed in their page {session.since}",
            "-- room for updates in every page that is written from now on; first see whether an index on a column\n"
            "-- that changes is needed at all\n"
            f"ALTER TABLE {table.qualified} SET (fillfactor = {90 if table.option('fillfactor') is None else 80});",
        )
        for table in sorted(cold, key=lambda table: table.hot_updated - table.updated)
    ]
    fine = f"where there were {ENOUGH_UPDATES:,} updates or more {session.since}, most stayed in their page"
    yield from judged(found, len(session.tables), _TABLE, fine)


def partition_candidates(session: Session) -> Iterator[Answer]:
    """Tables so large that old rows should go by the partition."""
    catalog = session.catalog
    plain = [table for table in catalog.tables if table.kind == "r" and table.partition_bound is None]
    huge = [table for table in plain if table.estimated_rows >= HUGE_ROWS or (table.size_bytes or 0) >= HUGE_BYTES]
    found = []
    for table in sorted(huge, key=lambda table: -(table.size_bytes or 0)):
        keys = [column.name for column in table.columns if column.type.startswith(_TIMES)]
        by = f"by {', '.join(keys)}" if keys else "but has no column of a time to do it by"
        found.append(
            warn(
                f"{table.qualified}: about {table.estimated_rows:,.0f} rows, {figures.size(table.size_bytes)}: may be "
                f"partitioned {by}",
                "-- worth it where old rows are deleted, or queries ask for a span of time\n"
                "-- a step of kind `partition`: by the column of those, and every day, week, month, quarter or year",
                partition_step(table, keys[0], catalog) if keys else "",
            )
        )
    yield from judged(found, len(plain), _TABLE, f"none has {HUGE_ROWS:,} rows or {figures.size(HUGE_BYTES)}")


def _like(name: str) -> str:
    return literal("%" + name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%")


CHECK = Check(
    6,
    "tables",
    "Tables: size, sequential scans, HOT updates, partitions",
    {
        "size": size,
        "sequential scans": sequential_scans,
        "HOT updates": hot_updates,
        "partition candidates": partition_candidates,
        "partitions ahead": partitions_ahead,
        "default partitions": default_partitions,
    },
)
