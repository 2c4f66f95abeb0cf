"""Partitions past their retention: which they are, how they are taken off, and whether one is still as it was then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import psycopg

from playbook.changes.partitioning import attributes, attributes_queries, recreate
from playbook.changes.partitioning.conversion import CONCURRENT, EXCLUSIVE
from playbook.errors import Drifted
from playbook.target.sql import Statement, quote

_BOUNDS = re.compile(
    r"FOR VALUES FROM \((?:MINVALUE|'(?P<low>\d{4}-\d\d-\d\d)( 00:00:00(\+00)?)?')\) "
    r"TO \('(?P<high>\d{4}-\d\d-\d\d)( 00:00:00(\+00)?)?'\)"
)
_PENDING = "h.inhdetachpending"  # from 14 on
# Those of a history that was split into periods are among them.
_PARTITIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.oid::text, pg_get_expr(c.relpartbound, c.oid),
       {pending}, c.relkind::text,
       CASE WHEN p.relispartition THEN quote_ident(pn.nspname) || '.' || quote_ident(p.relname) END
FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = h.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE h.inhparent = to_regclass(%(parent)s)
   OR p.relispartition AND pg_get_expr(p.relpartbound, p.oid) LIKE 'FOR VALUES FROM (MINVALUE)%%'
      AND pg_get_partkeydef(p.oid) = pg_get_partkeydef(to_regclass(%(parent)s))
      AND p.oid IN (SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = to_regclass(%(parent)s))
"""
_REFERENCES = """
SELECT conrelid::regclass::text FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND confrelid = to_regclass(%s) AND conparentid = 0 LIMIT 1
"""
# The hash is of each row's text, so that it is the same in whatever order they come; NULL and '' differ in it.
_CONTENT = """
SELECT count(*), coalesce(sum(pg_catalog.hashtextextended(checked::text, 0)::numeric), 0)::text,
       count(*) FILTER (WHERE {key} >= %s::date OR {key} IS NULL OR {key} < %s::date)
FROM ONLY {name} AS checked
"""


@dataclass(frozen=True)
class Part:
    """A partition between two days of UTC; `low` is None for one that has no beginning, as the history has none.

    `oid` tells it from another table that bears its quoted `name` later. `pending`: its detaching was interrupted.
    `within` is the quoted name of the partition that it is a part of, None for one of the table itself.
    """

    name: str
    oid: str
    low: date | None
    high: date
    pending: bool
    within: str | None = None


@dataclass(frozen=True)
class Parts:
    """The partitions of one table; `default` is the quoted name of the one for what fits into none."""

    ranges: tuple[Part, ...]
    default: str | None
    server_version: int

    def expired(self, before: date) -> list[Part]:
        """Those that lie wholly before that day, the oldest first; never one without a beginning."""
        return sorted(
            (part for part in self.ranges if part.low is not None and part.high <= before), key=lambda part: part.high
        )


@dataclass(frozen=True)
class Content:
    """What a table holds: how many rows, a hash of all of them, and its definition."""

    rows: int
    digest: str
    definition: str


def read(connection: psycopg.Connection[Any], parent: str) -> Parts:
    """The partitions of the table with that quoted name; bounds are read in UTC."""
    pending = _PENDING if connection.info.server_version >= 140000 else "false"
    with connection.transaction():
        connection.execute(attributes_queries.SETTINGS.encode())
        query = _PARTITIONS.format(pending=pending).encode()
        rows = connection.execute(query, {"parent": parent}).fetchall()
    found, default = [], None
    for name, oid, bounds, is_pending, kind, within in rows:
        default = name if bounds == "DEFAULT" else default
        match = _BOUNDS.fullmatch(bounds or "")
        if match and kind == "r":
            low = date.fromisoformat(match["low"]) if match["low"] else None
            found.append(Part(name, oid, low, date.fromisoformat(match["high"]), is_pending, within))
    return Parts(tuple(found), default, connection.info.server_version)


def detach(parent: str, part: Part, *, default: str | None, server_version: int) -> Statement:
    """Beside readers and writers where the server can do that: from 14 on, and never beside a default partition."""
    parent, default = (part.within, None) if part.within else (parent, default)
    if part.pending:
        how = " FINALIZE"
    elif default is None and server_version >= 140000:
        how = " CONCURRENTLY"
    else:
        how = ""
    locked = " and ".join(filter(None, (parent, part.name, default)))
    return Statement(
        f"ALTER TABLE {parent}\n  DETACH PARTITION {part.name}{how}",
        f"detach {part.name}",
        CONCURRENT if how else EXCLUSIVE,
        parent if how else locked,
        transactional=not how,
        long=bool(how),
        unless=f"NOT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhrelid = {part.oid})",
    )


def drop(part: str, high: date) -> Statement:
    """What was detached goes, with nothing that depends on it."""
    return Statement(
        f"DROP TABLE {part}", f"drop {part}, whose rows are from before {high}", EXCLUSIVE, part, guarded=True
    )


def content(connection: psycopg.Connection[Any], name: str, key: str, low: date, high: date) -> Content | None:
    """What the detached table holds now, None where it is gone; reads all of it, inside a transaction.

    Raises:
        Drifted: it holds rows that its bounds would not have let in, so it is used for something else by now.
    """
    found = attributes.read(connection, name)
    if found is None:
        return None
    connection.execute(attributes_queries.SETTINGS.encode())
    connection.execute("SET LOCAL row_security = off; SET LOCAL bytea_output = 'hex'")
    sql = _CONTENT.format(key=quote("checked", key), name=name)
    row = connection.execute(sql.encode(), [high, low]).fetchone()
    assert row is not None
    rows, digest, outside = row
    if outside:
        raise Drifted(f"{name} holds {outside:,} row(s) from outside {low} to {high}, written since it was detached")
    if referring := connection.execute(_REFERENCES.encode(), [name]).fetchone():
        raise Drifted(f"{name} is referred to by {referring[0]}")
    return Content(rows, digest, "\n".join(recreate.description(found)))
