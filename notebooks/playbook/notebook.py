"""Opening the playbook inside a notebook: parameters checked, %sql set up, everything shown as a person reads it."""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path
from typing import Any

from playbook.context import open_context
from playbook.errors import UsageError
from playbook.phase import Playbook
from playbook.settings import Settings
from playbook.table import Shown
from playbook.target.pooling import ReadingCursor
from playbook.views import VIEWS, banner

PARAMETERS: dict[str, tuple[type, ...]] = {
    "target": (str,),
    "plan": (str,),
    "apply": (bool,),
    "scale": (int, float),
    "out": (str,),
}
"""What papermill may pass; None always means the environment's default."""


def open_playbook(*, takes_s: float | None = None, changes: str = "", **parameters: Any) -> Playbook:
    """Connects to the target, resolves the plan's names, sets up %sql, and shows what we are connected to.

    `changes` says what a notebook changes where it may change something, unless that is the plan's steps.
    Outside IPython nothing is shown and %sql is left alone.

    Raises:
        UsageError: an unknown or mistyped parameter, in the call or in the cell that papermill injected.
        TargetError: the target cannot be worked on.
    """
    shell = _shell()
    _check_types(parameters)
    if shell:
        _check_injected(shell)
    settings = Settings.from_environ(
        **{name: Path(value) if name in {"plan", "out"} and value else value for name, value in parameters.items()}
    )
    progress = _Progress(settings.progress, shown=shell is not None)
    context = open_context(settings, progress)
    playbook = Playbook(context)
    progress.clear()
    if shell:
        _set_up_sql(shell, context.target)
        _set_up_display(shell)
        _bound_the_kernels_end()
        from IPython.display import display

        display(banner(context, takes_s, changes))
    return playbook


def _shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def _check_types(parameters: dict[str, Any]) -> None:
    for name, value in parameters.items():
        if name not in PARAMETERS:
            raise UsageError(f"unknown parameter {name}; there are {', '.join(PARAMETERS)}")
        wanted = PARAMETERS[name]
        if value is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            kind = " or ".join(kind.__name__ for kind in wanted)
            raise UsageError(f"parameter {name} is {value!r}; it must be {kind}, or None for the default")


def _check_injected(shell: Any) -> None:
    """papermill only warns of unknown names; they stand in the cell it injected, which begins with `# Parameters`."""
    for source in shell.user_ns.get("In", []):
        if not source.startswith("# Parameters"):
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name not in PARAMETERS:
                    raise UsageError(f"unknown parameter {name}; there are {', '.join(PARAMETERS)}")


def _set_up_sql(shell: Any, target: Any) -> None:
    """%sql on a read-only session of its own: reading and telling; changes go through the verbs.

    Errors are raised, not printed (ipython-sql prints them by default, and a run would end green).
    """
    from sql.connection import Connection

    def connect() -> Any:
        connection = target.connect(application_name="playbook %sql")
        if target.server.pooled:
            connection.cursor_factory = ReadingCursor
        else:
            connection.execute("SET default_transaction_read_only = on")
        return connection

    shell.run_line_magic("load_ext", "sql")
    for setting in ("short_errors=False", "autocommit=False", "displaycon=False", "feedback=False", "displaylimit=20"):
        shell.run_line_magic("config", f"SqlMagic.{setting}")
    Connection.set("postgresql+psycopg://", displaycon=False, creator=connect)


def _set_up_display(shell: Any) -> None:
    """How the verbs' answers look: HTML in a notebook, the same words as text elsewhere."""
    formatters = shell.display_formatter.formatters
    for kind, view in VIEWS.items():
        formatters["text/html"].for_type(kind, lambda answer, view=view: view(answer)._repr_html_())
        formatters["text/plain"].for_type(kind, lambda answer, p, cycle, view=view: p.text(repr(view(answer))))


def _bound_the_kernels_end() -> None:
    """A kernel that ends may stop the thread that publishes output while another thread waits for it.

    ipykernel 7 then waits for 10 s, and papermill kills the kernel after 3: one run of eight, measured. A second does.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "flush_timeout"):
            stream.flush_timeout = 1


class _Progress:
    """One line that is replaced as work goes on; headless runs follow it in a file instead."""

    def __init__(self, path: Path | None, *, shown: bool) -> None:
        self._path = path
        self._shown = shown and path is None
        self._handle: Any = None
        self._last = 0.0

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last < 0.2:
            return
        self._last = time.monotonic()
        if self._path:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text.replace("\n", " ") + "\n")
        if self._shown:
            self._show(text)

    def clear(self) -> None:
        """Takes the line away, once the work is done."""
        if self._handle:
            self._show("")
        self._handle = None

    def _show(self, text: str) -> None:
        from IPython.display import display
        from markupsafe import escape

        line = Shown(f"<em>{escape(text)}</em>", text)
        if self._handle is None:
            self._handle = display(line, display_id=True)
        else:
            self._handle.update(line)
