"""What a person sees of a command: two consoles, the progress of the work at hand, and how it is ended."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

# Where nobody looks at a screen, a table is not cut to one: logs and pipes get whole names.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 200)


@contextmanager
def status() -> Iterator[Any]:
    """Progress: one live line on a terminal; elsewhere a plain line whenever the work at hand changes."""
    if err.is_terminal:
        with err.status("connecting") as live:
            yield lambda text: live.update(escape(text))
        return
    last = [""]

    def say(text: str) -> None:
        head = text.partition(":")[0]
        if head != last[0]:
            last[0] = head
            err.print(escape(text))

    yield say


def say(line: str) -> None:
    """One line beside what the command answers."""
    err.print(escape(line))


def watch(progress: Any) -> Any:
    """Follows the progress file that a notebook's kernel writes."""

    @contextmanager
    def watch(name: str) -> Iterator[Path]:
        import tempfile

        done = threading.Event()
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="playbook-") as folder:
            path = Path(folder) / "progress"
            path.touch()
            thread = threading.Thread(target=_follow, args=(path, done, lambda text: progress(f"{name}: {text}")))
            progress(f"{name}: starting")
            thread.start()
            try:
                yield path
            finally:
                done.set()
                thread.join()
        err.print(escape(f"{name}: {time.monotonic() - started:.0f} s"))

    return watch


def _follow(path: Path, done: threading.Event, say: Any) -> None:
    with path.open(encoding="utf-8") as lines:
        while not done.wait(0.2):
            if new := lines.read().splitlines():
                say(new[-1])


def near(path: Path) -> str:
    """The path from here where it lies below, else whole."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def ctrl_c_ends() -> Iterator[threading.Event]:
    """Ctrl-C ends what is done here as SIGTERM does: after the work at hand, and with what was found."""
    stop, before = stopped(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def stopped() -> threading.Event:
    """Set when a service manager asks the process to end."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop
