"""Finishing a step: a history is split into periods; then, or at once, what is kept only for undo is given up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from playbook.apply import apply_statements, undo_statement
from playbook.backends import await_backends
from playbook.changes.partition import Partition
from playbook.changes.partitioning.finish import Finish
from playbook.context import Context
from playbook.errors import Drifted, StepError, UsageError
from playbook.journal import Entry
from playbook.step import Step, planned_steps
from playbook.target.server_errors import interruption
from playbook.target.sql import Statement

FINAL = (
    "it was finished, and the table that it was made from is gone; it stays partitioned (`playbook uninstall "
    "--keep-steps` forgets the step), and CREATE TABLE … AS SELECT makes a plain table of its rows"
)
"""What undo says from then on."""
SPLITTING = "splitting"
"""Under this name the journal's evidence says, until a split has ended, what the step's entry was before it."""
SPLIT = "its history is split into periods; undo still returns the table, until `playbook finish` is run again"
ENDED = "finished; it cannot be undone any more"


@dataclass(frozen=True)
class Finished:
    """One step: the statements that finish it, what takes them back, and what came of it: `said`, or an error.

    Without `undo` no undo is possible after them. `notes` are to be known before.
    """

    step: str
    statements: tuple[Statement, ...]
    undo: tuple[Statement, ...] = ()
    said: str = ""
    error: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Chosen:
    step: Step
    change: Partition
    entry: Entry
    finish: Finish


def finish(context: Context, steps: tuple[str, ...] = (), *, apply: bool) -> list[Finished]:
    """What would finish `steps` (all for which something is left to do, when none is named); with `apply` it runs.

    Raises:
        UsageError: for a step of that name nothing is left to do here.
        Busy: another run holds the target.
    """
    chosen = _chosen(context, steps)
    if not chosen or not apply:
        return [_planned(each) for each in chosen]
    with context.hold("run"), context.hold("apply"):
        return [_finish(context, each) for each in _chosen(context, steps)]


def _chosen(context: Context, steps: tuple[str, ...]) -> list[_Chosen]:
    found = []
    for step in planned_steps(context):
        entry, change = step.entry(), step.change
        if entry and entry.status == "applied" and isinstance(change, Partition):
            with context.connect() as connection:
                planned = change.finish(connection)
            if planned or SPLITTING in entry.evidence:
                found.append(_Chosen(step, change, entry, planned or Finish()))
    names = {each.step.id for each in found}
    if unknown := [step for step in steps if step not in names]:
        known = ", ".join(sorted(names)) or "nothing"
        raise UsageError(f"nothing is kept for an undo of {', '.join(unknown)}; what can be finished is {known}")
    return [each for each in found if not steps or each.step.id in steps]


def _planned(chosen: _Chosen) -> Finished:
    entry, planned = chosen.entry, chosen.finish
    if begun := entry.evidence.get(SPLITTING):
        return Finished(chosen.step.id, entry.statements[begun["statements"] :], _way_back(entry))
    notes = tuple(map(str, planned.notes))
    return Finished(chosen.step.id, planned.statements, planned.undo, planned.said, _told(planned), notes)


def _told(planned: Finish) -> str:
    return "; ".join(f"{each.detail}: {(each.remedy or each.grant).rstrip(';')}" for each in planned.obstacles)


def _finish(context: Context, chosen: _Chosen) -> Finished:
    begun = SPLITTING in chosen.entry.evidence
    if not begun and (chosen.finish.obstacles or not chosen.finish.statements):
        return _planned(chosen)
    try:
        with interruption():
            return _split(context, chosen) if begun or chosen.finish.undo else _give_up(context, chosen)
    except StepError as error:
        return Finished(chosen.step.id, chosen.finish.statements, error=str(error))


def _give_up(context: Context, chosen: _Chosen) -> Finished:
    """The journal gives undo up before the first statement: from that one on, what is kept may lack later rows."""
    step, change, entry, statements = chosen.step.id, chosen.change, chosen.entry, chosen.finish.statements
    if "final" not in entry.evidence:
        done = len(entry.statements)
        evidence = {**entry.evidence, "final": FINAL}
        entry = replace(entry, statements=(*entry.statements, *statements), undo=(), evidence=evidence)
        context.journal.begin(entry, done=done)
    apply_statements(context, entry, change, len(entry.statements) - len(statements))
    with context.connect() as connection:
        objects = change.objects(connection)
    context.journal.close(step, "applied", objects=objects)
    return Finished(step, statements, said=ENDED)


def _split(context: Context, chosen: _Chosen) -> Finished:
    """The journal has the way back before the first statement, and the step's own undo behind it.

    Of the whole table nothing is another afterwards. In between its foreign keys come and go.
    """
    step, planned, change, entry = chosen.step.id, chosen.finish, chosen.change, chosen.entry
    if SPLITTING not in entry.evidence:
        entry = _begun(context, chosen)
    begun = entry.evidence[SPLITTING]
    first = begun["statements"]
    if begun.get("ended"):
        return _taken_back(context, entry, "a split had failed")
    try:
        if planned.split and planned.statements != entry.statements[first:]:
            raise Drifted(f"{change.table.qualified} was changed since its history was begun to be split")
        apply_statements(context, entry, change, first)
    except StepError as error:
        if not isinstance(error.__cause__ or error, change.gives_up_on):
            raise
        return _taken_back(context, entry, str(error))
    with context.connect() as connection:
        evidence = {**_without(entry.evidence), "proof": change.proof(connection)}
    context.journal.close(step, "applied", objects=begun["objects"], evidence=evidence)
    return Finished(step, entry.statements[first:], _way_back(entry), said=SPLIT)


def _begun(context: Context, chosen: _Chosen) -> Entry:
    entry, planned, table = chosen.entry, chosen.finish, chosen.change.table.qualified
    number = len(entry.statements)
    before = {"statements": number, "undo": len(entry.undo), "objects": entry.objects}
    with context.connect() as connection:
        now = chosen.change.objects(connection).get(table)
    if entry.objects.get(table) != now:
        raise StepError(
            f"{table} was changed since run {entry.run_id} applied the step (`playbook undo` says how), and after the "
            "split it could not be undone any more; put it back first"
        )
    comes_and_goes = planned.split is not None and planned.split.table.foreign_keys
    entry = replace(
        entry,
        statements=(*entry.statements, *planned.statements),
        undo=(*planned.undo, *entry.undo),
        objects={**entry.objects, table: ""} if comes_and_goes else entry.objects,
        evidence={**entry.evidence, SPLITTING: before},
    )
    context.journal.begin(entry, done=number)
    return entry


def _taken_back(context: Context, entry: Entry, why: str) -> Finished:
    try:
        _take_back(context, entry)
    except StepError as error:
        why = f"{why}; what the split had made could not be taken back: {error}; finish again to go on with that"
        return Finished(entry.step, (), error=why)
    return Finished(entry.step, (), error=f"{why}; what the split had made was taken back")


@interruption()
def _take_back(context: Context, entry: Entry) -> None:
    """The split alone; the step stands as it stood."""
    before = entry.evidence[SPLITTING]
    await_backends(context, entry, cancel=True)
    context.journal.keep_evidence(entry.step, {**entry.evidence, SPLITTING: {**before, "ended": True}})
    way_back = _way_back(entry)
    for position, statement in enumerate(way_back):
        undo_statement(context, entry, position, statement)
    as_it_was = replace(
        entry,
        statements=entry.statements[: before["statements"]],
        undo=entry.undo[len(way_back) :],
        objects=before["objects"],
        evidence=_without(entry.evidence),
    )
    context.journal.begin(as_it_was, done=before["statements"])


def _way_back(entry: Entry) -> tuple[Statement, ...]:
    """The statements of its undo that take the split back, before those of the step itself."""
    return entry.undo[: len(entry.undo) - entry.evidence[SPLITTING]["undo"]]


def _without(evidence: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in evidence.items() if name != SPLITTING}
