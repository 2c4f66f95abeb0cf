"""Loads in the background: few at once, each key once, none waiting without bound."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_log = logging.getLogger(__name__)


class Background:
    """At most `workers` run at once and `waiting` in all are remembered; what comes beyond is left undone."""

    def __init__(self, workers: int = 2, waiting: int = 32) -> None:
        self._workers, self._waiting = workers, waiting
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._keys: set[bytes] = set()
        self._executor: ThreadPoolExecutor | None = None

    def begin(self, key: bytes, work: Callable[[], None]) -> bool:
        """Has `work` done soon, unless work under that key is under way or too much is; its errors are logged."""
        if self._pid != os.getpid():  # a fork: the threads are not here
            self._begin()
        with self._lock:
            if key in self._keys or len(self._keys) >= self._waiting:
                return False
            self._keys.add(key)
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="cache refresh")
            executor = self._executor
        executor.submit(self._do, key, work)
        return True

    def close(self) -> None:
        """Waits for what has begun, and forgets the rest."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None and self._pid == os.getpid():
            executor.shutdown(wait=True, cancel_futures=True)

    def _do(self, key: bytes, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            _log.warning("a refresh in the background failed: %s: %s", type(error).__name__, error)
        finally:
            with self._lock:
                self._keys.discard(key)
