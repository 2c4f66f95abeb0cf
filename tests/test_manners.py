"""The unchanged plan on its domain in two manners, its own names and Prisma's: applied once, resumed, undone, or left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from playbook import refreshing, undoing

PHASES = ("1.1", "3.1", "3.2", "4.1", "4.2")
INDEXES = [
    "1.1/idx_hypothesis_events_user_timestamp_hypothesis",
    "1.1/idx_proposal_status_customer_created",
    "1.1/idx_content_search_optimization",
    "1.1/idx_approval_execution_status_workflow_started",
    "1.1/idx_validation_issues_entity_severity_status",
    "3.2/idx_hypothesis_validation_compound",
    "3.2/idx_performance_baseline_lookup",
]
CHECKS = ["4.1/check_value_positive", "4.1/check_quantity_positive", "4.1/check_improvement_range"]
# Some rows of the sample violate each constraint, on purpose; of Prisma's only values do.
STEPS = [*INDEXES[:5], "3.1/proposal_analytics_summary", *INDEXES[5:], *CHECKS, "4.2/audit_logs_partitioned"]
SNAKE = dict.fromkeys(STEPS, "applied") | dict.fromkeys(CHECKS, "blocked")
PRISMA = {
    **dict.fromkeys(STEPS, "applied"),
    "1.1/idx_validation_issues_entity_severity_status": "covered",
    "3.2/idx_performance_baseline_lookup": "not_applicable",
    "4.1/check_value_positive": "blocked",
}
# What an engineer may decide on for the rows that violate a constraint, in the names of each target.
MENDED = {
    "SNAKE_URL": (
        "UPDATE proposals SET value = NULL WHERE NOT (value IS NULL OR value >= 0)",
        "UPDATE proposal_products SET quantity = 1 WHERE NOT (quantity > 0)",
        "UPDATE hypothesis_validation_events SET performance_improvement = NULL "
        "WHERE NOT (performance_improvement >= -100 AND performance_improvement <= 1000)",
    ),
    "PRISMA_URL": ("UPDATE proposals SET value = NULL WHERE NOT (value IS NULL OR value >= 0)",),
}
POINTS = ["before_intent", "after_intent", "during", "before_done", "after_done"]


@pytest.fixture(params=["snake", "prisma"])
def place(request):
    return request.getfixturevalue(request.param)


def expected(place):
    return SNAKE if place.variable == "SNAKE_URL" else PRISMA


def applied(place):
    return [id_ for id_, status in expected(place).items() if status == "applied"]


def walk(place, verb, phases=PHASES, **settings):
    """One verb on each phase, as new processes would do it; each step's status."""
    answers = [getattr(place.playbook(**settings).phase(phase), verb)() for phase in phases]
    return {step[0]: step[1].status for answer in answers for step in answer.steps}


def made(place):
    """OID and validity of the indexes and constraints that the plan's steps make."""
    return dict(
        place.execute("SELECT 'i ' || relname, (c.oid, indisvalid)::text FROM pg_class c JOIN pg_index ON indexrelid = oid "
        "WHERE relname LIKE 'idx\\_%%' AND relname = ANY(%s) UNION ALL SELECT 'c ' || conname, (oid, convalidated)::text "
        "FROM pg_constraint WHERE conname = ANY(%s)", *([id_.partition("/")[2] for id_ in INDEXES + CHECKS],) * 2)
    )  # fmt: skip


def test_the_plan_is_applied_once_and_undone_to_the_same_catalog(place, snapshot):
    as_found = snapshot(place.target)
    assert walk(place, "apply") == expected(place)
    first = made(place)
    assert {name[2:] for name in first} == {id_.partition("/")[2] for id_ in applied(place) if id_ in INDEXES + CHECKS}
    assert walk(place, "apply") == expected(place)
    assert made(place) == first
    assert [one.word for one in refreshing.refresh(place.context())] == ["skipped"]
    undone = undoing.undo(place.context())
    assert [(one.step, one.error) for one in undone] == [(id_, "") for id_ in reversed(applied(place))]
    assert snapshot(place.target) == as_found


def test_once_its_rows_are_mended_a_new_run_adds_and_validates_what_was_blocked(place, snapshot):
    as_found = snapshot(place.target)
    assert walk(place, "apply", ("4.1",)) == {id_: expected(place)[id_] for id_ in CHECKS}
    for update in MENDED[place.variable]:
        place.execute(update)
    assert walk(place, "apply", ("4.1",)) == dict.fromkeys(CHECKS, "applied")
    assert place.execute(
        "SELECT conname FROM pg_constraint WHERE convalidated AND conname LIKE 'check\\_%%' ORDER BY 1"
    ) == [(id_.partition("/")[2],) for id_ in sorted(CHECKS)]
    assert {one.error for one in undoing.undo(place.context())} == {""}
    assert snapshot(place.target) == as_found


def test_killed_half_way_the_plan_is_resumed_and_then_undone(prisma, snapshot):
    as_found = snapshot(prisma.target)
    assert prisma.killed("1.1/idx_proposal_status_customer_created", "before_done") == -9
    after = walk(prisma, "apply", ("1.1",))
    assert after == {id_: status for id_, status in PRISMA.items() if id_ in after}
    assert {one.error for one in undoing.undo(prisma.context())} == {""}
    assert snapshot(prisma.target) == as_found


def test_a_dry_run_of_the_plan_writes_nothing(prisma, snapshot):
    as_found = snapshot(prisma.target)
    for phase in PHASES:
        walked = prisma.playbook(apply=False).phase(phase)
        for verb in ("preview", "check", "before", "apply", "after", "verdict", "settle", "preview_undo"):
            getattr(walked, verb)()
    assert snapshot(prisma.target) == as_found
    assert prisma.execute("SELECT to_regnamespace('playbook')") == [(None,)]


def test_the_plan_goes_the_same_way_on_postgresql_15(prisma15, snapshot):
    as_found = snapshot(prisma15.target)
    assert prisma15.target.server.major == 15
    for phase in PHASES:
        before = prisma15.playbook(apply=False).phase(phase).before()
        assert not before.left_out
        assert all(each.plan for each in before.measurements)
    assert walk(prisma15, "apply") == PRISMA
    assert {one.error for one in undoing.undo(prisma15.context())} == {""}
    assert snapshot(prisma15.target) == as_found


@pytest.mark.exhaustive
def test_headless_runs_keep_summary_and_constraints_with_evidence_and_undo_leaves_no_trace(place, snapshot):
    as_found = snapshot(place.target)
    for update in MENDED[place.variable]:
        place.execute(update)
    mapped = [part for names in place.map.items() for part in ("--map", "=".join(names))]

    def command(*arguments):
        program = Path(sys.executable).with_name("playbook")
        subprocess.run([program, *arguments, "--target", f"env:{place.variable}"], check=True, capture_output=True)

    def run(name):
        folder = place.folder / name
        command("run", "--apply", "--budget", "30", "--only", "3.1", "4.1", *mapped, "--out", folder)
        found = json.loads((folder / "results.json").read_text())
        assert {step["status"] for step in found["steps"]} == {"applied"}
        assert [step["id"] for step in found["steps"]] == ["3.1/proposal_analytics_summary", *CHECKS]
        return [
            [row[k] for k in ("query", "before_ms", "after_ms", "same_rows", "verdict")] for row in found["comparisons"]
        ]

    first = run("first")
    assert len(first) == 4
    assert [row for row in first if not all(row[1:4])] == []
    rows = "SELECT ctid, xmin, (SELECT count(*) FROM playbook.refresh) FROM proposal_analytics_summary ORDER BY 1"
    kept = place.execute(rows)
    assert run("second") == first, "the evidence that was kept"
    assert place.execute(rows) == kept, "no row was refreshed, and no refresh recorded"
    command("undo")
    command("uninstall")
    assert snapshot(place.target) == as_found


@pytest.mark.exhaustive
def test_killed_at_every_statement_the_plan_is_resumed_and_undone(place, snapshot):
    as_found = snapshot(place.target)
    covered = 0
    for phase in PHASES:
        steps = place.playbook().phase(phase).preview().steps
        for id_, statements, _ in steps:
            for position in range(len(statements) if id_ in applied(place) and id_ in INDEXES + CHECKS else 0):
                for point in POINTS if phase != "4.1" else [each for each in POINTS if each != "during"]:
                    where = (id_, point, position)
                    assert place.killed(id_, point, position) == -9, where
                    after = walk(place, "apply", (phase,))
                    assert after == {step: status for step, status in expected(place).items() if step in after}, where
                    assert {one.error for one in undoing.undo(place.context())} <= {""}, where
                    assert snapshot(place.target) == as_found, where
                    covered += 1
    print(f"killed at {covered} points")
    assert covered == (7 * 5 if expected(place) is SNAKE else 5 * 5 + 2 * 2 * 4)
