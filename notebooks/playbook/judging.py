"""What came of a step: its comparisons, the room that it takes, what writers pay for it, and whether it stays.

An earlier run's evidence stands in the journal; it is shown again, and never measured anew in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from playbook import parts
from playbook.answers import StepVerdict
from playbook.context import Context
from playbook.evidence.compare import Case, Comparison, keep_or_drop
from playbook.evidence.measure import Measurement
from playbook.evidence.writes import WriteOverhead, write_overhead
from playbook.results import IN_PLACE
from playbook.step import State, Step
from playbook.trial import Trial

if TYPE_CHECKING:
    from playbook.request_trial import RequestTrial

WRITES_S = 1.5
"""Seconds for measuring what writers pay for one step; where the disk is noisy it takes up to three times that."""

Measured = Mapping[Case, Measurement]


def kept_measurements(step: Step, when: str) -> list[Measurement]:
    """What the journal keeps of the step's queries, `before` or `after`."""
    entry = step.entry()
    return [Measurement.from_json(each) for each in entry.evidence.get(when, [])] if entry else []


def kept_comparisons(step: Step) -> list[Comparison]:
    """The comparisons that the journal keeps of the step."""
    entry = step.entry()
    return [Comparison.from_json(each) for each in entry.evidence.get("comparisons", [])] if entry else []


def seconds_applied(step: Step) -> float | None:
    """How long applying the step took; None where it is not applied."""
    entry = step.entry()
    return entry.seconds if entry and entry.status == "applied" else None


def judge_step(
    context: Context, trial: Trial | RequestTrial, step: Step, state: State, before: Measured, after: Measured
) -> StepVerdict:
    """From what was just measured, or from the evidence that an earlier run kept. What is new is kept too."""
    entry, kept = step.entry(), kept_comparisons(step)
    if kept and entry is not None and entry.run_id != context.run_id:
        comparisons = [_measured_again(each, after) for each in kept]
        costs = {name: entry.evidence.get(name) for name in parts.COSTS}
    else:
        comparisons = trial.compare(step, before, after)
        if step.change is not None and state.status in IN_PLACE:
            comparisons = [trial.check_rows(step, each) for each in comparisons]
        costs = _costs(context, step, state)
    row = parts.step_row(step, state, seconds=seconds_applied(step), **costs)
    if entry is not None and state.status == "applied" and not kept:
        evidence = {**entry.evidence, "comparisons": [each.to_json() for each in comparisons], **costs}
        context.journal.keep_evidence(step.id, evidence)
    return StepVerdict(row, tuple(comparisons), keep_or_drop(comparisons, step.spec.keep))


def _measured_again(kept: Comparison, after: Measured) -> Comparison:
    again = after.get((kept.query, kept.bind))
    return replace(kept, now_ms=again.median_ms) if again else kept


def _costs(context: Context, step: Step, state: State) -> dict[str, Any]:
    costs: dict[str, Any] = dict.fromkeys(parts.COSTS)
    if step.change is not None and state.status in IN_PLACE:
        with context.connect() as connection:
            costs["size_bytes"] = step.change.size_bytes(connection)
    if step.change is not None and state.status == "applied":
        paid = _write_overhead(context, step)
        costs |= {"write_overhead_pct": paid and paid.pct, "write_overhead_ci95": paid and paid.ci95}
    return costs


def _write_overhead(context: Context, step: Step) -> WriteOverhead | None:
    """On the sample, or where the engineer asked for it: it writes, if only into probe tables of its own."""
    if not (context.settings.measure_writes or context.target.embedded) or step.change is None:
        return None
    if (paid := step.change.paid_by_writers()) is None:
        return None
    schema, name, objects = paid
    context.refresh()
    table = context.catalog.table(schema, name)
    if table is None:
        return None
    context.progress(f"write overhead of {step.id}")
    return write_overhead(context.connect, table, None, applied=objects, budget_s=WRITES_S)
