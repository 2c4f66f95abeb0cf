"""What partitioned tables need from time to time: partitions made ahead, and old ones taken off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from playbook.changes import cron_job
from playbook.changes.partition import Partition
from playbook.changes.partitioning import ahead
from playbook.changes.preflight import current_user
from playbook.context import Context
from playbook.errors import StepError, one_line
from playbook.journal import APPLIED
from playbook.retiring import Retention, Retired
from playbook.step import Step, planned_steps
from playbook.target.execute import UNRECORDED, execute
from playbook.target.sql import Statement


@dataclass(frozen=True)
class Maintained:
    """One partitioned table: the partitions made for it (in a dry run: to be made), or why they were not.

    `job` says what became of its pg_cron job, empty where it has none; `retired` what became of old partitions.
    """

    step: str
    made: tuple[str, ...] = ()
    error: str = ""
    job: str = ""
    retired: tuple[Retired, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether something was not done, or an old partition not dropped since it was changed."""
        return bool(self.error) or any(one.failed for one in self.retired)


def maintain(
    context: Context, now: datetime | None = None, *, dry_run: bool = False, export: Path | None = None
) -> list[Maintained]:
    """Makes the partitions that the plan wants ahead of `now`, for each of its tables that the playbook partitioned.

    Each is made under a bounded lock. Undoing the step takes them back with the others. A pg_cron job that the plan
    wants otherwise by now is changed. Where the plan has a `retention`, old partitions are detached and, their grace
    period over, dropped; with `export` their rows are written into that folder first. A dry run only says so.

    Raises:
        Busy: another run holds the target.
    """
    steps = [step for step in planned_steps(context) if isinstance(step.change, Partition) and _is_applied(step)]
    if not steps:
        return []
    at = now or datetime.now(UTC)
    if dry_run:
        return [_planned(context, step, at) for step in steps]
    with context.hold("run"), context.hold("apply"):
        return [_maintain(context, step, at, export) for step in steps]


def _is_applied(step: Step) -> bool:
    entry = step.entry()
    return entry is not None and entry.status in APPLIED


def _planned(context: Context, step: Step, now: datetime) -> Maintained:
    change = step.change
    assert isinstance(change, Partition)
    job = change.job.schedule if change.job and _job_of(step) else ""
    retired = tuple(Retention(context, change, now, None).planned()) if change.spec.retention else ()
    try:
        made = tuple(statement.purpose for statement in _statements(context, step, now))
    except StepError as error:
        return Maintained(step.id, error=one_line(error), job=job, retired=retired)
    return Maintained(step.id, made, job=job, retired=retired)


def _maintain(context: Context, step: Step, now: datetime, export: Path | None) -> Maintained:
    change = step.change
    assert isinstance(change, Partition)
    made: list[str] = []
    error = ""
    try:
        for statement in _statements(context, step, now):
            context.progress(statement.purpose)
            execute(context.connect, statement, UNRECORDED, policy=context.policy, progress=context.progress)
            made.append(statement.purpose)
    except StepError as refused:
        error = _with_remedy(one_line(refused))
    retired = tuple(Retention(context, change, now, export).carry_out()) if change.spec.retention else ()
    return Maintained(step.id, tuple(made), error, _rescheduled(context, step), retired)


def _job_of(step: Step) -> bool:
    """Whether a pg_cron job was made with the step, which its undo removes."""
    entry = step.entry()
    return entry is not None and any(name.startswith(cron_job.PREFIX) for name in entry.objects)


def _rescheduled(context: Context, step: Step) -> str:
    """The job's schedule; where the plan or the table wants the job otherwise by now, it is changed first."""
    change, entry = step.change, step.entry()
    assert isinstance(change, Partition)
    if change.job is None or entry is None or not _job_of(step):
        return ""
    with context.connect() as connection:
        if connection.execute(change.job.probe.encode()).fetchone() == (True,):
            return change.job.schedule
    execute(context.connect, change.job.make(), UNRECORDED, policy=context.policy)
    with context.connect() as connection:
        definition = change.definition(connection, change.job.object_name)
    context.journal.close(step.id, entry.status, objects={**entry.objects, change.job.object_name: definition})
    return f"{change.job.schedule}, changed"


def _statements(context: Context, step: Step, now: datetime) -> list[Statement]:
    """What makes the partitions that are missing; nothing where pg_partman was told to, by names of its own."""
    change = step.change
    assert isinstance(change, Partition)
    if change.by_partman:
        return []
    with context.connect() as connection:
        table = change.table.qualified
        periods = ahead.missing(ahead.read(connection, table), change.spec.every, change.spec.ahead, now)
        return ahead.statements(connection, table, change.key, periods, current_user(connection))


def _with_remedy(said: str) -> str:
    """Rows of a period that lie in the default partition keep its own from being made; they are not lost there."""
    if "default partition" not in said:
        return said
    return f"{said}: rows of that period lie in the default partition, where they are kept and found; move them by hand"
