"""The plan's six figures of a database, from whichever side they were taken, and how they are handed on.

This module needs nothing but the standard library: it may stand in anybody's service.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Source = Literal["application", "server"]
Sink = Callable[[str, dict[str, Any]], Any]
"""Takes the name of an event and its properties, as the `track` of most analytics clients does."""

EVENT = "database_performance"
SLOW_MS = 50.0
"""A query that takes longer is slow, unless another threshold is set: the plan's own limit for the average query."""

_log = logging.getLogger("playbook.monitor")


@dataclass(frozen=True)
class DatabaseMetrics:
    """What the database did in `seconds`; a figure that this side cannot know is None, never 0.

    `average_query_time` is in milliseconds, the rates and utilizations in per cent. What they mean on each side:

    - application: times to the last row as the client sees them, each statement that took longer than `slow_ms`, the
      pool's time-weighted mean and its peak (of what may be checked out), the result cache, statements that failed or
      found no connection;
    - server: times of execution by pg_stat_statements, the calls of statements whose mean exceeds `slow_ms` (what one
      call took is not kept there), connections of those there may be. There `cache_hit_rate` and `error_rate` are None:
      the server knows nothing of a cache before it, and counts no errors (a rollback is none: clients end reads so).

    `cache_hit_rate` is the application's cache, `buffer_cache_hit_rate` blocks found in shared buffers: two things that
    share a name.
    """

    source: Source
    seconds: float
    average_query_time: float | None = None
    slow_query_count: int | None = None
    connection_pool_utilization: float | None = None
    connection_pool_peak: float | None = None
    cache_hit_rate: float | None = None
    buffer_cache_hit_rate: float | None = None
    total_queries: int | None = None
    error_rate: float | None = None
    slow_ms: float = SLOW_MS

    def plan_names(self) -> dict[str, float | int | None]:
        """The figures under the plan's own names (`averageQueryTime`)."""
        return {name: getattr(self, ours) for name, ours in PLAN_NAMES.items()}


PLAN_NAMES: Mapping[str, str] = {
    "averageQueryTime": "average_query_time",
    "slowQueryCount": "slow_query_count",
    "connectionPoolUtilization": "connection_pool_utilization",
    "connectionPoolPeak": "connection_pool_peak",
    "cacheHitRate": "cache_hit_rate",
    "bufferCacheHitRate": "buffer_cache_hit_rate",
    "totalQueries": "total_queries",
    "errorRate": "error_rate",
}
"""The plan's names, and two of the same kind for what the plan's leave open."""


def track(metrics: DatabaseMetrics, *sinks: Sink) -> None:
    """Hands the figures to each of `sinks` as the event `database_performance`, with a timestamp in milliseconds.

    A sink that fails is logged and costs its caller nothing: telling how a service does must not stop the service.
    """
    told = {**metrics.plan_names(), "source": metrics.source, "timestamp": round(1000 * time.time())}
    for sink in sinks:
        try:
            sink(EVENT, dict(told))
        except Exception as error:
            _log.warning("a sink of metrics failed: %s", error)


class JsonLines:
    """A sink that appends each event to a file, one JSON object a line."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __call__(self, event: str, properties: dict[str, Any]) -> None:
        """Appends one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **properties}) + "\n")
