"""Connections to the cache server: as many as needed up to a bound, the last one used first."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class Exhausted(Exception):
    """Every connection is in use, and none came free in time."""


class Connections:
    """redis-py's connections, one attempt each, with a wait of `timeout_s` seconds for a free one and for an answer.

    redis-py's own pools ask each connection at each use whether it still stands, which takes a fifth of a hit; here
    that shows when it is used.
    """

    def __init__(self, url: str, limit: int, timeout_s: float) -> None:
        # Not redis-py's defaults: they try ten times with pauses, 3.9 s in all, and fail at the 101st connection.
        self._maker = redis.ConnectionPool.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            protocol=2,
            max_connections=2**31,
        )
        self._limit, self._timeout_s = limit, timeout_s
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._idle: deque[Any] = deque()
        self._freed = threading.Condition()
        self._made = self._waiting = 0

    def take(self) -> Any:
        """A connection that nobody else uses, connected or not.

        Raises:
            Exhausted: there is none.
        """
        if self._pid != os.getpid():  # a fork: these sockets are the parent's
            self._begin()
        try:
            return self._idle.pop()
        except IndexError:
            return self._make_or_wait()

    def give(self, connection: Any) -> None:
        """Gives one back."""
        self._idle.append(connection)
        if self._waiting:
            with self._freed:
                self._freed.notify()

    def close_idle(self) -> None:
        """Closes those that nobody uses; each is connected anew when it is used."""
        for connection in list(self._idle):
            connection.disconnect()

    def _make_or_wait(self) -> Any:
        end = time.monotonic() + self._timeout_s
        with self._freed:
            if self._made < self._limit:
                self._made += 1
                return self._maker.make_connection()
            self._waiting += 1
            try:
                while True:
                    if self._idle:
                        try:
                            return self._idle.pop()
                        except IndexError:
                            pass  # another was quicker
                    if not self._freed.wait(end - time.monotonic()):
                        raise Exhausted
            finally:
                self._waiting -= 1
