"""The plan's targets: met, missed or not measured, each with its reason."""

from __future__ import annotations

import math

import pytest

from playbook.changes import kinds
from playbook.monitor import targets
from playbook.plan.model import load
from playbook.settings import DEFAULT_PLAN

PLAN = load(DEFAULT_PLAN, {name: kind.Spec for name, kind in kinds().items()})
MET = {
    "api_p95_ms": 199.9,
    "database_average_query_ms": 3.0,
    "cache_hit_rate_pct": 80.1,
    "pool_peak_utilization_pct": 69.0,
}


def judged(metrics, reasons=None):
    return {each.name: each for each in targets.judge(PLAN.targets, metrics, reasons)}


def test_the_plans_four_targets_are_judged_in_its_order():
    assert [(name, each.wanted) for name, each in judged(MET).items()] == [
        ("api_p95_ms", "below 200 ms"),
        ("database_average_query_ms", "below 50 ms"),
        ("cache_hit_rate_pct", "above 80 %"),
        ("pool_peak_utilization_pct", "below 70 %"),
    ]
    assert {each.met for each in judged(MET).values()} == {True}


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("api_p95_ms", 200.0, False),
        ("api_p95_ms", 231.0, False),
        ("cache_hit_rate_pct", 80.0, False),
        ("cache_hit_rate_pct", 92.0, True),
        ("pool_peak_utilization_pct", 0.0, True),
    ],
)
def test_a_figure_at_its_limit_has_not_met_it(name, value, met):
    assert judged(MET | {name: value})[name].met is met


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_was_not_measured_is_neither_met_nor_missed_and_says_why(value):
    found = judged({"cache_hit_rate_pct": value})["cache_hit_rate_pct"]
    assert (found.met, found.value, found.reason) == (None, None, targets.NOBODY)
    said = judged({}, {"cache_hit_rate_pct": "no cache is before this service"})["cache_hit_rate_pct"]
    assert (said.met, said.reason) == (None, "no cache is before this service")


def test_the_optimized_services_load_stands_in_for_the_response_time_and_says_so():
    found = judged({"api_p95_ms_optimized": 12.0})["api_p95_ms"]
    assert (found.value, found.met) == (12.0, True)
    assert "techniques that are applied" in found.reason


def test_a_notebooks_judgement_stands_and_the_runs_metrics_fill_what_it_left_open():
    rows = [
        {"name": "api_p95_ms", "limit": 200, "value": 231.4, "met": False, "reason": "25 requests a second"},
        {"name": "cache_hit_rate_pct", "limit": 80, "value": None, "met": None, "reason": "no cache there"},
    ]
    found = targets.complete(PLAN.targets, rows, {"api_p95_ms": 10.0, "pool_peak_utilization_pct": 20.0})
    assert [(row["name"], row["value"], row["met"]) for row in found] == [
        ("api_p95_ms", 231.4, False),
        ("database_average_query_ms", None, None),
        ("cache_hit_rate_pct", None, None),
        ("pool_peak_utilization_pct", 20.0, True),
    ]
    assert [row["reason"] for row in found] == ["25 requests a second", targets.NOBODY, "no cache there", ""]
