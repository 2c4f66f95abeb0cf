"""A statement that repeats: how far it has come, and how long it rests before its next round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.target.sql import Statement
from playbook.target.watchdog import Connect

LAG_S = 10.0
"""The same replay lag from which a preflight warns."""
CATCH_UP_S = 1.0
"""How long a round waits before it looks at a standby's lag again."""

_LAG = "SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float FROM pg_catalog.pg_stat_replication"
_WAL = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"
_WRITTEN = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), %s::pg_lsn)::float"


@dataclass(frozen=True)
class Throttle:
    """What a statement that repeats spares others.

    It rests while a standby is more than `lag_s` behind; as long as the server, with all its sessions, writes more WAL
    than `wal_mb_s` (None: no limit); and so that it works `duty_pct` of the time.
    """

    lag_s: float = LAG_S
    wal_mb_s: float | None = None
    duty_pct: float = 100.0

    @property
    def spares(self) -> bool:
        """Whether others are to be spared at the cost of time."""
        return self.duty_pct < 100 or self.wal_mb_s is not None


class Repeating:
    """The rounds of one statement; `take` is given the answer to each, `rest` waits between two."""

    def __init__(self, statement: Statement, throttle: Throttle, progress: Callable[[str], None] | None) -> None:
        self._statement = statement
        self._throttle = throttle
        self._tell = progress or (lambda text: None)
        self._began = self._round = time.monotonic()
        self._first: float | None = None
        self._lsn = ""

    def take(self, cursor: psycopg.Cursor[Any]) -> bool:
        """Whether the statement is finished; of one that does not repeat, always."""
        if not self._statement.repeats:
            return True
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        assert row is not None
        finished, done, total, unit = row
        if done is None:
            self._tell(f"{self._statement.purpose}: {total:,} {unit}")
        else:
            self._tell(f"{self._statement.purpose}: {self._told(float(done), float(total), unit)}")
        return bool(finished)

    def _told(self, done: float, total: float, unit: str) -> str:
        if self._first is None:
            self._first, self._began = done, time.monotonic()
        seconds, moved = time.monotonic() - self._began, done - self._first
        told = f"{done:,.0f} of {total:,.0f} {unit}"
        if seconds <= 0 or moved <= 0:
            return told
        rate = moved / seconds
        return f"{told}, {rate:,.0f}/s, {max(total - done, 0) / rate:,.0f} s left"

    def rest(self, connect: Connect) -> None:
        """Returns once the next round may begin."""
        worked = time.monotonic() - self._round
        with connect() as connection:
            self._yield_to_standbys(connection)
            time.sleep(worked * (100 / self._throttle.duty_pct - 1) + self._over_budget_s(connection, worked))
            if self._throttle.wal_mb_s is not None:
                self._lsn = connection.execute(_WAL).fetchall()[0][0]
        self._round = time.monotonic()

    def _yield_to_standbys(self, connection: psycopg.Connection[Any]) -> None:
        while (lag := connection.execute(_LAG).fetchall()[0][0]) > self._throttle.lag_s:
            self._tell(f"{self._statement.purpose}: a standby is {lag:.0f} s behind; it may catch up first")
            time.sleep(CATCH_UP_S)

    def _over_budget_s(self, connection: psycopg.Connection[Any], worked: float) -> float:
        """How much longer the last round should have taken for the WAL that was written in it."""
        if self._throttle.wal_mb_s is None or not self._lsn:
            return 0.0
        written = connection.execute(_WRITTEN, [self._lsn]).fetchall()[0][0]
        return max(written / 2**20 / self._throttle.wal_mb_s - worked, 0.0)
