"""Kind `index`: CREATE INDEX CONCURRENTLY, and DROP INDEX CONCURRENTLY as its undo."""

from __future__ import annotations

import re
from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from playbook.changes import preflight
from playbook.changes.change import Change, Finding, Stands
from playbook.changes.covering import WantedIndex, WantedKey, covered_by, same_definition
from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Index, Table
from playbook.target.sql import Statement, quote

LOCK = "SHARE UPDATE EXCLUSIVE"

_SHORT_KEY = re.compile(
    r"(?P<column>\S+)(?:\s+(?P<order>ASC|DESC))?(?:\s+NULLS\s+(?P<nulls>FIRST|LAST))?", re.IGNORECASE
)


class KeySpec(BaseModel):
    """One key of an index. Short form in the plan: `timestamp DESC NULLS LAST`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    column: str | None = None
    expression: str | None = None
    descending: bool = False
    nulls: Literal["first", "last"] | None = None
    opclass: str | None = None
    collation: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not (match := _SHORT_KEY.fullmatch(value.strip())):
            raise ValueError("write `column [ASC|DESC] [NULLS FIRST|LAST]`, or a mapping with column: or expression:")
        nulls = match["nulls"]
        descending = (match["order"] or "").upper() == "DESC"
        return {"column": match["column"], "descending": descending, "nulls": nulls.lower() if nulls else None}

    @model_validator(mode="after")
    def _one_of_both(self) -> KeySpec:
        if (self.column is None) == (self.expression is None):
            raise ValueError("a key is either a column or an expression")
        return self


class IndexSpec(StepSpec):
    """The step's name is the index's name."""

    table: str
    columns: tuple[KeySpec, ...] = Field(min_length=1)
    include: tuple[str, ...] = ()
    where: str | None = None
    unique: bool = False
    method: str = Field(default="btree", pattern=r"^[a-z_][a-z0-9_]*$")

    @field_validator("name")
    @classmethod
    def _fits(cls, name: str) -> str:
        if len(name.encode()) > 63:
            raise ValueError("PostgreSQL cuts names at 63 bytes; shorten it")
        return name


class IndexChange(Change):
    """An index of the plan on one table of the target."""

    kind = "index"
    Spec = IndexSpec
    by_plan = True
    without = ("enable_indexscan", "enable_bitmapscan", "enable_indexonlyscan")
    spec: IndexSpec

    def __init__(self, spec: IndexSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.table: Table = names.relation(spec.table)
        self.wanted = WantedIndex(
            name=spec.name,
            table=self.table.qualified,
            method=spec.method,
            keys=tuple(self._key(key) for key in spec.columns),
            include=tuple(names.column(spec.table, column).name for column in spec.include),
            predicate=self._expression(spec.where) if spec.where else None,
            unique=spec.unique,
        )

    def _key(self, key: KeySpec) -> WantedKey:
        return WantedKey(
            column=self.names.column(self.spec.table, key.column).name if key.column else None,
            expression=self._expression(key.expression) if key.expression else None,
            descending=key.descending,
            nulls_first=None if key.nulls is None else key.nulls == "first",
            opclass=key.opclass,
            collation=key.collation,
        )

    def _expression(self, expression: str) -> str:
        return self.names.rewrite_expression(self.spec.table, expression)

    @property
    def tables(self) -> tuple[str, ...]:
        """The indexed table."""
        return (self.table.qualified,)

    @property
    def qualified(self) -> str:
        """The index's quoted name: an index lives in its table's schema."""
        return quote(self.table.schema, self.spec.name)

    def statements(self) -> tuple[Statement, ...]:
        """CREATE INDEX CONCURRENTLY; IF NOT EXISTS is never used, since it would keep an INVALID index."""
        unique = "UNIQUE " if self.spec.unique else ""
        sql = f"CREATE {unique}INDEX CONCURRENTLY {quote(self.spec.name)}\n  ON {self.table.qualified} {self._body()}"
        return (Statement(sql, f"build {self.spec.name}", LOCK, self.table.qualified, transactional=False, long=True),)

    def _body(self) -> str:
        using = "" if self.spec.method == "btree" else f"USING {self.spec.method} "
        keys = ", ".join(key.key_sql() for key in self.wanted.keys)
        include = f" INCLUDE ({', '.join(map(quote, self.wanted.include))})" if self.wanted.include else ""
        where = f"\n  WHERE {self.wanted.predicate}" if self.wanted.predicate else ""
        return f"{using}({keys}){include}{where}"

    def undo(self) -> tuple[Statement, ...]:
        """DROP INDEX CONCURRENTLY."""
        return (self._drop(f"drop {self.spec.name}"),)

    def _drop(self, purpose: str) -> Statement:
        sql = f"DROP INDEX CONCURRENTLY {self.qualified}"
        return Statement(sql, purpose, LOCK, self.table.qualified, transactional=False, long=True)

    def stands(self) -> Stands:
        """By name first, then by what covers it."""
        if (named := self._index_of_that_name()) is not None:
            if named.table != self.table.name or not same_definition(self.wanted, named, self.table):
                return Stands("other", f"{self.spec.name} stands already as: {named.definition}")
            if not (named.valid and named.ready and named.live):
                return Stands("unfinished", f"{self.spec.name} stands but is INVALID: a build did not end")
            return Stands("exists", f"{self.spec.name} stands already with this definition")
        if (relation := self.catalog.table(self.table.schema, self.spec.name)) is not None:
            return Stands("other", f"{relation.qualified} is another relation of that name")
        if (covering := covered_by(self.wanted, self.table)) is not None:
            return Stands("covered", f"{covering.name} serves already: {covering.definition}")
        return Stands("absent")

    def _index_of_that_name(self) -> Index | None:
        tables = (table for table in self.catalog.tables if table.schema == self.table.schema)
        return next((index for table in tables for index in table.indexes if index.name == self.spec.name), None)

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Standby, kind of relation, ownership, long transactions, INVALID indexes, lag, disk."""
        return [
            *preflight.standby(connection),
            *self._relation_kind(),
            *preflight.ownership(connection, self.table),
            *preflight.long_transactions(connection),
            *self._invalid_indexes(),
            *preflight.replication_lag(connection),
            *preflight.disk(self._expected_bytes(connection)),
        ]

    def _relation_kind(self) -> list[Finding]:
        if self.table.kind in {"r", "m"}:
            return []
        kind = {"p": "a partitioned table", "v": "a view", "f": "a foreign table"}.get(self.table.kind, "no table")
        remedy = "create it on each partition, then on the parent" if self.table.kind == "p" else "map the table's name"
        return [Finding("blocked", f"{self.table.qualified} is {kind}: CONCURRENTLY cannot index it", remedy)]

    def _invalid_indexes(self) -> list[Finding]:
        invalid = [index.name for index in self.table.indexes if not index.valid and index.name != self.spec.name]
        if not invalid:
            return []
        return [Finding("warn", f"INVALID indexes cost every write: {', '.join(invalid)}", "drop or rebuild them")]

    def _expected_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """Rows × (8 bytes of tuple header + 4 of line pointer + average widths), at btree's 90 % fill factor."""
        if self.table.estimated_rows < 0:
            return None
        columns = [key.column for key in self.wanted.keys if key.column] + list(self.wanted.include)
        row = connection.execute(
            "SELECT sum(avg_width), count(*) FROM pg_catalog.pg_stats "
            "WHERE schemaname = %s AND tablename = %s AND attname = ANY(%s)",
            [self.table.schema, self.table.name, columns],
        ).fetchone()
        if row is None or row[1] < len(columns):
            return None
        return int(self.table.estimated_rows * (12 + row[0]) / 0.9)

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """A killed client may leave no index, an INVALID one, or (its backend went on) a valid one."""
        row = connection.execute(
            "SELECT indisvalid AND indisready AND indislive FROM pg_catalog.pg_index "
            "WHERE indexrelid = to_regclass(%s)",
            [self.qualified],
        ).fetchone()
        if row is None:
            return "absent"
        return "done" if row[0] else "broken"

    def repair(self, statement: Statement) -> Statement | None:
        """Drops the INVALID index that a cancelled build left."""
        return self._drop(f"drop the unfinished {self.spec.name}")

    def makes(self) -> tuple[str, ...]:
        """The index."""
        return (self.qualified,)

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """The index with its definition."""
        definition = self.definition(connection, self.qualified)
        return {self.qualified: definition} if definition else {}

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """pg_get_indexdef with the storage options and the comment, which others may have set since."""
        row = connection.execute(
            "SELECT pg_get_indexdef(i.indexrelid) "
            "|| coalesce(' COMMENT ' || obj_description(i.indexrelid, 'pg_class'), '') "
            "|| CASE WHEN i.indisclustered THEN ' CLUSTER' ELSE '' END "
            "|| CASE WHEN i.indisreplident THEN ' REPLICA IDENTITY' ELSE '' END "
            "FROM pg_catalog.pg_index i WHERE i.indexrelid = to_regclass(%s)",
            [name],
        ).fetchone()
        return row[0] if row else None

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """The index's size on disk."""
        row = connection.execute("SELECT pg_relation_size(to_regclass(%s))", [self.qualified]).fetchone()
        return row[0] if row else None

    def paid_by_writers(self) -> tuple[str, str, tuple[str, ...]]:
        """Every write of the table keeps the index up to date."""
        return self.table.schema, self.table.name, (self.spec.name,)
