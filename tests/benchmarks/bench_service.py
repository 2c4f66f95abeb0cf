"""The whole service: as the plan found it against everything on, under one load; and the dashboard from its summary.

Run with `.venv/bin/python -m pytest -q -n 0 -s tests/benchmarks/bench_service.py`. Takes about two minutes for the whole,
at scale 0.2, and two for the dashboard, at scale 1, most of which make the sample.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median

import httpx
import pytest

from playbook.application import applied_switches
from playbook.connections import Connections
from playbook.context import open_context
from playbook.phase import Playbook
from playbook.service import copies, process
from playbook.service.switches import Switches
from playbook.service.whole import compare_whole
from playbook.settings import Settings

SCALE, DASHBOARD_SCALE = 0.2, 1.0
P95_LOWER_PCT = 80.0
DATABASE_TIME_LOWER_PCT = 90.0
HIT_RATE_PCT = 85.0
POOL_PEAK_PCT = 70.0
DASHBOARD_LOWER_PCT = 90.0
TRIES = 40


def applied(folder: Path, scale: float, *phases: str):
    context = open_context(Settings(scale=scale, out=folder, budget_s=1))
    for phase in phases:
        done = Playbook(context).phase(phase).apply()
        assert {state.status for _, state, _ in done.steps} == {"applied"}
    return context


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory):
    """The sample with every step of the plan applied that the service gains from."""
    context = applied(tmp_path_factory.mktemp("out"), SCALE, "1.1", "1.2", "2.1", "2.2", "3.1", "3.2")
    recommended = Connections(Playbook(context).phase("2.1")).sweep().found
    print(f"\npool of {recommended.size}: {recommended.reason}")
    yield context
    context.close()


def test_the_whole_service(context):
    whole = compare_whole(context.target, applied_switches(context))
    print()
    for name, figure in whole.metrics().items():
        print(f"{name:48s} {figure if figure is None else round(figure, 2)}")
    for name in whole.endpoints:
        before, after = whole.as_found.part(name), whole.optimized.part(name)
        print(
            f"{name:20s} {before.requests:4d} requests, p50 {before.p50_ms:.1f} -> {after.p50_ms:.1f} ms, p95 "
            f"{before.p95_ms:.1f} -> {after.p95_ms:.1f} ms, database {before.database_ms:.2f} -> "
            f"{after.database_ms:.2f} ms, statements {before.statements:.1f} -> {after.statements:.2f}"
        )
    print(json.dumps({"cache": whole.cache, "pool": whole.pool}))
    assert not whole.as_found.errors + whole.optimized.errors
    assert whole.reduction("p95_ms").pct >= P95_LOWER_PCT
    assert whole.reduction("database_ms").pct >= DATABASE_TIME_LOWER_PCT
    assert whole.hit_rate_pct >= HIT_RATE_PCT
    assert whole.pool_peak_pct < POOL_PEAK_PCT


def test_the_dashboard_from_its_summary(tmp_path):
    """The summary's own share: no cache and nothing else is on, and both are asked in turns."""
    context = applied(tmp_path, DASHBOARD_SCALE, "3.1")
    with copies.as_found(context.target) as copy:
        services = process.start_all(
            [(copy, Switches()), (context.target.conninfo, Switches.of(["materialized_view"]))]
        )
        times = [[], []]
        with httpx.Client(timeout=60) as client, services[0], services[1]:
            for _ in range(TRIES):
                for service, taken in zip(services, times, strict=True):
                    started = time.perf_counter()
                    client.get(f"{service.url}/dashboard?days=30").raise_for_status()
                    taken.append(1000 * (time.perf_counter() - started))
    before, after = (median(taken[TRIES // 4 :]) for taken in times)
    print(f"\ndashboard {before:.1f} ms -> {after:.1f} ms ({100 * (1 - after / before):.1f} % less)")
    assert 100 * (1 - after / before) >= DASHBOARD_LOWER_PCT
