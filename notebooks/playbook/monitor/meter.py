"""The meter that an application carries: two lines in a service on SQLAlchemy, and its database is watched.

    meter = Meter(engine, cache=cache)
    meter.attach(app)

Statements are timed by the engine's events, the pool by its own, the cache by its counts, requests by a middleware.
What is taken goes into a queue without a lock, and from there into histograms now and then.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from playbook.monitor import exposition
from playbook.monitor.latencies import Latencies
from playbook.monitor.metrics import SLOW_MS, DatabaseMetrics
from playbook.monitor.reading import PoolReading, Reading
from playbook.service.pool import Gauge

if TYPE_CHECKING:
    from playbook.service.cache import Cache

PATH = "/metrics"
_FOLD_AT = 2048
"""Times in the queue from which on they are put into their histogram by whoever added the last one: 2 ms of work."""


class _Times:
    """Seconds that were taken, in a queue and from there in a histogram."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.seconds = 0.0
        self.count = 0
        self.slow = 0
        self.told: list[Callable[[float], None]] = []
        self._taken: deque[float] = deque()
        self._lock = threading.Lock()

    def add(self, seconds: float, slow_s: float) -> None:
        """One more; costs a tenth of a microsecond, mostly."""
        self._taken.append(seconds)
        if len(self._taken) >= _FOLD_AT:
            self.fold(slow_s)

    def fold(self, slow_s: float) -> None:
        """Empties the queue into the histogram."""
        with self._lock:
            taken = [self._taken.popleft() for _ in range(len(self._taken))]
            self.latencies.add(taken)
            self.seconds += sum(taken)
            self.count += len(taken)
            self.slow += sum(each > slow_s for each in taken)
        for tell in self.told:
            for each in taken:
                tell(each)


class Meter:
    """Watches the statements and the pool of an engine from now on, until `close`; safe in threads.

    As an ASGI application it answers its own figures: in Prometheus' text format, and as JSON (with histograms of full
    resolution) to whoever accepts that, as `playbook monitor --metrics-url` does. No statement's text is in them.

    `slow_ms` is from which time on a statement counts as slow. A statement's time is that until its last row has come,
    with a server-side cursor until the first. `gauge` is the pool's own where one watches it already, by the same
    `clock`.
    """

    def __init__(
        self,
        engine: Engine | Any,
        *,
        cache: Cache | None = None,
        slow_ms: float = SLOW_MS,
        gauge: Gauge | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine: Engine = getattr(engine, "sync_engine", engine)
        self._cache = cache
        self.slow_ms = slow_ms
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._clock = clock
        self._began = clock()
        self._statements, self._requests = _Times(), _Times()
        self._failed = self._failed_requests = 0
        self._watches_requests = False
        self._lock = threading.Lock()
        self._gauge, self._own_gauge = gauge, gauge is None
        if gauge is None:
            with suppress(TypeError):  # a pool without a bound: nothing to be a share of
                self._gauge = Gauge(self._engine, clock)
        self._events = (
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
            ("handle_error", self._on_error),
        )
        for name, listener in self._events:
            event.listen(self._engine, name, listener)

    def attach(self, app: Any, path: str = PATH) -> None:
        """Has the requests of a Starlette or FastAPI application timed, and the figures answered under `path`."""
        self._watches_requests = True
        app.add_middleware(RequestMeter, meter=self)
        app.add_route(path, self)

    def close(self) -> None:
        """Watches no more."""
        for name, listener in self._events:
            event.remove(self._engine, name, listener)
        if self._gauge is not None and self._own_gauge:
            self._gauge.close()

    def on_duration(self, tell: Callable[[float], None]) -> None:
        """Has `tell` called with the seconds of each statement, in batches, some time after it has ended."""
        self._statements.told.append(tell)

    def reading(self) -> Reading:
        """The counters as they stand."""
        for times in (self._statements, self._requests):
            times.fold(self.slow_ms / 1000)
        sent, asked = self._statements, self._requests
        return Reading(
            process=self._process,
            at=self._clock() - self._began,
            queries=sent.count,
            failed=self._failed,
            slow=sent.slow,
            seconds=sent.seconds,
            latencies=Latencies(sent.latencies.text()),
            slow_ms=self.slow_ms,
            requests=asked.count if self._watches_requests else None,
            failed_requests=self._failed_requests,
            request_latencies=Latencies(asked.latencies.text()) if self._watches_requests else None,
            pool=self._pool(),
            cache=None if self._cache is None else asdict(self._cache.counts.snapshot()),
        )

    def metrics(self, since: Reading | None = None) -> DatabaseMetrics:
        """The plan's figures since an earlier reading, or since the meter began."""
        return self.reading().since(since).metrics()

    def _pool(self) -> PoolReading | None:
        if self._gauge is None:
            return None
        usage, pool = self._gauge.usage(), self._engine.pool
        return PoolReading(
            capacity=usage.capacity,
            used=pool.checkedout(),  # type: ignore[attr-defined]  # a QueuePool, else there is no gauge
            idle=pool.checkedin(),  # type: ignore[attr-defined]
            waiting=usage.waiting,
            seconds=usage.seconds,
            use_s=usage.mean * usage.seconds,
            checkouts=usage.checkouts,
            waits=usage.waits,
            waited_s=usage.waited_s,
            failures=usage.failures,
            peaks=tuple((second - self._began, peak, last) for second, peak, last in self._gauge.peaks()),
        )

    def _before(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        context._metered_at = time.perf_counter()

    def _after(self, conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        self._statements.add(time.perf_counter() - context._metered_at, self.slow_ms / 1000)

    def _on_error(self, failure: Any) -> None:
        began = getattr(failure.execution_context, "_metered_at", None)
        if failure.statement is None or began is None:
            return  # no statement was sent: the pool counts who got no connection
        self._statements.add(time.perf_counter() - began, self.slow_ms / 1000)
        with self._lock:
            self._failed += 1

    def answered(self, seconds: float, *, failed: bool) -> None:
        """One request over HTTP that was answered."""
        self._requests.add(seconds, self.slow_ms / 1000)
        if failed:
            with self._lock:
                self._failed_requests += 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a GET with the figures."""
        headers = dict(scope["headers"])
        if b"application/json" in headers.get(b"accept", b""):
            kind, body = "application/json", json.dumps(self.reading().to_json()).encode()
        else:
            kind, body = exposition.CONTENT_TYPE, exposition.text(self.reading())
        told = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": told})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class RequestMeter:
    """ASGI middleware: has each request timed, until the last byte of its answer was sent."""

    def __init__(self, app: Any, meter: Meter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes the request on and looks at the clock."""
        if scope["type"] != "http" or scope["path"] == PATH:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = [500]

        async def send_and_see(message: Any) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        finally:
            self._meter.answered(time.perf_counter() - began, failed=status[0] >= 500)
