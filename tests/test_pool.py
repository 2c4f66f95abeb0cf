"""The connection pool: what is checked out is told exactly, its size is chosen under load, and running out is survived."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tests.fix_pgbouncer import pooling
from tests.waiting import until

from playbook.service.pool import AS_FOUND, Gauge, PoolSettings, Usage
from playbook.service.pool_advice import Slots, pooler_pools, slots
from playbook.service.sweep import Tried, engine_per_request_ms, recommend, sweep


@pytest.fixture
def engine_of(empty):
    made = []

    def engine_of(settings, conninfo=empty.conninfo):
        connect = {**conninfo, **settings.connect_options()}
        made.append(
            create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**connect), **settings.options())
        )
        return made[-1]

    yield engine_of
    for engine in made:
        engine.dispose()


def ask(connection):
    connection.execute(text("SELECT pg_sleep(0.002)"))


class TestGauge:
    def test_it_weighs_what_is_checked_out_by_time(self, engine_of):
        now = 0.0
        engine = engine_of(PoolSettings(size=4))
        gauge = Gauge(engine, clock=lambda: now)
        one = engine.connect()
        now = 1.0
        two, three = engine.connect(), engine.connect()
        now = 2.0
        two.close()
        three.close()
        now = 4.0
        one.close()
        usage = gauge.usage()
        assert (usage.peak, usage.mean, usage.checkouts) == (3, (1 + 3 + 1 + 1) / 4, 3)
        assert (usage.peak_pct, usage.mean_pct) == (75, 37.5)

    def test_a_burst_between_two_looks_is_not_missed(self, engine_of):
        engine = engine_of(PoolSettings(size=3, overflow=2))
        gauge = Gauge(engine)
        for connection in [engine.connect() for _ in range(5)]:
            connection.close()
        assert (gauge.usage().peak_pct, engine.pool.checkedout()) == (100, 0)
        gauge.reset()
        assert gauge.usage().peak == 0

    def test_it_tells_who_waited_and_how_long(self, engine_of):
        engine = engine_of(PoolSettings(size=1, timeout_s=20))
        gauge = Gauge(engine)
        held = engine.connect()
        with ThreadPoolExecutor(3) as crowd:
            waiting = [crowd.submit(lambda: engine.connect().close()) for _ in range(3)]
            until(lambda: gauge.usage().peak_waiting == 3)
            time.sleep(0.05)
            held.close()
            for each in waiting:
                each.result()
        usage = gauge.usage()
        assert (usage.waits, usage.failures) == (3, 0)
        assert usage.longest_wait_s >= 0.05
        assert usage.waited_s >= 3 * 0.05

    def test_it_leaves_the_pool_as_it_was(self, engine_of):
        engine = engine_of(PoolSettings(size=1))
        gauge = Gauge(engine)
        gauge.close()
        engine.connect().close()
        assert gauge.usage().checkouts == 0

    def test_a_pool_without_a_bound_is_refused(self):
        with pytest.raises(TypeError, match="NullPool has no bound"):
            Gauge(create_engine("postgresql+psycopg://", poolclass=NullPool))


class TestRunningOut:
    def test_it_is_told_in_time_and_over_as_soon_as_one_is_given_back(self, engine_of):
        engine = engine_of(PoolSettings(size=2, timeout_s=0.2))
        gauge = Gauge(engine)
        held = [engine.connect(), engine.connect()]
        began = time.monotonic()
        with pytest.raises(PoolTimeout, match="QueuePool limit of size 2 overflow 0 reached"):
            engine.connect()
        assert time.monotonic() - began < 5
        assert gauge.usage().failures == 1
        for connection in held:
            connection.close()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1

    def test_a_connection_that_the_server_ended_costs_no_request_with_pre_ping(self, engine_of, empty):
        def survives(settings):
            engine = engine_of(settings)
            engine.connect().close()
            with empty.connect() as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            try:
                with engine.connect() as connection:
                    return connection.scalar(text("SELECT 1")) == 1
            except Exception:
                return False

        assert survives(PoolSettings())
        assert not survives(AS_FOUND)


def tried(size, peak, p95_ms, waits=0, failed=0):
    return Tried(size, p95_ms, Usage(size, 1.0, 100, peak, peak / 2, waits, waits, 0.0, 0.0, 0), failed)


class TestSizing:
    def test_the_smallest_size_is_chosen_whose_peak_leaves_room(self):
        found = recommend([tried(2, 2, 90, waits=40), tried(4, 3, 20), tried(8, 3, 19), tried(16, 3, 21)], 20)
        assert found.size == 8
        assert "the worst peak, 3 at once, is 38 % of it" in found.reason
        assert "of 4 it would be 75 %" in found.reason

    def test_what_was_wanted_at_once_of_a_larger_pool_counts_for_a_smaller_one(self):
        """The same requests would have wanted as many of it: that they did not come together there was luck."""
        found = recommend([tried(2, 2, 90, waits=3), tried(4, 2, 20), tried(8, 5, 19), tried(16, 2, 18)], 20)
        assert found.size == 8
        assert "the worst peak, 5 at once, is 62 % of it" in found.reason
        assert recommend([tried(2, 2, 90), tried(4, 2, 20), tried(8, 6, 19)], 8).size is None

    def test_where_none_is_good_enough_none_is_recommended(self):
        found = recommend([tried(2, 2, 90), tried(4, 4, 20)], 5)
        assert found.size is None
        assert "more than 5 is not taken unasked" in found.reason

    def test_a_size_at_which_requests_failed_is_not_chosen(self):
        assert recommend([tried(4, 1, 5, failed=1), tried(8, 1, 5)], 20).size == 8

    def test_a_sweep_under_load_stays_within_what_is_allowed(self, engine_of):
        found = sweep(engine_of, ask, allowed=6, rate=100, seconds=0.4)
        assert {each.size for each in found.tried} <= {1, 2, 4, 6}
        assert found.tried[0].usage.peak == 1
        assert all(each.failed == 0 and each.p95_ms > 2 for each in found.tried)
        assert found.size is None or found.at.usage.peak_pct < 70

    def test_an_engine_for_each_request_costs_a_connection_each_time(self, engine_of):
        own, shared = engine_per_request_ms(engine_of, ask, times=7)
        assert own > 1.5 * shared


class TestAdvice:
    def test_a_quarter_of_the_free_connections_is_allowed(self, empty):
        with empty.connect() as connection:
            found = slots(connection)
        assert found.most == 100
        assert found.allowed == found.free // 4
        assert "no more than a quarter" in found.advice()[0]

    def test_what_wastes_connections_is_named(self):
        found = Slots(100, 3, 90, 2, 60, 3, 3, 5, 9000, 10_000)
        told = " ".join(found.advice())
        for word in ("nearly full", "larger than needed", "idle in a transaction", "0.90 sessions", "pg_monitor"):
            assert word in told

    def test_a_sound_server_gets_no_warning(self):
        assert len(Slots(100, 3, 10, 4, 6, 0, 0, 0, 200, 100_000).advice()) == 1

    def test_a_session_left_in_a_transaction_is_seen(self, empty):
        with empty.connect(autocommit=False) as left, empty.connect() as connection:
            left.execute("SELECT 1")
            assert slots(connection).idle_in_transaction == 1


class TestPgBouncer:
    def test_statements_are_not_prepared_behind_it_and_waiting_clients_are_saturation(self, empty, engine_of):
        with pooling(dict(empty.conninfo), default_pool_size="1") as conninfo:
            engine = engine_of(PoolSettings(size=4, timeout_s=20, pooled=True), conninfo)
            with ThreadPoolExecutor(
                4
            ) as crowd:  # the same statement often, from several clients of one server connection

                def often(_):
                    for number in range(10):
                        with engine.connect() as connection:
                            assert connection.scalar(text("SELECT :n + 1"), {"n": number}) == number + 1

                list(crowd.map(often, range(4)))
            with psycopg.connect(**{**conninfo, "dbname": "pgbouncer"}, autocommit=True) as console:
                [pool] = pooler_pools(console)
                assert (pool.mode, pool.saturated) == ("transaction", False)
                ending = threading.Event()

                def hold():
                    with engine.begin() as connection:
                        connection.execute(text("SELECT 1"))
                        ending.wait(20)

                with ThreadPoolExecutor(3) as crowd:
                    for _ in range(3):
                        crowd.submit(hold)
                    try:
                        until(lambda: pooler_pools(console)[0].waiting == 2)
                        assert pooler_pools(console)[0].saturated
                    finally:
                        ending.set()
