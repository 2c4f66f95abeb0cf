"""`playbook maintain`: partitions made ahead and retired."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, MapOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def maintain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write the rows of what is dropped into this folder first.")
    ] = None,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    map_: MapOption = None,
    journal: JournalOption = None,
) -> None:
    """Make the next partitions of the tables that the plan partitioned, and retire old ones where it says so."""
    from playbook import maintaining
    from playbook.context import open_context
    from playbook.tell import print_maintained

    with terminal.status() as progress:
        context = open_context(arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal), progress)
        maintained = maintaining.maintain(context, dry_run=dry_run, export=export)
    print_maintained(out, context, maintained, dry_run=dry_run)
    raise typer.Exit(1 if any(one.failed for one in maintained) else 0)
