"""Making a step final: what is kept only so that it can be undone is given up."""

from __future__ import annotations

from dataclasses import dataclass, replace

from playbook.apply import apply_statement
from playbook.changes.partition import Partition
from playbook.context import Context
from playbook.errors import StepError, UsageError
from playbook.journal import Entry
from playbook.step import Step, planned_steps
from playbook.target.sql import Statement

FINAL = (
    "it was finished, and the table that it was made from is gone; it stays partitioned (`playbook uninstall "
    "--keep-steps` forgets the step), and CREATE TABLE … AS SELECT makes a plain table of its rows"
)
"""What undo says from then on."""


@dataclass(frozen=True)
class Finished:
    """One step: the statements that make it final, whether they ran, and what kept them from it."""

    step: str
    statements: tuple[Statement, ...]
    done: bool = False
    error: str = ""


def finish(context: Context, steps: tuple[str, ...] = (), *, apply: bool) -> list[Finished]:
    """What would make `steps` final (all that keep something, when none is named); with `apply` it runs.

    Raises:
        UsageError: a step of that name keeps nothing here.
        Busy: another run holds the target.
    """
    chosen = _chosen(context, steps)
    if not chosen or not apply:
        return [Finished(step.id, change.finish()) for step, change, _ in chosen]
    with context.hold("run"), context.hold("apply"):
        return [_finish(context, step.id, change, entry) for step, change, entry in chosen]


def _chosen(context: Context, steps: tuple[str, ...]) -> list[tuple[Step, Partition, Entry]]:
    found = []
    for step in planned_steps(context):
        entry, change = step.entry(), step.change
        if entry and entry.status == "applied" and isinstance(change, Partition) and change.finish():
            found.append((step, change, entry))
    names = {step.id for step, _, _ in found}
    if unknown := [step for step in steps if step not in names]:
        known = ", ".join(sorted(names)) or "nothing"
        raise UsageError(f"nothing is kept for an undo of {', '.join(unknown)}; what can be finished is {known}")
    return [each for each in found if not steps or each[0].id in steps]


def _finish(context: Context, step: str, change: Partition, entry: Entry) -> Finished:
    """The journal gives undo up before the first statement: from that one on, the old table may lack later rows."""
    statements = change.finish()
    if "final" not in entry.evidence:
        done = len(entry.statements)
        evidence = {**entry.evidence, "final": FINAL}
        entry = replace(entry, statements=(*entry.statements, *statements), undo=(), evidence=evidence)
        context.journal.begin(entry, done=done)
    first = len(entry.statements) - len(statements)
    try:
        for position, statement in enumerate(statements, first):
            context.progress(statement.purpose)
            apply_statement(context, step, change, position, statement)
    except StepError as error:
        return Finished(step, statements, error=str(error))
    with context.connect() as connection:
        context.journal.close(step, "applied", objects=change.objects(connection))
    return Finished(step, statements, done=True)
