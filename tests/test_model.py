"""The plan file: every step of the plan is in it, and a mistake is named with its file, line and field."""

from __future__ import annotations

import re

import pytest

from playbook.changes import carried_out, kinds
from playbook.errors import PlanError, UsageError
from playbook.plan.model import load
from playbook.settings import DEFAULT_PLAN

SPECS = {name: kind.Spec for name, kind in kinds().items()}

MINIMAL = """\
name: shop
title: A shop
workload: workload.sql
phases:
  - id: "1"
    title: Indexes
    week: 1
    priority: critical
    notebook: indexes
    steps:
      - name: orders_created
        kind: index
        table: orders
        columns: [created_at DESC]
"""


@pytest.fixture(scope="module")
def plan():
    return load(DEFAULT_PLAN, SPECS)


def refused(tmp_path, text):
    """The message without the folder, as `plan.yaml:LINE: FIELD: …`."""
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError) as caught:
        load(path, SPECS)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_the_plan_holds_every_phase_step_and_kind(plan):
    assert {phase.id: [(step.kind, step.name) for step in phase.steps] for phase in plan.phases} == {
        "1.1": [
            ("index", "idx_hypothesis_events_user_timestamp_hypothesis"),
            ("index", "idx_proposal_status_customer_created"),
            ("index", "idx_content_search_optimization"),
            ("index", "idx_approval_execution_status_workflow_started"),
            ("index", "idx_validation_issues_entity_severity_status"),
        ],
        "1.2": [("eager_load", "proposals_with_customer_products_sections")],
        "2.1": [("pool", "one_engine_per_process")],
        "2.2": [("cache", "cached_proposals")],
        "3.1": [("materialized_view", "proposal_analytics_summary")],
        "3.2": [("index", "idx_hypothesis_validation_compound"), ("index", "idx_performance_baseline_lookup")],
        "4.1": [
            ("check", "check_value_positive"),
            ("check", "check_quantity_positive"),
            ("check", "check_improvement_range"),
        ],
        "4.2": [("partition", "audit_logs_partitioned")],
    }


def test_the_priority_matrix_has_its_twelve_items_three_of_each_priority(plan):
    priorities = [item.priority for item in plan.priorities]
    assert priorities == ["critical"] * 3 + ["high"] * 3 + ["medium"] * 3 + ["nice_to_have"] * 3


def test_targets_and_expected_improvements_are_the_plans(plan):
    assert {t.name: (t.bound, t.limit) for t in plan.targets} == {
        "api_p95_ms": ("below", 200),
        "database_average_query_ms": ("below", 50),
        "cache_hit_rate_pct": ("above", 80),
        "pool_peak_utilization_pct": ("below", 70),
    }
    assert {e.name: (e.low, e.high) for e in plan.expected} == {
        "api_response_reduction_pct": (20, 40),
        "dashboard_load_reduction_pct": (50, 70),
        "database_load_reduction_pct": (60, 80),
        "n_plus_one_eliminated_pct": (90, 100),
    }


def test_index_steps_keep_sort_orders_and_the_partial_predicate(plan):
    step = next(step for _, step in plan.steps() if step.name == "idx_hypothesis_validation_compound")
    assert [(key.column, key.descending) for key in step.columns] == [
        ("hypothesis", False),
        ("user_id", False),
        ("timestamp", True),
        ("target_value", False),
        ("actual_value", False),
    ]
    assert step.where == "actual_value IS NOT NULL"


def test_every_step_that_is_kept_for_its_speed_claims_queries_of_the_workload(plan):
    named = set(re.findall(r"(?m)^-- name: (\S+)", plan.workload_path.read_text()))
    for _, step in plan.steps():
        kind = kinds()[step.kind]
        if carried_out(kind) and not kind.of_service:  # an application's requests are measured, not single queries
            assert step.claims or step.keep == "always", step.name
            assert set(step.claims) <= named
    assert len(plan.controls) >= 3
    assert set(plan.controls) <= named


def test_a_minimal_plan_loads(tmp_path):
    (tmp_path / "plan.yaml").write_text(MINIMAL)
    plan = load(tmp_path / "plan.yaml", SPECS)
    assert plan.phase("1").step_id(plan.phases[0].steps[0]) == "1/orders_created"
    assert plan.workload_path == tmp_path / "workload.sql"


def test_a_phase_that_is_not_there_is_named_with_those_that_are(plan):
    with pytest.raises(UsageError, match=r"has no phase 9\.9; it has 1\.1, 1\.2, 2\.1"):
        plan.phase("9.9")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    week: 1", "    week: one"), "plan.yaml:7: phases[0].week: Input should be a valid integer"),
        (("    week: 1", "    weak: 1"), "plan.yaml:7: phases[0].weak: there is no such field here"),
        (("    title: Indexes\n", ""), "plan.yaml:5: phases[0].title: this field is missing"),
        (("kind: index", "kind: indx"), "plan.yaml:12: phases[0].steps[0].kind: 'indx' is no kind of step; use one of"),
        (("table: orders", "tabel: orders"), "plan.yaml:13: phases[0].steps[0].tabel: there is no such field here"),
        (("[created_at DESC]", "[created_at DOWN]"), "plan.yaml:14: phases[0].steps[0].columns[0]: Value error, write"),
        (("[created_at DESC]", "[]"), "plan.yaml:14: phases[0].steps[0].columns: "),
        (("critical", "urgent"), "plan.yaml:8: phases[0].priority: Input should be 'critical', 'high'"),
        (
            ("name: orders_created", f"name: {'x' * 64}"),
            "plan.yaml:11: phases[0].steps[0].name: Value error, PostgreSQL",
        ),
        (("title: A shop", "title: [A"), "plan.yaml:3: not valid YAML"),
        (('id: "1"', "id: 1"), "plan.yaml:5: phases[0].id: Input should be a valid string"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path, change, said):
    assert refused(tmp_path, MINIMAL.replace(*change)).startswith(said)


def test_a_step_that_stands_twice_is_named(tmp_path):
    step = MINIMAL[MINIMAL.index("      - name") :]
    assert refused(tmp_path, MINIMAL + step).startswith(
        "plan.yaml:15: phases[0].steps[1].name: the step orders_created"
    )


def test_a_priority_of_an_unknown_phase_is_named(tmp_path):
    wrong = 'priorities:\n  - {priority: high, week: 2, item: Something, phases: ["7"]}\n'
    assert refused(tmp_path, MINIMAL + wrong) == "plan.yaml:16: priorities[0].phases: there is no phase 7"


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"missing.yaml: cannot be read: No such file"):
        load(tmp_path / "missing.yaml", SPECS)


@pytest.mark.parametrize("text", ["", "- a list", "just words", "\x00"])
def test_a_file_that_is_no_plan_is_refused(tmp_path, text):
    assert refused(tmp_path, text).startswith("plan.yaml")
