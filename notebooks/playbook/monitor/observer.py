"""Who looks at the target for the dashboard: samples of now in memory, and the history that monitors have kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from playbook.context import Context
from playbook.errors import PlaybookError, one_line
from playbook.journal import Entry
from playbook.monitor import board, trend
from playbook.monitor.board import RANGES, Board, Held
from playbook.monitor.history import Slot, open_history
from playbook.monitor.period import Period
from playbook.monitor.plans import StatementPlan, plan_of
from playbook.monitor.sample import Sample
from playbook.monitor.sampler import Sampler
from playbook.monitor.targets import judge
from playbook.monitor.trend import Point

NOW_S = 900.0
"""Targets and figures are of so many seconds, or of those since the dashboard began."""
_LIVE = "15min"
_SHORTEST_S = 60.0
_CATCH_UP_S = 10.0
_AGE_S = 60.0
"""What is put together of hours and days may be so old."""

T = TypeVar("T")


class Observer:
    """Samples a target in a thread of its own from `start` until `stop`, and tells what there is to show.

    It writes nothing. All questions to the target are asked by that thread, but for the plan of a statement.
    """

    def __init__(self, context: Context, every_s: float) -> None:
        self._context = context
        self._every_s = every_s
        self._history = open_history(context)
        self._sampler = Sampler(context, context.settings.metrics_url)
        self._period = Period(max(2, round(NOW_S / every_s)))
        self._texts: dict[str, str] = {}
        self._kept: list[Sample] = []
        self._kept_until = 0
        self._slots: list[Slot] = []
        self._entries: list[Entry] = []
        self._held: Held = ()
        self._said: tuple[str, ...] = ()
        self._sequence = 0
        self._caught_up = -_CATCH_UP_S
        self._remembered: dict[str, tuple[float, Any]] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="observer", daemon=True)

    def start(self) -> None:
        """Begins. A day of the history is there at once, the rest of it soon, the first sample after one interval."""
        self._catch_up(RANGES["24h"])
        self._kept_until, self._slots, self._caught_up = 0, [], -_CATCH_UP_S
        self._thread.start()

    def stop(self) -> None:
        """Ends it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    @property
    def sequence(self) -> int:
        """Grows with each sample."""
        return self._sequence

    def plan(self, queryid: str) -> StatementPlan:
        """The plan of a statement, as the server would make it now."""
        try:
            return self._fresh(f"plan {queryid}", lambda: plan_of(self._context, queryid))
        except PlaybookError as error:
            return StatementPlan("", "", str(error))

    def board(self, span: str) -> Board:
        """What there is to show of a span of time that ends now."""
        with self._lock:
            now = self._period.copy()
            changes = board.changes_of(self._entries, time.time() - RANGES[span])
            frame, points = self._trend(span, changes)
            found, reasons = now.figures()
            limits = judge(self._context.plan.targets, found, reasons)
            took = now.took if span == _LIVE else board.of_slots(self._within(self._slots, frame.since))
            return Board(
                sequence=self._sequence,
                at=time.time(),
                span=span,
                target=self._context.target.label,
                version=self._context.target.server.version if self._context.target.server else "",
                every_s=self._every_s,
                watched_s=now.seconds,
                place=self._history.place,
                targets=tuple(limits),
                metrics=now.metrics(),
                frame=frame,
                charts=board.charts_of(points, {each.name: each.limit for each in self._context.plan.targets}),
                statements=board.statements_of(took or now.took, self._texts),
                held=self._held,
                changes=changes,
                notes=(*self._said, *now.notes()),
            )

    def _trend(self, span: str, changes: tuple[board.Change, ...]) -> tuple[board.Frame, list[Point]]:
        """The points of the span; of a long one they are put together now and then only."""

        def made() -> tuple[float, float, list[Sample], list[Point]]:
            until = time.time()
            since = until - RANGES[span]
            samples = [sample for sample in self._samples() if sample.at >= since]
            if span == _LIVE and samples:  # a dashboard that has just begun shows what there is
                since = max(since, min(samples[0].at - samples[0].seconds, until - _SHORTEST_S))
            return since, until, samples, trend.points(samples, since, until, board.POINTS)

        since, until, samples, points = made() if span in {_LIVE, "1h"} else self._fresh(f"trend {span}", made)
        return board.frame_of(samples, points, since, until, changes), points

    def _samples(self) -> list[Sample]:
        """Those of the history, and after the last of them those of now."""
        last = self._kept[-1].at if self._kept else 0.0
        return [*self._kept, *(taken.sample for taken in self._period.samples if taken.sample.at > last)]

    @staticmethod
    def _within(slots: list[Slot], since: float) -> list[Slot]:
        return [slot for slot in slots if slot.start >= since]

    def _watch(self) -> None:
        with self._sampler:
            due = time.monotonic()
            while not self._stop.is_set():
                self._look()
                due = max(due + self._every_s, time.monotonic())
                self._stop.wait(due - time.monotonic())

    def _look(self) -> None:
        taken = self._sampler.take()
        try:
            held = board.held_of(self._sampler.session)
        except psycopg.Error:
            held = ()
        self._catch_up()
        with self._lock:
            self._held = held
            if taken:
                self._period.add(taken)
                self._texts |= taken.texts
                self._sequence += 1

    def _catch_up(self, span_s: float = RANGES["30d"]) -> None:
        """Reads what the journal says and what monitors have added to the history; now and then is enough."""
        if time.monotonic() - self._caught_up < _CATCH_UP_S:
            return
        self._caught_up = time.monotonic()
        since, whole = time.time() - span_s, self._kept_until == 0
        try:
            entries = self._context.journal.entries()
            new, until = self._history.samples(since, self._kept_until)
            slots = self._history.slots(self._slots[-1].start if self._slots else since) if new else []
            texts = self._history.texts() if new else {}
            said = tuple(self._history.said)
        except (PlaybookError, psycopg.Error) as error:
            with self._lock:
                self._said = (f"history and journal cannot be read: {one_line(error)}",)
            return
        with self._lock:
            self._entries, self._kept_until, self._said = entries, until, said
            self._kept = trend.in_order(new if whole else [*self._kept, *new])
            if whole:
                self._remembered.clear()
            self._slots = [*self._slots[:-1], *slots] if slots else self._slots
            self._texts = texts | self._texts

    def _fresh(self, name: str, make: Callable[[], T]) -> T:
        """What was made a short while ago, or else made now."""
        with self._lock:
            at, found = self._remembered.get(name, (-_AGE_S, None))
            if time.monotonic() - at < _AGE_S:
                return found  # type: ignore[return-value]
        made = make()
        with self._lock:
            if len(self._remembered) > 200:
                self._remembered.clear()
            self._remembered[name] = (time.monotonic(), made)
        return made
