"""Runs one statement of a change under the safety contract: bounded locks, retries, the watchdog, progress."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import psycopg
from psycopg import errors as pg

from playbook.errors import Interrupted, LockNotGranted, PlaybookError, StepError, one_line
from playbook.target import build_progress
from playbook.target.repeating import Repeating, Throttle
from playbook.target.server_errors import is_lost
from playbook.target.sql import Statement
from playbook.target.watchdog import BOUND_S, Connect, Watchdog

LONG_LOCK_TIMEOUT = "1h"
"""CONCURRENTLY waits for old transactions; none of its locks conflicts with readers or writers."""


@dataclass(frozen=True)
class LockPolicy:
    """How locks that conflict with writers are asked for: briefly, again and again, and not for ever."""

    timeout_ms: int = 40
    limit_s: float = 300.0
    backoff_s: tuple[float, float] = (1.0, 30.0)

    def pause(self, attempt: int) -> float:
        """Seconds before the next attempt: exponential with full jitter above the lower bound."""
        low, high = self.backoff_s
        return random.uniform(low, min(high, low * 2**attempt))  # noqa: S311


class Record(Protocol):
    """What the journal keeps of one statement."""

    def intent(self, backend_pid: int, backend_start: str) -> None:
        """Committed before the statement is sent."""

    def done(self, connection: psycopg.Connection[Any]) -> None:
        """Called in the statement's own transaction where it `joins` that, else after the statement."""

    @property
    def joins(self) -> bool:
        """Whether the done row commits with the statement."""

    def withdraw(self) -> None:
        """The server refused the statement, or its lock was not to be had: nothing of it stands."""

    def confirmed(self) -> bool:
        """Whether the done row stands, asked over a new connection after a COMMIT that got no answer."""


class Unrecorded:
    """Of a statement that only clears away what another has left: that one's record says enough."""

    joins = False

    def intent(self, backend_pid: int, backend_start: str) -> None:
        """Not kept."""

    def done(self, connection: psycopg.Connection[Any]) -> None:
        """Not kept."""

    def withdraw(self) -> None:
        """Nothing was kept."""

    def confirmed(self) -> bool:
        """Nobody knows."""
        return False


UNRECORDED = Unrecorded()
BACK_OFF = "not yet: "
"""How a statement's own error (of code 55P03, as if a lock were not to be had) begins that asks for another try."""
Progress = Callable[[str], None]
Guard = Callable[[psycopg.Connection[Any]], None]

STOPS_WRITERS = frozenset({"SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"})
"""Table locks that conflict with a writer's ROW EXCLUSIVE (the manual, "Explicit Locking")."""
DEADLOCK_TIMEOUT_MS = 10
"""A waiting session looks for deadlocks after this time, and only then has an autovacuum that is in its way cancel
itself: with the server's default of one second it would never come to that within our lock timeout."""


def execute(
    connect: Connect,
    statement: Statement,
    record: Record,
    *,
    policy: LockPolicy | None = None,
    progress: Progress | None = None,
    repair: Callable[[], None] | None = None,
    guard: Guard | None = None,
    throttle: Throttle | None = None,
) -> None:
    """Runs `statement`; when this returns it is done and recorded.

    One that repeats rests in between as `throttle` says. `repair` removes what a cancelled CONCURRENTLY left behind (an
    INVALID index); it is called before the next try and before an error is raised. `guard` is called in the transaction
    of a guarded statement; what it raises is raised.

    A brief statement whose lock stops writers commits without waiting for the disk, which would be most of the time
    that it holds the lock. (Where it removes the file of a table or index, as the swap of a primary key does, the
    server waits all the same; the intent, committed just before, has then left little to be written.) The write-ahead
    log is written in order, so a server that crashes before the disk has it loses the end of the log: the statement
    together with its done row, and whatever was committed after them. The intent stays, committed durably before, and
    the next run finds the statement not done, as after any other crash. The journal's next row (the next intent, or
    the closing of the step) waits for the disk, the lock long gone; before anything is told that does not commit with
    the statement, as a journal in a file is, the log is waited for here. In the same way a round after which others
    follow does not wait: how far it has come is kept in the database, and commits together with what it did.

    Raises:
        LockNotGranted: the lock was not to be had within the policy's limit; nothing was changed.
        Interrupted: the connection was lost; the journal and the catalog say what became of the statement.
        StepError: the server refused the statement.
    """
    policy = policy or LockPolicy()
    waited = 0.0  # not the time that a long statement worked before it was cancelled
    attempt = 0
    repeating = Repeating(statement, throttle or Throttle(), progress)
    while True:
        try:
            if statement.first:
                _run_first(connect, statement, policy, progress, throttle)
            while not _run(connect, statement, record, policy, progress, guard, repeating):
                repeating.rest(connect)
                waited, attempt = 0.0, 0
            return
        except (pg.LockNotAvailable, pg.DeadlockDetected, _CancelledByWatchdog) as error:
            _clean_up(repair)
            pause = policy.pause(attempt)
            if waited + pause > policy.limit_s:
                record.withdraw()
                raise LockNotGranted(_not_granted(statement, policy, attempt + 1, error)) from None
            if progress:
                progress(f"{statement.purpose}: {_cause(error)}; next try in {pause:.0f} s")
            time.sleep(pause)
            waited += pause
            attempt += 1
        except psycopg.Error as error:
            if is_lost(error):
                if statement.transactional and _survived(record):
                    return
                raise Interrupted(
                    f"{statement.purpose}: the connection failed: {one_line(error)}; run again to resume"
                ) from error
            if not isinstance(error, pg.DuplicateTable | pg.DuplicateObject):  # what stands there is somebody else's
                _clean_up(repair)
            record.withdraw()
            raise StepError(f"{statement.purpose}: {one_line(error)}") from error


def _run_first(
    connect: Connect,
    statement: Statement,
    policy: LockPolicy,
    progress: Progress | None,
    throttle: Throttle | None,
) -> None:
    first = replace(statement, sql=statement.first, first="", repeats=True, long=True, guarded=False)
    execute(connect, first, UNRECORDED, policy=policy, progress=progress, throttle=throttle)


def _clean_up(repair: Callable[[], None] | None) -> None:
    if repair:
        repair()


class _CancelledByWatchdog(Exception):
    pass


def _run(
    connect: Connect,
    statement: Statement,
    record: Record,
    policy: LockPolicy,
    progress: Progress | None,
    guard: Guard | None,
    repeating: Repeating,
) -> bool:
    """Whether the statement is finished, which only one that repeats may not be."""
    with connect() as connection:
        pid = connection.info.backend_pid
        started = connection.execute(
            "SELECT backend_start::text FROM pg_catalog.pg_stat_activity WHERE pid = pg_catalog.pg_backend_pid()"
        ).fetchone()
        _set_timeouts(connection, statement, policy)
        record.intent(pid, started[0] if started else "")
        poll_s = 0.050 if statement.long else 0.010
        observe = build_progress.observer(pid, statement.purpose, progress) if statement.long and progress else None
        with Watchdog(connect, pid, bound_s=BOUND_S, poll_s=poll_s, observe=observe) as watchdog:
            try:
                joins = statement.transactional and record.joins
                brief = statement.transactional and not statement.long and statement.lock in STOPS_WRITERS
                with connection.transaction() if statement.transactional else nullcontext():
                    if brief:
                        connection.execute("SET LOCAL synchronous_commit = off")
                    if guard and statement.guarded:
                        guard(connection)
                    finished = repeating.take(connection.execute(statement.sql.encode()))
                    if not finished:
                        connection.execute("SET LOCAL synchronous_commit = off")
                    if joins and finished:
                        record.done(connection)
                if brief and not joins:
                    _await_disk(connection)
                if not joins and finished:
                    record.done(connection)
                return finished
            except pg.QueryCanceled as error:
                if watchdog.fired:
                    raise _CancelledByWatchdog(watchdog.fired) from error
                raise


def _set_timeouts(connection: psycopg.Connection[Any], statement: Statement, policy: LockPolicy) -> None:
    """What a role or database may have set would end our work; transaction_timeout is there from PostgreSQL 17 on.

    With locks held, a COMMIT waits for our disk and not for a standby, which may never answer; and a client that is
    lost behind a silent network keeps them for a second.
    """
    wanted = {
        "lock_timeout": LONG_LOCK_TIMEOUT if statement.long else f"{policy.timeout_ms}ms",
        "statement_timeout": "0",
        "transaction_timeout": "0",
        "idle_in_transaction_session_timeout": "30s" if statement.long else "1s",
    }
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) "
        "WHERE name IN (SELECT name FROM pg_catalog.pg_settings)",
        [list(wanted), list(wanted.values())],
    )
    if not statement.long:  # for superusers; others keep the server's
        connection.execute(
            f"SELECT set_config('deadlock_timeout', '{DEADLOCK_TIMEOUT_MS}ms', false) FROM pg_catalog.pg_roles "
            "WHERE rolname = current_user AND rolsuper".encode()
        )
    if statement.transactional and not statement.long:
        connection.execute(
            "SELECT set_config('synchronous_commit', 'local', false) "
            "WHERE current_setting('synchronous_commit') IN ('on', 'remote_write', 'remote_apply')"
        )


def _await_disk(connection: psycopg.Connection[Any]) -> None:
    """Returns once all that is committed is on the server's disk: its WAL writer sees to that, by default in 0.6 s."""
    row = connection.execute(_WAL_END).fetchone()
    assert row is not None
    end, page_bytes = row
    # The next record begins behind the header of its page, which is not written before that record is.
    if end % page_bytes in _PAGE_HEADERS:
        end -= end % page_bytes
    while connection.execute(_WAL_FLUSHED, [end]).fetchone() == (False,):
        time.sleep(0.01)


_PAGE_HEADERS = (24, 40)
"""Bytes of a page's header in the write-ahead log, and of that of a segment's first page (xlog_internal.h)."""
_WAL_END = """
SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::bigint,
       pg_catalog.current_setting('wal_block_size')::int
"""
_WAL_FLUSHED = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), '0/0') >= %s"


def _survived(record: Record) -> bool:
    try:
        return record.confirmed()
    except (psycopg.Error, PlaybookError):
        return False


def _cause(error: Exception) -> str:
    if isinstance(error, _CancelledByWatchdog):
        return f"cancelled, since {error}"
    if isinstance(error, pg.DeadlockDetected):
        return "it met another transaction crosswise"
    said = error.diag.message_primary or "" if isinstance(error, psycopg.Error) else ""
    return said if said.startswith(BACK_OFF) else "the table is locked"


def _not_granted(statement: Statement, policy: LockPolicy, attempts: int, error: Exception) -> str:
    each = f"up to {LONG_LOCK_TIMEOUT}" if statement.long else f"{policy.timeout_ms} ms"
    remedy = "end the transactions that hold the table (pg_stat_activity shows them) and run again"
    if isinstance(error, _CancelledByWatchdog):
        remedy = f"others may not wait as long as its work takes: run it again while nobody uses {statement.relation}"
    return (
        f"{statement.purpose}: no {statement.lock or 'lock'} on {statement.relation} in {attempts} tries of "
        f"{each} within {policy.limit_s:.0f} s ({_cause(error)}); nothing was changed; {remedy}"
    )
