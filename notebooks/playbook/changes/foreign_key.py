"""Kind `foreign_key`: a FOREIGN KEY between two tables in use."""

from __future__ import annotations

from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict, Field, model_validator

from playbook.changes import preflight
from playbook.changes.change import Finding
from playbook.changes.constraint import Constraint, ConstraintSpec
from playbook.changes.violations import Violations
from playbook.plan.names import Names
from playbook.target import catalog as catalogs
from playbook.target.catalog import Catalog, Table
from playbook.target.sql import Statement, quote

Action = Literal["no action", "restrict", "cascade", "set null", "set default"]


class References(BaseModel):
    """The referenced table and its unique columns."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    table: str
    columns: tuple[str, ...] = Field(min_length=1)


class ForeignKeySpec(ConstraintSpec):
    """`columns` refer, in this order, to those of `references`."""

    columns: tuple[str, ...] = Field(min_length=1)
    references: References
    on_update: Action = "no action"
    on_delete: Action = "no action"

    @model_validator(mode="after")
    def _as_many(self) -> ForeignKeySpec:
        if len(self.columns) != len(self.references.columns):
            raise ValueError("as many columns refer as are referred to")
        return self


class ForeignKey(Constraint):
    """A FOREIGN KEY of the plan on the target."""

    kind = "foreign_key"
    Spec = ForeignKeySpec
    lock = "SHARE ROW EXCLUSIVE"
    spec: ForeignKeySpec

    def __init__(self, spec: ForeignKeySpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.referenced: Table = names.relation(spec.references.table, self.kinds_of_table)
        self.columns = tuple(names.column(spec.table, each).name for each in spec.columns)
        self.keys = tuple(names.column(spec.references.table, each).name for each in spec.references.columns)

    @property
    def tables(self) -> tuple[str, ...]:
        """The referring table and the referenced one."""
        return self.table.qualified, self.referenced.qualified

    @property
    def locked(self) -> str:
        """Adding a foreign key makes triggers on both tables."""
        return " and ".join(dict.fromkeys((self.table.qualified, self.referenced.qualified)))

    @property
    def body(self) -> str:
        """The clauses in the order and words of pg_get_constraintdef()."""
        columns, keys = (", ".join(map(quote, names)) for names in (self.columns, self.keys))
        actions = (("UPDATE", self.spec.on_update), ("DELETE", self.spec.on_delete))
        clauses = "".join(f" ON {event} {action.upper()}" for event, action in actions if action != "no action")
        return f"FOREIGN KEY ({columns}) REFERENCES {self.referenced.qualified}({keys}){clauses}"

    def violated(self) -> str:
        """No column is NULL, and no row is referred to."""
        pairs = zip(map(quote, self.keys), map(quote, self.columns), strict=True)
        match = " AND ".join(f"referenced.{key} = checked.{column}" for key, column in pairs)
        present = " AND ".join(f"checked.{quote(column)} IS NOT NULL" for column in self.columns)
        return f"{present} AND NOT EXISTS (SELECT 1 FROM {self.referenced.qualified} AS referenced WHERE {match})"

    def same(self, constraint: catalogs.Constraint) -> bool:
        """Definitions are compared as the server words them."""
        return constraint.kind == "f" and constraint.definition.removesuffix(" NOT VALID") == self.body

    def undo(self) -> tuple[Statement, ...]:
        """Dropping takes the stronger lock, on both tables."""
        return tuple(
            Statement(each.sql, each.purpose, "ACCESS EXCLUSIVE", self.locked, long=each.long)
            for each in super().undo()
        )

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Also: may it refer there, is what it refers to unique, and does an index serve deletes there."""
        return [
            *self._partitioned(),
            *self._unique(),
            *self._may_refer(connection),
            *super().preflight(connection, execute=execute),
            *self._index(),
        ]

    def _partitioned(self) -> list[Finding]:
        if self.table.kind != "p" or self.catalog.server_version >= 180000:
            return []
        detail = f"{self.table.qualified} is partitioned: before PostgreSQL 18 its foreign keys cannot be NOT VALID"
        return [Finding("blocked", detail, "add it partition by partition, then on the parent")]

    def _unique(self) -> list[Finding]:
        wanted = sorted(self.keys)
        for index in self.referenced.indexes:
            columns = sorted(key.column or "" for key in index.keys)
            if index.unique and index.usable and index.immediate and not index.predicate and columns == wanted:
                return []
        keys = ", ".join(map(quote, self.keys))
        return [
            Finding("blocked", f"{self.referenced.qualified} ({keys}) is not unique", "make a unique index there first")
        ]

    def _may_refer(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        if preflight.has_privilege(connection, self.referenced, "REFERENCES"):
            return []
        user = preflight.current_user(connection)
        remedy = f"GRANT REFERENCES ON {self.referenced.qualified} TO {quote(user)};"
        return [Finding("privilege", f"{user} may not refer to {self.referenced.qualified}", remedy, grant=remedy)]

    def _index(self) -> list[Finding]:
        for index in self.table.indexes:
            first = {key.column for key in index.keys[: len(self.columns)]}
            if index.usable and not index.predicate and first == set(self.columns):
                return []
        columns = ", ".join(map(quote, self.columns))
        detail = f"no index of {self.table.qualified} begins with ({columns})"
        return [Finding("warn", f"{detail}: every DELETE on {self.referenced.qualified} will scan it", "add one")]

    def remedy(self, found: Violations) -> str:
        """A third way out: the rows that are missed can be put there."""
        return f"insert what is missing into {self.referenced.qualified}, or {super().remedy(found)}"
