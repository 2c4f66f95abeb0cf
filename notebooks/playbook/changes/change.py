"""What every kind of change answers: its SQL, its undo, whether it stands already, whether it is safe now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import psycopg

from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Table
from playbook.target.repeating import Throttle
from playbook.target.sql import Statement

Standing = Literal["absent", "exists", "covered", "other", "unfinished", "begun"]
Concern = Literal["blocked", "privilege", "warn", "not_checked", "note"]


@dataclass(frozen=True)
class Finding:
    """One answer of a preflight: what was found, and what mends it.

    A missing `privilege` blocks where steps may be applied; a dry run, which does without it, goes on and says so.
    `keys` name the rows it speaks of, a few of them; on a foreign target they are masked unless asked for. `grant` is
    the statement that mends a missing privilege, for whoever may run it.
    """

    concern: Concern
    detail: str
    remedy: str = ""
    keys: tuple[str, ...] = ()
    grant: str = ""

    def __str__(self) -> str:
        head = {"warn": "beware: ", "not_checked": "not checked: "}.get(self.concern, "")
        return f"{head}{self.detail}" + (f" ({self.remedy})" if self.remedy else "")


@dataclass(frozen=True)
class Stands:
    """What already stands on the target in place of the change.

    `exists` is the very same object, `covered` another one that serves as well, `other` something else under the same
    name, `unfinished` the remains of a build that did not end, `begun` a part of it that `apply` goes on from, whoever
    made that.
    """

    standing: Standing
    reason: str = ""


class Change(ABC):
    """One change on one target. Made from its spec and the names resolved there; it holds no connection.

    Raises (at construction):
        NotFound: a name of the spec is not on the target: the step is not applicable.
        Ambiguous: two candidates bear it.
    """

    kind: ClassVar[str]
    Spec: ClassVar[type[StepSpec]] = StepSpec
    without: ClassVar[Sequence[str]] = ()
    """Planner settings that, switched off, make the change unusable: the other side of the same-rows check."""
    by_plan: ClassVar[bool] = False
    """Whether it works through the planner alone: then a query whose plan stayed the same was not made faster by it."""
    of_service: ClassVar[bool] = False
    """Whether it changes the reference service, which runs on the embedded sample and nowhere else."""
    answers: ClassVar[bool] = False
    """Whether what it makes is asked instead: its claims are then measured by the queries that answer them."""
    made_as_one: ClassVar[bool] = False
    """Whether what an interrupted run made is of use only to the very statements that it was to run."""
    undone_in_stages: ClassVar[bool] = False
    """Whether an undo that was interrupted leaves what was made altered: the next is not to take that for drift."""
    gives_up_on: ClassVar[tuple[type[psycopg.Error], ...]] = ()
    """Errors of a statement after which what its step has made so far is taken back at once."""

    def __init__(self, spec: StepSpec, names: Names, catalog: Catalog) -> None:
        self.spec = spec
        self.names = names
        self.catalog = catalog

    def ask(self, connection: psycopg.Connection[Any]) -> None:  # noqa: B027 - most kinds have nothing to ask
        """Has the server answer what the catalog alone leaves open, before anything else is asked of the change.

        Nothing is executed, and nothing written: it may be asked of a foreign target in a dry run.
        """

    def guard(self, connection: psycopg.Connection[Any], statement: Statement) -> None:  # noqa: B027
        """Called in the transaction of a guarded statement, before it.

        Raises:
            Drifted: others have changed what it relies on.
        """

    @property
    @abstractmethod
    def tables(self) -> tuple[str, ...]:
        """The quoted names, with their schemas, of the target's relations that it touches."""

    @property
    def relations(self) -> tuple[Table, ...]:
        """The relations whose definition it depends on: a saved plan is refused once one of them has changed."""
        return tuple(table for table in self.catalog.tables if table.qualified in self.tables)

    @abstractmethod
    def statements(self) -> tuple[Statement, ...]:
        """What `apply` runs, in order."""

    @abstractmethod
    def undo(self) -> tuple[Statement, ...]:
        """What takes it back, in order."""

    def undo_after(self, earlier: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """What takes it back where it goes on from an earlier run's work, whose own undo is `earlier`."""
        return earlier

    @abstractmethod
    def stands(self) -> Stands:
        """Whether it is there already, judged from the catalog."""

    @abstractmethod
    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """What speaks against applying it now.

        Without `execute` no row of the target's tables is read: what only its rows can tell is `not_checked`.
        """

    @abstractmethod
    def repair(self, statement: Statement) -> Statement | None:
        """What removes the remains of `statement` when it was cancelled or its client killed."""

    @abstractmethod
    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """What the catalog says became of `statement`."""

    def missing(self, connection: psycopg.Connection[Any]) -> str:
        """What keeps it from being whole although every statement is done; empty where it is."""
        return ""

    @abstractmethod
    def makes(self) -> tuple[str, ...]:
        """The quoted names of the objects it makes."""

    @abstractmethod
    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """What the change made: quoted name → definition, empty where nothing stands."""

    @staticmethod
    @abstractmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """The present definition of an object of this kind, None where it is gone; undo compares the two."""

    @abstractmethod
    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """Disk taken by what the change made."""

    def serves_in_part(self) -> bool:
        """Whether the part of it that stands is all that the plan asks for until the rest can be made."""
        return False

    def marks(self, connection: psycopg.Connection[Any]) -> dict[str, Any]:
        """What is to be kept with the journal's entry of how the target was just before the first statement."""
        return {}

    def over_definition(self, sql: str) -> str | None:
        """The query `sql`, which reads what the change keeps, over the rows that this is made from; None: no such way.

        Where something is kept for a while, an answer may be older than the tables and right all the same.
        """
        return None

    def hypothetical(self) -> tuple[str, ...]:
        """CREATE INDEX statements by which HypoPG can pretend that the change stood; none where it cannot."""
        return ()

    def throttle(self) -> Throttle:
        """What its statements that repeat spare others."""
        return Throttle()

    def remark(self) -> str:
        """What has to be said beside "applied"."""
        return ""

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """What was shown by applying it, where that is something else than speed (`4,000 rows verified`)."""
        return ""

    def paid_by_writers(self) -> tuple[str, str, tuple[str, ...]] | None:
        """Schema and name of the table whose writers pay, and the names of the indexes and constraints they pay for.

        None where writers pay nothing.
        """
        return None
