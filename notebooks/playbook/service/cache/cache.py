"""The cache: an answer that is valid now, from the cache server or by the loader, which runs once for all who wait."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from playbook.errors import Overloaded
from playbook.service.cache.background import Background
from playbook.service.cache.breaker import Breaker
from playbook.service.cache.connections import Connections
from playbook.service.cache.counts import Counts
from playbook.service.cache.crowd import Crowd, in_loop
from playbook.service.cache.entry import Entry, Unkept
from playbook.service.cache.flights import Flights
from playbook.service.cache.keys import ALL, Keys
from playbook.service.cache.reader import Asked, Found, Reader
from playbook.service.cache.scripts import FILL
from playbook.service.cache.server import Server, Unavailable
from playbook.service.cache.tags import NotCacheable

R = TypeVar("R")

TTL_S = 300.0
"""The plan's five minutes."""
_POLL_S = 0.004
"""The first pause of one who waits for another process's load; each is half as long again, up to ten times this."""
_AGAIN = object()
_log = logging.getLogger(__name__)


class _Wanted(NamedTuple):
    """One question: what it has in common with others, the end of its key, how its answer is had."""

    asked: Asked
    tail: bytes
    ttl_s: float
    load: Callable[[], Any]


class Cache:
    """Results in a Redis-compatible server, each kept until a table it was read from is written or its time is over.

    Args:
        url: `redis://…`, `rediss://…` or `unix://…`.
        namespace: parts the applications that share a server.
        ttl_s: how long an entry is fresh, ± `jitter`; later it is served for `stale_s` more while one loads it anew
            (stale-while-revalidate), and then it is gone. An entry whose table was written is gone at once.
        negative_ttl_s: the same for None, which a loader returns for what is not there.
        early: how eagerly a fresh entry is loaded anew shortly before its time is over, so that it never is at once for
            all (XFetch's beta; 0 never).
        load_limit_s: for how long one process may hold a load before another begins the same.
        loaders: how many loads may run at once beside the cache while it cannot be asked; the next wait for
            `loader_wait_s` and are then refused.
        max_bytes: the largest entry that is kept, or believed.
        connections, timeout_s: of the pool of connections to the server; waits for the server are as short as this.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "cache",
        ttl_s: float = TTL_S,
        stale_s: float = 60.0,
        negative_ttl_s: float = 30.0,
        jitter: float = 0.1,
        early: float = 1.0,
        load_limit_s: float = 10.0,
        loaders: int = 16,
        loader_wait_s: float = 1.0,
        max_bytes: int = 2**20,
        connections: int = 64,
        timeout_s: float = 0.25,
        breaker: Breaker | None = None,
    ) -> None:
        self.counts = Counts()
        self._keys = Keys(namespace)
        self._ttl_s, self._negative_ttl_s, self._stale_ms = ttl_s, negative_ttl_s, round(1000 * stale_s)
        self._jitter, self._early, self._load_limit_s = jitter, early, load_limit_s
        self._max_bytes = max_bytes
        self._loaders, self._loader_wait_s = threading.BoundedSemaphore(loaders), loader_wait_s
        self._flights = Flights()
        self._background = Background()
        self._crowd = Crowd(connections)
        self._server = Server(
            Connections(url, connections, timeout_s),
            counts=self.counts,
            breaker=breaker or Breaker(),
            version_key=self._keys.version,
        )
        self._reader = Reader(self._server, self._keys, max_bytes=max_bytes, load_limit_s=load_limit_s)

    def get_or_load(
        self, prefix: str, filters: Any, load: Callable[[], R], *, tables: Iterable[str], ttl_s: float | None = None
    ) -> R:
        """What `load` returns, from the cache where it is still valid.

        `tables` are those that `load` reads. It must see what is committed when it is called, so not run in a
        transaction whose snapshot is older. Its errors are raised and never kept.

        Raises:
            NotCacheable: a filter is of a type that has no canonical form.
            Overloaded: the cache server is down, and as many loads as allowed run already.
        """
        wanted = _Wanted(
            self._reader.asked(prefix, tuple(tables)), self._keys.tail(filters), ttl_s or self._ttl_s, load
        )
        try:
            while (answer := self._answer(wanted)) is _AGAIN:
                pass
            return answer
        except Unavailable:
            return self._beside(wanted)

    async def aget_or_load(
        self,
        prefix: str,
        filters: Any,
        load: Callable[[], Awaitable[R]],
        *,
        tables: Iterable[str],
        ttl_s: float | None = None,
    ) -> R:
        """As `get_or_load`, for coroutines: `load` is awaited in the event loop that runs now, which never waits.

        Threads and coroutines share each other's loads. A caller that is cancelled leaves the load to the others.
        """
        there = in_loop(load)
        return await self._crowd.run(lambda: self.get_or_load(prefix, filters, there, tables=tables, ttl_s=ttl_s))

    async def abump(self, *tables: str) -> bool:
        """As `bump`, for coroutines."""
        return await self._crowd.run(lambda: self.bump(*tables))

    def bump(self, *tables: str) -> bool:
        """Let go all that was read from `tables`; with none given, all of this namespace.

        To be called after the commit that wrote them. False when the server cannot be told now: then this process reads
        nothing from it until it could.
        """
        return self._server.bump(tables or (ALL,))

    def close(self) -> None:
        """Waits for the loads in the background and closes the connections."""
        self._background.close()
        self._crowd.close()
        self._server.close()

    def _answer(self, wanted: _Wanted) -> Any:
        found = self._reader.read(wanted.asked, wanted.tail)
        if found.entry is not None:
            return self._hit(wanted, found, found.entry)
        flight, began = self._flights.join(found.key)
        if found.token:
            return self._load(wanted, found.key, found.token, flight)
        if began:
            return self._poll(wanted, found.key, flight)
        return self._follow(flight, self._load_limit_s)

    def _hit(self, wanted: _Wanted, found: Found, entry: Entry) -> Any:
        fresh_s = (found.left_ms - entry.stale_ms) / 1000
        if fresh_s <= 0:
            self.counts.add(stale=1, saved_s=entry.load_s)
            self._refresh(wanted)
        else:
            self.counts.add(hits=1, saved_s=entry.load_s)
            if fresh_s < -self._early * entry.load_s * math.log(1.0 - random.random()):  # noqa: S311 (no secret)
                self._refresh(wanted)
        return found.value

    def _refresh(self, wanted: _Wanted) -> None:
        """Loads an entry anew in the background, unless somebody does already."""

        def refresh() -> None:
            found = self._reader.read(wanted.asked, wanted.tail, anew=True)
            if found.token:
                self._load(wanted, found.key, found.token, Future(), counted=False)
                self.counts.add(refreshes=1)

        self._background.begin(wanted.asked.head + wanted.tail, refresh)

    def _load(
        self, wanted: _Wanted, key: bytes, token: bytes, flight: Future[Entry | Unkept | None], *, counted: bool = True
    ) -> Any:
        """Loads what this caller alone is to load, keeps it, and ends the flight of those who wait for it here."""
        came: Entry | Unkept | Exception | None = None
        try:
            value, load_s = self._timed(wanted.load)
            came = self._entry(wanted, value, load_s)
        except Exception as error:
            came = error
            raise
        finally:
            self._fill(wanted, key, token, came)
            self._flights.end(key, flight, came)
        if counted:
            self.counts.add(misses=1)
        return value

    def _poll(self, wanted: _Wanted, key: bytes, flight: Future[Entry | Unkept | None]) -> Any:
        """Waits for the load that another process holds, and takes it over should that one die."""
        came: Entry | None = None
        pause_s, end = _POLL_S, time.monotonic() + 2 * self._load_limit_s
        try:
            while time.monotonic() < end:
                if (answer := self._follow(flight, pause_s)) is not _AGAIN or flight.done():
                    return answer
                found = self._reader.read(wanted.asked, wanted.tail)
                if found.entry is not None:
                    came = found.entry
                    self.counts.add(misses=1, shared=1, saved_s=found.entry.load_s)
                    return found.value
                if found.token:
                    flight_now = flight if found.key == key else self._flights.join(found.key)[0]
                    return self._load(wanted, found.key, found.token, flight_now)
                if found.key != key:
                    return _AGAIN  # a table was written meanwhile
                pause_s = min(1.5 * pause_s, 10 * _POLL_S)
        finally:
            self._flights.end(key, flight, came)
        raise Unavailable

    def _follow(self, flight: Future[Entry | Unkept | None], limit_s: float) -> Any:
        """What another thread's load brings; `_AGAIN` when it brings nothing within the limit."""
        try:
            entry = flight.result(limit_s)
        except TimeoutError:
            if flight.done():
                raise  # the loader's own
            return _AGAIN
        if entry is None:
            return _AGAIN
        self.counts.add(misses=1, shared=1, saved_s=entry.load_s)
        return entry.value

    def _beside(self, wanted: _Wanted) -> Any:
        """Loads without the cache, a bounded number at once: the database must survive the cache's outage."""
        if not self._loaders.acquire(timeout=self._loader_wait_s):
            self.counts.add(refused=1)
            raise Overloaded("the cache server cannot be asked, and as many loads as allowed run already: try again")
        try:
            self.counts.add(bypasses=1)
            return self._timed(wanted.load)[0]
        finally:
            self._loaders.release()

    def _timed(self, load: Callable[[], Any]) -> tuple[Any, float]:
        began = time.perf_counter()
        try:
            value = load()
        except BaseException:
            self.counts.add(failed_loads=1, load_s=time.perf_counter() - began)
            raise
        load_s = time.perf_counter() - began
        self.counts.add(loads=1, load_s=load_s)
        return value, load_s

    def _entry(self, wanted: _Wanted, value: Any, load_s: float) -> Entry | Unkept:
        """The entry of a value that was loaded; what cannot be kept is handed to those who wait all the same."""
        try:
            entry = Entry.of(value, load_s, self._stale_ms)
        except NotCacheable as why:
            self.counts.add(uncacheable=1)
            _log.warning("a result of %s is not kept: %s", wanted.asked.head, why)
            return Unkept(value, load_s)
        if len(entry.payload) > self._max_bytes:
            self.counts.add(oversized=1)
            return Unkept(value, load_s)
        return entry

    def _fill(self, wanted: _Wanted, key: bytes, token: bytes, came: Entry | Unkept | Exception | None) -> None:
        """Keeps what came and lets go of the load; if the server has gone meanwhile, its own limits see to that."""
        entry = came if isinstance(came, Entry) else None
        ttl_s = min(wanted.ttl_s, self._negative_ttl_s) if entry and entry.is_none else wanted.ttl_s
        fresh_ms = 1000 * ttl_s * random.uniform(1 - self._jitter, 1 + self._jitter)  # noqa: S311 (no secret)
        left_ms = max(1, round(fresh_ms)) + self._stale_ms
        try:
            self._server.run(FILL, [key], token, entry.to_bytes() if entry else b"", b"%d" % left_ms)
        except Unavailable:
            _log.debug("a result of %s is not kept: the cache server is down", wanted.asked.head)
