"""What the target's users did: two snapshots of pg_stat_statements for this database, subtracted.

The columns of pg_stat_statements follow the version of the extension, which may be older than the server's: they are
read off the view itself. Texts are read at the end only, of the statements that took longest: the first snapshot leaves
the file of texts alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from playbook.target.sql import quote

if TYPE_CHECKING:
    from playbook.assess.session import Session

HIDDEN = "statements of other roles, which this role may not read"
TEXTS = 300
"""Statements whose texts are read, those that took longest."""
_LONGEST_TEXT = 4_000

# Behind the first word: PostgreSQL 18 keeps no comment before it.
_MARK = "SELECT /* playbook */"

Key: TypeAlias = tuple[int, int | None, bool]
"""User, queryid (None where it is hidden), and whether a client sent the statement itself."""
Counts: TypeAlias = tuple[int, float, int]
"""Calls, milliseconds of execution, and rows."""

_VIEW = """
SELECT n.nspname::text AS schema, e.extversion AS version,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       EXISTS (SELECT FROM pg_class i
               WHERE i.relnamespace = n.oid AND i.relname = 'pg_stat_statements_info') AS informed
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
JOIN pg_class v ON v.relnamespace = n.oid AND v.relname = 'pg_stat_statements'
WHERE e.extname = 'pg_stat_statements'
"""

_STATEMENTS = """
SELECT userid::bigint AS userid, queryid, {toplevel} AS toplevel,
       sum(calls)::bigint AS calls, sum({time})::float8 AS ms, sum(rows)::bigint AS rows
FROM {schema}.pg_stat_statements(false)
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY 1, 2, 3
"""

_INFO = "SELECT dealloc, stats_reset FROM {schema}.pg_stat_statements_info"

_TEXTS = """
SELECT DISTINCT ON (queryid) queryid, left(query, {longest}) AS query FROM {schema}.pg_stat_statements(true)
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND queryid = ANY(%s)
"""


@dataclass(frozen=True)
class Snapshot:
    """pg_stat_statements at one moment; `dealloc` and `reset_at` are None before version 1.9 of the extension."""

    at: float
    schema: str
    counts: Mapping[Key, Counts]
    dealloc: int | None
    reset_at: datetime | None


@dataclass(frozen=True)
class Usage:
    """What one statement took; `text` is masked on a foreign target unless values may be shown."""

    text: str
    calls: int
    ms: float
    rows: int

    @property
    def mean_ms(self) -> float:
        """Milliseconds a call."""
        return self.ms / self.calls if self.calls else 0.0


@dataclass(frozen=True)
class Activity:
    """What ran between two snapshots (`window`) and since the last reset (`total`), the longest first.

    The playbook's own queries are left out. `hidden_ms` is the share of `total` whose texts this role may not read.
    """

    seconds: float
    window: tuple[Usage, ...]
    total: tuple[Usage, ...]
    hidden_ms: float
    dealloc: int | None
    reset_at: datetime | None

    @property
    def shown(self) -> tuple[Usage, ...]:
        """What ran in the window, or where nothing did, since the reset."""
        return self.window or self.total


def marked(sql: str) -> str:
    """A query of the checks, so that it can be told from those of the target's users."""
    return _MARK + sql.strip().removeprefix("SELECT")


def snapshot(session: Session) -> Snapshot | None:
    """pg_stat_statements as it stands; None where the extension is not in this database.

    Raises:
        psycopg.Error: it is there and cannot be read (not preloaded, or no privilege).
    """
    found = session.rows(_VIEW)
    if not found:
        return None
    view = found[0]
    schema = quote(view.schema)
    sql = _STATEMENTS.format(
        schema=schema,
        toplevel="toplevel" if "toplevel" in view.columns else "true",
        time="total_exec_time" if "total_exec_time" in view.columns else "total_time",
    )
    counts = {(row.userid, row.queryid, row.toplevel): (row.calls, row.ms, row.rows) for row in session.rows(sql)}
    info: Any = (
        session.row(f"SELECT dealloc, stats_reset FROM {schema}.pg_stat_statements_info") if view.informed else None
    )
    return Snapshot(time.monotonic(), schema, counts, info and info.dealloc, info and info.stats_reset)


def between(first: Snapshot | None, last: Snapshot | None, session: Session) -> Activity | None:
    """The second snapshot less the first. A statement that was evicted and came again counts from its coming."""
    if first is None or last is None:
        return None
    was_reset = first.reset_at != last.reset_at
    window = {key: _less(now, None if was_reset else first.counts.get(key)) for key, now in last.counts.items()}
    texts = _texts(last, session)
    own = {queryid for queryid, text in texts.items() if text.lstrip().startswith(_MARK)}
    hidden = sum(ms for (_, queryid, _), (_, ms, _) in last.counts.items() if queryid is None)
    return Activity(
        seconds=last.at - first.at,
        window=_usages({key: counts for key, counts in window.items() if counts[0]}, texts, own, session),
        total=_usages(last.counts, texts, own, session),
        hidden_ms=hidden,
        dealloc=last.dealloc,
        reset_at=last.reset_at,
    )


def _less(now: Counts, before: Counts | None) -> Counts:
    if before is None or now[0] < before[0]:
        return now
    return now[0] - before[0], max(0.0, now[1] - before[1]), now[2] - before[2]


def _texts(last: Snapshot, session: Session) -> dict[int, str]:
    longest = sorted(((counts[1], key[1]) for key, counts in last.counts.items() if key[1] is not None), reverse=True)
    ids = list(dict.fromkeys(queryid for _, queryid in longest))[:TEXTS]
    sql = _TEXTS.format(schema=last.schema, longest=_LONGEST_TEXT)
    return {row.queryid: row.query or "" for row in session.rows(sql, ids)} if ids else {}


def _usages(
    counts: Mapping[Key, Counts], texts: Mapping[int, str], own: set[int], session: Session
) -> tuple[Usage, ...]:
    """By text, users put together; nested statements are left out, since the one that called them holds their time."""
    merged: dict[int | None, list[float]] = {}
    for (_, queryid, toplevel), numbers in counts.items():
        if queryid in own or not toplevel:
            continue
        sums = merged.setdefault(queryid, [0, 0.0, 0])
        for place, number in enumerate(numbers):
            sums[place] += number
    usages = [
        Usage(_text(queryid, texts, session), int(calls), ms, int(rows))
        for queryid, (calls, ms, rows) in merged.items()
    ]
    return tuple(sorted(usages, key=lambda usage: -usage.ms))


def _text(queryid: int | None, texts: Mapping[int, str], session: Session) -> str:
    if queryid is None:
        return HIDDEN
    return session.text(texts.get(queryid)) or f"statement {queryid}"
