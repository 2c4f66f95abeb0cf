"""Measuring: interleaved rounds inside one budget; a slow, failing or blocked query never takes the others with it."""

from __future__ import annotations

import gc
import json
import threading
import time

import pytest

from playbook.evidence import rounds
from playbook.evidence.measure import Measurement, measure, yardsticks
from playbook.evidence.rounds import REPEATS, Session, share
from playbook.plan.workload import Bound

QUICK = Bound("quick", "common", "SELECT count(*) FROM items WHERE id < $1", ("50",))
TINY = Bound("tiny", "common", "SELECT 1")
SLOW = Bound("slow", "common", "SELECT pg_sleep(0.08)")
ENDLESS = Bound("endless", "common", "SELECT pg_sleep(60)")
WRONG = Bound("wrong", "common", "SELECT nothing_such FROM items WHERE id = $1", ("s3cret",))


@pytest.fixture
def connect(scratch):
    with scratch() as connection:
        connection.execute("CREATE TABLE items AS SELECT i AS id, md5(i::text) AS name FROM generate_series(1, 5000) i")
        connection.execute("CREATE INDEX items_id ON items (id)")
        connection.execute("VACUUM ANALYZE items")
    return scratch


def by_name(measured):
    return {each.query: each for each in measured}


def test_every_query_gets_all_rounds_of_all_blocks_when_the_budget_allows(connect):
    quick, tiny = measure(connect, [QUICK, TINY], rounds=20, blocks=2, budget_s=20)
    assert [len(block) for block in quick.blocks] == [20, 20]
    assert [len(block) for block in tiny.blocks] == [20, 20]
    assert (quick.rows, quick.error) == (1, "")
    assert 0 < tiny.median_ms < 50


def test_plan_and_buffers_come_from_warm_executions(connect):
    (quick,) = measure(connect, [QUICK], rounds=7, budget_s=10)
    assert quick.plan.indexes == ("items_id",)
    assert quick.plan.execution_ms > 0
    assert quick.buffers == quick.plan.buffers
    assert 1 <= quick.buffers <= 10


def test_the_time_is_the_clients_to_the_last_row(connect):
    wide = Bound("wide", "common", "SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")
    (measured,) = measure(connect, [wide], rounds=7, budget_s=20)
    assert measured.rows == 5000
    assert measured.median_ms > measured.plan.execution_ms


@pytest.mark.parametrize(("short_ms", "calls"), [(60_000.0, range(10 * REPEATS, 80)), (0.0, range(10, 20))])
def test_a_short_query_runs_several_times_a_round(connect, monkeypatch, short_ms, calls):
    monkeypatch.setattr(rounds, "SHORT_MS", short_ms)
    with connect() as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
    (tiny,) = measure(connect, [TINY], rounds=10, budget_s=20)
    assert tiny.rounds == 10
    with connect() as connection:
        ((found,),) = connection.execute(
            "SELECT calls FROM pg_stat_statements WHERE query = 'SELECT $1' "
            "AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchall()
    assert found in calls


def test_a_query_slower_than_its_share_gets_fewer_rounds_and_the_others_all(connect):
    measured = by_name(measure(connect, [SLOW, QUICK], rounds=40, budget_s=3))
    assert 7 <= measured["slow"].rounds < len(measured["quick"].blocks[0]) <= 40
    assert measured["slow"].error == ""


def test_a_query_too_slow_for_seven_rounds_is_left_out_with_the_reason(connect):
    start = time.monotonic()
    measured = by_name(measure(connect, [ENDLESS, QUICK], rounds=20, budget_s=4))
    assert time.monotonic() - start < 10
    assert measured["endless"].rounds == 0
    assert "7 rounds do not fit into the budget of 4 s" in measured["endless"].error
    assert measured["quick"].rounds == 20


def test_a_timeout_is_kept_as_the_error_and_does_not_stop_the_others(connect):
    measured = by_name(measure(connect, [ENDLESS, QUICK], rounds=7, budget_s=60, timeout_s=0.2))
    assert "longer than the timeout of 0.2 s" in measured["endless"].error
    assert measured["endless"].median_ms is None
    assert measured["quick"].rounds == 7


def test_a_failing_query_keeps_its_error_without_its_values(connect):
    measured = by_name(measure(connect, [WRONG, QUICK], rounds=7, budget_s=10))
    assert "nothing_such" in measured["wrong"].error
    assert "s3cret" not in measured["wrong"].error
    assert measured["wrong"].plan is None
    assert measured["quick"].rounds == 7


def test_values_that_the_server_quotes_in_its_error_are_masked(connect):
    wrong = Bound("wrong", "common", "SELECT * FROM items WHERE id = $1::int", ("s3cret",))
    (measured,) = measure(connect, [wrong], rounds=7, budget_s=10)
    assert measured.error == "InvalidTextRepresentation (22P02), in words that quote a row"
    assert "s3cret" not in measured.error


def test_several_statements_and_other_statements_are_not_executed(connect):
    queries = [
        Bound("two", "common", "SELECT 1; DELETE FROM items"),
        Bound("change", "common", "DELETE FROM items"),
        Bound("program", "common", "COPY items TO PROGRAM 'cat'"),
    ]
    measured = measure(connect, queries, rounds=7, budget_s=10)
    assert all(each.error.startswith("not analysed") and not each.rounds for each in measured)
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (5000,)


def test_a_dry_run_plans_and_executes_nothing(connect):
    with connect() as connection:
        connection.execute("CREATE SEQUENCE calls")
    calling = Bound("calling", "common", "SELECT nextval('calls')")
    planned, called = measure(connect, [QUICK, calling], execute=False)
    assert planned.plan.indexes == ("items_id",)
    assert (planned.blocks, planned.buffers, planned.rows, planned.error) == ((), None, None, "")
    assert called.plan.nodes == ("Result",)
    with connect() as connection:
        assert connection.execute("SELECT is_called FROM calls").fetchone() == (False,)


def test_fewer_rounds_than_seven_are_said(connect):
    (measured,) = measure(connect, [QUICK], rounds=5, budget_s=10)
    assert measured.rounds == 5
    assert "5 rounds" in measured.error
    assert "7 are needed" in measured.error


def test_a_query_that_gets_blocked_half_way_does_not_starve_the_others(connect):
    blocked, opened = threading.Event(), threading.Event()

    def lock():
        with connect() as connection:
            opened.wait(20)
            connection.execute("BEGIN; LOCK TABLE items")
            blocked.wait(20)

    locker = threading.Thread(target=lock)
    locker.start()
    try:
        measured = by_name(
            measure(
                connect,
                [QUICK, TINY],
                rounds=200,
                budget_s=12,
                progress=lambda text: opened.set() if "round 9" in text else None,
            )
        )
    finally:
        blocked.set()
        locker.join()
    assert "statement timeout" in measured["quick"].error
    assert measured["tiny"].rounds == 200


def test_a_killed_connection_costs_one_query_only(connect):
    suicide = Bound("suicide", "common", "SELECT pg_terminate_backend(pg_backend_pid())")
    measured = by_name(measure(connect, [suicide, QUICK], rounds=7, budget_s=10))
    assert measured["suicide"].error
    assert measured["quick"].rounds == 7


def test_the_order_is_shuffled_in_each_round_and_the_same_in_each_run(connect, monkeypatch):
    ran = []
    clock = Session.clock

    def noted(self, subject, timeout_s):
        ran.append(subject.bound.query)
        return clock(self, subject, timeout_s)

    monkeypatch.setattr(Session, "clock", noted)
    queries = [Bound(name, "common", f"SELECT '{name}'") for name in "abcd"]

    def rounds():
        ran.clear()
        measure(connect, queries, rounds=8, budget_s=20)
        timed = "".join(ran[2 * len(queries) :])  # after two warm-ups each
        return [timed[place : place + 4] for place in range(0, len(timed), 4)]

    first, second = rounds(), rounds()
    assert first == second
    assert all(sorted(each) == list("abcd") for each in first)
    assert len(set(first)) > 3


@pytest.mark.parametrize(("slow_rounds", "kept_slow"), [(range(10, 20), False), (range(10, 1000), True)])
def test_a_block_that_the_machine_moved_is_measured_again(connect, slow_rounds, kept_slow):
    with connect() as connection:
        connection.execute("CREATE TABLE knob AS SELECT 0.02::float8 AS pause")
        ran = []

        def machine(text):
            if text.startswith("round"):
                ran.append(text)
                pause = 0.04 if len(ran) in slow_rounds else 0.02
                connection.execute("UPDATE knob SET pause = %s", [pause])

        queries = [Bound(name, "common", f"SELECT '{name}', pg_sleep(pause) FROM knob") for name in "abc"]
        measured = measure(connect, queries, rounds=10, blocks=2, budget_s=20, progress=machine)
    assert len(ran) == 30
    for each in measured:
        first, second = (sum(block) / len(block) for block in each.blocks)
        assert [len(block) for block in each.blocks] == [10, 10]
        assert max(first, second) / min(first, second) < 1.3
        assert (min(first, second) > 30) is kept_slow


def test_the_collector_is_as_it_was(connect):
    gc.disable()
    try:
        measure(connect, [TINY], rounds=7, budget_s=5)
        assert not gc.isenabled()
    finally:
        gc.enable()
    measure(connect, [TINY], rounds=7, budget_s=5)
    assert gc.isenabled()


def test_a_result_too_large_for_this_process_is_left_out(connect):
    huge = Bound("huge", "common", "SELECT a.name, b.name FROM items a, items b, generate_series(1, 100)")
    (measured,) = measure(connect, [huge], rounds=7, budget_s=5)
    assert "too large" in measured.error


def test_a_measurement_survives_json(connect):
    for each in measure(connect, [QUICK, WRONG], rounds=7, blocks=2, budget_s=10):
        assert Measurement.from_json(json.loads(json.dumps(each.to_json()))) == each


def test_yardsticks_run_anywhere_and_need_no_table(scratch):
    measured = measure(scratch, yardsticks(), rounds=7, budget_s=15)
    assert {each.error for each in measured} == {""}
    assert all(each.rounds == 7 for each in measured)


@pytest.mark.parametrize(
    ("costs", "left", "expected"),
    [
        ([1, 1], 100, [20, 20]),  # all there is to want
        ([1, 10], 120, [20, 10]),  # what the cheap one leaves goes to the dear one
        ([10, 1], 120, [10, 20]),
        ([1, 50], 120, [20, 0]),  # two runs of the dear one would tell nothing
        ([1, 9, 9], 110, [20, 0, 10]),  # better one well measured than two not at all
        ([500], 100, [0]),
        ([], 100, []),
    ],
)
def test_time_is_shared_fairly(costs, left, expected):
    granted = share(costs, left, wanted=20, least=7)
    assert sorted(zip(costs, granted, strict=True)) == sorted(zip(costs, expected, strict=True))
    assert sum(cost * runs for cost, runs in zip(costs, granted, strict=True)) <= left
