"""Taking applied steps back in order, and removing the journal."""

from __future__ import annotations

from dataclasses import dataclass

from playbook.apply import undo_step
from playbook.context import Context
from playbook.errors import StepError, UsageError
from playbook.journal import APPLIED, Entry


@dataclass(frozen=True)
class Undone:
    """One step taken back, or why it was not."""

    step: str
    error: str = ""


def undo(context: Context, steps: tuple[str, ...] = ()) -> list[Undone]:
    """Takes `steps` back (all that are applied, when none is named), the last applied first.

    A step that cannot be taken back (changed by others since) is reported and the others go on.

    Raises:
        UsageError: a step of that name was never applied.
        Busy: another run holds the target.
    """
    chosen = _chosen(context, steps)
    if not chosen:
        return []
    with context.hold("run"), context.hold("apply"):
        return [_undo(context, entry) for entry in chosen]


def _chosen(context: Context, steps: tuple[str, ...]) -> list[Entry]:
    applied = [entry for entry in context.journal.entries() if entry.status in APPLIED]
    names = {entry.step for entry in applied}
    if unknown := [step for step in steps if step not in names]:
        known = ", ".join(sorted(names)) or "nothing"
        raise UsageError(f"not applied on this target: {', '.join(unknown)}; applied is {known}")
    return [entry for entry in reversed(applied) if not steps or entry.step in steps]


def _undo(context: Context, entry: Entry) -> Undone:
    context.progress(f"undo {entry.step}")
    try:
        undo_step(context, entry)
    except StepError as error:
        return Undone(entry.step, str(error))
    return Undone(entry.step)


def uninstall(context: Context, *, keep_steps: bool) -> str:
    """Removes the journal and says what was removed.

    Raises:
        UsageError: steps are still applied and `keep_steps` is false: without the journal they cannot be undone.
    """
    applied = [entry.step for entry in context.journal.entries() if entry.status in APPLIED]
    if applied and not keep_steps:
        raise UsageError(
            f"still applied: {', '.join(applied)}; run `playbook undo` first, or pass --keep-steps to keep them so"
        )
    with context.hold("run"), context.hold("apply"):
        return context.journal.store.drop()
