"""N+1 suspects on any database, whatever its applications are written in: from two snapshots of pg_stat_statements.

The server knows neither loops nor call sites. It knows that in the same time a statement that looks one row up was sent
about as often as another one returned rows. That is what N+1 looks like from there, and it can have other reasons: so
these are suspects, and only the detector in the application (`n_plus_one`) says which are guilty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.service.fingerprint import fingerprint, reads_rows, values
from playbook.target.extensions import schema_of

FEWEST_CALLS = 20
"""A statement that was sent less often in the time looked at is not worth a suspicion."""
FEWEST_EACH = 5
"""So many times as often as its parent at least: as in the detector, fewer may be meant."""
MOST_ROWS = 20
"""Rows of each call at most: one that returns more is a list of its own."""
SHARE = (0.2, 1.2)
"""Calls of a suspect for each row of its parent: several rows may share what is looked up, and few are asked twice."""


class NotReadable(Exception):
    """pg_stat_statements cannot be read here; the message says why and what mends it."""


@dataclass(frozen=True)
class Counters:
    """What one statement came to since the statistics began."""

    sql: str
    calls: int
    rows: int
    milliseconds: float


@dataclass(frozen=True)
class Snapshot:
    """The counters of one database by statement; `hidden` statements have texts that this role may not see."""

    counters: Mapping[int, Counters]
    hidden: int
    reset_at: str


@dataclass(frozen=True)
class Suspect:
    """A statement that was sent about once for each row that `parent` returned. Neither text holds a value."""

    sql: str
    calls: int
    rows: int
    milliseconds: float
    parent: str
    parent_calls: int
    parent_rows: int


_COUNTERS = """
SELECT queryid, min(query), sum(calls)::bigint, sum(rows)::bigint, sum(total_exec_time)
FROM {schema}.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = coalesce(%s, current_database()))
GROUP BY queryid
"""


def snapshot(connection: psycopg.Connection[Any], database: str | None = None) -> Snapshot:
    """The counters of `database` (default: the one connected to); changes nothing.

    Raises:
        NotReadable: the extension is missing or not preloaded, or this role may not read it.
    """
    schema = schema_of(connection, "pg_stat_statements")
    if schema is None:
        raise NotReadable("pg_stat_statements is not installed here; CREATE EXTENSION pg_stat_statements shows them")
    try:
        rows = connection.execute(_COUNTERS.format(schema=schema).encode(), [database]).fetchall()
        reset = _reset_at(connection, schema)
    except psycopg.Error as error:
        cause = str(error).splitlines()[0]
        raise NotReadable(
            f"pg_stat_statements cannot be read: {cause}; it has to be in shared_preload_libraries"
        ) from None
    shown = {row[0]: Counters(*row[1:]) for row in rows if row[0] is not None and row[1] != "<insufficient privilege>"}
    return Snapshot(shown, len(rows) - len(shown), reset)


def _reset_at(connection: psycopg.Connection[Any], schema: str) -> str:
    if connection.info.server_version < 140000:  # there was no pg_stat_statements_info yet
        return ""
    row = connection.execute(f"SELECT stats_reset::text FROM {schema}.pg_stat_statements_info".encode()).fetchone()
    return row[0] if row else ""


def suspects(before: Snapshot, after: Snapshot) -> list[Suspect]:
    """What between the two snapshots looks like N+1, the most calls first.

    Raises:
        NotReadable: the statistics were reset in between, so that nothing can be subtracted.
    """
    if before.reset_at != after.reset_at:
        raise NotReadable("the statistics were reset between the two snapshots; look again")
    sent = [each for each in (_since(before, key, now) for key, now in after.counters.items()) if each.calls > 0]
    lookups = [each for each in sent if _looks_up(each)]
    found = []
    for each in lookups:
        if parents := [other for other in sent if other is not each and _may_cause(other, each)]:
            parent = min(parents, key=lambda other: (not _holds_key(other, each), abs(other.rows - each.calls)))
            texts = fingerprint(each.sql), fingerprint(parent.sql)
            figures = each.calls, each.rows, each.milliseconds
            found.append(Suspect(texts[0], *figures, texts[1], parent.calls, parent.rows))
    return sorted(found, key=lambda suspect: (-suspect.calls, suspect.sql))


def _since(before: Snapshot, key: int, now: Counters) -> Counters:
    then = before.counters.get(key)
    if then is None or then.calls > now.calls:  # it is new, or was forgotten in between
        return now
    return Counters(now.sql, now.calls - then.calls, now.rows - then.rows, now.milliseconds - then.milliseconds)


def _looks_up(each: Counters) -> bool:
    if each.calls < FEWEST_CALLS or each.rows > MOST_ROWS * each.calls or not reads_rows(each.sql):
        return False
    keys: Sequence[Any] = values(each.sql, None)
    return any(value.role == "key" for value in keys) and not any(len(value.parts) > 1 for value in keys)


def _holds_key(parent: Counters, child: Counters) -> bool:
    """Whether the parent mentions what the child looks up by: its column, or `customer_id` for a customer's id."""
    text = fingerprint(child.sql)
    table, column = re.search(r' from ([\w."]+)', text), re.search(r'([\w"]+) = \?', text)
    if not (table and column):
        return False
    name, owner = column[1].strip('"'), table[1].rpartition(".")[2].strip('"').rstrip("s")
    names = {name} if name != "id" else {f"{owner}_id", f"{owner}Id"}
    if name != "id":  # what belongs to a row is looked up by that row's key: proposals, for proposal_id
        names.add(f"from {name.removesuffix('_id').removesuffix('Id')}s")
    return any(re.search(rf"{re.escape(each)}\b", fingerprint(parent.sql)) for each in names)


def _may_cause(parent: Counters, child: Counters) -> bool:
    low, high = SHARE
    enough = parent.calls * FEWEST_EACH <= child.calls
    return enough and reads_rows(parent.sql) and low * parent.rows <= child.calls <= high * parent.rows
