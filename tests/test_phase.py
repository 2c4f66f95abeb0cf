"""The verbs on a phase: what is measured, what is judged, what is kept, and what a later run makes of it."""

from __future__ import annotations

import json

import pytest

from playbook import judging
from playbook.errors import RunError
from playbook.evidence.compare import Decision

STEP = "1/orders_customer_created"
NO_OP = """\
      - name: orders_noop
        kind: index
        table: orders
        columns: [total]
        claims: [latest_orders]
"""


def walk(phase):
    """Everything a notebook does, in its order."""
    phase.check()
    phase.before()
    phase.apply()
    phase.after()
    return phase.verdict()


def of(verdicts, step):
    return next(found for found in verdicts.steps if found.row["id"] == step)


def test_an_index_that_serves_its_query_changes_the_plan_and_not_the_rows(shop):
    found = of(walk(shop.playbook().phase("1")), STEP)
    assert {comparison.query for comparison in found.comparisons} == {"latest_orders"}
    for comparison in found.comparisons:
        assert "Seq Scan" in comparison.before_nodes
        assert "orders_customer_created" in comparison.after_indexes
        assert comparison.after_buffers < comparison.before_buffers
        assert comparison.speedup > 1.5
        assert comparison.ci95[0] < comparison.speedup < comparison.ci95[1]
        assert comparison.same_rows is True
        assert comparison.verdict in {"faster", "unstable", "unproven"}
    assert found.decision.keep
    assert found.row["size_bytes"] > 0


def test_a_no_op_index_is_never_called_faster(shop):
    text = shop.plan.read_text()
    start, end = text.index("      - name: orders_customer_created"), text.index("priorities:")
    shop.plan.write_text(text[:start] + NO_OP + text[end:])
    found = of(walk(shop.playbook().phase("1")), "1/orders_noop")
    assert found.row["status"] == "applied"
    for comparison in found.comparisons:
        assert comparison.same_plan
        assert comparison.verdict != "faster"


def test_what_writers_pay_is_not_measured_on_a_foreign_target_unless_asked_for(shop):
    assert of(walk(shop.playbook().step(STEP)), STEP).row["write_overhead_pct"] is None
    shop.playbook().step(STEP).undo()
    asked = of(walk(shop.playbook(measure_writes=True).step(STEP)), STEP)
    assert asked.row["write_overhead_pct"] is not None
    assert shop.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'write_probe%'") == [(0,)]


def test_a_step_that_gained_nothing_is_taken_back_and_never_built_again(shop, monkeypatch):
    monkeypatch.setattr(judging, "keep_or_drop", lambda comparisons, keep: Decision(False, "dropped: 2 no gain"))
    phase = shop.playbook().phase("1")
    walk(phase)
    settled = phase.settle()
    assert [step for step, _ in settled.dropped] == [STEP, "1/orders_open"]
    assert shop.execute("SELECT to_regclass('orders_open')") == [(None,)]
    again = shop.playbook().phase("1")
    assert {state.status for _, state in again.check().steps} == {"dropped"}
    assert {state.reason for _, state in again.check().steps} == {"dropped: 2 no gain"}
    again.apply()
    assert shop.execute("SELECT to_regclass('orders_open')") == [(None,)]


def test_a_later_run_shows_the_evidence_kept_beside_what_it_measures_now(shop):
    first = walk(shop.playbook(run_id="first").phase("1"))
    later = walk(shop.playbook(run_id="later").phase("1"))
    for before, after in zip(of(first, STEP).comparisons, of(later, STEP).comparisons, strict=True):
        assert (after.before_ms, after.after_ms, after.verdict) == (before.before_ms, before.after_ms, before.verdict)
        assert before.now_ms is None
        assert after.now_ms > 0


def test_a_run_killed_between_apply_and_after_is_compared_by_the_next(shop):
    phase = shop.playbook(run_id="first").phase("1")
    phase.check()
    measured = phase.before()
    phase.apply()
    resumed = of(walk(shop.playbook(run_id="second").phase("1")), STEP)
    kept = {(each.query, each.bind): each.median_ms for each in measured.measurements}
    assert [each.before_ms for each in resumed.comparisons] == [
        kept[each.query, each.bind] for each in resumed.comparisons
    ]
    assert all(each.after_ms is not None for each in resumed.comparisons)


def test_a_query_that_must_not_be_executed_is_left_out_with_the_reason(shop):
    workload = shop.folder / "workload.sql"
    workload.write_text(workload.read_text().replace("SELECT id, created_at FROM", "SELECT id, random() FROM"))
    found = of(walk(shop.playbook().phase("1")), "1/orders_open")
    assert [comparison.verdict for comparison in found.comparisons] == ["not measured"]
    assert "random" in found.comparisons[0].reason


def test_each_verb_leaves_a_part_of_the_results(shop):
    phase = shop.playbook().phase("1")
    phase.check()
    path = shop.folder / "out" / "parts" / "indexes.json"
    assert [step["status"] for step in json.loads(path.read_text())["steps"]] == ["planned", "planned"]
    phase.apply()
    assert [step["status"] for step in json.loads(path.read_text())["steps"]] == ["applied", "applied"]


def test_a_failed_step_fails_the_run_at_its_end(shop):
    shop.plan.write_text(
        shop.plan.read_text().replace("columns: [created_at]", "columns: [status]\n        unique: true")
    )
    phase = shop.playbook().phase("1")
    walk(phase)
    with pytest.raises(RunError, match=r"failed: 1/orders_open"):
        phase.finish()
