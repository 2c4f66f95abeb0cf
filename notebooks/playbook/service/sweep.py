"""Pool sizes tried under one load, and the one to choose."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from playbook.service.pool import Gauge, PoolSettings, Usage

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32)
PEAK_LIMIT_PCT = 70.0
"""The plan's bound on the peak, so that a burst finds a connection."""
_THREADS = 64

Work = Callable[[Connection], None]


@dataclass(frozen=True)
class Tried:
    """One size under the load: what people waited, from when their request was due, and how full the pool was."""

    size: int
    p95_ms: float
    usage: Usage
    failed: int


@dataclass(frozen=True)
class Recommendation:
    """The size to choose and why; `allowed` is the most that may be taken of the target's free connections."""

    size: int | None
    reason: str
    allowed: int
    tried: tuple[Tried, ...]

    @property
    def at(self) -> Tried | None:
        """How the recommended size did."""
        return next((each for each in self.tried if each.size == self.size), None)


def sweep(
    engine_of: Callable[[PoolSettings], Engine],
    work: Work,
    *,
    allowed: int,
    rate: float,
    seconds: float = 3.0,
    sizes: Sequence[int] = SIZES,
    peak_limit_pct: float = PEAK_LIMIT_PCT,
) -> Recommendation:
    """Runs `work` at `rate` a second on pools of several sizes, none above `allowed`, for `seconds` each.

    It goes on from the smallest size until one has peaked well below the limit: larger ones could only be emptier. Give
    it a rate above the one that you expect: the peak of an hour is higher than that of some seconds.
    """
    tried: list[Tried] = []
    for size in [size for size in sizes if size <= allowed] or [max(1, allowed)]:
        engine = engine_of(PoolSettings(size=size, timeout_s=10.0))
        try:
            tried.append(_try(engine, size, work, rate, seconds))
        finally:
            engine.dispose()
        if tried[-1].usage.peak_pct < peak_limit_pct / 2 and tried[-1].usage.waits == 0:
            break
    return recommend(tried, allowed, peak_limit_pct)


def recommend(tried: Sequence[Tried], allowed: int, peak_limit_pct: float = PEAK_LIMIT_PCT) -> Recommendation:
    """The smallest size of which the worst peak seen on any of the pools is below the limit; None where no size is.

    A peak is the worst of what happened to be seen, and how many connections the same requests want at once does not
    depend on how many there are: so what another pool saw counts as well, and all of them together are looked at for
    longer. Nobody waits for a connection then, so a larger pool could make no request faster.
    """
    tried = tuple(tried)
    worst = max(tried, key=lambda each: (each.usage.peak, -each.size))
    for each in tried:
        pct = 100 * worst.usage.peak / each.size
        if pct < peak_limit_pct and not each.failed:
            smaller = [one for one in tried if one.size < each.size]
            seen = "" if each.usage.peak == worst.usage.peak else f" on the pool of {worst.size}"
            why = f"the worst peak, {worst.usage.peak} at once{seen}, is {pct:.0f} % of it"
            why += f", and 95 % of requests took at most {each.p95_ms:.1f} ms"
            if smaller:
                last = smaller[-1]
                why += f"; of {last.size} it would be {100 * worst.usage.peak / last.size:.0f} %, where "
                why += f"{last.usage.waits} requests waited for a connection and 95 % took at most {last.p95_ms:.1f} ms"
            return Recommendation(each.size, why, allowed, tried)
    reason = (
        f"no size up to {tried[-1].size} kept its peak below {peak_limit_pct:.0f} % under this load; "
        f"more than {allowed} is not taken unasked, that is a quarter of the free connections of the target: "
        "shorten what holds a connection, or put a pooler in between"
    )
    return Recommendation(None, reason, allowed, tried)


def _try(engine: Engine, size: int, work: Work, rate: float, seconds: float) -> Tried:
    gauge, latencies, failed, lock = Gauge(engine), [], 0, threading.Lock()

    def request(due: float) -> None:
        nonlocal failed
        try:
            with engine.connect() as connection:
                work(connection)
        except Exception:
            with lock:
                failed += 1
        latencies.append(1000 * (time.monotonic() - due))

    _warm(engine, size)
    gauge.reset()
    draw = random.Random(1)  # noqa: S311 (the same load for every size)
    with ThreadPoolExecutor(_THREADS) as crowd:
        due = began = time.monotonic()
        while (due := due + draw.expovariate(rate)) < began + seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            crowd.submit(request, due)
    usage = gauge.usage()
    gauge.close()
    ordered = sorted(latencies) or [0.0]
    return Tried(size, ordered[int(0.95 * (len(ordered) - 1))], usage, failed)


def _warm(engine: Engine, size: int) -> None:
    """Opens every connection, so that none of the load pays for it."""
    opened = [engine.connect() for _ in range(size)]
    for connection in opened:
        connection.close()


def engine_per_request_ms(
    engine_of: Callable[[PoolSettings], Engine], work: Work, times: int = 15
) -> tuple[float, float]:
    """What one request takes with an engine of its own, and with the process's one; medians in milliseconds."""
    shared = engine_of(PoolSettings(size=1))
    own_ms, shared_ms = [], []
    try:
        for _ in range(times):  # in turn, so that a machine that changes its pace does so for both
            began = time.perf_counter()
            engine = engine_of(PoolSettings(size=1))
            with engine.connect() as connection:
                work(connection)
            engine.dispose()
            own_ms.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            with shared.connect() as connection:
                work(connection)
            shared_ms.append(1000 * (time.perf_counter() - began))
    finally:
        shared.dispose()
    return sorted(own_ms)[times // 2], sorted(shared_ms)[times // 2]
