"""What a run measured of its queries as they stand at its end, with every round: held later against another run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from playbook.evidence.compare import Case
from playbook.evidence.measure import Measurement
from playbook.step import Step

Measured = Mapping[Case, Measurement]


class Trial(Protocol):
    """What is tried for the steps of one phase: queries, or requests."""

    def claimed(self, step: Step) -> list[Case]:
        """What the step claims to speed up."""

    def beside(self, found: Measured) -> list[Measurement]:
        """What ran in the same rounds and no step can affect: it tells the machine's pace."""

    def shape(self, found: Measurement, when: str) -> Shape:
        """How it is carried out, exactly: `when` is `before` or `after`."""


Shape = tuple[tuple[str, ...], str | None, tuple[str, ...]]
"""The nodes of a plan (or the number of statements of a request), the plan's hash, and the indexes it reads."""


def rows_of(
    trial: Trial, phase: str, steps: Iterable[tuple[Step, bool]], before: Measured, after: Measured
) -> list[dict[str, Any]]:
    """Rows for results.json: the claims of each step as they were measured last, and the controls of those rounds.

    `steps` says of each whether it stands: then its queries are those measured after it, else those before. What an
    earlier run measured has no place here.
    """
    rows: dict[tuple[str, Case], dict[str, Any]] = {}
    for step, stands in steps:
        when, found = ("after", after) if stands else ("before", before)
        for case in trial.claimed(step):
            if case in found:
                rows[when, case] = _row(trial, phase, when, found[case], step.id)
    for when, found in (("before", before), ("after", after)):
        if any(key == when for key, _ in rows):
            controls = [_row(trial, phase, when, each, "") for each in trial.beside(found)]
            rows |= {(f"control {when}", (row["query"], row["bind"])): row for row in controls}
    return list(rows.values())


def _row(trial: Trial, phase: str, when: str, found: Measurement, step: str) -> dict[str, Any]:
    nodes, plan_hash, indexes = trial.shape(found, when)
    return {
        "phase": phase,
        "when": when,
        "step": step,
        "query": found.query,
        "bind": found.bind,
        "control": not step,
        "rounds_ms": [[round(ms, 4) for ms in block] for block in found.blocks],
        "buffers": found.buffers,
        "nodes": list(nodes),
        "plan_hash": plan_hash,
        "indexes": list(indexes),
        "error": found.error,
    }
