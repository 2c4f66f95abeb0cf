"""`playbook serve`: the reference service on the embedded sample."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, PlanOption, ScaleOption
from playbook.terminal import out


def serve(
    scale: ScaleOption = None,
    plan: PlanOption = None,
    journal: JournalOption = None,
    as_found: Annotated[
        bool | None,
        typer.Option(
            "--as-found/--optimized",
            help="As the plan found it, on a pristine copy, or with every technique on. Default: those applied.",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 0,
) -> None:
    """Run the reference service on the embedded sample, on loopback, until Ctrl-C."""
    from playbook.application import applied_switches
    from playbook.context import open_context
    from playbook.service import serve as service
    from playbook.service.switches import Switches

    with terminal.status() as progress:
        context = open_context(arguments.settings("embedded", plan=plan, scale=scale, journal=journal), progress)
    chosen = {None: applied_switches(context), True: None, False: Switches.optimized()}[as_found]
    service.run(context.target, chosen, port=port, say=lambda text: out.print(escape(text)))
