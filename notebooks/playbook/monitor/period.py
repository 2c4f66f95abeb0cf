"""Some samples in a row, as they were taken: the plan's figures and targets of them, in full resolution."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from playbook import figures
from playbook.monitor.history import Took
from playbook.monitor.latencies import Latencies
from playbook.monitor.metrics import DatabaseMetrics
from playbook.monitor.sampler import Taken
from playbook.monitor.trend import Point

NO_APPLICATION = "no application was asked: give Meter its two lines in the service, and the monitor its --metrics-url"
NO_CACHE = "the application has no result cache, or nothing was asked of it"
NO_STATEMENTS = "no statement ended while it was watched"
NO_REQUESTS = "no request was answered while it was watched"
NO_POOL = "the application's pool has no bound"


class Period:
    """Samples of one target, the oldest of them forgotten beyond `most`."""

    def __init__(self, most: int = 100_000) -> None:
        self._taken: deque[Taken] = deque(maxlen=most)

    def add(self, taken: Taken) -> None:
        """One more."""
        self._taken.append(taken)

    def copy(self) -> Period:
        """These samples, to which none are added."""
        copied = Period(self._taken.maxlen or 0)
        copied._taken.extend(self._taken)
        return copied

    def __len__(self) -> int:
        return len(self._taken)

    @property
    def samples(self) -> tuple[Taken, ...]:
        """What was taken."""
        return tuple(self._taken)

    @property
    def seconds(self) -> float:
        """How long it was watched."""
        return sum(taken.sample.seconds for taken in self._taken)

    @property
    def point(self) -> Point:
        """All samples put together."""
        first = self._taken[0].sample.at if self._taken else 0.0
        point = Point(first, self._taken[-1].sample.at if self._taken else 0.0)
        for taken in self._taken:
            point.add(taken.sample)
        return point

    @property
    def requests(self) -> Latencies:
        """The latencies of all requests, in full resolution."""
        merged = Latencies()
        for taken in self._taken:
            if taken.application and taken.application.request_latencies is not None:
                merged.merge(taken.application.request_latencies)
        return merged

    @property
    def took(self) -> dict[str, Took]:
        """What each statement took, by queryid, the most first."""
        sums: dict[str, Took] = {}
        for taken in self._taken:
            for queryid, each in taken.took.items():
                sums[queryid] = sums.get(queryid, Took()) + each
        return dict(sorted(sums.items(), key=lambda item: -item[1].ms))

    @property
    def watches_application(self) -> bool:
        """Whether an application told anything."""
        return any(taken.application for taken in self._taken)

    def metrics(self) -> tuple[DatabaseMetrics, ...]:
        """The plan's six figures of each side that told some."""
        point, sides = self.point, []
        if self.watches_application:
            sides.append(self._application(point))
        if any(taken.server for taken in self._taken):
            sides.append(self._server(point))
        return tuple(sides)

    def _application(self, point: Point) -> DatabaseMetrics:
        failures = sum(t.application.pool.failures for t in self._taken if t.application and t.application.pool)
        tried = (point.sum("queries") or 0) + failures
        return DatabaseMetrics(
            "application",
            point.seconds,
            average_query_time=point.query_average_ms,
            slow_query_count=_whole(point.sum("query_slow")),
            connection_pool_utilization=point.mean("pool_mean_pct"),
            connection_pool_peak=point.peak("pool_peak_pct"),
            cache_hit_rate=point.cache_hit_pct,
            total_queries=_whole(point.sum("queries")),
            error_rate=100 * (point.sum("query_failed") or 0) / tried if tried else None,
        )

    def _server(self, point: Point) -> DatabaseMetrics:
        return DatabaseMetrics(
            "server",
            point.seconds,
            average_query_time=point.db_average_ms,
            slow_query_count=_whole(point.sum("db_slow")),
            connection_pool_utilization=point.mean("connections_pct"),
            buffer_cache_hit_rate=point.buffer_hit_pct,
            total_queries=_whole(point.sum("db_calls")),
        )

    def figures(self) -> tuple[dict[str, float | None], dict[str, str]]:
        """The figures of the plan's targets by their names, and of each how it was measured, or why it was not."""
        point, requests = self.point, self.requests
        asked = self.watches_application
        calls, queries = point.sum("db_calls"), point.sum("queries")
        found = {
            "api_p95_ms": requests.percentile_ms(95),
            "database_average_query_ms": point.db_average_ms if calls else point.query_average_ms,
            "cache_hit_rate_pct": point.cache_hit_pct,
            "pool_peak_utilization_pct": point.peak("pool_peak_pct"),
        }
        measured = {
            "api_p95_ms": f"of {figures.count(len(requests), 'requests')}, inside the service",
            "database_average_query_ms": f"of {figures.count(calls, 'calls')}, by pg_stat_statements"
            if calls
            else f"of {figures.count(queries, 'statements')}, by the application",
            "cache_hit_rate_pct": f"of {figures.count(point.sum('cache_asked'), 'reads')} of the result cache",
            "pool_peak_utilization_pct": "the highest in any second, by the pool's own events",
        }
        missing = {
            "api_p95_ms": NO_REQUESTS if asked else NO_APPLICATION,
            "database_average_query_ms": self._why_no_statements(),
            "cache_hit_rate_pct": NO_CACHE if asked else NO_APPLICATION,
            "pool_peak_utilization_pct": NO_POOL if asked else NO_APPLICATION,
        }
        within = f" in {figures.duration(self.seconds)}"
        told = {name: missing[name] if value is None else measured[name] + within for name, value in found.items()}
        return found, told

    def _why_no_statements(self) -> str:
        reasons = [taken.server.reason for taken in self._taken if taken.server and taken.server.reason]
        return reasons[-1] if reasons else NO_STATEMENTS

    def notes(self) -> Mapping[str, int]:
        """What the samples say is missing in them, and how often."""
        counts: dict[str, int] = {}
        for taken in self._taken:
            for note in taken.sample.notes:
                counts[note] = counts.get(note, 0) + 1
        return counts


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
