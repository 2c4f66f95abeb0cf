"""`playbook finish`: partitionings brought to their end."""

from __future__ import annotations

from typing import Annotated

import typer

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, MapOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def finish(
    steps: Annotated[list[str] | None, typer.Argument(help="Step ids; all with something to do when none.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Run what is shown.")] = False,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    map_: MapOption = None,
    journal: JournalOption = None,
) -> None:
    """Split the history of an attached table into periods, where undo stays possible; the next time, and after a
    partitioning by copy, give up what is kept for the undo."""
    from playbook import finishing
    from playbook.context import open_context
    from playbook.tell import print_finished

    with terminal.status() as progress:
        context = open_context(arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal), progress)
        finished = finishing.finish(context, tuple(steps or ()), apply=apply)
    print_finished(out, context, finished, apply=apply)
    raise typer.Exit(1 if any(one.error for one in finished) else 0)
