"""The cache for coroutines: its waits are done by threads, and the loaders run in the event loop that asked.

A thread that waits for the server or for another load blocks no coroutine. So one load serves all in the process, and
among processes, whether coroutines or threads want the key.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

R = TypeVar("R")
_LOOK_S = 1.0
"""How often a thread looks whether the event loop that it waits for still lives."""


class Crowd:
    """As many threads as the cache has connections, made when they are needed."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, work: Callable[[], R]) -> R:
        """What `work` returns, done by one of the threads with the context variables of the caller.

        A caller that is cancelled leaves it to end by itself: others may wait for what it loads.
        """
        if self._pid != os.getpid():  # a fork: the threads are not here
            self._begin()
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="cache")
            executor = self._executor
        return await asyncio.get_running_loop().run_in_executor(executor, copy_context().run, work)

    def close(self) -> None:
        """Waits for what has begun."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None and self._pid == os.getpid():
            executor.shutdown(wait=True, cancel_futures=True)


def in_loop(load: Callable[[], Awaitable[R]]) -> Callable[[], R]:
    """`load`, to be called by a thread and awaited in the event loop that is running now.

    It raises a RuntimeError when that loop has ended.
    """
    loop = asyncio.get_running_loop()

    async def loaded() -> R:
        return await load()

    def load_there() -> R:
        work = loaded()
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise
        while True:
            try:
                return future.result(_LOOK_S)
            except TimeoutError:
                if future.done():
                    raise  # the loader's own
                if loop.is_closed():
                    raise RuntimeError("the event loop that asked has ended") from None

    return load_there
