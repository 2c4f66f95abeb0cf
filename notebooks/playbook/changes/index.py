"""Kind `index`: CREATE INDEX CONCURRENTLY, and DROP INDEX CONCURRENTLY as its undo; by parts on a partitioned table."""

from __future__ import annotations

import re
from typing import Any, Literal

import psycopg
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from playbook.changes import preflight
from playbook.changes.change import Change, Finding, Stands
from playbook.changes.covering import WantedIndex, WantedKey
from playbook.changes.index_parts import MAX_BYTES, Part, parts_of
from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Table
from playbook.target.sql import Statement, quote

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
        if len(name.encode()) > MAX_BYTES:
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
        self.parts = parts_of(self.wanted, self.table, catalog)

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

    @property
    def relations(self) -> tuple[Table, ...]:
        """The indexed table with its partitions."""
        return tuple(part.table for part in self.parts.parts)

    def statements(self) -> tuple[Statement, ...]:
        """CREATE INDEX CONCURRENTLY; of a partitioned table its own index, each partition's, and their attaching."""
        return self.parts.statements()

    def hypothetical(self) -> tuple[str, ...]:
        """The parts that hold rows and are yet to be built."""
        return tuple(part.pretend() for part in self.parts.leaves if part.missing)

    def undo(self) -> tuple[Statement, ...]:
        """DROP INDEX CONCURRENTLY; a partitioned index is dropped under a bounded lock, with all its parts."""
        return self.parts.undo()

    def undo_after(self, earlier: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """The earlier run's undo knows what stood before it; partitions that appeared since are added."""
        return self.parts.undo_after(earlier)

    def stands(self) -> Stands:
        """By name first, then by what covers it."""
        if taken := self.parts.taken(self.catalog):
            return Stands("other", taken)
        if whole := self.parts.whole.stands:
            if whole.usable:
                return Stands("exists", f"{whole.name} stands already with this definition")
            why = "not every partition has its part" if whole.partitioned else "a build did not end"
            return Stands("unfinished", f"{whole.name} stands but is INVALID: {why}")
        if broken := [part.name for part in self.parts.parts if part.stands and part.missing]:
            return Stands("unfinished", f"{broken[0]} stands but is INVALID: a build did not end")
        if covering := self.parts.covering():
            return Stands("covered", covering)
        adopted = [part.name for part in self.parts.parts if part.adopted]
        return Stands("absent", f"attached as it stands: {', '.join(adopted)}" if adopted else "")

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Standby, kinds of relations, ownership, long transactions, INVALID indexes, lag, disk."""
        return [
            *preflight.standby(connection),
            *self._relation_kinds(),
            *self._ownership(connection),
            *preflight.execution(connection, self.table, self._expressions()),
            *preflight.long_transactions(connection),
            *self._invalid_indexes(),
            *self._adopted(),
            *preflight.arrays(self.table, self.spec.method, (key.column for key in self.wanted.keys)),
            *preflight.replication_lag(connection),
            *preflight.disk(self._expected_bytes(connection)),
        ]

    def _expressions(self) -> list[str]:
        keys = [key.expression for key in self.wanted.keys]
        return [expression for expression in (*keys, self.wanted.predicate) if expression]

    def _relation_kinds(self) -> list[Finding]:
        if self.table.kind not in {"r", "m", "p"}:
            kind = {"v": "a view", "f": "a foreign table"}.get(self.table.kind, "no table")
            return [Finding("blocked", f"{self.table.qualified} is {kind}: it has no index", "map the table's name")]
        foreign = [table.qualified for table in self.relations if table.kind == "f"]
        if not foreign:
            return []
        detail = f"{foreign[0]} is a foreign table: with such a partition the whole index would stay INVALID"
        return [Finding("blocked", detail, "index the other partitions one by one, each in a step of its own")]

    def _ownership(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        """Asked once for the tables that have owner and schema in common."""
        owned = {(table.owner, table.schema): table for table in reversed(self.relations)}
        return [finding for table in owned.values() for finding in preflight.ownership(connection, table)]

    def _invalid_indexes(self) -> list[Finding]:
        own = {part.name for part in self.parts.parts}
        indexes = (index for table in self.relations for index in table.indexes)
        invalid = [each.name for each in indexes if not (each.valid or each.partitioned) and each.qualified not in own]
        if not invalid:
            return []
        return [Finding("warn", f"INVALID indexes cost every write: {', '.join(invalid)}", "drop or rebuild them")]

    def _adopted(self) -> list[Finding]:
        adopted = [part.name for part in self.parts.parts if part.adopted]
        if not adopted:
            return []
        detail = f"becomes a part of the whole, which it cannot leave again: {', '.join(adopted)}"
        return [Finding("warn", detail, "undo builds it anew beforehand, without a comment that it has")]

    def _expected_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """Of all parts that are yet to be built; None where one is unknown."""
        each = [self._part_bytes(connection, part) for part in self.parts.leaves if part.missing]
        return None if None in each else sum(filter(None, each))

    def _part_bytes(self, connection: psycopg.Connection[Any], part: Part) -> int | None:
        """Rows × (8 bytes of tuple header + 4 of line pointer + average widths), at btree's 90 % fill factor."""
        if part.table.estimated_rows < 0 or any(key.expression for key in self.wanted.keys):
            return None
        columns = [key.column for key in self.wanted.keys if key.column] + list(self.wanted.include)
        row = connection.execute(
            "SELECT sum(avg_width), count(*) FROM pg_catalog.pg_stats "
            "WHERE schemaname = %s AND tablename = %s AND attname = ANY(%s)",
            [part.table.schema, part.table.name, columns],
        ).fetchone()
        if row is None or row[1] < len(columns):
            return None
        return int(part.table.estimated_rows * (12 + row[0]) / 0.9)

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """A killed client may leave no index, an INVALID one, or (its backend went on) a valid one.

        A partitioned index is INVALID until its last part is attached.
        """
        if statement.unless:
            row = connection.execute(f"SELECT {statement.unless}".encode()).fetchone()
            return "done" if row and row[0] else "absent"
        row = connection.execute(
            "SELECT indisvalid AND indisready AND indislive FROM pg_catalog.pg_index "
            "WHERE indexrelid = to_regclass(%s)",
            [statement.builds or self.qualified],
        ).fetchone()
        if row is None:
            return "absent"
        return "done" if row[0] or not statement.long else "broken"

    def missing(self, connection: psycopg.Connection[Any]) -> str:
        """Partitions that were attached before the whole stood, and after the catalog was read."""
        if not self.parts.whole.partitioned:
            return ""
        names = [self.table.qualified, self.qualified, self.qualified]
        row = connection.execute(_WITHOUT_PART, names).fetchone()
        return f"appeared meanwhile and have no part yet: {row[0]}" if row and row[0] else ""

    def repair(self, statement: Statement) -> Statement | None:
        """Drops the INVALID index that a cancelled build left."""
        return statement.remains()

    def makes(self) -> tuple[str, ...]:
        """The index with its parts."""
        return tuple(part.name for part in self.parts.parts)

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """The index and its parts with their definitions."""
        found = {name: self.definition(connection, name) for name in self.makes()}
        return {name: definition for name, definition in found.items() if definition}

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
        """The size on disk of the index and all its parts."""
        row = connection.execute(
            "SELECT coalesce(sum(pg_relation_size(relid)), pg_relation_size(to_regclass(%s)))::bigint "
            "FROM pg_partition_tree(to_regclass(%s))",
            [self.qualified, self.qualified],
        ).fetchone()
        return row[0] if row else None

    def paid_by_writers(self) -> tuple[str, str, tuple[str, ...]] | None:
        """Every write of the table keeps the index up to date, or the part on its partition: the largest is named."""
        if not self.parts.leaves:
            return None
        part = max(self.parts.leaves, key=lambda part: part.table.size_bytes or 0)
        return part.table.schema, part.table.name, ((part.stands or part.wanted).name,)


_WITHOUT_PART = """
SELECT string_agg(t.relid::regclass::text, ', ' ORDER BY t.relid::regclass::text)
FROM pg_partition_tree(to_regclass(%s)) t
WHERE NOT (SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)) AND t.isleaf AND t.level > 0
  AND NOT EXISTS (
    SELECT FROM pg_partition_tree(to_regclass(%s)) part JOIN pg_index i ON i.indexrelid = part.relid
    WHERE i.indrelid = t.relid)
"""
