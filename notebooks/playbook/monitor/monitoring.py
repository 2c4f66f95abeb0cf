"""Watching a target headlessly: samples into its history, and the plan's targets judged by what was seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from playbook import figures
from playbook.context import Context
from playbook.errors import PlaybookError
from playbook.monitor import targets
from playbook.monitor.history import open_history
from playbook.monitor.period import Period
from playbook.monitor.plans import plan_of
from playbook.monitor.record import Recorder, alone, record
from playbook.monitor.sampler import Sampler, Taken
from playbook.plan.schedule import Every
from playbook.results import Limit, Slowest

MOST_SAMPLES = 2_880
"""Samples by which targets are judged, the latest ones: a day of 30 s each."""
SLOWEST = 3
"""Statements that are told behind a target that was missed."""


class Monitoring:
    """One watch over a target, from `run` until it ends."""

    def __init__(self, context: Context, every: Every, until: Every | None, keep: Every) -> None:
        self._context = context
        self._every, self._until = every, until
        self._history = open_history(context, make=True)
        self._recorder = Recorder(self._history, keep_days=keep.seconds / 86_400)
        self._period = Period(MOST_SAMPLES)

    def told(self) -> str:
        """What is watched, how often and for how long, and where it is kept."""
        how_long = f"for {self._until}" if self._until else "until it is interrupted"
        return f"{self._context.target.label}: every {self._every} {how_long}; history in {self._history.place}"

    def run(self, stop: threading.Event) -> Iterator[Taken]:
        """Samples until the time is over or `stop` is set.

        Raises:
            Busy: another monitor keeps this history.
        """
        until = time.monotonic() + self._until.seconds if self._until else None
        sampler = Sampler(self._context, self._context.settings.metrics_url)
        with alone(self._context, self._history), sampler:
            for taken in record(sampler, self._recorder, self._every.seconds, stop, until):
                self._period.add(taken)
                yield taken

    def news(self) -> list[str]:
        """What should be known of the history since the last call."""
        return self._recorder.news()

    def targets(self) -> list[Limit]:
        """The plan's targets by what was seen."""
        return judged(self._context, self._period)


def judged(context: Context, period: Period) -> list[Limit]:
    """The plan's targets in a period; the slowest statements with their plans stand behind each miss."""
    found, reasons = period.figures()
    limits = targets.judge(context.plan.targets, found, reasons)
    if not any(each.met is False for each in limits):
        return limits
    slowest = tuple(behind(context, period))
    return [each.model_copy(update={"slowest": slowest}) if each.met is False else each for each in limits]


def behind(context: Context, period: Period, most: int = SLOWEST) -> Iterator[Slowest]:
    """The statements that took the most time in the period, with their plans as the server would make them now."""
    took = period.took
    whole = sum(each.ms for each in took.values())
    for queryid, each in list(took.items())[:most]:
        try:
            plan = plan_of(context, queryid)
        except PlaybookError as error:
            text, tree = "", str(error)
        else:
            text, tree = plan.text, plan.tree or f"{figures.NOT_MEASURED}: {plan.reason}"
        share = 100 * each.ms / whole if whole else None
        yield Slowest(text=text, calls=each.calls, mean_ms=each.mean_ms, share_pct=share, plan=tree)
