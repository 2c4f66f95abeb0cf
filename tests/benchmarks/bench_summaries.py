"""What a summary gains and costs at scale 1: `pytest tests/benchmarks/bench_summaries.py -s`.

200,000 proposals. The dashboard's queries plain, from the materialized view and from the incremental summary, in client
time, interleaved; the p99 of a reader who loads the dashboard while the view is refreshed after one row in a hundred was
changed; what eight writers that commit single rows pay for the triggers.

Reads are prepared statements, as psycopg makes them of what is asked again, timed at libpq until the whole result has
reached the client. The last 30 days need that: plain they are one index scan of 12,000 rows, some 9 ms, and what answers
them from the view takes 0.17 ms, of which a table that holds exactly these 211 rows and nothing else, read as it stands,
would take 0.14 (`floor_ms`), and `SELECT 1` 0.05. That is on cores that are kept `awake`: waking one of an idle virtual
machine takes 0.03 ms a round trip, whatever was asked. Planning, 0.05 ms, and the work of psycopg's cursors, as much again, would
be found in either: as the evidence of a run has it, the view is 40 times as fast.

Every refresh makes a reader's connection plan its queries anew, once, since PostgreSQL marks the view as populated in its
catalog: that is the slowest read of a refresh. No reader waits for a lock.

The incremental summary is to be read within twice the view's time. That is judged on one load of the dashboard, all its
queries once. The last 30 days alone take it three times as long or more: planning a view of two branches takes longer than
the whole answer.
"""

import json
import multiprocessing
import os
import random
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from statistics import median

import psycopg
import pytest
from psycopg.pq import ExecStatus

from playbook import alternatives, refreshing
from playbook.context import open_context
from playbook.phase import Playbook
from playbook.plan.workload import Bound
from playbook.settings import DEFAULT_PLAN, Settings
from playbook.trial import Trial

ROWS = 200_000
WHOLE, LAST_30 = "dashboard_daily", "dashboard_daily_last_30_days"
ROUNDS, REPEATS = 20, 25
UNTIL_PLANNED = 6
"""Runs after which the server has settled on a statement's plan (the manual, PREPARE)."""
LEAST_SPEEDUP = {WHOLE: 10.0, LAST_30: 50.0}
READER_P99 = 1.5
REFRESHES = 40
WRITE_PCT = 25.0
READ_WITHIN = 2.0

# As data/proposals/generate.sql makes them: denser towards the end, some without a value, those still open not approved.
PROPOSALS = f"""
CREATE TABLE proposals (
  id text PRIMARY KEY, title text NOT NULL, status text NOT NULL, priority text NOT NULL, customer_id text NOT NULL,
  value numeric(14, 2), approved_at timestamptz, metadata jsonb NOT NULL DEFAULT '{{}}', created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL
);
INSERT INTO proposals
SELECT 'p' || lpad(n::text, 7, '0'), 'Framework contract ' || n, status, 'MEDIUM', 'c' || n % 20000,
       CASE WHEN n % 25 > 0 THEN 1000 + n % 77777 END,
       CASE WHEN status IN ('APPROVED', 'SUBMITTED', 'ACCEPTED', 'DECLINED') THEN created + n % 300 * interval '1 hour' END,
       '{{"source": "rfp"}}', created, created
FROM generate_series(1, {ROWS}) AS n,
     LATERAL (SELECT to_timestamp(1704067200 + 731 * 86400 * (sqrt(0.25 + 2.0 * n / {ROWS}) - 0.5)) AS created,
                     (ARRAY['ACCEPTED', 'ACCEPTED', 'DECLINED', 'DECLINED', 'APPROVED', 'APPROVED', 'REJECTED', 'SUBMITTED',
                            'DRAFT', 'ARCHIVED'])[1 + (n * 7919) % 10] AS status) AS drawn;
CREATE INDEX ON proposals (status);
CREATE INDEX ON proposals (customer_id);
CREATE INDEX ON proposals (created_at);
CREATE INDEX ON proposals (approved_at);
CREATE INDEX ON proposals (lower(title));
VACUUM (ANALYZE) proposals;
"""


@pytest.fixture
def opened(empty, tmp_path, monkeypatch):
    """Opens the plan on the proposals, with the kind of summary asked for."""
    with empty.connect() as connection:
        for statement in PROPOSALS.split(";\n"):
            if statement.strip():
                connection.execute(statement)
    c = empty.conninfo
    url = f"postgresql://{c['user']}:{c['password']}@/{c['dbname']}?host={c['host']}&port={c['port']}"
    monkeypatch.setenv("BENCH_URL", url)

    def open_(kind):
        (tmp_path / "workload.sql").write_text((DEFAULT_PLAN.parent / "workload.sql").read_text())
        plan = DEFAULT_PLAN.read_text().replace("kind: materialized_view", f"kind: {kind}")
        (tmp_path / "plan.yaml").write_text(plan)
        settings = Settings(
            target="env:BENCH_URL", plan=tmp_path / "plan.yaml", apply=True, measure_writes=True, budget_s=10.0,
            out=tmp_path / "out",
        )  # fmt: skip
        return open_context(settings)

    return open_


def walked(context):
    """The phase with its evidence, of which the rows have to be the same; the times are taken by `interleaved`."""
    phase = Playbook(context).phase("3.1")
    phase.before()
    ((_, state, _),) = phase.apply().steps
    assert state.status == "applied", state.reason
    phase.after()
    comparisons = phase.verdict().steps[0].comparisons
    assert [(each.query, each.same_rows_reason) for each in comparisons if each.same_rows is not True] == []


def report(name, met, **figures):
    print(json.dumps({"benchmark": name, **figures, "verdict": "met" if met else "missed"}))


@contextmanager
def awake():
    """Keeps every core from falling asleep between two messages; whoever has work goes first."""
    context = multiprocessing.get_context("spawn")
    spinners = [context.Process(target=_spin, daemon=True) for _ in range(os.cpu_count() or 1)]
    for each in spinners:
        each.start()
    try:
        yield
    finally:
        for each in spinners:
            each.kill()
            each.join()


def _spin() -> None:
    os.nice(19)
    while True:
        pass


def interleaved(target, bounds):
    """Median milliseconds of each query by its name, until its whole result has reached the client."""
    taken = {bound.query: [] for bound in bounds}
    with target.connect() as connection, awake():
        for bound in bounds:
            connection.pgconn.prepare(bound.query.encode(), bound.sql.encode())
            for _ in range(UNTIL_PLANNED):
                connection.pgconn.exec_prepared(bound.query.encode(), [str(value).encode() for value in bound.values])
        for number in range(ROUNDS + 1):
            for bound in random.sample(bounds, len(bounds)):
                values = [str(value).encode() for value in bound.values]
                runs = []
                for _ in range(1 if bound.query.startswith("plain") else REPEATS):  # a short one runs again and again
                    started = time.perf_counter()
                    result = connection.pgconn.exec_prepared(bound.query.encode(), values)
                    runs.append(1000 * (time.perf_counter() - started))
                    assert result.status == ExecStatus.TUPLES_OK, result.error_message
                taken[bound.query] += [median(runs)] if number else []  # the first round fills the caches
    return {query: round(median(each), 4) for query, each in taken.items()}


def asked(context):
    """The dashboard's queries, `plain NAME` and, as they are answered now, `kept NAME`."""
    trial, step = Trial(context), Playbook(context).phase("3.1").steps[0]
    sides = (("plain", trial.claims(step)), ("kept", trial.answers(step)))
    return [replace(bound, query=f"{side} {bound.query}") for side, bounds in sides for bound in bounds]


def test_the_dashboard_is_answered_faster(opened, empty):
    walked(view := opened("materialized_view"))
    with empty.connect() as connection:
        since = "SELECT date_trunc('day', max(created_at) - interval '30 days', 'UTC') FROM proposals"
        kept = "SELECT date, status, count, avg_value, total_value FROM proposal_analytics_summary"
        connection.execute(f"CREATE TABLE these AS {kept} WHERE date >= ({since}) ORDER BY date DESC, status")
        connection.execute("VACUUM (ANALYZE) these")
    floor = [Bound("floor", "common", "SELECT * FROM these"), Bound("select_1", "common", "SELECT 1")]
    ms = interleaved(empty, [*asked(view), *floor])
    Playbook(view).phase("3.1").undo()
    walked(incremental := opened("incremental_summary"))
    ms_incremental = interleaved(empty, asked(incremental))
    queries = [each.removeprefix("plain ") for each in ms if each.startswith("plain ")]
    # In terms of the plain queries beside it, since the two were measured one after the other.
    pace = sum(ms[f"plain {query}"] for query in queries) / sum(ms_incremental[f"plain {query}"] for query in queries)
    missed = []
    for query in queries:
        plain, kept, incremental_ms = ms[f"plain {query}"], ms[f"kept {query}"], pace * ms_incremental[f"kept {query}"]
        limit = LEAST_SPEEDUP.get(query, 0.0)
        beside = {"floor_ms": ms["floor"], "select_1_ms": ms["select_1"]} if query == LAST_30 else {}
        report("summaries", plain / kept >= limit, query=query, plain_ms=plain, view_ms=kept, speedup=round(plain / kept, 1),
               limit=limit, **beside, incremental_ms=round(incremental_ms, 4),
               incremental_to_view=round(incremental_ms / kept, 2))  # fmt: skip
        missed += [] if plain / kept >= limit else [query]
    loads = [sum(each[f"kept {query}"] for query in queries) for each in (ms, ms_incremental)]
    ratio = pace * loads[1] / loads[0]
    report("incremental read", ratio <= READ_WITHIN, view_load_ms=round(loads[0], 3),
           incremental_load_ms=round(pace * loads[1], 3), ratio=round(ratio, 2), limit=READ_WITHIN)  # fmt: skip
    assert (missed, ratio <= READ_WITHIN) == ([], True)


def test_no_reader_waits_for_a_refresh(opened, empty):
    ((_, state, _),) = Playbook(opened("materialized_view")).phase("3.1").apply().steps
    assert state.status == "applied", state.reason
    context = opened("materialized_view")  # which knows the view
    dashboard = [bound for bound in asked(context) if bound.query.startswith("kept")]
    refreshed, refreshing_, idle_ = [], [], []

    def now_and_then():
        for number in range(REFRESHES):
            with empty.connect() as connection:
                share = f"abs(hashtext(id || '{number}')) % 100 = 0"
                connection.execute(f"UPDATE proposals SET value = value + 1 WHERE {share}")
                connection.execute("SELECT pg_stat_force_next_flush()")
            refreshing_.append(timed(lambda: refreshed.extend(refreshing.refresh(context))))
            idle_.append(timed(lambda: time.sleep(refreshing_[-1][1] - refreshing_[-1][0])))

    loads = reads(empty, dashboard, now_and_then)
    assert {one.word for one in refreshed} == {"refreshed"}
    idle, during = ([ms for at, ms in loads if any(a <= at < b for a, b in spans)] for spans in (idle_, refreshing_))
    print(json.dumps({"benchmark": "refreshes", "refreshes": len(refreshed), "last": refreshed[-1].said}))
    met = []
    for name, limit in (("all", READER_P99), *((bound.query, 0.0) for bound in dashboard)):
        p50, p99 = ([ranked([ms[name] for ms in each], share) for each in (idle, during)] for share in (0.5, 0.99))
        met += [not limit or p99[1] <= limit * p99[0]]
        report("refresh", met[-1], read=name, loads=[len(idle), len(during)], p50_idle_ms=p50[0], p50_ms=p50[1],
               p99_idle_ms=p99[0], p99_ms=p99[1], ratio=round(p99[1] / p99[0], 2), limit=limit)  # fmt: skip
    assert all(met)


def test_writers_pay_little_for_the_triggers(opened):
    context = opened("incremental_summary")
    found = alternatives.alternatives(context, Playbook(context).phase("3.1").steps[0], budget_s=8.0, rows=ROWS)
    assert found.found, found.reason
    for each in found.found:
        print(json.dumps({"benchmark": "alternatives", "rows": found.rows, **asdict(each)}))
    paid = found.found[2]
    met = paid.write_ci95[1] <= WRITE_PCT
    report("writers", met, write_pct=round(paid.write_pct, 1), ci95=[round(each, 1) for each in paid.write_ci95],
           limit=WRITE_PCT)  # fmt: skip
    assert met


def timed(work) -> tuple[float, float]:
    """When it began and when it ended."""
    started = time.monotonic()
    work()
    return started, time.monotonic()


def ranked(taken: list[float], share: float) -> float:
    """The milliseconds that this share of them stays below."""
    return round(sorted(taken)[int(share * len(taken))], 3)


def reads(target, bounds, work) -> list[tuple[float, dict[str, float]]]:
    """When each of a reader's loads of the queries began (time.monotonic) while `work` ran, and its milliseconds.

    They are told of each query by its name, and of `all` together.
    """
    context = multiprocessing.get_context("spawn")
    ready, stop, told = context.Event(), context.Event(), context.Queue()
    queries = {bound.query: (bound.sql.encode(), [str(value).encode() for value in bound.values]) for bound in bounds}
    reader = context.Process(target=_read, args=(target.conninfo, queries, ready, stop, told))
    reader.start()
    try:
        assert ready.wait(30)
        work()
    finally:
        stop.set()
        taken = told.get(timeout=30)
        reader.join()
    return taken


def _read(conninfo, queries, ready, stop, told) -> None:
    taken: list[tuple[float, dict[str, float]]] = []
    with psycopg.connect(**conninfo, autocommit=True) as connection:
        for name, (sql, _) in queries.items():
            connection.pgconn.prepare(name.encode(), sql)
        while not stop.is_set():
            began, ms = time.monotonic(), {}
            for name, (_, values) in queries.items():
                started = time.perf_counter()
                result = connection.pgconn.exec_prepared(name.encode(), values)
                ms[name] = 1000 * (time.perf_counter() - started)
                assert result.status == ExecStatus.TUPLES_OK, result.error_message
            taken.append((began, {**ms, "all": sum(ms.values())}))
            if not ready.is_set() and len(taken) == UNTIL_PLANNED:
                taken.clear()
                ready.set()
            time.sleep(0.002)
    told.put(taken)
