"""What the target's users did: two snapshots of pg_stat_statements for this database, subtracted.

The columns of pg_stat_statements follow the version of the extension, which may be older than the server's: they are
read off the view itself. Texts are read at the end only, of the statements that took longest: the first snapshot leaves
the file of texts alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from playbook.target.sql import OWN, OWN_EXPLAIN, quote

if TYPE_CHECKING:
    from playbook.assess.session import Session

HIDDEN = "statements of other roles, which this role may not read"
TEXTS = 300
"""Statements whose texts are read, those that took longest."""
_LONGEST_TEXT = 4_000

Key: TypeAlias = tuple[int, int | None, bool]
"""User, queryid (None where it is hidden), and whether a client sent the statement itself."""


class Counts(NamedTuple):
    """Of one statement: calls, milliseconds of execution, rows, blocks of shared buffers asked for.

    `since` is from when on it counts, in seconds of the epoch: 0 before version 1.11 of the extension, which tell not.
    """

    calls: int
    ms: float
    rows: int
    blocks: int
    since: float

    def less(self, before: Counts | None) -> Counts:
        """What came since `before`. A statement that was evicted and came again counts from its coming.

        That is seen by `since`, and where nothing tells that, by a counter that went down.
        """
        if before is None or self.since != before.since or self.calls < before.calls or self.blocks < before.blocks:
            return self
        ms = max(0.0, self.ms - before.ms)
        return Counts(self.calls - before.calls, ms, self.rows - before.rows, self.blocks - before.blocks, self.since)


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
       sum(calls)::bigint AS calls, sum({time})::float8 AS ms, sum(rows)::bigint AS rows,
       sum(shared_blks_hit + shared_blks_read)::bigint AS blocks, {since}::float8 AS since
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

    def less(self, first: Snapshot) -> dict[Key, Counts]:
        """The statements that ended since `first`; since the reset, where there was one in between."""
        was_reset = first.reset_at != self.reset_at
        window = {}
        for key, now in self.counts.items():
            before = None if was_reset else first.counts.get(key)
            hidden = key[1] is None and before is not None and now.calls < before.calls
            # Hidden statements are counted together: when one of them is evicted, the rest have not begun anew.
            window[key] = _NOTHING if hidden else now.less(before)
        return {key: counts for key, counts in window.items() if counts.calls}


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
    return OWN + sql.strip().removeprefix("SELECT")


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
        since="coalesce(extract(epoch FROM max(stats_since) FILTER (WHERE queryid IS NOT NULL)), 0)"
        if "stats_since" in view.columns
        else "0",
    )
    counts = {(row.userid, row.queryid, row.toplevel): Counts(*row[3:]) for row in session.rows(sql)}
    info: Any = (
        session.row(f"SELECT dealloc, stats_reset FROM {schema}.pg_stat_statements_info") if view.informed else None
    )
    return Snapshot(time.monotonic(), schema, counts, info and info.dealloc, info and info.stats_reset)


def between(first: Snapshot | None, last: Snapshot | None, session: Session) -> Activity | None:
    """The second snapshot less the first."""
    if first is None or last is None:
        return None
    window = last.less(first)
    texts = _texts(last, session)
    own = {queryid for queryid, text in texts.items() if is_own(text)}
    hidden = sum(counts.ms for (_, queryid, _), counts in last.counts.items() if queryid is None)
    return Activity(
        seconds=last.at - first.at,
        window=_usages(window, texts, own, session),
        total=_usages(last.counts, texts, own, session),
        hidden_ms=hidden,
        dealloc=last.dealloc,
        reset_at=last.reset_at,
    )


def _texts(last: Snapshot, session: Session) -> dict[int, str]:
    longest = sorted(((counts.ms, key[1]) for key, counts in last.counts.items() if key[1] is not None), reverse=True)
    return texts_of(list(dict.fromkeys(queryid for _, queryid in longest))[:TEXTS], last.schema, session)


def texts_of(ids: Sequence[int], schema: str, session: Session) -> dict[int, str]:
    """The texts of statements as the server keeps them, by queryid. It reads its whole file of texts for that."""
    sql = _TEXTS.format(schema=schema, longest=_LONGEST_TEXT)
    return {row.queryid: row.query or "" for row in session.rows(sql, list(ids))} if ids else {}


def is_own(text: str) -> bool:
    """Whether it is a query of the playbook's checks."""
    return text.lstrip().startswith((OWN, OWN_EXPLAIN))


def _usages(
    counts: Mapping[Key, Counts], texts: Mapping[int, str], own: set[int], session: Session
) -> tuple[Usage, ...]:
    """By text, users put together; nested statements are left out, since the one that called them holds their time."""
    usages = [
        Usage(_text(queryid, texts, session), each.calls, each.ms, each.rows)
        for queryid, each in by_statement(counts, own).items()
    ]
    return tuple(sorted(usages, key=lambda usage: -usage.ms))


def by_statement(counts: Mapping[Key, Counts], own: set[int]) -> dict[int | None, Counts]:
    """Users put together, by queryid; without the statements of `own`, and without nested ones: see `_usages`."""
    merged: dict[int | None, Counts] = {}
    for (_, queryid, toplevel), each in counts.items():
        if toplevel and queryid not in own:
            sums = merged.get(queryid, _NOTHING)
            merged[queryid] = Counts(*(a + b for a, b in zip(sums[:4], each[:4], strict=True)), since=0.0)
    return merged


_NOTHING = Counts(0, 0.0, 0, 0, 0.0)


def _text(queryid: int | None, texts: Mapping[int, str], session: Session) -> str:
    if queryid is None:
        return HIDDEN
    return session.text(texts.get(queryid)) or f"statement {queryid}"
