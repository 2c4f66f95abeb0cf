"""`playbook refresh`: summaries kept fresh."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, MapOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def refresh(
    steps: Annotated[list[str] | None, typer.Argument(metavar="[STEP]...", help="Steps; default: all.")] = None,
    every: Annotated[str | None, typer.Option("--every", help="Again and again: 15m, 6h, 1d. Default: once.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Although nothing has changed since the last one.")] = False,
    show: Annotated[bool, typer.Option("--list", help="Only show what is kept, its job and its refreshes.")] = False,
    timers: Annotated[bool, typer.Option("--timers", help="Only print lines for crontab and systemd.")] = False,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    map_: MapOption = None,
    journal: JournalOption = None,
) -> None:
    """Refresh the summaries that stand, where their tables have changed."""
    from playbook import refreshing
    from playbook.context import open_context
    from playbook.plan import schedule
    from playbook.tell import print_kept, print_refreshed

    settings = arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal)
    chosen, interval = tuple(steps or ()), schedule.every(every) if every else None
    with terminal.status() as progress:
        context = open_context(settings, progress)
        if show or timers:
            there = refreshing.kept(context, chosen)
        elif not interval:
            outcomes = refreshing.refresh(context, chosen, force=force)
    if show:
        print_kept(out, context, there)
    elif timers:
        options = refreshing.options(settings)
        out.print(escape(refreshing.timers(there, interval, options)))
    elif interval:
        for outcomes in refreshing.repeat(lambda: open_context(settings), chosen, interval, terminal.stopped()):
            print_refreshed(out, outcomes)
    else:
        print_refreshed(out, outcomes)
        raise typer.Exit(1 if any(one.word == "failed" for one in outcomes) else 0)
