"""One pool of connections for a process: its settings, and a gauge of what is checked out, by events and not by looks.

Both work in any application on SQLAlchemy. A look now and then misses the bursts; events do not.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool


@dataclass(frozen=True)
class PoolSettings:
    """`size` connections are kept and `overflow` more opened in need; a request waits `timeout_s` for one, then fails.

    `recycle_s` is after how many seconds a connection is replaced, `pre_ping` whether it is tried before it is used (so
    that a restart of the database costs no request). `pooled` says that a transaction pooler (PgBouncer) stands in
    between: then psycopg prepares nothing, since the next statement may run on another server connection.
    """

    size: int = 5
    overflow: int = 0
    timeout_s: float = 2.0
    recycle_s: int = 1800
    pre_ping: bool = True
    pooled: bool = False

    @property
    def capacity(self) -> int:
        """The most connections that can be checked out."""
        return self.size + self.overflow

    def options(self) -> dict[str, Any]:
        """What `create_engine` takes. The last connection used is the next one, so that a quiet pool shrinks."""
        return {
            "poolclass": QueuePool,
            "pool_size": self.size,
            "max_overflow": self.overflow,
            "pool_timeout": self.timeout_s,
            "pool_recycle": self.recycle_s,
            "pool_pre_ping": self.pre_ping,
            "pool_use_lifo": True,
        }

    def connect_options(self) -> dict[str, Any]:
        """What `psycopg.connect` takes: `create_engine`'s `connect_args`."""
        return {"prepare_threshold": None} if self.pooled else {}


PEAKS = 900
"""Seconds of which the peaks are kept, each by itself."""

AS_FOUND = PoolSettings(size=5, overflow=10, timeout_s=30.0, recycle_s=-1, pre_ping=False)
"""SQLAlchemy's defaults."""


@dataclass(frozen=True)
class Usage:
    """What a pool of `capacity` connections came to in `seconds`. Times are in seconds, utilization in per cent.

    `waits` are requests that found every connection checked out, `waited_s` and `longest_wait_s` what they waited,
    `failures` those that got none in time, `waiting` those that wait now.
    """

    capacity: int
    seconds: float
    checkouts: int
    peak: int
    mean: float
    waits: int
    peak_waiting: int
    waited_s: float
    longest_wait_s: float
    failures: int
    waiting: int = 0

    @property
    def peak_pct(self) -> float:
        """The most that was checked out at once."""
        return 100 * self.peak / self.capacity

    @property
    def mean_pct(self) -> float:
        """What was checked out, weighted by time."""
        return 100 * self.mean / self.capacity


@dataclass
class _Running:
    began: float
    at: float
    out: int = 0
    area: float = 0.0
    checkouts: int = 0
    peak: int = 0
    waiting: int = 0
    waits: int = 0
    peak_waiting: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    failures: int = 0
    lock: Any = field(default_factory=threading.Lock)


class Gauge:
    """Watches the pool of an engine from its checkout and checkin events, until `close`; safe in threads.

    Raises:
        TypeError: the engine has no QueuePool, and so no bound that could be reached.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = self.capacity_of(engine)
        pool = engine.pool
        assert isinstance(pool, QueuePool)
        self._pool, self._clock = pool, clock
        self._state = _Running(clock(), clock(), out=pool.checkedout(), peak=pool.checkedout())
        self._peaks: deque[tuple[int, int, int]] = deque(maxlen=PEAKS)
        self._events = (("checkout", self._checked_out), ("checkin", self._checked_in))
        for name, listener in self._events:
            event.listen(pool, name, listener)
        self._connect, self._closed = pool.connect, False
        pool.connect = self._waited  # type: ignore[method-assign]  # no event tells that one waits

    @staticmethod
    def capacity_of(engine: Engine) -> int:
        """The most connections that can be checked out.

        Raises:
            TypeError: the engine has no QueuePool, and so no bound that could be reached.
        """
        pool = engine.pool
        if not isinstance(pool, QueuePool):
            raise TypeError(f"a {type(pool).__name__} has no bound: use QueuePool, SQLAlchemy's default")
        return pool.size() + max(0, pool._max_overflow)

    def close(self) -> None:
        """Watches no more."""
        for name, listener in self._events:
            event.remove(self._pool, name, listener)
        if self._pool.__dict__.get("connect") == self._waited:
            self._pool.connect = self._connect  # type: ignore[method-assign]
        self._closed = True  # where another gauge began later, its calls go on through this one

    def usage(self) -> Usage:
        """From the start, or the last `reset`, until now."""
        with self._state.lock:
            self._advance()
            now = self._state
            seconds = now.at - now.began
            return Usage(
                self.capacity,
                seconds,
                now.checkouts,
                now.peak,
                now.area / seconds if seconds else float(now.out),
                now.waits,
                now.peak_waiting,
                now.waited_s,
                now.longest_wait_s,
                now.failures,
                now.waiting,
            )

    def peaks(self) -> tuple[tuple[int, int, int], ...]:
        """Of the last seconds in which a connection went out or came in: the second by the clock, the most that were
        checked out in it, and how many were so at its end. So each of several readers finds the peak of its own span.
        """
        with self._state.lock:
            return tuple(self._peaks)

    def reset(self) -> None:
        """Begins anew, with what is checked out now."""
        with self._state.lock:
            old = self._state
            self._state = _Running(self._clock(), self._clock(), out=old.out, peak=old.out, lock=old.lock)
            self._state.waiting = self._state.peak_waiting = old.waiting

    def _advance(self) -> None:
        now = self._clock()
        self._state.area += self._state.out * (now - self._state.at)
        self._state.at = now

    def _changed(self, by: int) -> None:
        """A connection more or less is checked out from now on."""
        state = self._state
        self._advance()
        before, state.out = state.out, max(0, state.out + by)
        second, peak = int(state.at), max(before, state.out)
        if self._peaks and self._peaks[-1][0] == second:
            peak = max(peak, self._peaks.pop()[1])
        self._peaks.append((second, peak, state.out))

    def _checked_out(self, *_: Any) -> None:
        with self._state.lock:
            self._changed(1)
            self._state.checkouts += 1
            self._state.peak = max(self._state.peak, self._state.out)

    def _checked_in(self, *_: Any) -> None:
        with self._state.lock:
            self._changed(-1)

    def _waited(self) -> Any:
        if self._closed:
            return self._connect()
        with self._state.lock:
            full = self._state.out + self._state.waiting >= self.capacity
            if full:
                self._state.waiting += 1
                self._state.waits += 1
                self._state.peak_waiting = max(self._state.peak_waiting, self._state.waiting)
        began = self._clock()
        try:
            return self._connect()
        except Exception:
            with self._state.lock:
                self._state.failures += 1
            raise
        finally:
            if full:
                with self._state.lock:
                    waited = self._clock() - began
                    self._state.waiting -= 1
                    self._state.waited_s += waited
                    self._state.longest_wait_s = max(self._state.longest_wait_s, waited)
