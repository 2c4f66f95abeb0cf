"""Samples a target and keeps what was seen in its history, for as long as it is asked to; nobody has to look on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from playbook.context import Context
from playbook.errors import Busy, PlaybookError, one_line
from playbook.file_store import FileStore
from playbook.monitor.history import KEEP_DAYS, SLOT_S, History
from playbook.monitor.sampler import Sampler, Taken, samples
from playbook.target.filelock import FileLock

MOST_WAITING = 1_000
"""Samples that wait in memory while the history cannot be reached; the oldest are lost first."""


class Recorder:
    """Writes samples into a history, those too that it could not write when they were taken."""

    def __init__(self, history: History, slot_s: float = SLOT_S, keep_days: float = KEEP_DAYS) -> None:
        self._history = history
        self._slot_s, self._keep_s = slot_s, keep_days * 86_400
        self._waiting: list[Taken] = []
        self.said: list[str] = []

    def add(self, taken: Taken) -> None:
        """Keeps one, and those that wait. What went wrong is in `said`; nothing is raised."""
        self._waiting.append(taken)
        del self._waiting[:-MOST_WAITING]
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.pop(0)
        except (PlaybookError, psycopg.Error) as error:
            self.said.append(f"the history cannot be written, {len(self._waiting)} samples wait: {one_line(error)}")
        self.said += self._history.said
        self._history.said.clear()

    def _write(self, taken: Taken) -> None:
        counted = taken.server is not None and taken.server.statements is not None
        took = taken.took if counted else None
        self._history.add(taken.sample, took, taken.texts, slot_s=self._slot_s, keep_s=self._keep_s)

    def news(self) -> list[str]:
        """What was said since the last call."""
        said, self.said = list(dict.fromkeys(self.said)), []
        return said


def record(
    sampler: Sampler, recorder: Recorder, every_s: float, stop: threading.Event, until: float | None = None
) -> Iterator[Taken]:
    """A sample every so many seconds, kept before it is answered; see `sampler.samples`."""
    for taken in samples(sampler, every_s, stop, until):
        recorder.add(taken)
        yield taken


@contextmanager
def alone(context: Context, history: History) -> Iterator[None]:
    """One monitor a history: two would count everything twice.

    Raises:
        Busy: another process keeps it.
    """
    store = history.store
    if not isinstance(store, FileStore):
        with context.hold("monitor"):
            yield
        return
    store.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(store.path.with_name(f"{store.path.name}.lock"))
    if not lock.take():
        raise Busy(f"another monitor keeps {history.place}; wait for it or stop it")
    try:
        yield
    finally:
        lock.free()
