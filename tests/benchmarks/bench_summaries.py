"""What a summary gains and costs at scale 1: `pytest tests/benchmarks/bench_summaries.py -s`.

200,000 proposals. The dashboard's queries plain, from the materialized view and from the incremental summary, in client
time; a reader's p99 while the view is refreshed after one row in a hundred was changed; what eight writers that commit
single rows pay for the triggers.
"""

import json
import multiprocessing
import time

import psycopg
import pytest

from playbook import alternatives, refreshing
from playbook.context import open_context
from playbook.phase import Playbook
from playbook.settings import DEFAULT_PLAN, Settings

ROWS = 200_000
WHOLE, LAST_30 = "dashboard_daily", "dashboard_daily_last_30_days"
LEAST_SPEEDUP = {WHOLE: 10.0, LAST_30: 50.0}
READER_P99 = 1.5
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
            target="env:BENCH_URL", plan=tmp_path / "plan.yaml", apply=True, measure_writes=True, budget_s=40.0,
            out=tmp_path / "out",
        )  # fmt: skip
        return open_context(settings)

    return open_


def walked(context):
    phase = Playbook(context).phase("3.1")
    phase.before()
    ((_, state, _),) = phase.apply().steps
    assert state.status == "applied", state.reason
    phase.after()
    comparisons = phase.verdict().steps[0].comparisons
    assert [(each.query, each.same_rows_reason) for each in comparisons if each.same_rows is not True] == []
    return phase, {each.query: (each.before_ms, each.after_ms) for each in comparisons}


def report(name, **figures):
    print(json.dumps({"benchmark": name, **figures}))


def test_the_dashboard_is_answered_faster(opened):
    kept = {}
    for kind in ("materialized_view", "incremental_summary"):
        phase, kept[kind] = walked(opened(kind))
        phase.undo()
    for query, (before, view) in kept["materialized_view"].items():
        incremental = kept["incremental_summary"][query][1]
        report("summaries", query=query, plain_ms=before, view_ms=view, incremental_ms=incremental,
               view_speedup=round(before / view, 1), incremental_to_view=round(incremental / view, 2))  # fmt: skip
    view, incremental = kept["materialized_view"], kept["incremental_summary"]
    missed = [query for query, least in LEAST_SPEEDUP.items() if view[query][0] / view[query][1] < least]
    far = [query for query in LEAST_SPEEDUP if incremental[query][1] > READ_WITHIN * view[query][1]]
    assert (missed, far) == ([], [])


def test_no_reader_waits_for_a_refresh(opened, empty):
    context = opened("materialized_view")
    ((_, state, _),) = Playbook(context).phase("3.1").apply().steps
    assert state.status == "applied", state.reason
    idle = reads(empty, lambda: time.sleep(4))
    refreshed = []

    def refresh_again_and_again():
        started = time.monotonic()
        while time.monotonic() - started < 4:
            with empty.connect() as connection:
                share = f"abs(hashtext(id || '{len(refreshed)}')) % 100 = 0"
                connection.execute(f"UPDATE proposals SET value = value + 1 WHERE {share}")
                connection.execute("SELECT pg_stat_force_next_flush()")
            refreshed.extend(refreshing.refresh(context))

    during = reads(empty, refresh_again_and_again)
    assert {one.word for one in refreshed} == {"refreshed"}
    p99 = [sorted(each)[int(0.99 * len(each))] for each in (idle, during)]
    report("refresh", refreshes=len(refreshed), last=refreshed[-1].said, reads=len(during), p99_idle_ms=round(p99[0], 3),
           p99_ms=round(p99[1], 3), ratio=round(p99[1] / p99[0], 2), worst_ms=round(max(during), 1))  # fmt: skip
    assert p99[1] <= READER_P99 * p99[0]


def test_writers_pay_little_for_the_triggers(opened):
    context = opened("incremental_summary")
    found = alternatives.alternatives(context, Playbook(context).phase("3.1").steps[0], budget_s=8.0, rows=ROWS)
    assert found.found, found.reason
    for each in found.found:
        report("alternatives", rows=found.rows, kind=each.kind, read_ms=each.read_ms, write_pct=each.write_pct,
               write_ci95=each.write_ci95, refresh_s=each.refresh_s, refresh_rows=each.refresh_rows,
               size_bytes=each.size_bytes)  # fmt: skip
    assert found.found[2].write_pct <= WRITE_PCT


def reads(target, work) -> list[float]:
    """Milliseconds of each of a reader's queries of the view while `work` runs, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ready, stop, told = context.Event(), context.Event(), context.Queue()
    reader = context.Process(target=_read, args=(target.conninfo, ready, stop, told))
    reader.start()
    try:
        assert ready.wait(30)
        work()
    finally:
        stop.set()
        taken = told.get(timeout=30)
        reader.join()
    return taken


def _read(conninfo, ready, stop, told) -> None:
    taken: list[float] = []
    with psycopg.connect(**conninfo, autocommit=True) as connection:
        query = "SELECT * FROM proposal_analytics_summary WHERE date >= '2025-12-01' ORDER BY date DESC, status"
        connection.execute(query)
        ready.set()
        while not stop.is_set():
            started = time.perf_counter()
            connection.execute(query).fetchall()
            taken.append(1000 * (time.perf_counter() - started))
            time.sleep(0.002)
    told.put(taken)
