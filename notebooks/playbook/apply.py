"""Applying and undoing one step: every statement between an intent and a done row, resumed where it was interrupted."""

from __future__ import annotations

import time
from typing import Any

from playbook.changes import kinds
from playbook.changes.change import Change
from playbook.context import Context
from playbook.errors import Drifted, StepError
from playbook.journal import APPLIED, Entry, Sent
from playbook.target.execute import execute
from playbook.target.sql import Statement


def apply_step(context: Context, step: str, change: Change, evidence: dict[str, Any]) -> None:
    """Runs the change's statements into the journal.

    `evidence` (the measurements before) is kept with the entry: a run killed after this point can still compare.

    Raises:
        StepError: a statement failed; the journal says where, and the next call resumes there.
    """
    started = time.monotonic()
    entry = _begin(context, step, change, evidence)
    for position, statement in enumerate(entry.statements):
        try:
            _apply_statement(context, step, change, position, statement)
        except StepError as error:
            if not isinstance(error.__cause__, change.gives_up_on):
                raise
            undo_step(context, entry)
            raise StepError(f"{error}; what the step had made was taken back") from error
    with context.connect() as connection:
        objects = change.objects(connection)
        evidence = {**entry.evidence, "proof": change.proof(connection)}
    context.journal.close(step, "applied", seconds=time.monotonic() - started, objects=objects, evidence=evidence)


def _begin(context: Context, step: str, change: Change, evidence: dict[str, Any]) -> Entry:
    """The journal's entry is kept when it was interrupted, else written anew; it holds the statements to run.

    Where an earlier run's own work is gone on from, its undo stays: it takes back that work too.
    """
    entry = context.journal.entry(step)
    if entry and entry.status == "applying" and _goes_on(entry, change):
        return entry
    ours = entry is not None and entry.status in APPLIED and change.stands().standing == "begun"
    begun = Entry(
        step=step,
        kind=change.kind,
        status="applying",
        run_id=context.run_id,
        statements=change.statements(),
        undo=entry.undo if ours and entry else change.undo(),
        objects=dict.fromkeys(change.makes(), ""),
        evidence=evidence,
    )
    context.journal.open()
    context.journal.begin(begun)
    return begun


def _goes_on(entry: Entry, change: Change) -> bool:
    """Whether what the change has yet to run is the end of what the interrupted run had to, or nothing."""
    rest = change.statements()
    return entry.statements[-len(rest) :] == rest or change.stands().standing == "exists"


def _apply_statement(context: Context, step: str, change: Change, position: int, statement: Statement) -> None:
    record = context.journal.record(step, "apply", position, statement)
    sent = context.journal.sent(step, "apply", position)
    if sent.state == "done":
        return
    if statement.language != "sql":
        record.done(None)
        return
    if sent.state == "intent":
        _await_backend(context, sent, statement)
        with context.connect() as connection:
            if change.outcome(connection, statement) == "done":
                record.done(connection)
                return
    _repair(context, change, statement)
    execute(
        context.connect,
        statement,
        record,
        policy=context.policy,
        progress=context.progress,
        repair=lambda: _repair(context, change, statement),
    )


def _repair(context: Context, change: Change, statement: Statement) -> None:
    """Removes what a cancelled or killed statement left behind."""
    with context.connect() as connection:
        if change.outcome(connection, statement) != "broken" or not (remedy := change.repair(statement)):
            return
        context.progress(remedy.purpose)
        connection.execute(remedy.sql.encode())


def _await_backend(context: Context, sent: Sent, statement: Statement, *, cancel: bool = False) -> None:
    """A killed client leaves its backend at work. To apply, it may end our own work; to undo, it is cancelled."""
    alive = "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start::text = %s"
    with context.connect() as connection:
        while connection.execute(alive, [sent.backend_pid, sent.backend_start]).fetchone():
            if cancel:
                connection.execute("SELECT pg_catalog.pg_cancel_backend(%s)", [sent.backend_pid])
            context.progress(f"{statement.purpose}: waiting for backend {sent.backend_pid} of the interrupted run")
            time.sleep(0.5)


def undo_step(context: Context, entry: Entry, *, status: str = "undone", reason: str = "") -> None:
    """Takes one step back from its journal entry alone, since the plan may no longer hold it.

    `status` is what the journal says afterwards: `dropped` for a step that gained nothing.

    Raises:
        Drifted: an object was changed by others since it was applied.
        StepError: a statement failed; the next call resumes there.
    """
    for position, statement in enumerate(entry.statements):
        sent = context.journal.sent(entry.step, "apply", position)
        if sent.state == "intent":
            _await_backend(context, sent, statement, cancel=True)
    present = _present(context, entry)
    _refuse_drift(entry, present)
    context.journal.close(entry.step, "undoing", reason=entry.reason)
    if present:
        for position, statement in enumerate(entry.undo):
            _undo_statement(context, entry, position, statement)
    context.journal.close(entry.step, status, reason=reason)


def _present(context: Context, entry: Entry) -> dict[str, str]:
    """Those of the entry's objects that still stand, with their present definitions."""
    kind = kinds()[entry.kind]
    with context.connect() as connection:
        found = {name: kind.definition(connection, name) for name in entry.objects}
    return {name: definition for name, definition in found.items() if definition is not None}


def _refuse_drift(entry: Entry, present: dict[str, str]) -> None:
    for name, now in present.items():
        if (then := entry.objects[name]) and then != now:
            raise Drifted(
                f"{entry.step}: {name} was changed since run {entry.run_id} applied it (then: {then}; now: {now}), so "
                "undo leaves it alone; put it back or drop it by hand"
            )


def _undo_statement(context: Context, entry: Entry, position: int, statement: Statement) -> None:
    record = context.journal.record(entry.step, "undo", position, statement)
    sent = context.journal.sent(entry.step, "undo", position)
    if sent.state == "done":
        return
    if statement.language != "sql":
        record.done(None)
        return
    if sent.state == "intent":
        _await_backend(context, sent, statement)
        if not _present(context, entry):
            return
    execute(context.connect, statement, record, policy=context.policy, progress=context.progress)
