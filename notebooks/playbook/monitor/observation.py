"""What notebook 05 tells: the plan's figures of a service as found and as it is now, taken by the meter it carries.

On the embedded sample the reference service is put under load for it; elsewhere a target is only watched, with the
application that `PLAYBOOK_METRICS_URL` names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from playbook import parts
from playbook.context import Context
from playbook.errors import PlaybookError
from playbook.monitor.history import KeptRun, open_history
from playbook.monitor.meter import PATH
from playbook.monitor.monitoring import judged
from playbook.monitor.period import Period
from playbook.monitor.record import Recorder
from playbook.monitor.sampler import Sampler, samples
from playbook.results import Limit

if TYPE_CHECKING:
    from playbook.service.switches import Switches

NOTEBOOK = "05_monitoring"
"""Whose part of the results the targets are; no plan has to name it."""
RATE_RPS = 10.0
LOAD_S = 8.0
"""Under a smaller budget for a phase it is cut down (`Settings.share`)."""
KEYS, ASKED_BEFORE = 300, 3_000
"""What is asked for, and how often before the load, so that the service is one that has run for a while."""
WATCH_S = 6.0
DRY_WATCH_S = 3.0
EVERY_S = 0.5
PEAK_S = 1.1

CODE = """\
from playbook.monitor.meter import Meter

meter = Meter(engine, cache=cache)  # the engine of your service, and its result cache where it has one
meter.attach(app)  # FastAPI or Starlette: requests are timed, GET /metrics answers the figures"""


@dataclass(frozen=True)
class TwoLines:
    """What an application needs for being watched."""

    code: str


@dataclass(frozen=True)
class Watched:
    """A target that was watched: `side` says as what, `load` under which load."""

    side: str
    load: str
    period: Period


@dataclass(frozen=True)
class SideBySide:
    """What was watched, side by side."""

    sides: tuple[Watched, ...]


@dataclass(frozen=True)
class Judged:
    """The plan's targets, with the slowest statements behind each that was missed."""

    targets: tuple[Limit, ...]


@dataclass(frozen=True)
class Kept:
    """The runs that are kept of this plan on this target, the latest first, each with some of its figures."""

    place: str
    runs: tuple[tuple[KeptRun, Mapping[str, Any]], ...]
    samples: int


class Monitoring:
    """The monitoring of an opened playbook. Its figures and targets go into the notebook's part of the results."""

    def __init__(self, playbook: Any) -> None:
        self.context: Context = playbook.context
        self._part = parts.Part(self.context, NOTEBOOK)
        self._sides: dict[str, Watched] = {}
        self._targets: tuple[Limit, ...] = ()

    def preview(self) -> TwoLines:
        """What an application adds to its code. Changes nothing."""
        return TwoLines(CODE)

    def before(self) -> SideBySide:
        """The service as the plan found it, on a pristine copy, under load; another target is only watched."""
        return self._watch("as found", "before")

    def after(self) -> SideBySide:
        """The service with all that is applied, under the same load, beside what `before` found; it is kept too."""
        return self._watch("as it is now", "now")

    def _watch(self, embedded: str, elsewhere: str) -> SideBySide:
        if self.context.target.embedded:
            self._sides[embedded] = self._under_load(embedded)
        else:
            self._sides[elsewhere] = self._looked_on(elsewhere)
        self.context.progress("")
        self._write()
        return SideBySide(tuple(self._sides.values()))

    def _looked_on(self, side: str) -> Watched:
        seconds = WATCH_S if self.context.settings.measures else DRY_WATCH_S
        self.context.progress(f"watching for {seconds:g} s")
        period = Period()
        with Sampler(self.context, self.context.settings.metrics_url) as sampler:
            for taken in samples(sampler, EVERY_S, threading.Event(), time.monotonic() + seconds):
                period.add(taken)
        return Watched(side, "used by those who work there", period)

    def _under_load(self, side: str) -> Watched:
        from playbook.service import load, traffic

        seconds = LOAD_S * self.context.settings.share
        with self._served(side) as (context, url, on):
            with psycopg.connect(**context.target.conninfo) as connection:
                asked = traffic.of_sample(connection, KEYS)
            self.context.progress(f"{side}: warming up")
            if "cache" in on:
                load.settle(url, asked.settled(ASKED_BEFORE))
            else:
                load.run([url], asked, rate=RATE_RPS, seconds=0.0, warm_up_s=1.0)
            self.context.progress(f"{side}: {RATE_RPS:g} requests a second for {seconds:g} s")
            time.sleep(PEAK_S)  # peaks are kept by the second: those of the warm-up are not to be in the first sample
            period = self._sampled(
                context, url, lambda: load.run([url], asked, rate=RATE_RPS, seconds=seconds, warm_up_s=0)
            )
        return Watched(side, f"{RATE_RPS:g} requests a second to {len(asked.reads)} keys, 5 % writes", period)

    @contextmanager
    def _served(self, side: str) -> Iterator[tuple[Context, str, Switches]]:
        """The service in a process of its own, and its database as a context."""
        from playbook.application import applied_switches
        from playbook.service import copies, process
        from playbook.service.switches import Switches

        with ExitStack() as stack:
            target, on = self.context.target, applied_switches(self.context)
            if side == "as found":
                conninfo, on = stack.enter_context(copies.as_found(target)), Switches()
                target = replace(target, conninfo=conninfo)
            self.context.progress(f"{side}: starting the service")
            [service] = process.start_all([(target.conninfo, on)])
            yield replace(self.context, target=target), stack.enter_context(service).url, on

    def _sampled(self, context: Context, url: str, work: Any) -> Period:
        """What was sampled while `work` was done; of the service as it is now it is kept as well."""
        period, stop = Period(), threading.Event()
        recorder = Recorder(open_history(context)) if context.target is self.context.target else None
        thread = threading.Thread(target=_until_done, args=(work, stop), name="work")
        with Sampler(context, url + PATH) as sampler:
            thread.start()
            for taken in samples(sampler, EVERY_S, stop):
                period.add(taken)
            thread.join()
            if last := sampler.take():
                period.add(last)
        for taken in period.samples if recorder else ():
            recorder.add(taken)  # type: ignore[union-attr]
        return period

    def targets(self) -> Judged:
        """The plan's targets by what was watched last."""
        last = list(self._sides.values())[-1]
        self._targets = tuple(judged(self.context, last.period))
        self._write()
        return Judged(self._targets)

    def kept(self) -> Kept:
        """The runs that are kept, for the trend of this plan on this target."""
        history = open_history(self.context)
        try:
            runs = history.runs(self.context.plan.name)[:10]
            return Kept(
                history.place,
                tuple((run, _summary(history.results(run.run_id))) for run in runs),
                len(history.samples()[0]),
            )
        except (PlaybookError, psycopg.Error):
            return Kept(history.place, (), 0)

    def finish(self) -> None:
        """The last call of a notebook."""
        self._write()

    def _write(self) -> None:
        metrics: dict[str, float | None] = {}
        rows: list[dict[str, Any]] = []
        if self._sides:
            last = list(self._sides.values())[-1]
            found, _ = last.period.figures()
            metrics = {name: round(value, 4) for name, value in found.items() if value is not None}
            rows = [each.model_dump() for each in self._targets]
        self._part.write(metrics=metrics, targets=rows)


def _until_done(work: Any, stop: threading.Event) -> None:
    try:
        work()
    finally:
        stop.set()


def _summary(results: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What of a run's results is told in a line: its targets, and how many queries were proven faster."""
    if results is None:
        return {}
    verdicts = [each.get("verdict") for each in results.get("comparisons", [])]
    return {
        "faster": verdicts.count("faster"),
        "compared": len(verdicts),
        **{target["name"]: target.get("value") for target in results.get("targets", [])},
    }
