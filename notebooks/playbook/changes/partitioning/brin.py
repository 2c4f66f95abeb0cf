"""A BRIN index on the partition key, beside the btree that stands: how it is made, and what both take."""

from __future__ import annotations

import math

from playbook.changes import preflight
from playbook.changes.change import Finding
from playbook.changes.conditions import is_gone
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.names import fit
from playbook.target.catalog import Table
from playbook.target.sql import Statement, quote

PAGES_PER_RANGE = 128
"""The server's default for `pages_per_range`."""
_PAGE = 8192
_RANGE_BYTES = 40
"""What a range of a column of eight bytes takes in a page: its lowest and highest value, headers and a pointer."""


def index(a: Attributes, key: str) -> Index:
    """The index as the table will have it."""
    return Index(
        name=fit(a.name, f"_{key}_brin"),
        body=f"brin ({quote(key)})",
        unique=False,
        valid=True,
        clustered=False,
        replica_identity=False,
        constraint=None,
        constraint_definition=None,
        constraint_comment=None,
        comment=None,
        columns=(key,),
        computed=False,
        tablespace=None,
    )


def build(a: Attributes, wanted: Index) -> Statement:
    """Made on the table as it is, so that the swap need only rename it."""
    return Statement(
        f"CREATE INDEX CONCURRENTLY {quote(wanted.name)}\n  ON {a.qualified} USING {wanted.body}",
        "the lowest and highest key of each megabyte, for spans of time",
        "SHARE UPDATE EXCLUSIVE",
        a.qualified,
        transactional=False,
        long=True,
        builds=quote(a.schema, wanted.name),
    )


def drop(a: Attributes, wanted: Index) -> Statement:
    """After the swap back."""
    qualified = quote(a.schema, wanted.name)
    return Statement(
        f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}",
        "the BRIN index that came with the step",
        "SHARE UPDATE EXCLUSIVE",
        a.qualified,
        transactional=False,
        long=True,
        unless=is_gone(qualified),
    )


def expected_bytes(table: Table) -> int | None:
    """What it will take on a table of that size: metadata, a page that finds the ranges, and the ranges."""
    if table.size_bytes is None:
        return None
    ranges = math.ceil(table.size_bytes / _PAGE / PAGES_PER_RANGE)
    return _PAGE * (2 + math.ceil(ranges * _RANGE_BYTES / _PAGE))


def sizes(table: Table, key: str, *, chosen: bool) -> list[Finding]:
    """Both sizes side by side, for the engineer to choose by in the plan."""
    btrees = [each for each in table.indexes if each.method == "btree" and each.keys and each.keys[0].column == key]
    brins = [each for each in table.indexes if each.method == "brin" and key in {k.column for k in each.keys}]
    if brins:
        return []
    size = preflight.size(expected_bytes(table) or 0)
    beside = "".join(f", btree {each.name} takes {preflight.size(each.size_bytes or 0)}" for each in btrees)
    choice = "made, as the plan asks" if chosen else "`brin: true` at the step makes one, for rows that come by time"
    return [Finding("note", f"a BRIN index on {key} takes about {size}{beside}: {choice}")]
