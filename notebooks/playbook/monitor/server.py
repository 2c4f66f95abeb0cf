"""What the target's server counted: a reading of it, and what lies between two of them, right across resets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from playbook.assess import activity
from playbook.assess.activity import Counts, Snapshot
from playbook.assess.session import Session
from playbook.errors import one_line
from playbook.monitor.metrics import SLOW_MS, DatabaseMetrics

NO_STATEMENTS = "pg_stat_statements is not in this database: times of statements are not known"

_DATABASE = """
SELECT pg_postmaster_start_time() AS started_at, d.stats_reset AS reset_at,
       d.xact_commit AS commits, d.xact_rollback AS rollbacks, d.blks_hit AS hit, d.blks_read AS read,
       d.deadlocks, d.temp_bytes,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS most_connections
FROM pg_stat_database d WHERE d.datname = current_database()
"""
# What kind of backend another role's is, is hidden too; that it has a database and a role is not.
_SESSIONS = """
SELECT count(*) AS used,
       count(*) FILTER (WHERE state = 'active') AS active,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction,
       count(*) FILTER (WHERE wait_event_type = 'Lock') AS waiting,
       coalesce(max(extract(epoch FROM now() - xact_start)) FILTER (WHERE state IS NOT NULL), 0)::float8
         AS longest_transaction_s
FROM pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
  AND coalesce(backend_type, 'client backend') = 'client backend'
"""


@dataclass(frozen=True)
class Sessions:
    """The client sessions of the whole server at one moment; states that are hidden from this role count as none."""

    used: int
    active: int
    idle_in_transaction: int
    waiting: int
    longest_transaction_s: float


@dataclass(frozen=True)
class ServerReading:
    """The counters of one database. `statements` is None where they cannot be read, and `reason` says why."""

    at: float
    started_at: datetime
    reset_at: datetime | None
    commits: int
    rollbacks: int
    hit: int
    read: int
    deadlocks: int
    temp_bytes: int
    most_connections: int
    sessions: Sessions
    statements: Snapshot | None
    reason: str = ""

    def since(self, earlier: ServerReading) -> ServerSpan:
        """What was counted since `earlier`, of which `notes` say what may be missing.

        A server that crashed, and one whose counters were reset, counts from zero: then everything that stands counted
        is what came since.
        """
        notes = []
        if restarted := self.started_at != earlier.started_at:
            notes.append("the server was restarted")
        names = ("commits", "rollbacks", "hit", "read", "deadlocks", "temp_bytes")
        before = {name: getattr(earlier, name) for name in names}
        if self.reset_at != earlier.reset_at or any(getattr(self, name) < before[name] for name in names):
            before = dict.fromkeys(names, 0)
            if not restarted:
                notes.append("the counters of the database were reset")
        statements, said = self._statements_since(earlier)
        return ServerSpan(
            seconds=self.at - earlier.at,
            most_connections=self.most_connections,
            sessions=self.sessions,
            statements=statements,
            schema=self.statements.schema if self.statements else "",
            notes=(*notes, *said),
            reason=self.reason,
            **{name: getattr(self, name) - before[name] for name in names},
        )

    def _statements_since(self, earlier: ServerReading) -> tuple[Mapping[activity.Key, Counts] | None, list[str]]:
        if self.statements is None:
            return None, []
        if earlier.statements is None:
            return None, ["statements are counted from now on"]
        now, then, said = self.statements, earlier.statements, []
        if now.reset_at != then.reset_at:
            said.append("pg_stat_statements was reset")
        elif evicted := (now.dealloc or 0) - (then.dealloc or 0):
            said.append(f"statements were evicted {evicted:,} times: what they took is not counted")
        elif now.dealloc is not None and then.counts.keys() - now.counts.keys():
            said.append("pg_stat_statements was reset in part")
        return now.less(then), said


@dataclass(frozen=True)
class ServerSpan:
    """What the server did in `seconds`. `statements` are those that ended; of `sessions` it is the end that is told."""

    seconds: float
    commits: int
    rollbacks: int
    hit: int
    read: int
    deadlocks: int
    temp_bytes: int
    most_connections: int
    sessions: Sessions
    statements: Mapping[activity.Key, Counts] | None
    schema: str
    notes: tuple[str, ...]
    reason: str

    def by_statement(self, own: set[int]) -> dict[int | None, Counts]:
        """The statements by queryid, without those of `own`: the playbook's."""
        return activity.by_statement(self.statements or {}, own)

    def metrics(self, statements: Mapping[int | None, Counts], slow_ms: float = SLOW_MS) -> DatabaseMetrics:
        """The plan's figures, of these statements."""
        known = self.statements is not None
        calls, ms = (sum(getattr(each, name) for each in statements.values()) for name in ("calls", "ms"))
        slow = sum(each.calls for each in statements.values() if each.ms / each.calls > slow_ms)
        blocks = self.hit + self.read
        used = 100 * self.sessions.used / self.most_connections if self.most_connections > 0 else None
        return DatabaseMetrics(
            "server",
            self.seconds,
            average_query_time=ms / calls if calls else None,
            slow_query_count=slow if known else None,
            connection_pool_utilization=used,
            connection_pool_peak=None,  # a look now and then misses the bursts
            buffer_cache_hit_rate=100 * self.hit / blocks if blocks else None,
            total_queries=calls if known else None,
            slow_ms=slow_ms,
        )


def read(session: Session) -> ServerReading:
    """The counters as they stand.

    Raises:
        psycopg.Error: even the database's own cannot be read.
    """
    row = session.row(_DATABASE)
    sessions = Sessions(*session.row(_SESSIONS))
    statements, reason = _statements(session)
    return ServerReading(time.monotonic(), **row._asdict(), sessions=sessions, statements=statements, reason=reason)


def _statements(session: Session) -> tuple[Snapshot | None, str]:
    try:
        found = activity.snapshot(session)
    except psycopg.Error as error:
        if session.connection.closed:
            raise
        return None, f"pg_stat_statements cannot be read: {one_line(error.diag.message_primary or error)}"
    return found, "" if found else NO_STATEMENTS


def texts(span: ServerSpan, known: Mapping[int, str], session: Session) -> dict[int, str]:
    """The texts of the span's statements that are not `known` yet, as the server keeps them."""
    new = {queryid for _, queryid, _ in span.statements or {} if queryid is not None and queryid not in known}
    found: dict[int, Any] = activity.texts_of(sorted(new), span.schema, session) if new else {}
    return {queryid: found.get(queryid) or "" for queryid in new}
