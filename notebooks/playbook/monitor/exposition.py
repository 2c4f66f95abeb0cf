"""A reading for Prometheus and for OpenTelemetry, under OpenTelemetry's names and with the plan's as aliases.

OpenTelemetry's semantic conventions name what a database client may tell
(https://opentelemetry.io/docs/specs/semconv/database/database-metrics/): `db.client.operation.duration` in seconds,
`db.client.connection.count` by state, `.max`, `.pending_requests`, `.timeouts`, `.wait_time`, `.use_time`. Prometheus
writes them with underscores and the unit at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from playbook.monitor.latencies import Latencies
from playbook.monitor.reading import PoolReading, Reading

if TYPE_CHECKING:
    from playbook.monitor.meter import Meter

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Where the plan's own limits, 50 and 200 ms, are bounds."""
_POOL = "playbook"

ALIASES = {
    "average_query_time": ("averageQueryTime", "ms", "Mean time of a statement since the start, in milliseconds"),
    "slow_query_count": ("slowQueryCount", "total", "Statements that took longer than the threshold"),
    "connection_pool_utilization": ("connectionPoolUtilization", "pct", "Time-weighted mean of what is checked out"),
    "connection_pool_peak": ("connectionPoolPeak", "pct", "Peak of what is checked out"),
    "cache_hit_rate": ("cacheHitRate", "pct", "Reads answered by the result cache"),
    "total_queries": ("totalQueries", "total", "Statements sent"),
    "error_rate": ("errorRate", "pct", "Statements that failed or found no connection"),
}
"""The plan's figures: its name, the unit, what it is."""


def text(reading: Reading) -> bytes:
    """The reading in Prometheus' text format. What was not watched is left out."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Collector:
        def collect(self) -> Iterator[Any]:
            yield from _families(reading)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())  # type: ignore[arg-type]
    return generate_latest(registry)


def _families(reading: Reading) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    yield _histogram(
        "db_client_operation_duration_seconds", "Duration of a statement", reading.latencies, reading.seconds
    )
    if reading.request_latencies is not None:
        yield _histogram("http_server_request_duration_seconds", "Duration of a request", reading.request_latencies)
    if reading.pool is not None:
        yield from _pool_families(reading.pool)
    metrics = reading.since(None).metrics()
    for name, (alias, unit, what) in ALIASES.items():
        value = getattr(metrics, name)
        if value is None:
            continue
        family = CounterMetricFamily if unit == "total" else GaugeMetricFamily
        told = family(f"playbook_{name}" + ("" if unit == "total" else f"_{unit}"), f"{what} ({alias})")
        told.add_metric([], value)
        yield told


def _pool_families(pool: PoolReading) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

    labels = ["db_client_connection_pool_name"]
    count = GaugeMetricFamily(
        "db_client_connection_count", "Connections by state", labels=[*labels, "db_client_connection_state"]
    )
    count.add_metric([_POOL, "used"], pool.used)
    count.add_metric([_POOL, "idle"], pool.idle)
    yield count
    for name, value, what in (
        ("max", pool.capacity, "The most connections there may be"),
        ("pending_requests", pool.waiting, "Requests that wait for a connection"),
    ):
        gauge = GaugeMetricFamily(f"db_client_connection_{name}", what, labels=labels)
        gauge.add_metric([_POOL], value)
        yield gauge
    failures = CounterMetricFamily("db_client_connection_timeouts", "Requests that got no connection", labels=labels)
    failures.add_metric([_POOL], pool.failures)
    yield failures
    for name, times, seconds, what in (
        ("wait_time", pool.waits, pool.waited_s, "Time waited for a connection"),
        ("use_time", pool.checkouts, pool.use_s, "Time a connection was checked out"),
    ):
        summary = SummaryMetricFamily(f"db_client_connection_{name}_seconds", what, labels=labels)
        summary.add_metric([_POOL], times, seconds)
        yield summary


def _histogram(name: str, what: str, latencies: Latencies, seconds: float | None = None) -> Any:
    from prometheus_client.core import HistogramMetricFamily

    within = accumulate(latencies.bins(_BOUNDS_MS))
    bounds = (*(f"{bound / 1000:g}" for bound in _BOUNDS_MS), "+Inf")
    family = HistogramMetricFamily(name, what)
    family.add_metric([], [(bound, float(count)) for bound, count in zip(bounds, within, strict=True)], seconds)
    return family


def to_open_telemetry(meter: Meter, otel: Any = None) -> None:
    """Has OpenTelemetry's SDK, where the service uses it, collect the pool's figures and every duration.

    `otel` is its meter; by default the one that the global provider gives. OTLP, resource and interval are as the SDK
    is set up; this needs the extra `otel` and is of no use without it.
    """
    if otel is None:
        from opentelemetry import metrics

        otel = metrics.get_meter("playbook")
    from opentelemetry.metrics import Observation

    attributes = {"db.client.connection.pool.name": _POOL}

    def observed(read: Any) -> Any:
        def callback(_: Any) -> list[Any]:
            pool = meter.reading().pool
            return [Observation(value, attributes | more) for value, more in read(pool)] if pool else []

        return [callback]

    state = "db.client.connection.state"
    otel.create_observable_up_down_counter(
        "db.client.connection.count",
        observed(lambda pool: [(pool.used, {state: "used"}), (pool.idle, {state: "idle"})]),
        unit="{connection}",
    )
    otel.create_observable_up_down_counter(
        "db.client.connection.max", observed(lambda pool: [(pool.capacity, {})]), unit="{connection}"
    )
    otel.create_observable_up_down_counter(
        "db.client.connection.pending_requests", observed(lambda pool: [(pool.waiting, {})]), unit="{request}"
    )
    otel.create_observable_counter(
        "db.client.connection.timeouts", observed(lambda pool: [(pool.failures, {})]), unit="{timeout}"
    )
    duration = otel.create_histogram(
        "db.client.operation.duration",
        unit="s",
        explicit_bucket_boundaries_advisory=[bound / 1000 for bound in _BOUNDS_MS],
    )
    meter.on_duration(lambda seconds: duration.record(seconds, {"db.system.name": "postgresql"}))
