"""Refreshing what steps keep: only after a change, one at a time, with its record, now or again and again."""

from __future__ import annotations

import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from playbook.changes import cron_job
from playbook.changes.refresh_command import ONE_CORE, lock_key
from playbook.changes.summary import Summary
from playbook.changes.summary_spec import SummarySpec
from playbook.context import Context
from playbook.errors import PlaybookError, UsageError, one_line
from playbook.plan import schedule
from playbook.plan.schedule import Every
from playbook.refreshes import Refresh, Refreshes
from playbook.settings import DEFAULT_PLAN, DEFAULT_SCALE, Settings
from playbook.step import Step

SHOWN = 10
"""Runs of a job that are read where pg_cron alone keeps them."""
LOCK_TIMEOUT = "10s"
"""How long a refresh waits for one that was started by other means, or for DDL on what it reads."""


@dataclass(frozen=True)
class Outcome:
    """What became of one summary: `refreshed`, `skipped` (with the reason) or `failed` (with the error)."""

    step: str
    word: str
    said: str


@dataclass(frozen=True)
class Kept:
    """A summary that stands: its step, what it is, how it is scheduled on the target, and its last refreshes."""

    step: str
    summary: Summary
    history: tuple[Refresh, ...]

    @property
    def last(self) -> Refresh | None:
        """The latest refresh that did not fail."""
        return next((each for each in self.history if not each.error), None)

    @property
    def job(self) -> str:
        """Its pg_cron job, empty where there is none."""
        return self.summary.job.schedule if self.summary.job else ""


def kept(context: Context, steps: tuple[str, ...] = ()) -> list[Kept]:
    """The summaries of the plan that stand on the target, or those of them that are named.

    Raises:
        UsageError: a step that is named stands not, or keeps nothing.
    """
    planned = [Step(spec, phase, context) for phase, spec in context.plan.steps() if isinstance(spec, SummarySpec)]
    found = [
        Kept(step.id, step.change, tuple(_history(context, step.change)))
        for step in planned
        if isinstance(step.change, Summary) and step.change.stands().standing in {"exists", "begun"}
    ]
    known = {each.step for each in found}
    if unknown := [step for step in steps if step not in known]:
        raise UsageError(f"no summary to refresh: {', '.join(unknown)}; there is {', '.join(sorted(known)) or 'none'}")
    return [each for each in found if not steps or each.step in steps]


def _history(context: Context, summary: Summary) -> list[Refresh]:
    """Its refreshes, the latest first: as recorded, and those of its job, where that cannot write the record."""
    log, relation = Refreshes(context.journal.store), summary.qualified
    found = log.of(relation)
    if summary.job and not log.on_target:
        with context.connect() as connection:
            for run in cron_job.runs(connection, summary.job.name, SHOWN):
                at = run.started.astimezone(UTC).isoformat(timespec="milliseconds")
                seconds = (run.ended - run.started).total_seconds()
                manner = "" if run.error else "by pg_cron"
                found.append(Refresh(relation, at, at, seconds, manner, error=run.error))
    return sorted(found, key=lambda each: each.started_at, reverse=True)


def refresh(context: Context, steps: tuple[str, ...] = (), *, force: bool = False) -> list[Outcome]:
    """Refreshes them, each in a transaction of its own; with `force` those too that nothing has changed for.

    A refresh that fails is recorded and the others go on.

    Raises:
        UsageError: see `kept`.
    """
    return [_refresh(context, each, force) for each in kept(context, steps)]


def _refresh(context: Context, each: Kept, force: bool) -> Outcome:
    context.progress(f"refresh {each.step}")
    summary, log = each.summary, Refreshes(context.journal.store)
    began, started = datetime.now(UTC), time.monotonic()
    at = began.isoformat(timespec="milliseconds")
    last = log.last(summary.qualified)
    try:
        with context.connect() as connection, connection.transaction():
            for setting in (f"lock_timeout = '{LOCK_TIMEOUT}'", "statement_timeout = 0", ONE_CORE):
                connection.execute(f"SET LOCAL {setting}".encode())
            held = f"SELECT pg_try_advisory_xact_lock({lock_key(summary.qualified)})"
            if connection.execute(held.encode()).fetchone() == (False,):
                return Outcome(each.step, "skipped", "another refresh of it is running")
            ((marker,),) = connection.execute(summary.marker.encode()).fetchall()
            if last and marker and marker == last.marker and summary.is_filled(connection) and not force:
                log.checked(last, at)
                return Outcome(each.step, "skipped", f"nothing has changed since {last.started_at}")
            ((before,),) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchall()
            done = summary.refresh(connection)
            written = "SELECT (pg_current_wal_insert_lsn() - %s::pg_lsn)::bigint"
            ((wal,),) = connection.execute(written, [before]).fetchall()
    except (psycopg.Error, PlaybookError) as error:
        why = one_line(error)
        log.record(Refresh(summary.qualified, at, at, time.monotonic() - started, error=why))
        return Outcome(each.step, "failed", why)
    seconds = time.monotonic() - started
    log.record(Refresh(summary.qualified, at, at, seconds, done.manner, done.rows_changed, wal, marker or ""))
    was = f"; it was {_age(last)} old" if last else ""
    changed = "rows not counted" if done.rows_changed is None else f"{done.rows_changed:,} rows changed"
    return Outcome(each.step, "refreshed", f"{done.manner} in {seconds:.2f} s, {changed}, {wal:,} bytes of WAL{was}")


def _age(last: Refresh) -> str:
    seconds = last.age_s
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def repeat(
    reopen: Callable[[], Context], steps: tuple[str, ...], interval: Every, stop: threading.Event
) -> Iterator[list[Outcome]]:
    """Refreshes at once and then every `interval`, until `stop` is set. Each time the target is opened anew.

    A target that cannot be reached, or a plan that is being edited, is one failure and the next try comes in time.
    """
    due = time.monotonic()
    while not stop.is_set():
        try:
            yield refresh(reopen(), steps)
        except PlaybookError as error:
            yield [Outcome(step, "failed", str(error)) for step in steps or ("refresh",)]
        due = max(due + interval.seconds, time.monotonic())
        stop.wait(due - time.monotonic())


def options(settings: Settings) -> list[str]:
    """The options by which another process of this machine refreshes the same: files by their whole paths."""
    told = ["--target", settings.target]
    told += ["--plan", str(settings.plan.resolve())] if settings.plan != DEFAULT_PLAN else []
    told += ["--scale", f"{settings.scale:g}"] if settings.embedded and settings.scale != DEFAULT_SCALE else []
    told += ["--journal", str(settings.journal.resolve())] if settings.journal else []
    return told + [part for name, other in settings.map.items() for part in ("--map", f"{name}={other}")]


def timers(kept: list[Kept], interval: Every | None, options: list[str]) -> str:
    """Lines for crontab and units for systemd that refresh them; each as often as its plan says.

    `options` are those of this command; `interval` wins over the plan's.
    """
    texts = []
    for each in kept:
        spec = each.summary.spec
        how_often = interval or schedule.every(spec.refresh_every)
        command = shlex.join([_program(), "refresh", each.step, *options])
        texts += [
            f"# {each.step}, every {how_often}: crontab",
            schedule.crontab(how_often, spec.refresh_at, spec.time_zone, command),
            "",
            f"# {each.step}, every {how_often}: systemd",
            schedule.systemd(how_often, spec.refresh_at, spec.time_zone, command),
            "",
        ]
    return "\n".join(texts).rstrip()


def _program() -> str:
    """The command as a scheduler, which has no PATH of ours, has to call it."""
    return shutil.which("playbook") or f"{sys.executable.rpartition('/')[0]}/playbook"
