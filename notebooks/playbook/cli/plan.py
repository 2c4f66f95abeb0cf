"""`playbook plan`: what is to be done, reviewed before it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, MapOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def plan(
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    map_: MapOption = None,
    journal: JournalOption = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the statements to review there, for `run --saved`.")
    ] = None,
) -> None:
    """Print the priority matrix with each step's status on the target; changes nothing."""
    from playbook import reviewing
    from playbook.context import open_context
    from playbook.matrix import priority_matrix
    from playbook.tell import print_matrix

    with terminal.status() as progress:
        context = open_context(arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal), progress)
        matrix = priority_matrix(context)
        saved = reviewing.save(context, save) if save else None
    print_matrix(out, context, matrix)
    if saved:
        out.print(escape(f"saved: {terminal.near(saved.path.absolute())}, {len(saved.steps)} steps to run"))
