"""Kind `not_null`: a column that takes no NULL any more, by way of a CHECK that was validated beside the writers.

SET NOT NULL alone reads the whole table under ACCESS EXCLUSIVE. Where a valid CHECK (column IS NOT NULL) stands, it
believes that instead, from PostgreSQL 12 on.
"""

from __future__ import annotations

from typing import Any, Literal

import psycopg

from playbook.changes.change import Stands
from playbook.changes.constraint import Constraint, ConstraintSpec
from playbook.plan.names import Names
from playbook.target import catalog as catalogs
from playbook.target.catalog import Catalog
from playbook.target.sql import Statement, quote


class NotNullSpec(ConstraintSpec):
    """The step's name is that of the CHECK which helps on the way and is gone in the end."""

    column: str
    enforce_new_rows: Literal[False] = False


class NotNull(Constraint):
    """NOT NULL on one column of the target."""

    kind = "not_null"
    Spec = NotNullSpec
    by_plan = True
    spec: NotNullSpec

    def __init__(self, spec: NotNullSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.column = names.column(spec.table, spec.column)

    @property
    def column_name(self) -> str:
        """The quoted column with its table."""
        return f"{self.table.qualified}.{quote(self.column.name)}"

    @property
    def body(self) -> str:
        """The helping CHECK."""
        return f"CHECK ({quote(self.column.name)} IS NOT NULL)"

    def violated(self) -> str:
        """The column is NULL."""
        return f"checked.{quote(self.column.name)} IS NULL"

    def same(self, constraint: catalogs.Constraint) -> bool:
        """The helping CHECK, however it is named."""
        wanted = f"CHECK (({quote(self.column.name)} IS NOT NULL))"
        return constraint.kind == "c" and constraint.definition.removesuffix(" NOT VALID") == wanted

    def statements(self) -> tuple[Statement, ...]:
        """The CHECK, its validation, SET NOT NULL that believes it, and the CHECK's end; what is done is left out."""
        alter = f"ALTER TABLE {self.table.qualified}\n  "
        name, column = quote(self.spec.name), quote(self.column.name)
        set_not_null = f"{alter}ALTER COLUMN {column} SET NOT NULL"
        steps = (
            self._add(),
            self._validate(),
            Statement(set_not_null, f"{self.column.name} takes no NULL", self.lock, self.locked),
            Statement(f"{alter}DROP CONSTRAINT {name}", "the CHECK has served", self.lock, self.locked),
        )
        if (helper := self._of_that_name()) is None:
            return steps
        if self.column.not_null:
            return steps[3:]
        return steps[2:] if helper.validated else steps[1:]

    def undo(self) -> tuple[Statement, ...]:
        """From wherever it came to: the column takes NULL again, and no helper stands."""
        sql = (
            f"ALTER TABLE {self.table.qualified}\n  ALTER COLUMN {quote(self.column.name)} DROP NOT NULL,\n"
            f"  DROP CONSTRAINT IF EXISTS {quote(self.spec.name)}"
        )
        return (Statement(sql, f"{self.column.name} takes NULL again", self.lock, self.locked),)

    def stands(self) -> Stands:
        """By the column; a CHECK that says the same does not make it NOT NULL."""
        if (helper := self._of_that_name()) is not None:
            if not self.same(helper):
                return Stands("other", f"{self.spec.name} stands already as: {helper.definition}")
            return Stands("unfinished", f"{self.spec.name}, which helps on the way to NOT NULL, stands")
        if not self.column.not_null:
            return Stands("absent")
        named = (each for each in self.table.constraints if each.kind == "n" and each.columns == (self.column.name,))
        if invalid := next((each for each in named if not each.validated), None):
            validate = f"ALTER TABLE {self.table.qualified} VALIDATE CONSTRAINT {quote(invalid.name)}"
            return Stands("other", f"{self.column_name} is NOT NULL NOT VALID already, by another way: {validate}")
        return Stands("exists", f"{self.column_name} is NOT NULL already")

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """All are transactional; the column and the helper tell how far it came."""
        column = self._is_not_null(connection, self.column_name)
        helper = self.validated(connection)
        if "DROP CONSTRAINT" in statement.sql:
            return "done" if column and helper is None else "absent"
        if column:
            return "done"
        return "absent" if "SET NOT NULL" in statement.sql else super().outcome(connection, statement)

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """How many rows the server verified."""
        return self.counted(connection) if self._is_not_null(connection, self.column_name) else ""

    def makes(self) -> tuple[str, ...]:
        """The column's NOT NULL, and on the way the helper."""
        return self.column_name, self.object_name

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """The column, once it is NOT NULL."""
        definition = self.definition(connection, self.column_name)
        return {self.column_name: definition} if definition else {}

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """NOT NULL of a column; of the helper, what a constraint's is."""
        if " ON " in name and (helper := Constraint.definition(connection, name)):
            return helper
        return "NOT NULL" if NotNull._is_not_null(connection, name) else None

    @staticmethod
    def _is_not_null(connection: psycopg.Connection[Any], name: str) -> bool:
        return connection.execute(_NOT_NULL, [name]).fetchone() is not None


_NOT_NULL = """
SELECT 1 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnotnull AND NOT a.attisdropped
AND quote_ident(n.nspname) || '.' || quote_ident(c.relname) || '.' || quote_ident(a.attname) = %s
"""
