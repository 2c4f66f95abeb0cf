"""What constraints have in common: added NOT VALID under a bounded lock, then validated beside readers and writers.

A NOT VALID constraint already holds for every row that is written, an old one too: under it an UPDATE of any column of
a row that violates it fails. So violating rows are counted first, and while there are any nothing is added, unless the
plan says `enforce_new_rows`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import psycopg
from psycopg import errors as pg
from pydantic import Field

from playbook.changes import preflight
from playbook.changes.change import Change, Finding, Stands
from playbook.changes.violations import Violations, count_rows, violations
from playbook.errors import NotAnalysed
from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target import catalog as catalogs
from playbook.target.catalog import Catalog, Table
from playbook.target.sql import Statement, quote

_NOT_COUNTED = "rows that violate it were not counted, which reads the whole table"
VALIDATE_LOCK = "SHARE UPDATE EXCLUSIVE"


class ConstraintSpec(StepSpec):
    """The step's name is the constraint's name. With `enforce_new_rows` it is added although old rows violate it."""

    name: str = Field(min_length=1, max_length=63)
    table: str
    enforce_new_rows: bool = False


class Constraint(Change):
    """A named constraint of one table."""

    kinds_of_table: ClassVar[str] = "rp"
    lock: ClassVar[str] = "ACCESS EXCLUSIVE"
    """What adding and dropping take."""
    gives_up_on = (pg.CheckViolation, pg.ForeignKeyViolation)
    spec: ConstraintSpec

    def __init__(self, spec: ConstraintSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.table: Table = names.relation(spec.table, self.kinds_of_table)

    @property
    @abstractmethod
    def body(self) -> str:
        """What follows ADD CONSTRAINT and its name."""

    @abstractmethod
    def violated(self) -> str:
        """The condition that is true for a row of the table, called `checked`, which violates the constraint."""

    @abstractmethod
    def same(self, constraint: catalogs.Constraint) -> bool:
        """Whether one that stands says the same, validated or not."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The constrained table."""
        return (self.table.qualified,)

    @property
    def locked(self) -> str:
        """The quoted names of the tables that adding and dropping lock."""
        return self.table.qualified

    @property
    def object_name(self) -> str:
        """The constraint as PostgreSQL words it: its name ON its table."""
        return f"{quote(self.spec.name)} ON {self.table.qualified}"

    def statements(self) -> tuple[Statement, ...]:
        """ADD … NOT VALID, then VALIDATE; only VALIDATE where it stands NOT VALID already."""
        if self._begun():
            return (self._validate(),)
        return (self._add(),) if self.spec.enforce_new_rows else (self._add(), self._validate())

    def _begun(self) -> bool:
        return (named := self._of_that_name()) is not None and not named.validated and self.same(named)

    def _add(self) -> Statement:
        sql = f"ALTER TABLE {self.table.qualified}\n  ADD CONSTRAINT {quote(self.spec.name)} {self.body} NOT VALID"
        return Statement(sql, f"hold new and changed rows to {self.spec.name}", self.lock, self.locked)

    def _validate(self) -> Statement:
        sql = f"ALTER TABLE {self.table.qualified}\n  VALIDATE CONSTRAINT {quote(self.spec.name)}"
        purpose = f"verify the rows that stand against {self.spec.name}"
        return Statement(sql, purpose, VALIDATE_LOCK, self.table.qualified, long=True)

    def undo(self) -> tuple[Statement, ...]:
        """DROP CONSTRAINT; one that others left NOT VALID is made so again."""
        name = quote(self.spec.name)
        drop = f"ALTER TABLE {self.table.qualified}\n  DROP CONSTRAINT {name}"
        if self._begun():
            again = f"{drop},\n  ADD CONSTRAINT {name} {self.body} NOT VALID"
            return (Statement(again, f"leave {self.spec.name} NOT VALID, as it was", self.lock, self.locked),)
        return (Statement(drop, f"drop {self.spec.name}", self.lock, self.locked),)

    def stands(self) -> Stands:
        """By name first, then by what it says."""
        if (named := self._of_that_name()) is not None:
            if not self.same(named):
                shown = f"{self.spec.name} stands already as: {named.definition}; the plan's is: {self.body}"
                return Stands("other", shown)
            if named.validated:
                return Stands("exists", f"{self.spec.name} stands already with this definition")
            return Stands("begun", f"{self.spec.name} stands NOT VALID: no row that was there before was verified")
        equal = [each for each in self.table.constraints if self.same(each)]
        if valid := next((each for each in equal if each.validated), None):
            return Stands("covered", f"{valid.name} says the same: {valid.definition}")
        if equal:
            return Stands(
                "other", f"{equal[0].name} says the same and is NOT VALID; the plan calls it {self.spec.name}"
            )
        return Stands("absent")

    def _of_that_name(self) -> catalogs.Constraint | None:
        return next((each for each in self.table.constraints if each.name == self.spec.name), None)

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Standby, ownership, long transactions, and the rows that violate it."""
        found = [
            *preflight.standby(connection),
            *preflight.ownership(connection, self.table, creates=False),
            *preflight.long_transactions(connection, preflight.HOLDS_LOCK),
        ]
        if any(each.concern == "blocked" for each in found):
            return found
        if not execute:
            return [
                *found,
                Finding("not_checked", _NOT_COUNTED, "--measure counts them, and apply does before it begins"),
            ]
        return [*found, *self._violations(connection)]

    def _violations(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        try:
            found = violations(connection, self.table, self.violated())
        except NotAnalysed as error:
            return [Finding("blocked", f"the rows cannot be counted: {error}", "mend the plan or add it by hand")]
        if not found.rows:
            return []
        detail = f"{found.rows:,} {'row violates' if found.rows == 1 else 'rows violate'} it"
        if self.spec.enforce_new_rows and not self._begun():
            beware = "it is added NOT VALID: until they are mended, any UPDATE of these rows fails"
            return [Finding("warn", detail, beware, found.keys)]
        return [Finding("blocked", detail, self.remedy(found), found.keys)]

    def remedy(self, found: Violations) -> str:
        """What each way out would do; which one is right only the owner of the rows knows."""
        number = f"{found.rows:,}"
        ways = f"mend them (an UPDATE of {number}) or remove them (a DELETE of {number}), then run again"
        if self._begun():
            return f"{ways}; until then any UPDATE of these rows fails"
        return f"{ways}; or `enforce_new_rows: true` in the plan, under which any UPDATE of these rows fails until then"

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """Both statements are transactional: done or not."""
        validated = self.validated(connection)
        return "done" if validated or (validated is False and statement == self._add()) else "absent"

    def serves_in_part(self) -> bool:
        """NOT VALID it holds for new rows, which `enforce_new_rows` asks for."""
        return self.spec.enforce_new_rows and self._begun()

    def repair(self, statement: Statement) -> Statement | None:
        """Nothing: a transactional statement leaves no remains."""
        return None

    def remark(self) -> str:
        """Said where `enforce_new_rows` adds it without verifying old rows."""
        if not self.spec.enforce_new_rows or self._begun():
            return ""
        return "NOT VALID: it holds for new and changed rows only, until a later run finds every row right"

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """How many rows the server verified; nothing where it did not."""
        return self.counted(connection) if self.validated(connection) else ""

    def validated(self, connection: psycopg.Connection[Any]) -> bool | None:
        """Whether the server has verified every row; None where no constraint of that name stands."""
        row = connection.execute(_STATE, [self.object_name]).fetchone()
        return row[0] if row else None

    def counted(self, connection: psycopg.Connection[Any]) -> str:
        """The rows that the table holds now, all of them verified."""
        try:
            return f"{count_rows(connection, self.table):,} rows verified"
        except NotAnalysed:
            return "every row verified"

    def makes(self) -> tuple[str, ...]:
        """The constraint."""
        return (self.object_name,)

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """The constraint with its definition."""
        definition = self.definition(connection, self.object_name)
        return {self.object_name: definition} if definition else {}

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """pg_get_constraintdef with the comment; whether it was validated since makes no other constraint of it."""
        row = connection.execute(_DEFINITION, [name]).fetchone()
        return row[0].replace(" NOT VALID", "") + row[1] if row else None

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """A constraint takes no disk."""
        return 0


_NAMED = """
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE quote_ident(k.conname) || ' ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) = %s
"""
_STATE = f"SELECT k.convalidated {_NAMED}"
_DEFINITION = (
    "SELECT pg_get_constraintdef(k.oid), coalesce(' COMMENT ' || obj_description(k.oid, 'pg_constraint'), '')" + _NAMED
)
