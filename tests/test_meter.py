"""What an application tells of its database: exact counts, full-resolution latencies, a pool whose bursts are seen."""

from __future__ import annotations

import asyncio
import math
from contextlib import closing
from dataclasses import asdict

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from playbook.monitor import exposition
from playbook.monitor.latencies import BOUNDS_MS, Latencies, percentile_of_bins_ms
from playbook.monitor.meter import Meter
from playbook.monitor.reading import Reading
from playbook.service.cache.counts import Counts


@pytest.fixture
def engine(empty):
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**empty.conninfo), pool_size=4, max_overflow=0
    )
    yield engine
    engine.dispose()


@pytest.fixture
def meter(engine):
    with closing(Meter(engine, slow_ms=30)) as meter:
        yield meter


def ask(engine, sql="SELECT 1"):
    with engine.connect() as connection:
        connection.execute(text(sql))


async def get(app, path):
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.get(path)).status_code


def exposed(reading):
    return {each.name: each for each in text_string_to_metric_families(exposition.text(reading).decode())}


class TestMeter:
    def test_statements_are_counted_slow_and_failed_ones_apart(self, engine, meter):
        for _ in range(8):
            ask(engine)
        ask(engine, "SELECT pg_sleep(0.05)")
        with pytest.raises(DBAPIError):
            ask(engine, "SELECT 1 / 0")
        found = meter.metrics()
        assert (found.total_queries, found.slow_query_count, found.error_rate) == (10, 1, 10.0)
        assert 5 < found.average_query_time < 30
        assert meter.reading().latencies.longest_ms > 50
        assert found.cache_hit_rate is None
        assert found.buffer_cache_hit_rate is None

    def test_each_reader_sees_the_burst_of_its_own_span(self, engine, meter):
        for connection in [engine.connect() for _ in range(4)]:
            connection.close()
        first = meter.reading()
        assert first.since(None).pool.peak_pct == 100
        quiet = meter.reading().since(first)
        assert quiet.queries == 0
        assert quiet.pool.mean_pct == pytest.approx(0, abs=1e-6)
        assert first.since(None).pool.peak_pct == 100, "that one reader has read takes nothing from another"

    @pytest.mark.parametrize("began", [100.0, 100.25, 100.5, 100.99])
    def test_a_burst_is_none_of_a_span_that_begins_a_second_later(self, engine, began):
        now = [began]
        with closing(Meter(engine, clock=lambda: now[0])) as meter:
            now[0] += 0.3
            for connection in [engine.connect() for _ in range(4)]:
                connection.close()
            assert meter.metrics().connection_pool_peak == 100
            now[0] += 1
            later = meter.reading()
            ask(engine)
            now[0] += 1
            assert meter.metrics(later).connection_pool_peak == 25

    def test_who_finds_no_connection_in_time_counts_as_an_error(self, empty):
        engine = create_engine(
            "postgresql+psycopg://",
            creator=lambda: psycopg.connect(**empty.conninfo),
            pool_size=1,
            max_overflow=0,
            pool_timeout=0.01,
        )
        with closing(Meter(engine)) as meter:
            with engine.connect() as held:
                held.execute(text("SELECT 1"))
                with pytest.raises(PoolTimeout):
                    engine.connect()
            assert meter.metrics().error_rate == 50.0
            assert meter.reading().pool.failures == 1
        engine.dispose()

    def test_a_pool_without_a_bound_has_no_utilization(self, empty):
        engine = create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(**empty.conninfo), poolclass=NullPool
        )
        with closing(Meter(engine)) as meter:
            ask(engine)
            assert meter.metrics().connection_pool_utilization is None
            assert meter.metrics().total_queries == 1

    def test_once_closed_it_watches_no_more(self, engine):
        meter = Meter(engine)
        meter.close()
        ask(engine)
        assert meter.metrics().total_queries == 0


class TestReading:
    def test_another_process_reads_the_same(self, engine, meter):
        ask(engine)
        here = meter.reading()
        there = Reading.from_json(here.to_json())
        assert there.to_json() == here.to_json()
        assert there.since(None).metrics() == here.since(None).metrics()

    def test_an_application_that_was_started_anew_counts_from_zero(self, engine, meter):
        for _ in range(5):
            ask(engine)
        before = meter.reading()
        with closing(Meter(engine)) as other:
            ask(engine)
            span = other.reading().since(before)
        assert span.restarted
        assert (span.queries, span.metrics().total_queries) == (1, 1)

    def test_a_cache_whose_counts_were_reset_is_never_negative(self):
        def reading(at, **counts):
            return Reading("1", at, 0, 0, 0, 0.0, Latencies(), cache=asdict(Counts(**counts)))

        before = reading(1.0, hits=90, misses=10)
        assert reading(2.0, hits=93, misses=11).since(before).hit_rate_pct == 75
        assert reading(2.0, hits=1, misses=1).since(before).hit_rate_pct == 50
        assert reading(2.0, hits=90, misses=10).since(before).hit_rate_pct is None, "nothing was asked"


class TestExposition:
    def test_prometheus_finds_open_telemetrys_names_and_the_plans(self, engine, meter):
        ask(engine)
        ask(engine, "SELECT 'c4nary', pg_sleep(0.04)")
        told = exposed(meter.reading())
        samples = {
            (each.name, *each.labels.values()): each.value
            for each in told["db_client_operation_duration_seconds"].samples
        }
        assert samples["db_client_operation_duration_seconds_count",] == 2
        assert samples["db_client_operation_duration_seconds_bucket", "0.02"] == 1
        assert samples["db_client_operation_duration_seconds_bucket", "0.05"] == 2
        assert {"0.05", "0.2"} <= {labels[0] for name, *labels in samples if labels}, "the plan's limits are bounds"
        states = {each.labels["db_client_connection_state"] for each in told["db_client_connection_count"].samples}
        assert states == {"used", "idle"}
        assert told["db_client_connection_max"].samples[0].value == 4
        assert {
            f"db_client_connection_{name}" for name in ("pending_requests", "timeouts", "wait_time_seconds")
        } <= set(told)
        assert told["playbook_total_queries"].samples[0].value == 2
        assert "averageQueryTime" in told["playbook_average_query_time_ms"].documentation
        assert "playbook_cache_hit_rate_pct" not in told, "what is not watched is not told as 0"
        assert b"c4nary" not in exposition.text(meter.reading())

    def test_open_telemetry_collects_the_same(self, engine, meter):
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        reader = InMemoryMetricReader()
        provider = MeterProvider([reader])
        exposition.to_open_telemetry(meter, provider.get_meter("shop"))
        ask(engine)
        meter.reading()
        scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
        told = {each.name: list(each.data.data_points) for scope in scopes for each in scope.metrics}
        assert told["db.client.operation.duration"][0].count == 1
        assert 0.2 in told["db.client.operation.duration"][0].explicit_bounds
        assert told["db.client.connection.max"][0].value == 4
        assert len(told["db.client.connection.count"]) == 2
        provider.shutdown()


class TestService:
    def test_the_reference_service_tells_what_its_requests_did(self, as_found):
        def read():
            answer = as_found.client.get("/metrics", headers={"Accept": "application/json"})
            return Reading.from_json(answer.raise_for_status().json())

        before = read()
        sent = sum(as_found.statements(path) for path in ("/proposals", "/dashboard", "/content"))
        as_found.get("/proposals/none-of-that-name")
        span = read().since(before)
        assert span.requests == 4, "asking for the figures is no request"
        assert span.failed_requests == 0, "that there is none is no failure of the service"
        assert span.queries > sent
        assert span.request_latencies.longest_ms >= span.latencies.longest_ms
        assert 0 < span.pool.peak_pct <= 100
        assert span.cache is None
        assert as_found.get("/metrics").headers["content-type"] == exposition.CONTENT_TYPE

    def test_a_request_that_fails_counts_as_failed(self):
        engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect("host=/nowhere"))
        app = FastAPI()
        with closing(Meter(engine)) as meter:
            meter.attach(app)
            app.get("/orders")(lambda: ask(engine))
            status = asyncio.run(get(app, "/orders"))
            reading = meter.reading()
        assert (status, reading.requests, reading.failed_requests, reading.queries) == (500, 1, 1, 0)
        assert reading.since(None).metrics().error_rate == 100.0


seconds = st.lists(st.floats(min_value=1e-6, max_value=100), max_size=50)


class TestLatencies:
    @settings(max_examples=25)
    @given(seconds, seconds)
    def test_what_came_after_is_told_from_what_was_there(self, first, then):
        before = Latencies()
        before.add(first)
        after = Latencies(before.text())
        after.add(then)
        rest, alone = after.since(before), Latencies()
        alone.add(then)
        assert len(rest) == len(then)
        assert rest.bins() == alone.bins()
        assert rest.percentile_ms(95) == alone.percentile_ms(95)

    @settings(max_examples=25)
    @given(seconds.filter(len))
    def test_a_percentile_is_right_to_three_digits_and_of_bins_to_26_percent(self, taken):
        latencies = Latencies()
        latencies.add(taken)
        ranked = sorted(1000 * each for each in taken)
        true = ranked[max(0, math.ceil(0.95 * len(ranked)) - 1)]
        assert latencies.percentile_ms(95) == pytest.approx(true, rel=0.002, abs=0.001)
        kept = percentile_of_bins_ms(latencies.bins(), 95)
        assert true * 0.998 <= max(kept, BOUNDS_MS[0])
        assert kept <= max(true * 1.27, BOUNDS_MS[0])

    def test_none_has_no_percentile(self):
        assert Latencies().percentile_ms(95) is None
        assert percentile_of_bins_ms(Latencies().bins(), 95) is None
