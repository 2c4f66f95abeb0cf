"""The journal: what was applied on a target, with its undo and its evidence.

It stands on the target in schema `playbook`, or in a SQLite file where that schema is not wanted. Both hold the same
two tables. On the target a transactional statement commits together with its done row; everywhere else the catalog
decides at resume, since an intent is committed before its statement is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from playbook.errors import TargetError
from playbook.stores import Store
from playbook.target.sql import Statement
from playbook.target_store import TargetStore, within

Direction = Literal["apply", "undo"]
State = Literal["", "intent", "done"]
UNDER_WAY_S = 5.0
"""How long a COMMIT that got no answer is given; what comes of a later one, the next run finds out."""
DELIVERED_S = 1.0
"""After this time a backend that waits for its client's next word will not get it: the network has lost it."""
_BACKEND = "SELECT state FROM pg_catalog.pg_stat_activity WHERE pid = ? AND backend_start::text = ?"
APPLIED = frozenset({"applied", "applying", "undoing"})
"""The statuses of a step of which something may stand on the target."""


@dataclass(frozen=True)
class Entry:
    """One step in the journal. `objects` maps what the step made to its definition then, so that undo sees drift."""

    step: str
    kind: str
    status: str
    reason: str = ""
    run_id: str = ""
    changed_at: str = ""
    seconds: float = 0.0
    statements: tuple[Statement, ...] = ()
    undo: tuple[Statement, ...] = ()
    objects: dict[str, str] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    position: int = 0


@dataclass(frozen=True)
class Sent:
    """The journal's word on one statement: its state and the backend it was last sent to."""

    state: State
    backend_pid: int = 0
    backend_start: str = ""


class Journal:
    """The journal of one plan on one target. Reading one that was never made yields nothing and makes nothing."""

    def __init__(self, store: Store, plan: str) -> None:
        self.store = store
        self._plan = plan
        self._ready = False

    def open(self) -> None:
        """Makes the store when it does not stand yet; called before the first change, never by a dry run.

        Raises:
            TargetError: it cannot be made or written; the message names the remedy.
        """
        if obstacles := self.store.obstacles():
            raise TargetError("; ".join(f"{each.detail}: {each.remedy}" for each in obstacles))
        if not self._ready and not self.store.exists():
            self.store.create()
        self._ready = True

    def entries(self) -> list[Entry]:
        """Every step the journal knows, in the order they were applied."""
        columns = (
            "step, kind, status, reason, run_id, changed_at, seconds, statements, undo, objects, evidence, position"
        )
        return [_entry(row) for row in self._read(f"SELECT {columns} FROM %step WHERE plan = ? ORDER BY position")]

    def entry(self, step: str) -> Entry | None:
        """What the journal knows of `step`."""
        return next((entry for entry in self.entries() if entry.step == step), None)

    def begin(self, entry: Entry, *, done: int = 0) -> None:
        """Writes a step anew, with its statements yet to be sent but for the first `done` of them."""
        with self.store.session() as execute:
            self._run(
                execute,
                "DELETE FROM %statement WHERE plan = ? AND step = ? AND (direction = 'undo' OR position >= ?)",
                (self._plan, entry.step, done),
            )
            self._run(execute, "DELETE FROM %step WHERE plan = ? AND step = ?", (self._plan, entry.step))
            position = self._run(execute, "SELECT coalesce(max(position), 0) + 1 FROM %step")[0][0]
            self._run(
                execute,
                f"INSERT INTO %step VALUES ({', '.join('?' * 13)})",
                (
                    *(self._plan, entry.step, position, entry.kind, entry.status, entry.reason, entry.run_id, _now()),
                    *(entry.seconds, _dump(entry.statements), _dump(entry.undo)),
                    *(json.dumps(entry.objects), json.dumps(entry.evidence)),
                ),
            )

    def close(self, step: str, status: str, *, reason: str = "", seconds: float | None = None, **more: Any) -> None:
        """Sets a step's status, and `objects` or `evidence` when given."""
        values: dict[str, Any] = {"status": status, "reason": reason, "changed_at": _now()}
        if seconds is not None:
            values["seconds"] = seconds
        values |= {name: json.dumps(value) for name, value in more.items()}
        assignments = ", ".join(f"{name} = ?" for name in values)
        with self.store.session() as execute:
            self._run(
                execute,
                f"UPDATE %step SET {assignments} WHERE plan = ? AND step = ?",
                (*values.values(), self._plan, step),
            )

    def keep_evidence(self, step: str, evidence: dict[str, Any]) -> None:
        """Replaces the evidence of `step`."""
        with self.store.session() as execute:
            self._run(
                execute,
                "UPDATE %step SET evidence = ? WHERE plan = ? AND step = ?",
                (json.dumps(evidence), self._plan, step),
            )

    def sent(self, step: str, direction: Direction, position: int) -> Sent:
        """What became of one statement, as far as the journal knows."""
        rows = self._read(
            "SELECT state, backend_pid, backend_start FROM %statement "
            "WHERE plan = ? AND step = ? AND direction = ? AND position = ?",
            (step, direction, position),
        )
        return Sent(*rows[0]) if rows else Sent("")

    def states(self, step: str, direction: Direction = "apply") -> dict[int, State]:
        """The statements of `step` that were sent and not refused, by position: of the others nothing can stand."""
        rows = self._read(
            "SELECT position, state FROM %statement WHERE plan = ? AND step = ? AND direction = ?", (step, direction)
        )
        return dict(rows)

    def record(self, step: str, direction: Direction, position: int, statement: Statement) -> StatementRecord:
        """The record that `target.execute` writes for one statement."""
        return StatementRecord(self, step, direction, position, statement)

    def write(self, execute: Callable[..., list[Any]], values: tuple[Any, ...]) -> None:
        """Replaces a statement's row inside the transaction that `execute` belongs to."""
        key = (self._plan, *values[:3])
        self._run(execute, "DELETE FROM %statement WHERE plan = ? AND step = ? AND direction = ? AND position = ?", key)
        self._run(execute, f"INSERT INTO %statement VALUES ({', '.join('?' * 9)})", (self._plan, *values, _now()))

    def forget(self, step: str, direction: Direction, position: int) -> None:
        """Removes a statement's row."""
        with self.store.session() as execute:
            self._run(
                execute,
                "DELETE FROM %statement WHERE plan = ? AND step = ? AND direction = ? AND position = ?",
                (self._plan, step, direction, position),
            )

    def _read(self, sql: str, values: Iterable[Any] = ()) -> list[Any]:
        with self.store.reading() as execute:
            return self._run(execute, sql, (self._plan, *values)) if execute else []

    def _run(self, execute: Callable[..., list[Any]], sql: str, values: Iterable[Any] = ()) -> list[Any]:
        return execute(sql.replace("%", self.store.prefix), tuple(values))


@dataclass(frozen=True)
class StatementRecord:
    """Intent and done of one statement."""

    journal: Journal
    step: str
    direction: Direction
    position: int
    statement: Statement

    def intent(self, backend_pid: int, backend_start: str) -> None:
        """Committed before the statement is sent."""
        with self.journal.store.session() as execute:
            self._write(execute, "intent", backend_pid, backend_start)

    @property
    def joins(self) -> bool:
        """Whether the done row commits with the statement; a file's would stand before it."""
        return isinstance(self.journal.store, TargetStore)

    def withdraw(self) -> None:
        """Nothing of the statement stands, so its intent goes."""
        self.journal.forget(self.step, self.direction, self.position)

    def done(self, connection: psycopg.Connection[Any] | None) -> None:
        """In the statement's own transaction where that is possible, else right after it."""
        if connection is not None and self.statement.transactional and self.joins:
            self._write(within(connection), "done", 0, "")
            return
        with self.journal.store.session() as execute:
            self._write(execute, "done", 0, "")

    def confirmed(self) -> bool:
        """Whether the done row was committed; a COMMIT that may be under way still is waited for, `UNDER_WAY_S`."""
        if self.joins:
            self._await_backend()
        return self.journal.sent(self.step, self.direction, self.position).state == "done"

    def _await_backend(self) -> None:
        """Returns once the backend that the statement was sent to is gone; one that hears nothing more is ended."""
        sent = self.journal.sent(self.step, self.direction, self.position)
        lost = time.monotonic()
        while time.monotonic() < lost + UNDER_WAY_S:
            with self.journal.store.session() as execute:
                states = execute(_BACKEND, (sent.backend_pid, sent.backend_start))
                if not states:
                    return
                if states[0][0] == "idle in transaction" and time.monotonic() > lost + DELIVERED_S:
                    execute("SELECT pg_catalog.pg_terminate_backend(?)", (sent.backend_pid,))
            time.sleep(0.02)

    def _write(self, execute: Callable[..., list[Any]], state: State, pid: int, start: str) -> None:
        values = (self.step, self.direction, self.position, self.statement.sql, state, pid, start)
        self.journal.write(execute, values)


def _dump(statements: Sequence[Statement]) -> str:
    return json.dumps([asdict(statement) for statement in statements])


def _entry(row: Sequence[Any]) -> Entry:
    *head, statements, undo, objects, evidence, position = row
    return Entry(
        *head,
        statements=tuple(Statement(**fields) for fields in json.loads(statements)),
        undo=tuple(Statement(**fields) for fields in json.loads(undo)),
        objects=json.loads(objects),
        evidence=json.loads(evidence),
        position=position,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
