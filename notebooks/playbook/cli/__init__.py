"""The command line: parses and calls, nothing else. One module a command: `playbook watch` is `watch.py`.

What a command calls is imported where it is called: loading all of it takes longer than to compare two runs.
"""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from playbook import arguments
from playbook.cli import (
    compare,
    dashboard,
    finish,
    lab,
    maintain,
    monitor,
    plan,
    refresh,
    run,
    serve,
    status,
    undo,
    uninstall,
    watch,
)
from playbook.errors import PlaybookError, Unreachable, one_line
from playbook.terminal import err

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Carries out a PostgreSQL optimization plan: previewed, applied safely, measured, undone on demand.",
)
# In the order in which --help lists them.
app.command()(run.run)
app.command()(compare.compare)
app.command()(plan.plan)
app.command()(status.status)
app.command()(undo.undo)
app.command()(uninstall.uninstall)
app.command()(serve.serve)
app.command()(refresh.refresh)
app.command()(maintain.maintain)
app.command()(finish.finish)
app.command()(monitor.monitor)
app.command()(watch.watch)
app.command()(dashboard.dashboard)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lab.lab)

INTERRUPTED = 130
"""The exit code of a command ended by Ctrl-C, as shells have it."""


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
