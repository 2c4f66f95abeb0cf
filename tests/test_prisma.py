"""The unchanged plan on a database in Prisma's manner: what becomes of each step and each query, and why."""

from __future__ import annotations

import pytest
from tests.fix_prisma import CANARY, READER

from playbook.settings import DEFAULT_PLAN

PLAN_HEAD = """\
name: proposals
title: Other steps
workload: workload.sql
phases:
  - id: "1"
    title: One
    week: 1
    priority: critical
    notebook: one
    steps:
"""
PHASES = ("1.1", "3.2", "4.1")
EXPECTED = {
    "1.1/idx_hypothesis_events_user_timestamp_hypothesis": ("planned", ""),
    "1.1/idx_proposal_status_customer_created": ("planned", ""),
    "1.1/idx_content_search_optimization": ("planned", ""),
    "1.1/idx_approval_execution_status_workflow_started": ("planned", ""),
    "1.1/idx_validation_issues_entity_severity_status": (
        "covered",
        "validation_issues_entityType_severity_status_detectedAt_ent_key serves already: CREATE UNIQUE INDEX",
    ),
    "3.2/idx_hypothesis_validation_compound": ("planned", ""),
    "3.2/idx_performance_baseline_lookup": ("not_applicable", "the target has no relation performance_baselines"),
    "4.1/check_value_positive": ("blocked", "3 rows violate it (masked, --show-values shows them): mend them"),
    "4.1/check_quantity_positive": ("planned", ""),
    "4.1/check_improvement_range": ("planned", ""),
}


def states(prisma, **settings):
    playbook = prisma.playbook(**settings)
    return {id_: state for phase in PHASES for id_, state in playbook.phase(phase).check().steps}


def test_the_unchanged_plan_finds_a_status_and_a_reason_for_each_step(prisma):
    found = states(prisma)
    assert {id_: state.status for id_, state in found.items()} == {id_: status for id_, (status, _) in EXPECTED.items()}
    for id_, (_, reason) in EXPECTED.items():
        assert found[id_].reason.startswith(reason)


@pytest.mark.parametrize(
    ("step", "suggested"),
    [
        (
            "1.1/idx_approval_execution_status_workflow_started",
            'public."ApprovalExecution"; map it: --map approval_executions=ApprovalExecution',
        ),
        (
            "4.1/check_quantity_positive",
            'public."ProposalProduct"; map it: --map proposal_products=ProposalProduct',
        ),
    ],
)
def test_a_singular_table_is_suggested_where_nobody_mapped_it(prisma, step, suggested):
    state = states(prisma, map={})[step]
    assert state.status == "not_applicable"
    assert state.reason.endswith(f"near names: {suggested}")


def test_a_dry_run_by_a_role_that_may_only_read_plans_each_step_and_query_and_says_what_apply_would_need(
    prisma, monkeypatch
):
    monkeypatch.setenv(prisma.variable, prisma.url_of(READER))
    phase = prisma.playbook(apply=False).phase("1.1")
    found = dict(phase.check().steps)
    assert {id_: state.status for id_, state in found.items()} == {
        id_: status for id_, (status, _) in EXPECTED.items() if id_ in found
    }
    assert found["1.1/idx_content_search_optimization"].reason.startswith(
        "this role cannot apply it: prisma_reader does not own public.content: GRANT prisma_owner TO prisma_reader; or "
        "connect as prisma_owner; prisma_reader may not create the journal's schema playbook: GRANT CREATE ON DATABASE "
    )
    before = phase.before()
    assert {each.query for each in before.measurements if each.plan} == {
        "user_activity_by_hypothesis", "user_latest_events",
        "proposals_of_customer_by_status", "proposal_count_of_customer_by_status", "customers_by_proposals_in_status",
        "content_picker", "content_picker_total", "content_counts_by_category",
        "approval_queue", "approval_queue_total", "approval_load_by_workflow",
    }  # fmt: skip
    assert not before.left_out
    assert {each.reason for step in phase.verdict().steps for each in step.comparisons} == {
        "planned only, nothing was executed"
    }


def test_a_role_that_may_only_read_is_blocked_where_steps_may_be_applied(prisma, monkeypatch):
    monkeypatch.setenv(prisma.variable, prisma.url_of(READER))
    state = dict(prisma.playbook().phase("1.1").check().steps)["1.1/idx_content_search_optimization"]
    assert state.status == "blocked"
    assert state.reason.startswith(
        "prisma_reader does not own public.content: GRANT prisma_owner TO prisma_reader; or connect as prisma_owner; "
    )


def test_what_another_index_covers_is_not_shown_as_to_be_run(prisma):
    preview = prisma.playbook().phase("1.1").preview()
    assert [id_ for id_, statements, undo in preview.steps if not statements and not undo] == [
        "1.1/idx_validation_issues_entity_severity_status"
    ]


def test_tables_are_told_from_those_of_the_same_name_in_another_schema(prisma):
    assert prisma.playbook().step("1.1/idx_proposal_status_customer_created").tables == ["public.proposals"]


def plan_of(prisma, steps):
    """The plan with one phase of other steps."""
    path = prisma.folder / "plan.yaml"
    path.write_text(PLAN_HEAD + steps)
    (prisma.folder / "workload.sql").write_text(DEFAULT_PLAN.with_name("workload.sql").read_text())
    prisma.plan = path
    return prisma


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "{name: one_each, kind: index, table: proposals, columns: [customer_id], unique: true}",
            'could not create unique index "one_each"',
        ),
        (
            "{name: as_number, kind: index, table: proposals, columns: [{expression: CAST(title AS integer)}]}",
            "InvalidTextRepresentation (22P02), in words that quote a row",
        ),
        (
            "{name: is_number, kind: check, table: proposals, expression: CAST(title AS integer) > 0}",
            "InvalidTextRepresentation (22P02), in words that quote a row",
        ),
        (
            "{name: to_user, kind: foreign_key, table: proposals, columns: [title], references: {table: users, columns: [id]}}",
            "600 rows violate it",
        ),
    ],
)
def test_an_error_of_the_server_is_told_without_what_it_quotes_of_the_rows(prisma, step, said):
    applied = plan_of(prisma, f"      - {step}\n").playbook().phase("1").apply()
    ((_, state, _),) = applied.steps
    assert state.status in {"failed", "blocked"}
    assert said in state.reason
    assert CANARY not in state.reason.lower()
    if state.status == "failed":
        shown = prisma.playbook(show_values=True).phase("1").apply()
        assert CANARY in shown.steps[0][1].reason.lower()


def test_an_index_over_a_column_of_several_values_says_which_questions_it_serves(prisma):
    state = states(prisma)["1.1/idx_content_search_optimization"]
    assert state.status == "planned"
    (said,) = [note for note in state.notes if note.startswith("beware: category is text[]")]
    assert "it serves `category = …`, not `… = ANY(category)` or @>" in said
