"""The cache: valid answers only, one load for all who wait, and no error of its own whatever its server does."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from decimal import Decimal

import pytest
import redis
from tests.benchmarks.bench_cache import stampede
from tests.waiting import until

from playbook.errors import Overloaded
from playbook.service.cache import Breaker, Cache, NotCacheable, cached

TABLES = ("proposals", "customers")


@pytest.fixture
def make(cache_url):
    """Makes caches of one namespace, each as it were in a process of its own; patient, for a machine under load."""
    made = []

    def make(url=cache_url, **settings):
        made.append(Cache(url, **{"namespace": "test", "timeout_s": 5.0, "early": 0, "jitter": 0, **settings}))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def stored(cache_url):
    """A client of the server and the keys of its entries."""
    client = redis.Redis.from_url(cache_url)

    def entries():
        return [key for key in client.keys("*") if b":version:" not in key and not key.endswith(b":load")]

    client.entries = entries
    return client


class Loader:
    """A loader that counts its calls."""

    def __init__(self, value=None, takes_s=0.0, error=None):
        self.value, self.takes_s, self.error, self.calls = value, takes_s, error, 0

    def __call__(self):
        self.calls += 1
        time.sleep(self.takes_s)
        if self.error:
            raise self.error
        return self.value


def ask(cache, load, filters=None, **settings):
    return cache.get_or_load("proposals", filters, load, tables=TABLES, **settings)


class TestAnswers:
    def test_the_second_comes_from_the_cache(self, make):
        cache, load = make(), Loader([{"value": Decimal("1.50"), "at": None}])
        assert ask(cache, load) == ask(cache, load) == load.value
        assert (load.calls, cache.counts.hits, cache.counts.misses) == (1, 1, 1)

    def test_another_process_shares_it(self, make):
        load = Loader("a")
        assert [ask(make(), load), ask(make(), load)] == ["a", "a"]
        assert load.calls == 1

    def test_other_filters_prefixes_and_namespaces_are_kept_apart(self, make):
        cache = make()
        for number, filters in enumerate([{"a": 1}, {"a": "1"}, {"a": True}, {"b": 1}, None]):
            assert ask(cache, lambda number=number: number, filters) == number
        assert cache.get_or_load("other", {"a": 1}, lambda: "other", tables=TABLES) == "other"
        assert ask(make(namespace="another"), lambda: "another", {"a": 1}) == "another"

    def test_it_ends_with_its_time(self, make, stored):
        ask(make(ttl_s=100, stale_s=50), Loader(1))
        [key] = stored.entries()
        assert 149_000 < stored.pttl(key) <= 150_000

    def test_jitter_spreads_the_ends(self, make, stored):
        cache = make(ttl_s=1000, stale_s=0, jitter=0.1)
        for number in range(30):
            ask(cache, Loader(1), number)
        ends = [stored.pttl(key) for key in stored.entries()]
        assert 890_000 < min(ends) < 960_000 < 1_040_000 < max(ends) <= 1_100_000

    def test_what_is_not_there_is_kept_for_a_shorter_time(self, make, stored):
        cache, load = make(ttl_s=1000, negative_ttl_s=10, stale_s=0), Loader(None)
        assert [ask(cache, load), ask(cache, load)] == [None, None]
        assert load.calls == 1
        assert stored.pttl(stored.entries()[0]) <= 10_000

    def test_nobody_changes_the_answer_of_another(self, make):
        cache, load = make(), Loader([1])
        ask(cache, load)
        ask(cache, load).append(2)
        assert ask(cache, load) == [1]

    def test_errors_are_raised_and_not_kept(self, make, stored):
        cache = make()
        for _ in range(2):
            with pytest.raises(ConnectionError, match="database down"):
                ask(cache, Loader(error=ConnectionError("database down")))
        assert stored.keys("*proposals:*:*") == []
        assert ask(cache, Loader(3)) == 3
        assert cache.counts.failed_loads == 2

    def test_a_value_too_large_or_of_an_unknown_type_is_answered_and_not_kept(self, make, stored):
        cache = make(max_bytes=100)
        assert ask(cache, Loader("x" * 200)) == "x" * 200
        assert ask(cache, Loader({1, 2}), "set") == {1, 2}
        assert stored.entries() == []
        assert (cache.counts.oversized, cache.counts.uncacheable) == (1, 1)

    def test_a_filter_without_a_canonical_form_is_told(self, make):
        with pytest.raises(NotCacheable, match="type object"):
            ask(make(), Loader(1), {"session": object()})

    def test_what_it_saved_is_counted(self, make):
        cache, load = make(), Loader(1, takes_s=0.02)
        for _ in range(4):
            ask(cache, load)
        assert cache.counts.hit_rate_pct == 75
        assert cache.counts.saved_s == pytest.approx(3 * cache.counts.load_s)
        assert cache.counts.time_saved_pct == pytest.approx(75)


class TestStaleAndEarly:
    def test_a_stale_value_is_served_while_one_loads_it_anew(self, make):
        cache, load = make(ttl_s=0.05, stale_s=60), Loader("old")
        ask(cache, load)
        time.sleep(0.06)
        load.value, load.takes_s = "new", 0.05
        assert ask(cache, load) == "old"
        until(lambda: cache.counts.refreshes == 1)
        assert ask(cache, load) == "new"
        assert (cache.counts.stale, load.calls) == (1, 2)

    def test_only_one_of_many_processes_loads_it_anew(self, make):
        caches, load = [make(ttl_s=0.05, stale_s=60) for _ in range(4)], Loader("a", takes_s=0.1)
        ask(caches[0], load)
        time.sleep(0.06)
        assert [ask(cache, load) for cache in caches] == ["a"] * 4
        until(lambda: sum(cache.counts.refreshes for cache in caches) == 1)
        assert load.calls == 2

    def test_past_the_hard_end_it_is_served_to_nobody(self, make):
        cache, load = make(ttl_s=0.02, stale_s=0.02), Loader("old")
        ask(cache, load)
        time.sleep(0.06)
        load.value = "new"
        assert ask(cache, load) == "new"

    def test_a_written_one_is_not_served_stale(self, make):
        cache, load = make(ttl_s=0.05, stale_s=60), Loader("old")
        ask(cache, load)
        time.sleep(0.06)
        cache.bump("customers")
        load.value = "new"
        assert ask(cache, load) == "new"

    def test_when_the_database_is_down_the_stale_one_goes_on(self, make):
        cache, load = make(ttl_s=0.02, stale_s=60), Loader("old")
        ask(cache, load)
        time.sleep(0.03)
        load.error = ConnectionError("down")
        assert ask(cache, load) == "old"
        until(lambda: cache.counts.failed_loads == 1)
        assert ask(cache, load) == "old"

    def test_shortly_before_its_end_one_loads_it_early(self, make):
        cache, load = make(early=1e9), Loader("a", takes_s=0.01)
        ask(cache, load)
        assert ask(cache, load) == "a"
        until(lambda: cache.counts.refreshes == 1)
        assert cache.counts.stale == 0


class TestInvalidation:
    def test_a_write_lets_go_what_was_read_from_its_table_and_no_more(self, make):
        cache, load, other = make(), Loader(1), Loader(2)
        for _ in range(2):
            ask(cache, load)
            cache.get_or_load("users", None, other, tables=("users",))
            assert make().bump("customers")
        assert (load.calls, other.calls) == (2, 1)

    def test_without_names_all_is_let_go(self, make):
        cache, load = make(), Loader(1)
        ask(cache, load)
        cache.bump()
        ask(cache, load)
        assert load.calls == 2

    def test_a_version_that_was_evicted_brings_nothing_back(self, make, stored):
        cache, load = make(), Loader("old")
        ask(cache, load)
        stored.delete(*stored.keys("*:version:*"))
        load.value = "new"
        assert ask(cache, load) == "new"

    def test_after_a_reconnect_all_is_let_go_once(self, make, stored):
        cache, load = make(), Loader("old")
        with ThreadPoolExecutor(8) as crowd:  # opens several connections
            list(crowd.map(lambda n: ask(cache, lambda: time.sleep(0.02), n), range(8)))
        ask(cache, load)
        stored.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        load.value = "new"
        assert ask(cache, load) == "new"
        bumped = cache.counts.bumps
        with ThreadPoolExecutor(8) as crowd:
            list(crowd.map(lambda n: ask(cache, lambda: time.sleep(0.02), n), range(8)))
        assert cache.counts.bumps == bumped == 1
        assert cache.counts.errors == 0

    def test_a_bump_that_failed_is_made_up_for_before_anything_is_read(self, mortal_cache):
        cache = Cache(mortal_cache.url, timeout_s=0.2, breaker=Breaker(pause_s=0.01))
        load = Loader("old")
        ask(cache, load)
        mortal_cache.process.suspend()
        assert cache.bump("proposals") is False
        load.value = "new"
        assert ask(cache, load) == "new"
        mortal_cache.process.resume()
        cache.counts.hits = 0
        until(lambda: ask(cache, load) == "new" and cache.counts.hits)
        cache.close()


def interleave(caches, connection, random, row):
    """One random order of commits, bumps and reads, some of them in the midst of a load; then what must hold."""
    owed = []

    def value():
        return connection.execute("SELECT value FROM written WHERE id = %s", [row]).fetchone()[0]

    def step(depth):
        kind = random.choice(["commit", "bump", "read"] if depth < 2 else ["commit", "bump"])
        if kind == "commit":
            connection.execute("UPDATE written SET value = value + 1 WHERE id = %s", [row])
            owed.append("written")
        elif kind == "bump" and owed:
            random.choice(caches).bump(owed.pop())
        elif kind == "read":
            read(depth)

    def read(depth):
        settled = not owed

        def load():
            for _ in range(random.randrange(3)):
                step(depth + 1)
            found = value()
            for _ in range(random.randrange(3)):
                step(depth + 1)
            return found

        before = value()
        found = random.choice(caches).get_or_load("row", row, load, tables=("written",))
        assert found >= before if settled else found is not None, "a read that began after a write saw the time before"

    for _ in range(6):
        step(0)
    while owed:
        random.choice(caches).bump(owed.pop())
    now = value()
    for cache in caches:
        assert cache.get_or_load("row", row, value, tables=("written",)) == now, "a stale value was left behind"


@pytest.mark.parametrize("times", [500, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_a_writer_that_commits_during_a_load_leaves_no_stale_value_behind(make, scratch, times):
    connection = scratch()
    connection.execute("SET synchronous_commit = off")
    connection.execute("CREATE TABLE written (id int PRIMARY KEY, value int)")
    connection.execute("INSERT INTO written SELECT n, 0 FROM generate_series(1, %s) n", [times])
    # A load that is nested in another's waits for it in vain, and takes over when that one's time is up.
    caches = [make(load_limit_s=0.002), make(load_limit_s=0.002)]
    for row in range(1, times + 1):
        interleave(caches, connection, random.Random(row), row)
    assert sum(cache.counts.hits for cache in caches) > times
    assert sum(cache.counts.errors for cache in caches) == 0


class TestManyAtOnce:
    def test_a_stampede_of_200_threads_in_8_processes_loads_once(self, cache_url):
        loads, waited = stampede(cache_url, "ours", f"stampede-{time.monotonic_ns()}")
        assert (loads, len(waited)) == (1, 200)

    def test_threads_of_one_process_share_a_load_and_its_error(self, make):
        cache, load = make(), Loader(error=ValueError("no"), takes_s=0.1)
        with ThreadPoolExecutor(10) as crowd:
            found = [crowd.submit(ask, cache, load) for _ in range(10)]
        assert {str(each.exception()) for each in found} == {"no"}
        assert load.calls < 10

    def test_a_process_that_dies_while_it_loads_is_replaced(self, make, cache_url):
        code = """
import os, sys
from playbook.service.cache import Cache
cache = Cache(sys.argv[1], namespace="test", load_limit_s=0.5)
cache.get_or_load("proposals", None, lambda: os._exit(9), tables=("proposals", "customers"))
"""
        assert subprocess.run([sys.executable, "-c", code, cache_url], check=False).returncode == 9
        cache, load = make(), Loader("ours")
        assert ask(cache, load) == "ours"
        assert cache.counts.loads == 1

    def test_a_value_that_cannot_be_kept_is_shared_all_the_same(self, make):
        cache, load = make(), Loader({1}, takes_s=0.2)
        with ThreadPoolExecutor(8) as crowd:
            assert list(crowd.map(lambda _: ask(cache, load), range(8))) == [{1}] * 8
        assert load.calls < 4


class TestHostileContent:
    @pytest.mark.parametrize("content", [b"", b"pbc1", b"\x80\x04K\x01.", b"pbc0" + b"x" * 60, b"x" * 3_000_000])
    def test_it_is_a_miss_and_is_replaced(self, make, stored, content):
        cache, load = make(), Loader("good")
        ask(cache, load)
        [key] = stored.entries()
        stored.set(key, content, px=60_000)
        assert [ask(cache, load), ask(cache, load)] == ["good", "good"]
        assert (load.calls, cache.counts.hits, cache.counts.errors) == (2, 1, 0)

    def test_one_without_an_end_or_of_another_type_is_a_miss_too(self, make, stored):
        cache, load = make(), Loader("good")
        ask(cache, load)
        [key] = stored.entries()
        stored.persist(key)
        assert ask(cache, load) == "good"
        stored.delete(key)
        stored.lpush(key, "a list")
        assert ask(cache, load) == "good"
        stored.delete(*(versions := stored.keys("*:version:*")))
        for version in versions:
            stored.lpush(version, "a list")
        assert [ask(cache, load), ask(cache, load)] == ["good", "good"]
        assert (load.calls, cache.counts.errors) == (4, 0)


class TestWithoutItsServer:
    def test_every_request_is_answered_by_its_loader(self):
        cache, load = Cache("unix:///nowhere/cache.sock"), Loader(1)
        assert [ask(cache, load) for _ in range(50)] == [1] * 50
        assert (cache.counts.bypasses, cache.counts.hits, cache.counts.requests) == (50, 0, 50)
        assert cache.counts.errors < 10, "the breaker spares most of them the attempt"

    def test_killed_and_started_again_in_the_midst_of_loads_no_request_fails(self, mortal_cache):
        cache = Cache(mortal_cache.url, timeout_s=2, breaker=Breaker(pause_s=0.01, longest_s=0.02))
        ending, wrong = threading.Event(), []

        def client(number):
            while not ending.is_set():
                if ask(cache, Loader(number, takes_s=0.001), number) != number:
                    wrong.append(number)

        threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                before = cache.counts.hits
                until(lambda before=before: cache.counts.hits > before + 50)
                mortal_cache.kill()
                bypassed = cache.counts.bypasses
                until(lambda bypassed=bypassed: cache.counts.bypasses > bypassed + 50)
                mortal_cache.start()
            before = cache.counts.hits
            until(lambda: cache.counts.hits > before + 50)
        finally:
            ending.set()
        for thread in threads:
            thread.join(10)
        assert wrong == []
        cache.close()

    def test_a_load_under_way_when_it_dies_is_answered(self, mortal_cache):
        cache = Cache(mortal_cache.url)

        def load():
            mortal_cache.kill()
            return "loaded"

        assert ask(cache, load) == "loaded"
        assert ask(cache, Loader("again")) == "again"

    def test_no_more_loads_run_beside_it_than_are_allowed(self):
        cache = Cache("unix:///nowhere/cache.sock", loaders=3, loader_wait_s=0.05)
        running, most, lock = 0, 0, threading.Lock()

        def load():
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.3)
            with lock:
                running -= 1

        with ThreadPoolExecutor(10) as crowd:
            found = [crowd.submit(ask, cache, load, number) for number in range(10)]
        refused = [each for each in found if isinstance(each.exception(), Overloaded)]
        assert most == 3
        assert len(refused) == cache.counts.refused >= 4

    def test_connections_all_in_use_are_counted_apart_from_a_server_that_is_down(self, make, mortal_cache):
        cache = Cache(mortal_cache.url, connections=1, timeout_s=1.0)
        ask(cache, Loader(1))
        mortal_cache.process.suspend()
        with ThreadPoolExecutor(6) as crowd:
            assert set(crowd.map(lambda n: ask(cache, Loader(1), n), range(6))) == {1}
        mortal_cache.process.resume()
        assert cache.counts.exhausted > 0
        assert cache.counts.bypasses == 6

    def test_the_breaker_opens_tries_once_and_closes(self):
        now = 0.0
        breaker = Breaker(failures=2, pause_s=1, longest_s=3, clock=lambda: now)
        breaker.failed()
        assert breaker.allows()
        breaker.failed()
        assert not breaker.allows()
        now = 1.1
        assert [breaker.allows(), breaker.allows()] == [True, False]
        breaker.failed()
        now = 2.2
        assert not breaker.allows(), "the pause has doubled"
        now = 3.3
        assert breaker.allows()
        breaker.succeeded()
        assert [breaker.allows(), breaker.allows(), breaker.is_open] == [True, True, False]


def test_the_decorator_keeps_by_arguments_however_they_are_given(make):
    calls = []

    @cached(make(), "double", tables=TABLES, ignore=("session",))
    def double(session, number, *, times=2):
        calls.append(number)
        return number * times

    assert [double(object(), 3), double(object(), number=3), double(None, 3, times=2)] == [6, 6, 6]
    assert double(None, 3, times=3) == 9
    assert len(calls) == 2


def test_the_decorator_refuses_what_it_cannot_keep(make):
    def rows():
        yield 1

    with pytest.raises(TypeError, match="is a generator"):
        cached(make(), "rows", tables=TABLES)(rows)
    with pytest.raises(TypeError, match="no argument session"):
        cached(make(), "now", tables=TABLES, ignore=["session"])(lambda number: number)


class TestCoroutines:
    def test_one_of_many_loads_and_the_event_loop_never_waits(self, make):
        cache, loads, gate = make(), [], asyncio.Event()
        tenant = ContextVar("tenant", default="")

        @cached(cache, "slow", tables=TABLES)
        async def slow(number):
            loads.append(tenant.get())
            await gate.wait()
            return [number]

        async def main():
            tenant.set("mine")
            crowd = [asyncio.ensure_future(slow(7)) for _ in range(100)]
            while not loads:
                await asyncio.sleep(0)  # that this goes on while all wait for the load is what is tested
            crowd.pop().cancel()
            gate.set()
            assert await asyncio.gather(*crowd) == [[7]] * 99
            assert await slow(7) == [7]
            await cache.abump("proposals")
            assert await slow(7) == [7]

        asyncio.run(main())
        assert asyncio.iscoroutinefunction(slow)
        assert loads == ["mine", "mine"]

    def test_coroutines_and_threads_share_a_load(self, make):
        cache, load = make(), Loader("from a thread", takes_s=0.2)

        async def never():
            raise AssertionError("the thread loads it")

        async def main():
            thread = asyncio.ensure_future(asyncio.to_thread(ask, cache, load))
            while not load.calls:
                await asyncio.sleep(0.001)
            found = await cache.aget_or_load("proposals", None, never, tables=TABLES)
            return found, await thread

        assert asyncio.run(main()) == ("from a thread", "from a thread")

    @pytest.mark.parametrize("error", [LookupError("none"), TimeoutError("slow")])
    def test_errors_are_raised_and_not_kept(self, make, stored, error):
        async def fail():
            raise error

        async def main():
            await make().aget_or_load("proposals", None, fail, tables=TABLES)

        with pytest.raises(type(error), match=str(error)):
            asyncio.run(main())
        assert stored.entries() == []

    def test_a_loop_that_ends_leaves_nobody_waiting(self, make):
        cache = make()

        async def hang():
            await asyncio.Event().wait()

        async def main():
            asking = asyncio.ensure_future(cache.aget_or_load("proposals", None, hang, tables=TABLES))
            while not cache._flights._under_way:
                await asyncio.sleep(0.001)
            asking.cancel()

        asyncio.run(main())
        cache.close()  # waits for the threads
        assert ask(make(), Loader("later")) == "later"


@pytest.mark.parametrize("size", [100, 30_000, 40_000, 500_000])
def test_values_of_any_size_are_kept_and_let_go_by_a_write(make, stored, size):
    one, other = make(), make()
    for value in ("a" * size, "b" * size):
        load = Loader([value, Decimal("1.50")])
        assert [ask(cache, load) for cache in (one, other, one, other)] == [load.value] * 4
        assert load.calls == 1
        one.bump("customers")
    assert (one.counts.hits + other.counts.hits, one.counts.errors) == (6, 0)
    for content in (b"", b"x" * 60_000, b"x" * 3_000_000):
        for key in stored.entries():
            stored.set(key, content, px=60_000)
        assert [ask(one, load), ask(other, load)] == [load.value] * 2


@pytest.mark.parametrize("name", ["", "a b", "x" * 101, "a:b", "a*"])
def test_a_name_that_would_mix_up_keys_is_refused(make, name):
    with pytest.raises(ValueError, match="use 1 to 100 letters"):
        make().get_or_load(name, None, Loader(1), tables=TABLES)
