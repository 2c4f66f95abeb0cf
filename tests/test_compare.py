"""Comparisons: the figures of results.json, what a plan that stayed the same means, and whether a step stays."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from playbook.evidence.compare import RESULT_FIELDS, Comparison, compare, keep_or_drop, steadiest
from playbook.evidence.explain import Node, Plan
from playbook.evidence.measure import Measurement
from playbook.evidence.rows import SameRows
from playbook.evidence.statistics import Drift

SEQ = Plan(Node("Seq Scan", relation="orders", conditions=(("Filter", "(status = ?)"),)))
INDEX = Plan(Node("Index Scan", relation="orders", index="orders_status", conditions=(("Index Cond", "(status = ?)"),)))


def measured(query="orders_open", level=10.0, *, bind="common", plan=SEQ, buffers=100, seed=0, count=20, error=""):
    random = np.random.default_rng(seed + round(level * 1000))
    blocks = tuple(tuple(level * np.exp(random.standard_normal(count) * 0.02)) for _ in range(2))
    return Measurement(query, bind, blocks, rows=5, plan=plan, buffers=buffers, error=error)


CONTROLS_BEFORE = [measured(f"control_{n}", n) for n in (1, 2, 3)]
CONTROLS_AFTER = [measured(f"control_{n}", n, seed=50) for n in (1, 2, 3)]
CONTROLS = {"control_1", "control_2", "control_3"}


def one(before, after, **options):
    arguments = {"controls": CONTROLS, "step_of": {"orders_open": "1.1/orders_status"}} | options
    (comparison,) = compare([before, *CONTROLS_BEFORE], [*CONTROLS_AFTER, after], **arguments)
    return comparison


def test_a_gain_is_told_with_all_its_figures():
    found = one(measured(), measured(level=2, plan=INDEX, buffers=4))
    assert (found.step, found.query, found.bind, found.rounds) == ("1.1/orders_status", "orders_open", "common", 40)
    assert found.before_ms == pytest.approx(10, rel=0.02)
    assert found.after_ms == pytest.approx(2, rel=0.02)
    assert found.speedup == pytest.approx(found.before_ms / found.after_ms, rel=1e-3)
    assert found.ci95[0] < found.speedup < found.ci95[1]
    assert (found.before_buffers, found.after_buffers) == (100, 4)
    assert (found.before_nodes, found.after_nodes) == (("Seq Scan",), ("Index Scan",))
    assert (found.before_indexes, found.after_indexes) == ((), ("orders_status",))
    assert found.before_hash != found.after_hash
    assert "Index Scan using orders_status on orders" in found.after_plan
    assert found.verdict == "faster"
    assert "5.0" in found.reason or "4.9" in found.reason


def test_the_fields_of_results_json_are_there_in_their_order():
    assert tuple(field.name for field in dataclasses.fields(Comparison))[: len(RESULT_FIELDS)] == RESULT_FIELDS


def test_a_comparison_survives_json():
    for found in (one(measured(), measured(level=2, plan=INDEX)), one(measured(), measured(error="timeout"))):
        assert Comparison.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_controls_are_not_compared_themselves():
    found = compare([measured(), *CONTROLS_BEFORE], [measured(level=2), *CONTROLS_AFTER], controls=CONTROLS)
    assert [each.query for each in found] == ["orders_open"]


def test_a_step_that_works_through_the_plan_is_not_the_cause_while_the_plan_stays_the_same():
    before, after = measured(), measured(level=5)
    assert one(before, after, by_plan=False).verdict == "faster"
    found = one(before, after)
    assert (found.verdict, found.same_plan) == ("unproven", True)
    assert "the plan is the same" in found.reason
    assert found.speedup == pytest.approx(2, rel=0.05)


def test_a_filter_that_the_planner_could_drop_is_another_plan():
    without_filter = Plan(Node("Seq Scan", relation="orders"))
    found = one(measured(), measured(level=5, plan=without_filter))
    assert (found.before_hash == found.after_hash, found.same_plan, found.verdict) == (True, False, "faster")


def test_a_query_may_get_slower_though_its_plan_stays_the_same():
    assert one(measured(), measured(level=20)).verdict == "slower"


@pytest.mark.parametrize("side", ["before", "after"])
def test_an_error_on_either_side_is_the_reason_for_not_measured(side):
    sides = {"before": measured(), "after": measured(level=2)}
    sides[side] = measured(error="longer than the timeout of 30 s")
    found = one(**sides)
    assert (found.verdict, found.speedup, found.ci95) == ("not measured", None, None)
    assert found.reason == f"{side}: longer than the timeout of 30 s"
    assert getattr(found, f"{side}_ms") is None


def test_figures_that_were_not_measured_are_none_and_never_0():
    planned = Measurement("orders_open", "common", plan=SEQ)
    found = one(planned, dataclasses.replace(planned, plan=INDEX))
    assert (found.before_ms, found.after_ms, found.speedup, found.ci95) == (None, None, None, None)
    assert (found.before_buffers, found.after_buffers, found.same_rows) == (None, None, None)
    assert (found.verdict, found.reason) == ("not measured", "planned only, nothing was executed")
    assert found.after_nodes == ("Index Scan",)


def test_a_query_that_was_not_measured_again_is_said():
    (found,) = compare([measured(), *CONTROLS_BEFORE], CONTROLS_AFTER, controls=CONTROLS)
    assert (found.verdict, found.reason) == ("not measured", "after: it was not measured again")


def test_common_and_rare_values_are_kept_apart():
    found = compare(
        [measured(), measured(bind="rare"), *CONTROLS_BEFORE],
        [measured(bind="rare", level=2, plan=INDEX), measured(level=10, seed=9), *CONTROLS_AFTER],
        controls=CONTROLS,
    )
    assert [(each.bind, each.verdict) for each in found] == [("common", "no gain"), ("rare", "faster")]


def test_a_control_that_moved_makes_everything_unstable():
    after = [*CONTROLS_AFTER[:2], measured("control_3", 4)]
    found = compare([measured(), *CONTROLS_BEFORE], [measured(level=2, plan=INDEX), *after], controls=CONTROLS)
    assert [each.verdict for each in found] == ["unstable"]


def test_a_control_that_failed_is_none():
    broken = [measured(name, error="gone") for name in sorted(CONTROLS)]
    found = compare([measured(), *CONTROLS_BEFORE], [measured(level=2, plan=INDEX), *broken], controls=CONTROLS)
    assert [each.verdict for each in found] == ["unproven"]
    assert "no control" in found[0].reason


def test_rows_are_carried_along():
    case = ("orders_open", "common")
    found = one(measured(), measured(level=2), rows={case: SameRows(None, "LIMIT without ORDER BY")})
    assert (found.same_rows, found.same_rows_reason) == (None, "LIMIT without ORDER BY")
    assert found.with_rows(SameRows(False, "2 rows differ")).same_rows is False


def judged(verdict, *, query="q", same_rows=True):
    empty = one(measured(query), Measurement(query, "common"))
    return dataclasses.replace(empty, verdict=verdict, same_rows=same_rows)


@pytest.mark.parametrize(
    ("verdicts", "kept"),
    [
        (["no gain"], False),
        (["no gain", "no gain"], False),
        (["no gain", "faster"], True),
        (["no gain", "unproven"], True),
        (["no gain", "not measured"], True),
        (["no gain", "unstable"], True),
        (["unproven"], True),
        (["not measured"], True),
        (["unstable"], True),
        (["slower"], True),
        ([], True),
    ],
)
def test_only_no_gain_on_every_claimed_query_drops_a_step(verdicts, kept):
    comparisons = [judged(verdict) for verdict in verdicts]
    assert keep_or_drop(comparisons, "if_faster").keep is kept
    assert keep_or_drop(comparisons, "always").keep is True


def test_the_decision_says_what_it_rests_on():
    assert keep_or_drop([judged("faster"), judged("unproven")], "if_faster").reason == "kept: 1 faster, 1 unproven"
    assert keep_or_drop([judged("no gain")], "if_faster").reason == "dropped: 1 no gain"
    assert "undo is advised, it made slower: q (common)" in keep_or_drop([judged("slower")], "if_faster").reason
    assert keep_or_drop([], "if_faster").reason == "kept: no query measures it"


@pytest.mark.parametrize("keep", ["if_faster", "always"])
def test_rows_that_differ_fail_the_step_however_fast_it_is(keep):
    decision = keep_or_drop([judged("faster"), judged("faster", query="other", same_rows=False)], keep)
    assert (decision.keep, decision.failed, decision.reason) == (False, True, "rows differ: other (common)")
    undecided = keep_or_drop([judged("faster", same_rows=None)], keep)
    assert (undecided.keep, undecided.failed) == (True, False)


@pytest.mark.parametrize(
    ("ratios", "kept", "measured"),
    [
        ([1.02, 1.0, 1.0], 0, 1),  # near enough: nothing is measured again
        ([0.83, 1.01], 1, 2),
        ([1.1, 0.7], 0, 2),  # the nearest is kept
    ],
)
def test_the_phase_after_is_measured_again_while_the_machine_hides_gains(ratios, kept, measured):
    done = []

    def measure_after():
        done.append(len(done))
        return done[-1]

    def drift_to(after):
        return Drift(5, ratios[after], (1.0, 1.0), moved=ratios[after] > 1.25, reason="")

    assert steadiest(measure_after, drift_to) == kept
    assert len(done) == measured


def test_a_query_is_judged_beside_the_controls_that_take_most_nearly_as_long():
    """Short queries were slowed down by a third, long ones not at all."""
    short = [(f"short_{n}", 0.1 * (1 + n / 10), 0.15 * (1 + n / 10)) for n in range(5)]
    long = [(f"long_{n}", 10.0 + n, 10.0 + n) for n in range(5)]
    steps = [("short_query", 0.12, 0.18), ("long_query", 12.0, 6.0)]

    def phase(side):
        random = np.random.default_rng(side)
        return [
            Measurement(
                each[0],
                "common",
                tuple(tuple(each[side] * np.exp(random.standard_normal(20) * 0.02)) for _ in range(2)),
                rows=1,
                buffers=9,
            )
            for each in [*short, *long, *steps]
        ]

    found = compare(phase(1), phase(2), controls={name for name, *_ in [*short, *long]}, by_plan=False)
    assert [(each.query, each.verdict) for each in found] == [("short_query", "unstable"), ("long_query", "faster")]
