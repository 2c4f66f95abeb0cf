"""The command line: parses and calls, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from playbook import arguments, terminal
from playbook.errors import EXIT_GATE, EXIT_OK, PlaybookError, Unreachable, one_line
from playbook.settings import NOTEBOOKS, Settings
from playbook.terminal import err, out

# What a command calls is imported where it is called: loading all of it takes longer than to compare two runs.
if TYPE_CHECKING:
    from playbook.context import Context

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Carries out a PostgreSQL optimization plan: previewed, applied safely, measured, undone on demand.",
)
INTERRUPTED = 130
"""The exit code of a command ended by Ctrl-C, as shells have it."""

TargetOption = Annotated[
    str | None,
    typer.Option("--target", help="embedded (default), env:NAME, service:NAME or a URL. [env: PLAYBOOK_TARGET]"),
]
PlanOption = Annotated[Path | None, typer.Option("--plan", help="The plan file. [env: PLAYBOOK_PLAN]")]
ScaleOption = Annotated[
    float | None, typer.Option("--scale", help="Size of the embedded sample; 1 is 4 M rows. [env: PLAYBOOK_SCALE]")
]
MapOption = Annotated[
    list[str] | None, typer.Option("--map", help="A plan's name and the target's: audit_logs=AuditTrail.")
]
JournalOption = Annotated[
    Path | None, typer.Option("--journal", help="Keep the journal in this file, not on the target.")
]

EveryOption = Annotated[str, typer.Option("--every", help="An interval: 30s, 5m, 1h.")]
MetricsOption = Annotated[
    str | None,
    typer.Option("--metrics-url", help="Where your service answers its metrics. [env: PLAYBOOK_METRICS_URL]"),
]
SavedOption = Annotated[
    Path | None, typer.Option("--saved", help="Run exactly what `plan --save` wrote there, on the target as it was.")
]


@app.command()
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


@app.command()
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
        from playbook.monitor.history import baseline_of

        with terminal.status() as progress:
            context = _open(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        earlier = baseline_of(context)
    done = comparing.compare(earlier, new, folder)
    print_compared(out, done.compared)
    out.print(f"summary: {escape(terminal.near(done.markdown))}")
    raise typer.Exit(EXIT_GATE if gate and not done.compared.passes else EXIT_OK)


@app.command("plan")
def plan_(
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
    from playbook.matrix import priority_matrix
    from playbook.tell import print_matrix

    with terminal.status() as progress:
        context = _open(arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal), progress)
        matrix = priority_matrix(context)
        saved = reviewing.save(context, save) if save else None
    print_matrix(out, context, matrix)
    if saved:
        out.print(escape(f"saved: {terminal.near(saved.path.absolute())}, {len(saved.steps)} steps to run"))


@app.command()
def status(
    target: TargetOption = None, plan: PlanOption = None, scale: ScaleOption = None, journal: JournalOption = None
) -> None:
    """Show what the journal says was applied, dropped or undone on the target."""
    from playbook.tell import print_steps

    with terminal.status() as progress:
        context = _open(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        entries = context.journal.entries()
    print_steps(out, context, entries)


@app.command()
def undo(
    steps: Annotated[list[str] | None, typer.Argument(metavar="[STEP]...", help="Steps; default: all.")] = None,
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
) -> None:
    """Take applied steps back from the journal, the last one first."""
    from playbook import undoing
    from playbook.tell import print_undone

    with terminal.status() as progress:
        context = _open(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        undone = undoing.undo(context, tuple(steps or ()))
    print_undone(out, context, undone)
    raise typer.Exit(1 if any(one.error for one in undone) else 0)


@app.command()
def uninstall(
    target: TargetOption = None,
    plan: PlanOption = None,
    scale: ScaleOption = None,
    journal: JournalOption = None,
    keep_steps: Annotated[
        bool, typer.Option("--keep-steps", help="Forget the journal although steps are still applied.")
    ] = False,
) -> None:
    """Remove the journal; refused while steps are applied, since their undo would be lost."""
    from playbook import undoing

    with terminal.status() as progress:
        context = _open(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        place = undoing.uninstall(context, keep_steps=keep_steps)
    out.print(escape(f"removed: {place}"))


@app.command()
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
    from playbook.service import serve as service
    from playbook.service.switches import Switches

    with terminal.status() as progress:
        context = _open(arguments.settings("embedded", plan=plan, scale=scale, journal=journal), progress)
    chosen = {None: applied_switches(context), True: None, False: Switches.optimized()}[as_found]
    service.run(context.target, chosen, port=port, say=lambda text: out.print(escape(text)))


@app.command()
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
    from playbook.plan import schedule
    from playbook.tell import print_kept, print_refreshed

    settings = arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal)
    chosen, interval = tuple(steps or ()), schedule.every(every) if every else None
    with terminal.status() as progress:
        context = _open(settings, progress)
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
        for outcomes in refreshing.repeat(lambda: _open(settings), chosen, interval, terminal.stopped()):
            print_refreshed(out, outcomes)
    else:
        print_refreshed(out, outcomes)
        raise typer.Exit(1 if any(one.word == "failed" for one in outcomes) else 0)


def _open(settings: Settings, progress: Any = None) -> Context:
    from playbook.context import open_context, silent

    return open_context(settings, progress or silent)


@app.command()
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
    from playbook.tell import print_maintained

    with terminal.status() as progress:
        context = _open(arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal), progress)
        maintained = maintaining.maintain(context, dry_run=dry_run, export=export)
    print_maintained(out, context, maintained, dry_run=dry_run)
    raise typer.Exit(1 if any(one.failed for one in maintained) else 0)


@app.command()
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
    from playbook.tell import print_finished

    with terminal.status() as progress:
        context = _open(arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal), progress)
        finished = finishing.finish(context, tuple(steps or ()), apply=apply)
    print_finished(out, context, finished, apply=apply)
    raise typer.Exit(1 if any(one.error for one in finished) else 0)


@app.command()
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
    from playbook.monitor.monitoring import Monitoring
    from playbook.plan import schedule
    from playbook.tell import print_taken, print_targets

    interval, until = schedule.every(every), schedule.every(for_) if for_ else None
    settings = arguments.settings(target, plan=plan, scale=scale, journal=journal, apply=apply, metrics_url=metrics_url)
    with terminal.status() as progress:
        context = _open(settings, progress)
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


@app.command()
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
    from playbook.monitor.watching import Watching
    from playbook.plan import schedule
    from playbook.tell import print_traffic

    span, interval = schedule.every(for_), schedule.every(every)
    settings = arguments.settings(target, plan=plan, scale=scale, map=map_, journal=journal, apply=apply)
    with terminal.status() as progress:
        context = _open(settings, progress)
        watched = Watching(context, tuple(steps), span, interval)
    err.print(escape(watched.told()))
    with terminal.status() as progress, terminal.ctrl_c_ends() as stop:
        for stage in watched.run(stop):
            progress(str(stage))
            for line in stage.said:
                err.print(escape(line))
    print_traffic(out, watched.verdicts())


@app.command()
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
    from playbook.monitor import dashboard as page
    from playbook.monitor.observer import Observer
    from playbook.plan import schedule

    interval = schedule.every(every)
    settings = arguments.settings(target, plan=plan, scale=scale, journal=journal, metrics_url=metrics_url)
    with terminal.status() as progress:
        context = _open(settings, progress)
    page.run(Observer(context, interval.seconds), host, port, lambda url: out.print(url, markup=False))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context, target: TargetOption = None, scale: ScaleOption = None) -> None:
    """Open the notebooks in JupyterLab; what follows is handed to it (--no-browser, --port 8889)."""
    settings = arguments.settings(target, scale=scale)
    chosen = {"PLAYBOOK_TARGET": settings.target, "PLAYBOOK_SCALE": str(settings.scale)}
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={NOTEBOOKS}", *context.args]
    raise typer.Exit(subprocess.call(command, env={**os.environ, **chosen, "JUPYTER_PREFER_ENV_PATH": "1"}))


def main() -> None:
    """The `playbook` command: no traceback for a user's mistake, and a word on how to go on after Ctrl-C."""
    given = arguments.without_secrets(sys.argv[1:])
    try:
        app(args=arguments.spread(given) if given[:1] in (["run"], ["plan"]) else given)
    except PlaybookError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except Exception as error:
        from playbook.target.server_errors import is_lost

        if not is_lost(error):
            raise
        err.print(f"[bold red]error:[/] the connection to the target failed: {escape(one_line(error))}")
        sys.exit(Unreachable.exit_code)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            err.print(
                "interrupted. The journal holds what was begun: the same command goes on from there, "
                "`playbook status` shows it, `playbook undo` takes it back."
            )
        raise
