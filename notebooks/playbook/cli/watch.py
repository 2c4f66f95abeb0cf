"""`playbook watch`: steps judged by real traffic."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import EveryOption, JournalOption, MapOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import err, out


def watch(
    steps: Annotated[list[str], typer.Argument(metavar="STEP...", help="Steps of the plan.")],
    for_: Annotated[str, typer.Option("--for", help="So long before, and so long after: 10m, 8h, 7d.")] = "7d",
    every: EveryOption = "30s",
    target: TargetOption = None,
    plan: PlanOption = None,
    apply: Annotated[
        bool | None, typer.Option("--apply/--dry-run", help="Apply the steps once enough was watched before.")
    ] = None,
    scale: ScaleOption = None,
    map_: MapOption = None,
    journal: JournalOption = None,
) -> None:
    """Judge steps by the target's real traffic, before they are applied and after; no query is replayed."""
    from playbook.context import open_context
    from playbook.monitor.watching import Watching
    from playbook.plan import schedule
    from playbook.tell import print_traffic

    span, interval = schedule.every(for_), schedule.every(every)
    settings = arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal, apply=apply)
    with terminal.status() as progress:
        context = open_context(settings, progress)
        watched = Watching(context, tuple(steps), span, interval)
    err.print(escape(watched.told()))
    with terminal.status() as progress, terminal.ctrl_c_ends() as stop:
        for stage in watched.run(stop):
            progress(str(stage))
            for line in stage.said:
                err.print(escape(line))
    print_traffic(out, watched.verdicts())
