"""Saving the plan's statements for review, and holding a run to what was reviewed."""

from __future__ import annotations

from pathlib import Path

from playbook.context import Context
from playbook.errors import Moved
from playbook.saved import SavedPlan
from playbook.step import planned_steps


def save(context: Context, path: Path) -> SavedPlan:
    """Writes what `run --apply` would run now; steps with nothing to run are listed with the reason.

    Raises:
        UsageError: the file cannot be written.
    """
    steps, left_out = {}, {}
    for step in planned_steps(context):
        state = step.check()
        if state.status == "planned" and (reviewed := step.as_reviewed()):
            steps[step.id] = reviewed
        else:
            left_out[step.id] = f"{state.status}: {state.reason}" if state.reason else state.status
    saved = SavedPlan(context.plan.name, context.catalog.database, steps, left_out, path)
    saved.write(path)
    return saved


def verify(context: Context) -> None:
    """Holds the saved plan, where there is one, against the target as it is now.

    Raises:
        Moved: the target or the plan has changed since; the message names what moved.
    """
    if (saved := context.saved) is None:
        return
    steps = {step.id: step for step in planned_steps(context)}
    moved = {name: steps[name].moved() if name in steps else "the plan has no such step" for name in saved.steps}
    if told := [f"{name}: {reason}" for name, reason in moved.items() if reason]:
        raise Moved(
            f"the target has moved since {saved.path} was saved, so nothing of it is run: {'; '.join(told)}; review "
            f"anew: playbook plan --save {saved.path}"
        )
