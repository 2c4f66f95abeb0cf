"""The priority matrix: the plan's items with what became of the steps that carry them out."""

from __future__ import annotations

from dataclasses import dataclass

from playbook.context import Context
from playbook.plan.model import PriorityItem
from playbook.settings import NOTEBOOKS
from playbook.step import State, Step, planned_steps


@dataclass(frozen=True)
class MatrixItem:
    """One item with its steps' states on the target. `notebooks` are those there are of the ones it names."""

    item: PriorityItem
    steps: tuple[tuple[Step, State], ...]
    notebooks: tuple[str, ...]

    @property
    def summary(self) -> str:
        """`3 applied, 2 planned`, or what stands in place of steps."""
        if not self.steps:
            missing = [name for name in self.item.notebooks if name not in self.notebooks]
            return f"not in this version: {', '.join(missing)}" if missing else ", ".join(self.notebooks)
        statuses = [state.status for _, state in self.steps]
        return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def priority_matrix(context: Context) -> list[MatrixItem]:
    """Every item of the plan, in the plan's order; each step is checked once."""
    states: dict[str, list[tuple[Step, State]]] = {}
    for step in planned_steps(context):
        states.setdefault(step.phase.id, []).append((step, step.check()))
    return [
        MatrixItem(
            item,
            tuple(pair for phase in item.phases for pair in states.get(phase, [])),
            tuple(name for name in item.notebooks if (NOTEBOOKS / f"{name}.ipynb").exists()),
        )
        for item in context.plan.priorities
    ]
