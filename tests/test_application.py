"""What is told of an application: its N+1 patterns, how it bears load, and what a target's statistics let suspect."""

from __future__ import annotations

import json

import pytest

from playbook import application as module
from playbook import request_trial
from playbook.answers import NotApplicable
from playbook.application import Application
from playbook.errors import UsageError
from playbook.service import reads, suspects
from playbook.service.suspects import NotReadable
from playbook.settings import Settings
from playbook.views import VIEWS

STEP = "1.2/proposals_with_customer_products_sections"


def shown(answer):
    return VIEWS[type(answer)](answer).text


@pytest.fixture(scope="module")
def opened(of_sample):
    return lambda **given: of_sample(**given).phase("1.2")


@pytest.fixture
def brief(monkeypatch):
    """Load and windows of statistics that a test has time for."""
    monkeypatch.setattr(module, "LOAD_S", 0.8)
    monkeypatch.setattr(module, "WARM_UP_S", 0.1)
    monkeypatch.setattr(module, "WINDOW_S", 0.0)


def test_the_story_of_the_step_with_real_requests(opened, brief, monkeypatch):
    monkeypatch.setattr(request_trial, "ENDPOINTS", (reads.CONTENT, reads.PROPOSAL))
    phase = opened()
    application = Application(phase)
    assert isinstance(application.load(), NotApplicable)
    before = phase.before()
    assert {each.rounds >= 7 for each in before.measurements} == {True}
    as_found = application.detect_as_found()
    assert {bool(patterns) for _, _, patterns in as_found.requests} == {True}
    told = shown(as_found)
    assert "Proposal.customer (lazy load)" in told
    assert "playbook/service/views.py:" in told
    phase.apply()
    phase.after()
    assert [patterns for _, _, patterns in application.detect().requests] == [()] * 7
    loaded = application.load()
    assert shown(loaded).splitlines()[2].startswith("as found ")
    assert not any(load.errors for _, load in loaded.services)

    comparisons = phase.verdict().steps[0].comparisons
    assert [each.same_rows for each in comparisons] == [True] * 2
    assert [each.after_nodes for each in comparisons] == [("1 statement",), ("5 statements",)]
    assert phase.settle().kept == (STEP,)
    phase.finish()
    part = json.loads((phase.context.settings.folder / "parts" / "01_2_n_plus_one.json").read_text())
    metrics = part["metrics"]
    assert metrics["n_plus_one_statements_as_found"] > 300
    assert metrics["n_plus_one_statements_optimized"] == 0
    assert metrics["api_p95_ms_as_found"] > 0 < metrics["api_p95_ms_optimized"]
    assert metrics["api_statements_per_request_as_found"] > 3 * metrics["api_statements_per_request_optimized"]
    assert part["steps"][0]["status"] == "applied"

    again = opened()
    assert again.check().steps[0][1].status == "applied"
    assert again.before().kept == (STEP,)
    kept = again.verdict().steps[0].comparisons
    assert [each.before_ms for each in kept] == [each.before_ms for each in comparisons]
    again.undo()


def test_joining_two_lists_takes_the_fewest_statements_and_the_most_bytes(opened):
    ways = {way.name: way for way in Application(opened()).strategies().ways}
    joined, selected = ways["joinedload of everything"], ways["joinedload of the to-one, selectinload of the lists"]
    assert (joined.statements, selected.statements) == (1, 3)
    assert joined.rows > selected.rows
    assert joined.bytes > 2 * selected.bytes
    assert ways["lazy, as found"].statements > 250


def test_what_the_sample_lets_suspect_is_what_the_detector_finds(opened):
    application = Application(opened())
    application.detect_as_found()
    found = application.suspects()
    by_table = {each.sql.partition(" from ")[2].split()[0]: each for each in found.suspects}
    assert {"customers", "products", "proposal_sections", "validation_rules"} <= set(by_table)
    assert "from proposals" in by_table["customers"].parent
    assert "These are suspects" in shown(found)
    application = Application(opened())
    assert "Nothing is suspect" in shown(application.suspects())


def test_a_foreign_target_has_its_suspects_and_none_of_the_rest(shop, brief):
    shop.execute("CREATE EXTENSION pg_stat_statements")
    application = Application(shop.playbook(apply=False).phase("1"))
    for answer in (application.detect(), application.detect_as_found(), application.load(), application.strategies()):
        assert isinstance(answer, NotApplicable)
        assert "embedded sample only" in shown(answer)
    with shop.target.connect() as connection:
        for (customer,) in connection.execute("SELECT customer_id FROM orders WHERE id <= 60").fetchall():
            connection.execute("SELECT city FROM customers WHERE id = %s AND city <> 'c4nary'", [customer])
        for _ in range(60):
            connection.execute("SELECT count(*) FROM customers")
        for start in range(0, 600, 10):
            connection.execute("SELECT id FROM orders WHERE id = ANY(%s)", [list(range(start, start + 10))])
    told = shown(application.suspects())
    assert "select city from customers where id = ? and city <> ?" in told
    assert "select customer_id from orders where id <= ? (1 calls, 60 rows)" in told
    assert told.count(" suspect ") == 1
    assert "c4nary" not in told


def test_statistics_that_cannot_be_read_are_not_checked(shop, brief):
    application = Application(shop.playbook(apply=False).phase("1"))
    assert "Not checked: pg_stat_statements is not installed here; CREATE EXTENSION" in shown(application.suspects())
    shop.execute("CREATE EXTENSION pg_stat_statements")
    with shop.target.connect() as connection:
        before = suspects.snapshot(connection)
        connection.execute("SELECT pg_stat_statements_reset()")
        with pytest.raises(NotReadable, match="were reset between"):
            suspects.suspects(before, suspects.snapshot(connection))
        connection.execute("CREATE ROLE shop_watcher")
        connection.execute("SET ROLE shop_watcher")
        assert suspects.snapshot(connection).hidden > 0
        connection.execute("RESET ROLE")
        connection.execute("DROP ROLE shop_watcher")


def test_ones_own_service_is_measured_where_it_is_named(opened, as_found, brief):
    assert "no service of your own was named" in shown(Application(opened()).own_service())
    url = as_found.service.url.replace("http://", "http://me:c4nary@")
    phase = opened(api_url=url, api_paths=("/dashboard", "/nothing"), api_rate=20.0)
    told = shown(Application(phase).own_service())
    assert "127.0.0.1:" in told
    assert "status 404" in told
    assert "c4nary" not in told
    part = json.loads((phase.context.settings.folder / "parts" / "01_2_n_plus_one.json").read_text())
    assert part["metrics"]["own_api_p95_ms"] > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"api_url": "127.0.0.1:8000"}, "must be like http://127.0.0.1:8000"),
        ({"api_url": "http://host/?key=1"}, "no ? or # in it"),
        ({"api_paths": ("orders",)}, "path orders of your service: it must start with /"),
        ({"api_rate": 0.0}, "rate 0: requests a second"),
    ],
)
def test_a_service_that_is_named_wrongly_is_told(given, said):
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        Settings.from_environ({}, **given)


def test_the_paths_of_ones_own_service_reach_the_notebooks_kernel():
    settings = Settings.from_environ({}, api_url="https://shop.example/v1", api_paths=("/a b", "/c"), api_rate=2.5)
    assert Settings.from_environ(settings.to_environ()) == settings
    assert Settings.from_environ({"PLAYBOOK_API_PATHS": "/a /b"}).api_paths == ("/a", "/b")
