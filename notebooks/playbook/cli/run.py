"""`playbook run`: the plan's notebooks, headlessly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, MapOption, PlanOption, SavedOption, ScaleOption, TargetOption
from playbook.terminal import out


def run(
    target: TargetOption = None,
    plan: PlanOption = None,
    apply: Annotated[
        bool | None, typer.Option("--apply/--dry-run", help="Change the target. Default: only the embedded sample.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Execute the queries, without --apply too.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="Phases to run: --only 1.1 3.2; 0 is the health check, 5 monitoring, 6 scorecard."),
    ] = None,
    scale: ScaleOption = None,
    map_: MapOption = None,
    journal: JournalOption = None,
    saved: SavedOption = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Seconds of measuring for each phase.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Where to write. Default: out/<run id>.")] = None,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Show values sampled from a foreign target.")
    ] = False,
    measure_writes: Annotated[
        bool, typer.Option("--measure-writes", help="Measure the cost to writers on a foreign target too.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Have later runs held against this one: compare baseline NEW.")
    ] = False,
    api_url: Annotated[str | None, typer.Option("--api-url", help="Load your own service too, with GET alone.")] = None,
    api_path: Annotated[
        list[str] | None, typer.Option("--api-path", help="What to ask it for: --api-path /orders /orders/1")
    ] = None,
    api_rate: Annotated[float | None, typer.Option("--api-rate", help="Requests a second. Default: 5.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 3 when a target of the plan is missed.")] = False,
) -> None:
    """Run the plan's notebooks headlessly; write results.json, report.html, junit.xml and undo.sql."""
    from playbook import report
    from playbook.run import run as run_notebooks

    settings = arguments.settings(
        target,
        plan=plan,
        scale=scale,
        map=map_,
        journal=journal,
        saved=saved,
        apply=apply,
        measure=measure or None,
        measure_writes=measure_writes or None,
        show_values=show_values or None,
        budget_s=budget,
        out=folder,
        api_url=api_url,
        api_paths=tuple(api_path) if api_path else None,
        api_rate=api_rate,
    )
    with terminal.status() as progress:
        watch = terminal.watch(progress)
        result = run_notebooks(
            settings,
            only=tuple(only or ()),
            gate=gate,
            baseline=baseline,
            progress=progress,
            watch=watch,
            say=terminal.say,
        )
    for line in report.summary_lines(result.results):
        out.print(escape(line))
    out.print(f"report: {escape(terminal.near(result.folder / 'report.html'))}")
    raise typer.Exit(result.exit_code)
