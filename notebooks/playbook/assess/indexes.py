"""Indexes: invalid, redundant, unused, bloated, and foreign keys without one."""

from __future__ import annotations

from collections.abc import Iterator

from playbook import figures
from playbook.assess import bloat
from playbook.assess.check import Answer, Check, counted, judged, not_checked, warn
from playbook.assess.session import Session
from playbook.assess.steps import index_name, index_step
from playbook.assess.widths import unknown, widths_of
from playbook.changes.covering import redundant as redundant_in
from playbook.target.catalog import Catalog, Constraint, Index, Table
from playbook.target.sql import quote

UNUSED_BYTES = 1024**2
"""A smaller index costs its writers something too, but is not what to begin with."""
BLOATED_SHARE = 0.5
"""B-trees of random keys are 2/3 full (Yao 1978): half empty is more than that and the estimate's error together."""
BLOATED_BYTES = 1024**2
LARGEST = 200
"""Indexes whose bloat is estimated, the largest ones."""
REFERRING_ROWS = 1_000
"""A DELETE on the referenced table scans a smaller table in no time."""

_INDEX = ("index", "indexes")


def invalid(session: Session) -> Iterator[Answer]:
    """What a build that did not end has left: it costs every write and serves no query."""
    indexes = _indexes(session.catalog)
    broken = [index for _, index in indexes if not index.usable and not index.partitioned]
    found = [
        warn(
            f"{index.qualified} is not valid ({figures.size(index.size_bytes)}): a build or a drop did not end",
            "-- unless it is being built at this moment (pg_stat_progress_create_index): drop it, or\n"
            f"-- REINDEX INDEX CONCURRENTLY {_one_line(index.qualified)};\n"
            f"DROP INDEX CONCURRENTLY {index.qualified};",
        )
        for index in broken
    ]
    yield from judged(found, len(indexes), _INDEX, "all are valid")


def redundant(session: Session) -> Iterator[Answer]:
    """Indexes that another one stands in for."""
    pairs = [pair for table in session.catalog.tables if len(table.indexes) > 1 for pair in redundant_in(table)]
    found = [
        warn(
            f"{index.qualified} ({figures.size(index.size_bytes)}): {keeper.qualified} serves all that it does: {how}",
            f"DROP INDEX CONCURRENTLY {index.qualified};",
        )
        for index, keeper, how in sorted(pairs, key=lambda pair: -(pair[0].size_bytes or 0))
    ]
    yield from judged(found, len(_indexes(session.catalog)), _INDEX, "none is redundant")


def unused(session: Session) -> Iterator[Answer]:
    """Indexes that no query has used, as far as the counters reach back."""
    droppable = [index for _, index in _indexes(session.catalog) if _droppable(index, session)]
    idle = [index for index in droppable if session.indexes[index.schema, index.name].scans == 0]
    if session.since.young and idle:
        yield not_checked(
            f"{len(idle):,} of {counted(len(droppable), _INDEX)} that could go were not used {session.since}: that "
            "says too little",
            "-- look again when they have counted for a week",
        )
        return
    found = [
        warn(
            f"{index.qualified} ({figures.size(index.size_bytes)}): not used {session.since}; a standby counts apart",
            f"-- {_one_line(index.definition)};\nDROP INDEX CONCURRENTLY {index.qualified};",
        )
        for index in sorted(idle, key=lambda index: -(index.size_bytes or 0))
    ]
    all_ = len(_indexes(session.catalog))
    yield from judged(found, all_, _INDEX, f"each of 1 MB or more that could go was used {session.since}")


def bloated(session: Session) -> Iterator[Answer]:
    """Estimated from statistics, the largest b-trees only; see `bloat`."""
    btrees = [
        (table, index)
        for table, index in _indexes(session.catalog)
        if index.method == "btree"
        and index.usable
        and not index.predicate
        and (index.size_bytes or 0) >= BLOATED_BYTES
        and all(key.column for key in index.keys)
    ]
    largest = sorted(btrees, key=lambda pair: -(pair[1].size_bytes or 0))[:LARGEST]
    widths = widths_of(session, {table.qualified: table for table, _ in largest}.values())
    wasted, hidden = [], 0
    for table, index in largest:
        columns = [key.column or "" for key in index.keys] + list(index.included)
        known = [widths.get((table.schema, table.name, column)) for column in columns]
        counters = session.indexes.get((index.schema, index.name))
        if counters is None or counters.estimated_rows < 0 or not all(known):
            hidden += 1
            continue
        fillfactor = dict(option.partition("=")[::2] for option in index.options).get("fillfactor")
        found = bloat.of_btree(
            counters.pages,
            counters.estimated_rows,
            [width for width in known if width],
            int(fillfactor or bloat.INDEX_FILLFACTOR),
        )
        if found.share >= BLOATED_SHARE and found.wasted_bytes >= BLOATED_BYTES:
            wasted.append((found, index))
    answers = [
        warn(
            f"{index.qualified}: {figures.percent(100 * found.share)} of {figures.size(index.size_bytes)} is empty "
            "(estimated, give or take 20 %)",
            f"REINDEX INDEX CONCURRENTLY {index.qualified};",
        )
        for found, index in sorted(wasted, key=lambda pair: -pair[0].wasted_bytes)
    ]
    if hidden:
        yield unknown(hidden, _INDEX)
    if len(largest) > hidden or not hidden:
        fine = f"of the b-trees of 1 MB or more (at most the {LARGEST} largest) none is half empty"
        yield from judged(answers, len(_indexes(session.catalog)) - hidden, _INDEX, fine)


def foreign_keys(session: Session) -> Iterator[Answer]:
    """Foreign keys whose columns no index begins with: each DELETE on the referenced table scans the referring one."""
    catalog = session.catalog
    keys = [
        (table, constraint)
        for table in catalog.tables
        for constraint in table.constraints
        if constraint.kind == "f" and not _inherited(table, constraint, catalog)
    ]
    # Two keys over the same columns want the same index.
    bare = {(table.qualified, key.columns): (table, key) for table, key in reversed(keys) if not _served(table, key)}
    due = [
        (table, key)
        for table, key in bare.values()
        if not 0 <= table.estimated_rows < REFERRING_ROWS or table.kind == "p"
    ]
    found = [
        warn(
            f"{table.qualified}.{quote(key.name)}: no index begins with ({', '.join(map(quote, key.columns))}), so "
            f"every DELETE on {key.references} scans {_rows(table)}",
            _create_index(table, key, catalog),
            index_step(table, key.columns, catalog) if table.kind == "r" else "",
        )
        for table, key in sorted(due, key=lambda pair: (-pair[0].estimated_rows, pair[1].name))
    ]
    small = f" ({len(bare) - len(due)} on tables under {REFERRING_ROWS:,} rows, where a scan is quick)" if bare else ""
    yield from judged(found, len(keys), ("foreign key", "foreign keys"), f"an index serves each{small}")


def _indexes(catalog: Catalog) -> list[tuple[Table, Index]]:
    return [(table, index) for table in catalog.tables for index in table.indexes]


def _droppable(index: Index, session: Session) -> bool:
    kept = index.unique or index.exclusion or index.constraint or index.parent or index.partitioned or not index.usable
    if kept or (index.size_bytes or 0) < UNUSED_BYTES:
        return False
    counters = session.indexes.get((index.schema, index.name))
    return counters is not None and not counters.replica_identity


def _inherited(table: Table, constraint: Constraint, catalog: Catalog) -> bool:
    """Whether the partitioned table has the same one: it is told of there."""
    parent = catalog.table(*table.parent) if table.partition_bound is not None and table.parent else None
    return parent is not None and any(
        other.kind == "f" and (other.columns, other.references) == (constraint.columns, constraint.references)
        for other in parent.constraints
    )


def _small(table: Table) -> bool:
    return 0 <= table.estimated_rows < REFERRING_ROWS


def _served(table: Table, key: Constraint) -> bool:
    """Whether an index begins with the key's columns, in whatever order."""
    wanted = set(key.columns)
    return any(
        (index.usable or index.partitioned)
        and not index.predicate
        and {each.column for each in index.keys[: len(wanted)]} == wanted
        for index in table.indexes
    )


def _create_index(table: Table, key: Constraint, catalog: Catalog) -> str:
    columns = ", ".join(map(quote, key.columns))
    name = quote(index_name(table, key.columns, catalog))
    if table.kind == "p":
        return (
            "-- partitioned: build it CONCURRENTLY on each partition, then attach those to this one\n"
            f"CREATE INDEX {name} ON ONLY {table.qualified} ({columns});"
        )
    return f"CREATE INDEX CONCURRENTLY {name} ON {table.qualified} ({columns});"


def _rows(table: Table) -> str:
    return f"about {table.estimated_rows:,.0f} rows" if table.estimated_rows >= 0 else "a table never analysed"


def _one_line(text: str) -> str:
    """For a comment: a line feed within a name must not end it."""
    return " ".join(text.splitlines())


CHECK = Check(
    7,
    "indexes",
    "Indexes: invalid, redundant, unused, bloated, missing",
    {
        "invalid": invalid,
        "redundant": redundant,
        "unused": unused,
        "bloated": bloated,
        "foreign keys": foreign_keys,
    },
)
