"""What an application counted of its database, and what lies between two readings of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from playbook.monitor.latencies import Latencies
from playbook.monitor.metrics import SLOW_MS, DatabaseMetrics


@dataclass(frozen=True)
class PoolReading:
    """A pool's counters. `seconds` and the sums are since its gauge began or was reset.

    `peaks` are the gauge's: when a second began by the application's clock, the most in it, and how many at its end.
    """

    capacity: int
    used: int
    idle: int
    waiting: int
    seconds: float
    use_s: float
    checkouts: int
    waits: int
    waited_s: float
    failures: int
    peaks: tuple[tuple[float, int, int], ...]

    def peak_since(self, moment: float) -> int:
        """The most that was checked out at once since `moment` by the application's clock, or up to a second before."""
        peak, standing = self.used, None
        for began, highest, last in self.peaks:
            if began + 1 <= moment:
                standing = last
            else:
                peak = max(peak, highest)
        return max(peak, standing or 0)


@dataclass(frozen=True)
class Reading:
    """Counters of one process since its meter began; `at` is by a clock of its own, which only goes forward.

    `queries` are the statements sent, `failed` those that the database refused, `slow` those that took longer than
    `slow_ms`. `requests` are answers over HTTP; from 500 on one counts as failed. `cache` is what the result cache
    counted (see `service.cache.counts`). What was not watched is None.
    """

    process: str
    at: float
    queries: int
    failed: int
    slow: int
    seconds: float
    latencies: Latencies
    slow_ms: float = SLOW_MS
    requests: int | None = None
    failed_requests: int = 0
    request_latencies: Latencies | None = None
    pool: PoolReading | None = None
    cache: Mapping[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """For `from_json` in another process."""
        asked = self.request_latencies
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "latencies": self.latencies.text(),
            "request_latencies": asked.text() if asked is not None else None,
            "pool": self.pool and asdict(self.pool),
            "cache": self.cache and dict(self.cache),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Reading:
        """What `to_json` made.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        asked, pool = told["request_latencies"], told["pool"]
        return cls(
            **{name: told[name] for name in _PLAIN},
            latencies=Latencies(told["latencies"]),
            request_latencies=None if asked is None else Latencies(asked),
            pool=None if pool is None else PoolReading(**pool | {"peaks": tuple(map(tuple, pool["peaks"]))}),
            cache=told["cache"],
        )

    def since(self, earlier: Reading | None) -> Span:
        """What was counted since `earlier`; since this process began, where that was another process or there is none.

        An application that was started anew counts from zero: nothing of that is negative, and it is said.
        """
        restarted = earlier is not None and (earlier.process != self.process or earlier.at > self.at)
        then = earlier if earlier is not None and not restarted else None
        pool = self.pool
        return Span(
            restarted=restarted,
            seconds=self.at - then.at if then else self.at,
            queries=self.queries - (then.queries if then else 0),
            failed=self.failed - (then.failed if then else 0),
            slow=self.slow - (then.slow if then else 0),
            query_s=max(0.0, self.seconds - (then.seconds if then else 0.0)),
            latencies=self.latencies.since(then.latencies) if then else self.latencies,
            requests=None if self.requests is None else self.requests - ((then and then.requests) or 0),
            failed_requests=self.failed_requests - (then.failed_requests if then else 0),
            request_latencies=_less(self.request_latencies, then and then.request_latencies),
            pool=None if pool is None else _pool_span(pool, then and then.pool, then.at if then else 0.0, self.at),
            cache=_cache_span(self.cache, then and then.cache),
            slow_ms=self.slow_ms,
        )


_PLAIN = ("process", "at", "queries", "failed", "slow", "seconds", "slow_ms", "requests", "failed_requests")


@dataclass(frozen=True)
class PoolSpan:
    """What a pool of `capacity` came to: utilization in per cent, and who waited."""

    capacity: int
    used: int
    idle: int
    mean_pct: float
    peak_pct: float
    waits: int
    waited_s: float
    failures: int


@dataclass(frozen=True)
class Span:
    """What an application counted in `seconds`; the fields are those of a reading, less those of an earlier one."""

    restarted: bool
    seconds: float
    queries: int
    failed: int
    slow: int
    query_s: float
    latencies: Latencies
    requests: int | None
    failed_requests: int
    request_latencies: Latencies | None
    pool: PoolSpan | None
    cache: Mapping[str, float] | None
    slow_ms: float

    @property
    def hit_rate_pct(self) -> float | None:
        """The share of reads that the result cache answered with a fresh value; None without a cache, or reads."""
        asked = self.cache_asked
        return 100 * self.cache["hits"] / asked if self.cache and asked else None

    @property
    def cache_asked(self) -> float:
        """Reads that came to the result cache, whatever became of them."""
        return sum(self.cache[name] for name in ("hits", "stale", "misses", "bypasses")) if self.cache else 0.0

    def metrics(self) -> DatabaseMetrics:
        """The plan's figures."""
        pool = self.pool
        tried = self.queries + (pool.failures if pool else 0)
        return DatabaseMetrics(
            "application",
            self.seconds,
            average_query_time=1000 * self.query_s / self.queries if self.queries else None,
            slow_query_count=self.slow,
            connection_pool_utilization=pool and pool.mean_pct,
            connection_pool_peak=pool and pool.peak_pct,
            cache_hit_rate=self.hit_rate_pct,
            total_queries=self.queries,
            error_rate=100 * (self.failed + (pool.failures if pool else 0)) / tried if tried else None,
            slow_ms=self.slow_ms,
        )


def _less(now: Latencies | None, then: Latencies | None) -> Latencies | None:
    return now.since(then) if now is not None and then is not None else now


def _pool_span(now: PoolReading, then: PoolReading | None, began: float, at: float) -> PoolSpan:
    """Since `then`, or where the gauge was reset meanwhile, since that."""
    seconds = at - began
    reset = now.seconds < seconds - 0.5
    before = None if reset or then is None else then
    mean = (now.use_s - (before.use_s if before else 0.0)) / ((now.seconds if reset else seconds) or 1.0)
    return PoolSpan(
        now.capacity,
        now.used,
        now.idle,
        mean_pct=100 * max(0.0, mean) / now.capacity,
        peak_pct=100 * now.peak_since(began) / now.capacity,
        waits=now.waits - (before.waits if before else 0),
        waited_s=now.waited_s - (before.waited_s if before else 0.0),
        failures=now.failures - (before.failures if before else 0),
    )


def _cache_span(now: Mapping[str, float] | None, then: Mapping[str, float] | None) -> Mapping[str, float] | None:
    if now is None or then is None:
        return now
    less = {name: value - then.get(name, 0) for name, value in now.items()}
    return now if any(value < 0 for value in less.values()) else less
