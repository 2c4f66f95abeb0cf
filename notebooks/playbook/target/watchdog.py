"""The watchdog: while DDL runs, a second connection looks whom it blocks, and cancels it before anyone notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psycopg

Connect = Callable[[], psycopg.Connection[Any]]

BOUND_S = 0.040
"""How long another session may wait behind our DDL: the same bound as the lock timeout."""

# Direct waiters by pg_blocking_pids, and those who queue behind them: a reader behind somebody's waiting ALTER TABLE
# waits for us as well. pg_locks is readable by every role; pg_stat_activity hides other users' waits.
_BLOCKED = """
WITH RECURSIVE waiting AS MATERIALIZED (
  SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted AND pid <> %(ours)s
), edge AS MATERIALIZED (
  SELECT pid, unnest(pg_catalog.pg_blocking_pids(pid)) AS behind FROM waiting
), blocked AS (
  SELECT pid FROM edge WHERE behind = %(ours)s
  UNION SELECT edge.pid FROM edge JOIN blocked ON edge.behind = blocked.pid
)
SELECT pid FROM blocked
"""


class Watchdog:
    """Watches the backend `pid` from entry to exit; `fired` says whom it protected, if it had to cancel.

    `observe` is called with the watchdog's connection at each look, for progress. Behind a lost connection the watchdog
    cannot see: it then cancels nothing and `blind` holds the reason.
    """

    def __init__(
        self,
        connect: Connect,
        pid: int,
        *,
        bound_s: float = BOUND_S,
        poll_s: float = 0.010,
        observe: Callable[[psycopg.Connection[Any]], None] | None = None,
    ) -> None:
        self.fired = ""
        self.blind = ""
        self._pid = pid
        self._bound_s = bound_s
        self._poll_s = poll_s
        self._observe = observe
        self._connection = connect()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watchdog of backend {pid}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _watch(self) -> None:
        waits: dict[int, float] = {}
        while not self._stop.wait(self._poll_s):
            try:
                blocked = {row[0] for row in self._connection.execute(_BLOCKED, {"ours": self._pid})}
                now = time.monotonic()
                waits = {pid: waits.get(pid, now) for pid in blocked}
                overdue = [pid for pid, since in waits.items() if now - since >= self._bound_s - self._poll_s]
                if overdue:
                    # Said before it is done: the statement may end, and ask, before we hear that it was cancelled.
                    self.fired = f"it blocked backend {', '.join(map(str, sorted(overdue)))}"
                    self._connection.execute("SELECT pg_catalog.pg_cancel_backend(%s)", [self._pid])
                    return
                if self._observe:
                    self._observe(self._connection)
            except psycopg.Error as error:
                self.blind = str(error)
                return
