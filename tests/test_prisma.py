"""The unchanged plan on a database in Prisma's manner: what becomes of each step and each query, and why."""

from __future__ import annotations

import pytest

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
        ("1.1/idx_approval_execution_status_workflow_started", 'public."ApprovalExecution"'),
        ("4.1/check_quantity_positive", 'public."ProposalProduct"'),
    ],
)
def test_a_singular_table_is_suggested_where_nobody_mapped_it(prisma, step, suggested):
    state = states(prisma, map={})[step]
    assert state.status == "not_applicable"
    assert f"near names: {suggested}" in state.reason
