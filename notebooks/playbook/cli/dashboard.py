"""`playbook dashboard`: live metrics in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from playbook import arguments, terminal
from playbook.cli.options import EveryOption, JournalOption, MetricsOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def dashboard(
    every: EveryOption = "5s",
    metrics_url: MetricsOption = None,
    host: Annotated[
        str, typer.Option("--host", help="The interface; another than loopback sends everything unencrypted.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
) -> None:
    """Show live metrics, targets and trends in a browser, on loopback and for whoever has the token, until Ctrl-C."""
    from playbook.context import open_context
    from playbook.monitor import dashboard as page
    from playbook.monitor.observer import Observer
    from playbook.plan import schedule

    interval = schedule.every(every)
    settings = arguments.settings(target, plan=plan, scale=scale, journal=journal, metrics_url=metrics_url)
    with terminal.status() as progress:
        context = open_context(settings, progress)
    page.run(Observer(context, interval.seconds), host, port, lambda url: out.print(url, markup=False))
