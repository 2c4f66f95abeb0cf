"""`playbook compare`: one run held against another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, PlanOption, ScaleOption, TargetOption
from playbook.errors import EXIT_GATE, EXIT_OK
from playbook.terminal import out


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The folder of a run, or `baseline`.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The folder of the run to hold against it.")],
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 3 on a regression or a missed target.")] = False,
    folder: Annotated[Path | None, typer.Option("--out", help="Where to write. Default: beside NEW.")] = None,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
) -> None:
    """Hold a run against an earlier one; write compare.md and compare.junit.xml.

    Where OLD is `baseline` it is the run that the target's history keeps as such.
    """
    from playbook import comparing
    from playbook.tell import print_compared

    earlier: Any = old
    if str(old) == "baseline":
        from playbook.context import open_context
        from playbook.monitor.history import baseline_of

        with terminal.status() as progress:
            context = open_context(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        earlier = baseline_of(context)
    done = comparing.compare(earlier, new, folder)
    print_compared(out, done.compared)
    out.print(f"summary: {escape(terminal.near(done.markdown))}")
    raise typer.Exit(EXIT_GATE if gate and not done.compared.passes else EXIT_OK)
