"""Partitions made ahead of time, for a table that is partitioned already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import psycopg

from playbook.changes.conditions import is_there
from playbook.changes.partitioning import attributes, recreate
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.conversion import EXCLUSIVE
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Every, Period, bound, containing
from playbook.errors import StepError
from playbook.target.sql import Statement, quote

_END = re.compile(r"TO \('(\d{4}-\d\d-\d\d)( 00:00:00(\+00)?)?'\)")

_PARTITIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_get_expr(c.relpartbound, c.oid)
FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE h.inhparent = to_regclass(%s)
"""


@dataclass(frozen=True)
class Ranges:
    """The partitions of a table: where the last one ends, and one whose own indexes the next will have too."""

    end: date
    sibling: str


def read(connection: psycopg.Connection[tuple[str, ...]], qualified: str) -> Ranges:
    """What partitions the table has; bounds are read in UTC.

    Raises:
        StepError: none of them ends at midnight in UTC, so that nobody can tell where the next begins.
    """
    ends: dict[date, str] = {}
    with connection.transaction():
        connection.execute("SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true)")
        for name, bounds in connection.execute(_PARTITIONS.encode(), [qualified]).fetchall():
            if match := _END.search(bounds or ""):
                ends[date.fromisoformat(match[1])] = name
    if not ends:
        raise StepError(f"{qualified}: no partition ends at midnight in UTC; make its next one by hand")
    return Ranges(max(ends), ends[max(ends)])


def missing(ranges: Ranges, every: Every, ahead: int, now: datetime) -> list[Period]:
    """The periods without a partition up to `ahead` ones after that of `now`, from the end of the last partition on.

    Raises:
        StepError: that end is not the beginning of a period.
    """
    period = containing(ranges.end, every)
    if period.start != ranges.end:
        raise StepError(f"the last partition ends on {ranges.end}, amid a {every}; make the next one by hand")
    last = containing(now.date(), every)
    for _ in range(ahead):
        last = last.next()
    found = []
    while period <= last:
        found.append(period)
        period = period.next()
    return found


def statements(
    connection: psycopg.Connection[tuple[str, ...]], qualified: str, key: str, periods: Sequence[Period], user: str
) -> list[Statement]:
    """One transaction a partition; each takes a lock on the table that stops writers, for some milliseconds."""
    parent = attributes.read(connection, qualified)
    assert parent is not None
    model = alike(connection, parent)
    return [_statement(parent, model, key, period, user) for period in periods]


def alike(connection: psycopg.Connection[tuple[str, ...]], parent: Attributes) -> Attributes:
    """What the next partition has besides what it inherits: what the last one has, under the table's name."""
    sibling = attributes.read(connection, read(connection, parent.qualified).sibling)
    assert sibling is not None
    return replace(sibling, schema=parent.schema, name=parent.name, row_security=parent.row_security)


def _statement(parent: Attributes, sibling: Attributes, key: str, period: Period, user: str) -> Statement:
    name = fit(parent.name, f"_{period.label}")
    column_type = parent.column(key).type
    low, high = bound(period.start, column_type), bound(period.end, column_type)
    place = quote(parent.schema, name)
    values = f"FOR VALUES FROM ({low}) TO ({high})"
    commands = recreate.partition(sibling, name, values, parent.qualified, local=local_indexes(sibling, key), user=user)
    references = [each.references or "" for each in parent.foreign_keys]
    return Statement(
        ";\n".join(commands),
        f"a partition for {period.label}",
        EXCLUSIVE,
        " and ".join(dict.fromkeys([parent.qualified, *references])),
        unless=is_there(place),
    )


def local_indexes(a: Attributes, key: str) -> tuple[Index, ...]:
    """The indexes that are unique within each partition only, and so none of the parent's."""
    return tuple(index for index in a.indexes if index.valid and index.unique and key not in index.columns)
