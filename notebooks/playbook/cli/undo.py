"""`playbook undo`: steps taken back."""

from __future__ import annotations

from typing import Annotated

import typer

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def undo(
    steps: Annotated[list[str] | None, typer.Argument(metavar="[STEP]...", help="Steps; default: all.")] = None,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
) -> None:
    """Take applied steps back from the journal, the last one first."""
    from playbook import undoing
    from playbook.context import open_context
    from playbook.tell import print_undone

    with terminal.status() as progress:
        context = open_context(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        undone = undoing.undo(context, tuple(steps or ()))
    print_undone(out, context, undone)
    raise typer.Exit(1 if any(one.error for one in undone) else 0)
