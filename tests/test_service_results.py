"""The reference service with `cache` and `pool` on: the same answers, fewer statements, and nothing old after a write."""

from __future__ import annotations

import json
import random

import httpx
import pytest
from tests.fix_service import Served, _served

from playbook import caching, connections, request_load
from playbook.answers import NotApplicable
from playbook.caching import Caching
from playbook.connections import Connections
from playbook.service import process, reads, traffic
from playbook.service.switches import Switches
from playbook.service.whole import compare_whole
from playbook.target.opening import open_target
from playbook.views import VIEWS


@pytest.fixture(scope="module")
def cached(server):
    yield from _served(server, "proposals_scratch_cached", Switches.of(["eager_load", "pool", "cache"]))


@pytest.fixture(scope="module")
def plain(cached):
    """The same database without the cache."""
    switches = Switches.of(["eager_load"])
    with process.start(cached.target.conninfo, switches) as running, httpx.Client(base_url=running.url) as client:
        yield Served(running, cached.target, client)


def usage(served):
    return json.loads(served.get("/usage").content)


def test_the_second_answer_takes_no_statement_and_is_the_same(cached, plain):
    for endpoint in reads.ENDPOINTS:
        first, second = cached.get(endpoint.example), cached.get(endpoint.example)
        assert first.content == second.content == plain.get(endpoint.example).content
        assert (int(first.headers["x-statements"]) > 0, int(second.headers["x-statements"])) == (True, 0)


def test_a_write_is_seen_at_once_and_lets_nothing_else_go(cached):
    listed = json.loads(cached.get("/proposals?limit=200").content)["proposals"]
    mine = listed[0]
    other = next(each for each in listed if each["customer"]["id"] != mine["customer"]["id"])
    mine_list, other_list = (f"/proposals?customer_id={each['customer']['id']}" for each in (mine, other))
    for path in (f"/proposals/{mine['id']}", f"/proposals/{other['id']}", mine_list, other_list):
        cached.get(path)
    priority = "LOW" if mine["priority"] != "LOW" else "HIGH"
    assert cached.client.patch(f"/proposals/{mine['id']}", json={"priority": priority}).status_code == 200
    assert json.loads(cached.get(f"/proposals/{mine['id']}").content)["priority"] == priority
    for path in (mine_list, "/proposals?limit=200"):
        found = json.loads(cached.get(path).content)["proposals"]
        assert {each["id"]: each["priority"] for each in found}[mine["id"]] == priority
    assert [cached.statements(path) for path in (f"/proposals/{other['id']}", other_list)] == [0, 0]


def test_an_unknown_key_is_not_kept(cached):
    assert [cached.get("/proposals/none").status_code for _ in range(2)] == [404, 404]
    assert cached.get("/proposals/..%2f*%20{x}").status_code == 404


def test_the_service_tells_what_its_pool_and_its_cache_came_to(cached, as_found):
    cached.client.delete("/usage")
    for _ in range(4):
        cached.get("/content?limit=7")
    found = usage(cached)
    assert (found["cache"]["hits"], found["cache"]["misses"], found["cache"]["hit_rate_pct"]) == (3, 1, 75)
    assert (found["pool"]["capacity"], found["pool"]["peak"], found["pool"]["checkouts"]) == (16, 1, 1)
    assert usage(as_found)["cache"] is None
    assert usage(as_found)["pool"]["capacity"] == 15


@pytest.mark.parametrize("writes", [30, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_whatever_is_written_no_answer_is_older_than_the_commit(cached, plain, writes):
    with cached.target.connect() as connection:
        asked = traffic.of_sample(connection, 400)
    draw = random.Random(writes)
    reads = [request.path for request in asked.reads]
    for _ in range(writes):
        request = draw.choice(asked.writes)
        assert cached.client.request(request.method, request.path, json=request.body).status_code == 200
        for path in (reads[0], *draw.sample(reads[:60], 4), draw.choice(reads)):
            assert cached.get(path).content == plain.get(path).content, (request, path)


SUMMARY = """
CREATE {kind} proposal_analytics_summary AS
SELECT date_trunc('day', created_at, 'UTC') AS date, status, count(*) AS count, avg(value) AS avg_value,
       sum(value) AS total_value
FROM proposals GROUP BY 1, 2
"""
REFRESH = """
CREATE SCHEMA playbook;
CREATE TABLE playbook.refresh (relation text, started_at text, checked_at text, error text);
INSERT INTO playbook.refresh VALUES
  ('public.proposal_analytics_summary', '2026-11-01T03:10:00.000+00:00', '2026-11-02T03:10:00.000+00:00', ''),
  ('public.proposal_analytics_summary', '2026-11-03T03:10:00.000+00:00', '', 'it failed');
"""


def test_the_dashboard_from_a_summary_is_the_same_and_says_how_old_it_is(server):
    switches = Switches.of(["eager_load", "materialized_view"])
    for served in _served(server, "proposals_scratch_summary", switches):
        with served.target.connect() as connection:
            expected = {path: served.get(path) for path in ("/dashboard", "/dashboard?days=400")}
            for kind in ("MATERIALIZED VIEW", "VIEW"):
                connection.execute(SUMMARY.format(kind=kind))
                for path, before in expected.items():
                    answer = served.get(path)
                    assert (answer.content, answer.headers.get("x-as-of")) == (
                        before.content,
                        "unknown" if kind == "MATERIALIZED VIEW" else None,
                    )
                connection.execute(f"DROP {kind} proposal_analytics_summary")
            connection.execute(SUMMARY.format(kind="MATERIALIZED VIEW"))
            connection.execute(REFRESH)
            assert served.get("/dashboard").headers["x-as-of"] == "2026-11-02T03:10:00.000+00:00"
            connection.execute("REFRESH MATERIALIZED VIEW proposal_analytics_summary WITH NO DATA")
            answer = served.get("/dashboard")
            assert (answer.content, "x-as-of" in answer.headers) == (expected["/dashboard"].content, False)


def test_the_whole_is_measured_on_both_in_the_same_rounds(server):
    whole = compare_whole(
        open_target("embedded", 0.02, lambda text: None),
        Switches.of(["eager_load", "cache"]),
        **{"rate": 25, "rounds": 2, "round_s": 0.6, "keys": 40, "asked_before": 60, "warm_up_s": 0.2},
    )
    assert whole.as_found.requests == whole.optimized.requests == sum(b.requests for b, _ in whole.rounds) > 5
    assert not whole.as_found.errors + whole.optimized.errors
    assert whole.as_found.part("proposal list").statements > whole.optimized.part("proposal list").statements
    fell = whole.reduction("statements")
    assert fell.ci95[0] <= fell.pct <= fell.ci95[1] <= 100
    assert whole.reduction("p95_ms", "no such endpoint").pct is None
    assert 0 < whole.hit_rate_pct <= 100
    assert whole.metrics()["whole_statements_reduction_pct"] == fell.pct


@pytest.fixture(scope="module")
def opened(of_sample):
    return lambda phase, **given: of_sample(**given).phase(phase)


@pytest.fixture
def brief(monkeypatch):
    """Eight times as much as with the least budget."""
    monkeypatch.setattr(request_load, "KEYS", 8 * 12)
    monkeypatch.setattr(caching, "LOAD_S", 8 * 0.8)
    monkeypatch.setattr(connections, "LOAD_S", 8 * 0.8)
    monkeypatch.setattr(connections, "SWEEP_S", 8 * 0.2)


def metrics(phase):
    part = phase.context.settings.folder / "parts" / f"{phase.spec.notebook}.json"
    return json.loads(part.read_text())["metrics"]


def shown(answer):
    return VIEWS[type(answer)](answer).text


@pytest.mark.exhaustive
def test_the_pools_story(opened, brief):
    phase = opened("2.1")
    looks = Connections(phase)
    assert isinstance(looks.load(), NotApplicable)
    assert "DATABASE_POOL_SIZE" in str(phase.preview().steps[0][1][0])
    assert phase.apply().steps[0][1].status == "applied"
    assert "are free" in shown(looks.advice())
    assert looks.engine_per_request().own_ms > looks.engine_per_request().shared_ms
    swept = looks.sweep()
    assert "requests a second on each" in shown(swept)
    assert looks.load().pool["capacity"] == (swept.found.size or 16)
    found = metrics(phase)
    assert 0 < found["pool_peak_utilization_pct"] <= 100
    assert found["engine_per_request_ms"] > 0
    assert phase.undo().steps[0][1].status == "undone"


@pytest.mark.exhaustive
def test_the_caches_story(opened, brief):
    phase = opened("2.2")
    looks = Caching(phase)
    assert isinstance(looks.load(), NotApplicable)
    compile(str(phase.preview().steps[0][1][0]).rstrip(";"), "preview", "exec")
    assert phase.apply().steps[0][1].status == "applied"
    assert "Hit rate" in shown(looks.load())
    assert "none failed" in shown(looks.without_its_server())
    found = metrics(phase)
    assert 0 <= found["cache_hit_rate_pct"] <= 100
    assert found["db_time_reduction_pct"] is not None
    assert phase.undo().steps[0][1].status == "undone"


def test_elsewhere_the_advice_stays_and_the_rest_is_not_applicable(shop):
    phase = shop.playbook(apply=False).phase("1")
    looks = Connections(phase)
    assert "are free" in shown(looks.advice())
    for look in (looks.sweep, looks.load, looks.engine_per_request, Caching(phase).load):
        assert "embedded sample only" in shown(look())
