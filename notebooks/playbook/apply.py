"""Applying and undoing one step: every statement between an intent and a done row, resumed where it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import groupby
from typing import Any

import psycopg

from playbook.backends import await_backend, await_backends
from playbook.changes import kinds
from playbook.changes.change import Change
from playbook.context import Context
from playbook.errors import Drifted, Interrupted, LockNotGranted, StepError
from playbook.journal import APPLIED, Entry
from playbook.refreshes import Refresh, Refreshes
from playbook.target.execute import UNRECORDED, execute
from playbook.target.server_errors import LOST, interruption, masked
from playbook.target.sql import Statement, literal

AT_ONCE = 2
"""Statements that run beside each other: few servers have fewer cores, and of many the rest is for others."""


@interruption()
def apply_step(context: Context, step: str, change: Change, evidence: dict[str, Any]) -> None:
    """Runs the change's statements into the journal.

    `evidence` (the measurements before) is kept with the entry: a run killed after this point can still compare.

    Raises:
        StepError: a statement failed; the journal says where, and the next call resumes there.
    """
    started = time.monotonic()
    before = context.journal.entry(step)
    entry = _begin(context, step, change, evidence)
    try:
        apply_statements(context, entry, change)
    except Interrupted:
        raise
    except StepError as error:
        if before and before.status == "applied" and _refused(error) and not _advanced(context, entry, change):
            context.journal.begin(before, done=len(before.statements))
            raise StepError(f"{error}; what an earlier run applied stands as it stood") from error
        if isinstance(error.__cause__ or error, change.gives_up_on):
            undo_step(context, entry)
            raise StepError(f"{error}; what the step had made was taken back") from error
        if not context.journal.states(step):
            context.journal.close(step, "failed", reason=masked(error))
        raise
    with context.connect() as connection:
        if missing := change.missing(connection):
            raise StepError(f"{step}: {missing}; run again to go on with them")
        objects = change.objects(connection)
        evidence = {**entry.evidence, "proof": change.proof(connection)}
    seconds = time.monotonic() - started
    if first := entry.evidence.get("refreshed"):
        Refreshes(context.journal.store).record(Refresh(**first, seconds=seconds, manner="plain"))
    context.journal.close(step, "applied", seconds=seconds, objects=objects, evidence=evidence)


def _refused(error: StepError) -> bool:
    """Whether the server said no, and so is done with the statement."""
    cause = error.__cause__
    told = isinstance(cause, psycopg.Error) and cause.sqlstate is not None and not cause.sqlstate.startswith(LOST)
    return isinstance(error, LockNotGranted) or told


def _advanced(context: Context, entry: Entry, change: Change) -> bool:
    """Whether a statement of this run is done already."""
    ours = range(len(entry.statements) - len(change.statements()), len(entry.statements))
    states = context.journal.states(entry.step)
    return any(states.get(position) == "done" for position in ours)


def _begin(context: Context, step: str, change: Change, evidence: dict[str, Any]) -> Entry:
    """The journal's entry is kept when it was interrupted, else written anew; it holds the statements to run.

    Where an earlier run's own work is gone on from, what that run did stays before them, and so does its undo.
    """
    earlier = context.journal.entry(step)
    if earlier and earlier.status == "applying" and _goes_on(context, earlier, change):
        return earlier
    done: tuple[Statement, ...] = ()
    undo, objects = change.undo(), dict.fromkeys(change.makes(), "")
    if earlier and earlier.status in APPLIED:
        await_backends(context, earlier)
        if change.stands().standing in {"begun", "unfinished"}:
            if change.made_as_one:
                raise Drifted(
                    f"{step}: what it is made from has changed since run {earlier.run_id} was interrupted; take that "
                    f"run's part back first, then apply again: playbook undo {step}"
                )
            done = earlier.statements[: list(context.journal.states(step).values()).count("done")]
            undo, objects = change.undo_after(earlier.undo), earlier.objects | objects
    with context.connect() as connection:
        evidence = {**evidence, **change.marks(connection)}
    begun = Entry(
        step=step,
        kind=change.kind,
        status="applying",
        run_id=context.run_id,
        statements=(*done, *change.statements()),
        undo=undo,
        objects=objects,
        evidence=evidence,
    )
    context.journal.open()
    context.journal.begin(begun, done=len(done))
    return begun


def _goes_on(context: Context, entry: Entry, change: Change) -> bool:
    """Whether what the change has yet to run is all that the interrupted run had not sent, or nothing."""
    rest = change.statements()
    before = range(len(entry.statements) - len(rest))
    same = entry.statements[-len(rest) :] == rest and context.journal.states(entry.step).keys() >= set(before)
    return same or change.stands().standing == "exists"


def apply_statements(context: Context, entry: Entry, change: Change, first: int = 0) -> None:
    """Runs the entry's statements in order, from position `first` on; those that are done already are left out.

    Neighbours that stand `beside` each other are at work together, some at once, unless others are to be spared; each
    has its own record in the journal, so it resumes by itself. One that fails ends those beside it, and so does Ctrl-C,
    of which only this thread hears.

    Raises:
        StepError: a statement failed; the next call resumes there.
    """
    for positions in _side_by_side(entry.statements, first):
        _apply_together(context, entry, change, positions)


def _side_by_side(statements: Sequence[Statement], first: int) -> list[list[int]]:
    """The positions, in order; those together whose statements may run beside each other."""
    positions = range(first, len(statements))
    return [list(each) for _, each in groupby(positions, lambda at: statements[at].beside or at)]


def _apply_together(context: Context, entry: Entry, change: Change, positions: list[int]) -> None:
    work = [(context, entry.step, change, position, entry.statements[position]) for position in positions]
    at_once = 1 if change.throttle().spares else min(len(work), AT_ONCE)
    if at_once == 1:
        for each in work:
            _apply_statement(*each)
        return
    with ThreadPoolExecutor(at_once, "apply") as threads:
        running = [threads.submit(_apply_statement, *each) for each in work]
        try:
            ended, _ = wait(running, return_when=FIRST_EXCEPTION)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            while not all(each.done() for each in running):
                context.sessions.stop()
                time.sleep(0.05)
            context.sessions.go_on()
    for each in running:
        if each in ended:
            each.result()


def _apply_statement(context: Context, step: str, change: Change, position: int, statement: Statement) -> None:
    """Runs one statement of the step's entry, unless it is done already."""
    record = context.journal.record(step, "apply", position, statement)
    sent = context.journal.sent(step, "apply", position)
    if sent.state == "done":
        return
    if statement.language != "sql":
        record.done(None)
        return
    context.ensure_held()
    if sent.state == "intent":
        await_backend(context, sent, statement)
    with context.connect() as connection:
        outcome = change.outcome(connection, statement)
        if outcome == "done" and (sent.state == "intent" or statement.unless):
            record.done(connection)
            return
    if outcome == "broken":
        _mend(context, change, statement)
    context.progress(statement.purpose)
    execute(
        context.connect,
        statement,
        record,
        policy=context.policy,
        progress=context.progress,
        repair=lambda: _repair(context, change, statement),
        guard=lambda connection: change.guard(connection, statement),
        throttle=change.throttle(),
    )


def _repair(context: Context, change: Change, statement: Statement) -> None:
    """Removes what a cancelled or killed statement left behind."""
    with context.connect() as connection:
        broken = change.outcome(connection, statement) == "broken"
    if broken:
        _mend(context, change, statement)


def _mend(context: Context, change: Change, statement: Statement) -> None:
    if remedy := change.repair(statement):
        _remove(context, remedy)


def _remove(context: Context, remedy: Statement) -> None:
    context.progress(remedy.purpose)
    execute(context.connect, remedy, UNRECORDED, policy=context.policy, progress=context.progress)


@interruption()
def undo_step(context: Context, entry: Entry, *, status: str = "undone", reason: str = "") -> None:
    """Takes one step back from its journal entry alone, since the plan may no longer hold it.

    `status` is what the journal says afterwards: `dropped` for a step that gained nothing.

    Raises:
        Drifted: an object was changed by others since it was applied.
        StepError: a statement failed; the next call resumes there. Or the step was made final.
    """
    if final := entry.evidence.get("final"):
        raise StepError(f"{entry.step}: {final}")
    context.journal.open()
    await_backends(context, entry, cancel=True)
    # What was never sent made nothing: an object of that name is somebody else's.
    present = _present(context, entry) if context.journal.states(entry.step) else {}
    begun = "done" in context.journal.states(entry.step, "undo").values()
    if not (begun and kinds()[entry.kind].undone_in_stages):
        _refuse_drift(entry, present)
    context.journal.close(entry.step, "undoing", reason=entry.reason)
    if present or context.journal.states(entry.step, "undo"):
        for position, statement in enumerate(entry.undo):
            undo_statement(context, entry, position, statement)
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
                f"{entry.step}: {name} was changed since run {entry.run_id} applied it ({_difference(then, now)}), so "
                "undo leaves it alone; put it back or drop it by hand"
            )


def _difference(then: str, now: str) -> str:
    """What a definition was and is; of a long one, only the lines that differ."""
    before, after = then.splitlines(), now.splitlines()
    if len(before) > 1 or len(after) > 1:
        then = ", ".join(line for line in before if line not in after) or "less"
        now = ", ".join(line for line in after if line not in before) or "less"
    return f"then: {then}; now: {now}"


def undo_statement(context: Context, entry: Entry, position: int, statement: Statement) -> None:
    """Runs one statement of the entry's undo, unless it is done already or there is nothing left for it to do."""
    record = context.journal.record(entry.step, "undo", position, statement)
    sent = context.journal.sent(entry.step, "undo", position)
    if sent.state == "done":
        return
    if statement.language != "sql":
        record.done(None)
        return
    context.ensure_held()
    if sent.state == "intent":
        await_backend(context, sent, statement)
        if not statement.unless and not _present(context, entry):
            return
    if statement.unless and _holds(context, statement.unless):
        return
    _clear(context, statement)
    execute(
        context.connect,
        statement,
        record,
        policy=context.policy,
        progress=context.progress,
        repair=lambda: _clear(context, statement),
    )


def _clear(context: Context, statement: Statement) -> None:
    """Removes the INVALID index that a cancelled or killed build of an undo left."""
    if remedy := statement.remains():
        named = f"indexrelid = to_regclass({literal(statement.builds)})"
        if _holds(context, f"EXISTS (SELECT FROM pg_catalog.pg_index WHERE {named} AND NOT indisvalid)"):
            _remove(context, remedy)


def _holds(context: Context, condition: str) -> bool:
    with context.connect() as connection:
        row = connection.execute(f"SELECT {condition}".encode()).fetchone()
        return bool(row and row[0])
