"""Watching real traffic before and after a step, where replaying queries is not welcome; goes on where it was ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from playbook import figures
from playbook.context import Context
from playbook.errors import UsageError
from playbook.monitor.history import KEEP_DAYS, SLOT_S, Slot, open_history
from playbook.monitor.record import Recorder, alone, record
from playbook.monitor.sampler import Sampler
from playbook.monitor.traffic import TrafficVerdict, affected_by, judge_traffic
from playbook.plan.schedule import Every
from playbook.step import Step, planned_step

SLOTS = 40
"""Slots a side, at least: rounds are made of them."""


@dataclass(frozen=True)
class Stage:
    """Where it stands: `before` or `after`, how many seconds of how many were watched, and what has to be said."""

    name: str
    watched_s: float
    wanted_s: float
    said: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: {figures.duration(self.watched_s)} of {figures.duration(self.wanted_s)} watched"


class Watching:
    """The steps that are to be judged, and the history that they are judged by.

    What `playbook monitor` has seen already counts: of a step that is applied, only what lies after it has to be
    waited for, and a watch that was ended goes on where it stood.
    """

    def __init__(self, context: Context, steps: tuple[str, ...], span: Every, every: Every) -> None:
        self._context = context
        self._steps = [planned_step(context, step) for step in steps]
        self._span_s, self._every_s = span.seconds, every.seconds
        if self._span_s < 2 * self._every_s:
            raise UsageError(f"--for {span} is too short for a sample every {every}")
        self._slot_s = max(self._every_s, min(SLOT_S, self._span_s / SLOTS))
        self._history = open_history(context, make=True)
        for step in self._steps:
            self._check(step)

    def told(self) -> str:
        """What is watched, and where it is kept."""
        names = ", ".join(step.id for step in self._steps)
        return f"{self._context.target.label}: real traffic on the tables of {names}; history in {self._history.place}"

    def run(self, stop: threading.Event) -> Iterator[Stage]:
        """Watches before, applies what is not applied yet, watches after; until `stop` is set.

        Raises:
            Busy: a monitor keeps this history already, or another process applies.
            StepError: a step could not be applied.
        """
        recorder = Recorder(self._history, self._slot_s, max(KEEP_DAYS, 3 * self._span_s / 86_400))
        with alone(self._context, self._history), Sampler(self._context) as sampler:
            for name in ("before", "after"):
                yield from self._watch(name, sampler, recorder, stop)
                if stop.is_set():
                    return
                if name == "before":
                    self._apply()

    def _watch(self, name: str, sampler: Sampler, recorder: Recorder, stop: threading.Event) -> Iterator[Stage]:
        """Until enough was watched; of the samples, what is missing in them is told."""
        if not self._open(name):
            return
        for taken in record(sampler, recorder, self._every_s, stop):
            watched = min(self._watched_s(step, name) for step in self._open(name) or self._steps)
            yield Stage(name, watched, self._span_s, (*taken.sample.notes, *recorder.news()))
            if not self._open(name):
                return

    def _open(self, name: str) -> list[Step]:
        """The steps of which too little was watched yet; before a step that is applied nothing can be any more."""
        steps = [step for step in self._steps if name == "after" or self._applied_at(step) is None]
        return [step for step in steps if self._watched_s(step, name) < self._span_s]

    def _watched_s(self, step: Step, name: str) -> float:
        return sum(slot.seconds for slot in self._slots(step)[name == "after"])

    def _apply(self) -> None:
        waiting = [step for step in self._steps if self._applied_at(step) is None]
        if not waiting:
            return
        with self._context.hold("apply"):
            for step in waiting:
                step.resolve()
                state = step.apply({"before": []})
                if state.status != "applied":
                    raise UsageError(f"{step.id} cannot be applied now: {state.status}, {state.reason}")

    def verdicts(self) -> list[TrafficVerdict]:
        """What the traffic shows of each step, by all that was watched within the span on either side of it."""
        texts = self._history.texts()
        self._context.refresh()
        found = []
        for step in self._steps:
            before, after = self._slots(step)
            tables = step.change.tables if step.change else ()
            found.append(judge_traffic(step.id, before, after, texts, affected_by(tables, self._context.catalog)))
        return found

    def _slots(self, step: Step) -> tuple[list[Slot], list[Slot]]:
        """The slots before and after; those of which a sample reaches across the moment of applying are neither."""
        at = self._applied_at(step) or time.time()
        slots = self._history.slots(at - 2 * self._span_s)
        before = [slot for slot in slots if slot.start + max(slot.seconds, self._slot_s) <= at]
        after = [slot for slot in slots if slot.start >= at + self._every_s]
        return _last(before, self._span_s), _first(after, self._span_s)

    def _applied_at(self, step: Step) -> float | None:
        entry = step.entry()
        if entry is None or entry.status != "applied":
            return None
        return datetime.fromisoformat(entry.changed_at).timestamp()

    def _check(self, step: Step) -> None:
        if self._applied_at(step) is not None:
            return
        state = step.check()
        if state.status != "planned":
            raise UsageError(f"{step.id} is {state.status}: {state.reason}; only what is applied or can be is watched")
        if not self._context.settings.applies:
            raise UsageError(f"{step.id} is not applied: with --apply it is, after so long a time of watching")


def _first(slots: list[Slot], span_s: float) -> list[Slot]:
    """So many of them that they cover the span."""
    watched, kept = 0.0, []
    for slot in slots:
        if watched >= span_s:
            break
        watched += slot.seconds
        kept.append(slot)
    return kept


def _last(slots: list[Slot], span_s: float) -> list[Slot]:
    return _first(slots[::-1], span_s)[::-1]
