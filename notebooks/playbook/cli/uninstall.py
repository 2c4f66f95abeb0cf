"""`playbook uninstall`: the journal removed."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def uninstall(
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
    keep_steps: Annotated[
        bool, typer.Option("--keep-steps", help="Forget the journal although steps are still applied.")
    ] = False,
) -> None:
    """Remove the journal; refused while steps are applied, since their undo would be lost."""
    from playbook import undoing
    from playbook.context import open_context

    with terminal.status() as progress:
        context = open_context(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        place = undoing.uninstall(context, keep_steps=keep_steps)
    out.print(escape(f"removed: {place}"))
