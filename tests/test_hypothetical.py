"""Estimates by HypoPG in a dry run: what the planner expects, labelled as that, and nothing left of it."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from tests.fix_pgbouncer import pooling
from tests.fix_shop import ROWS, Shop, lay_out

from playbook.evidence.hypothetical import estimates
from playbook.plan.workload import Bound
from playbook.show import estimates_table
from playbook.target.connect import identify

LATEST = Bound(
    "latest", "common", "SELECT id FROM orders WHERE customer_id = $1 ORDER BY created_at DESC LIMIT 10", ("26",)
)
CITIES = Bound("cities", "common", "SELECT city FROM customers WHERE id = 1")
INDEX = "CREATE INDEX ON public.orders (customer_id, created_at DESC)"


@pytest.fixture
def shop15(hypopg, tmp_path, monkeypatch):
    """The shop on PostgreSQL 15 with HypoPG in it."""
    return lay_out(hypopg, tmp_path, monkeypatch)


def test_a_dry_run_says_what_the_planner_expects_of_each_step(shop15, dump15):
    as_found = dump15(shop15.target)
    phase = shop15.playbook(apply=False).phase("1")
    found = phase.before().estimates
    assert {(each.step, each.query) for each in found} == {
        ("1/orders_customer_created", "latest_orders"),
        ("1/orders_open", "open_orders"),
    }
    for each in found:
        assert each.used
        assert each.cost_after < each.cost_before
    assert {each.verdict for step in phase.verdict().steps for each in step.comparisons} == {"not measured"}
    assert dump15(shop15.target) == as_found
    phase.finish()
    part = json.loads((shop15.folder / "out" / "parts" / "indexes.json").read_text())
    assert [set(each) for each in part["estimates"]] == [
        {"step", "query", "bind", "cost_before", "cost_after", "used", "reason"}
    ] * len(found)


def test_nothing_of_it_is_left_in_the_session(shop15):
    with shop15.target.connect() as session:

        @contextmanager
        def connect():
            yield session

        (latest, cities) = estimates(connect, "1/x", [INDEX], [LATEST, CITIES])
        assert (latest.used, cities.used) == (True, False)
        assert cities.cost_before == cities.cost_after
        assert session.execute("SELECT count(*) FROM hypopg()").fetchone() == (0,)
        (plan,) = session.execute(b"EXPLAIN (FORMAT JSON) SELECT id FROM orders WHERE customer_id = 26").fetchone()
        assert "Index" not in plan[0]["Plan"]["Node Type"]


def test_an_index_that_hypopg_cannot_pretend_is_said(shop15):
    (found,) = estimates(shop15.target.connect, "1/x", ["CREATE INDEX ON orders USING gin (customer_id)"], [LATEST])
    assert found.cost_after is None
    assert found.used is None
    assert found.reason.startswith("HypoPG has no such index: ")


def test_where_hypopg_is_not_installed_nothing_is_estimated_nor_installed(empty15):
    with empty15.connect() as connection:
        connection.execute(ROWS)
        assert estimates(empty15.connect, "1/x", [INDEX], [LATEST]) == ()
        assert connection.execute("SELECT count(*) FROM pg_extension WHERE extname = 'hypopg'").fetchone() == (0,)


def test_behind_a_pooler_the_session_is_not_ours_to_pretend_in(shop15, monkeypatch):
    with pooling(dict(shop15.target.conninfo)) as conninfo:
        pooled = Shop(identify(type(shop15.target)("env:SHOP_URL", conninfo)), shop15.plan, shop15.folder)
        monkeypatch.setenv("SHOP_URL", pooled.url())
        assert pooled.playbook(apply=False).phase("1").before().estimates == ()
        assert estimates(pooled.target.connect, "1/x", [INDEX], [LATEST]) == ()
        with pooled.target.connect() as connection:
            assert connection.execute("SELECT count(*) FROM hypopg()").fetchone() == (0,)


def test_an_estimate_is_labelled_as_one(shop15):
    shown = estimates_table(estimates(shop15.target.connect, "1/x", [INDEX], [LATEST]))
    assert shown.text.startswith("Estimates, by HypoPG")
    assert "faster" not in shown.text
