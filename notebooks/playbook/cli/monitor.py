"""`playbook monitor`: the target sampled over time."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import EveryOption, JournalOption, MetricsOption, PlanOption, ScaleOption, TargetOption
from playbook.errors import EXIT_GATE, EXIT_OK
from playbook.terminal import err, out


def monitor(
    every: EveryOption = "30s",
    for_: Annotated[str | None, typer.Option("--for", help="Stop after: 10m, 8h, 7d. Default: on Ctrl-C.")] = None,
    keep: Annotated[str, typer.Option("--keep", help="Forget samples that are older.")] = "30d",
    metrics_url: MetricsOption = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 3 where a target was missed.")] = False,
    target: TargetOption = None,
    plan: PlanOption = None,
    apply: Annotated[
        bool | None, typer.Option("--apply/--dry-run", help="Keep the history with the journal, on the target.")
    ] = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
) -> None:
    """Sample the target again and again, keep what was seen, and judge the plan's targets at the end."""
    from playbook.context import open_context
    from playbook.monitor.monitoring import Monitoring
    from playbook.plan import schedule
    from playbook.tell import print_taken, print_targets

    interval, until = schedule.every(every), schedule.every(for_) if for_ else None
    settings = arguments.settings(target, plan=plan, scale=scale, journal=journal, apply=apply, metrics_url=metrics_url)
    with terminal.status() as progress:
        context = open_context(settings, progress)
    watched = Monitoring(context, interval, until, schedule.every(keep))
    err.print(escape(watched.told()))
    with terminal.ctrl_c_ends() as stop:
        for taken in watched.run(stop):
            print_taken(out, taken, json_lines=json_lines)
            for line in watched.news():
                err.print(escape(line))
    judged = watched.targets()
    print_targets(err if json_lines else out, judged)
    raise typer.Exit(EXIT_GATE if gate and any(each.met is False for each in judged) else EXIT_OK)
