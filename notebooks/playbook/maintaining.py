"""What partitioned tables need from time to time: partitions made before they are written to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from playbook.changes.partition import Partition
from playbook.changes.partitioning import ahead
from playbook.changes.preflight import current_user
from playbook.context import Context
from playbook.errors import StepError, one_line
from playbook.journal import APPLIED
from playbook.step import Step, planned_steps
from playbook.target.execute import UNRECORDED, execute
from playbook.target.sql import Statement


@dataclass(frozen=True)
class Maintained:
    """One partitioned table: the partitions made for it, or why they were not."""

    step: str
    made: tuple[str, ...] = ()
    error: str = ""


def maintain(context: Context, now: datetime | None = None) -> list[Maintained]:
    """Makes the partitions that the plan wants ahead of `now`, for each of its tables that the playbook partitioned.

    Each is made under a bounded lock. Undoing the step takes them back with the others.

    Raises:
        Busy: another run holds the target.
    """
    steps = [step for step in planned_steps(context) if isinstance(step.change, Partition) and _is_applied(step)]
    if not steps:
        return []
    with context.hold("run"), context.hold("apply"):
        return [_maintain(context, step, now or datetime.now(UTC)) for step in steps]


def _is_applied(step: Step) -> bool:
    entry = step.entry()
    return entry is not None and entry.status in APPLIED


def _maintain(context: Context, step: Step, now: datetime) -> Maintained:
    made: list[str] = []
    try:
        for statement in _statements(context, step, now):
            context.progress(statement.purpose)
            execute(context.connect, statement, UNRECORDED, policy=context.policy, progress=context.progress)
            made.append(statement.purpose)
    except StepError as error:
        return Maintained(step.id, tuple(made), _with_remedy(one_line(error)))
    return Maintained(step.id, tuple(made))


def _statements(context: Context, step: Step, now: datetime) -> list[Statement]:
    change = step.change
    assert isinstance(change, Partition)
    with context.connect() as connection:
        table = change.table.qualified
        periods = ahead.missing(ahead.read(connection, table), change.spec.every, change.spec.ahead, now)
        return ahead.statements(connection, table, change.key, periods, current_user(connection))


def _with_remedy(said: str) -> str:
    """Rows of a period that lie in the default partition keep its own from being made; they are not lost there."""
    if "default partition" not in said:
        return said
    return f"{said}: rows of that period lie in the default partition, where they are kept and found; move them by hand"
