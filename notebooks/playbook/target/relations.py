"""What the catalog tells of relations: tables with their columns, indexes and constraints, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

from playbook.target.sql import quote


def as_shown(qualified: str) -> str:
    """A qualified name as definitions have it: what lies in pg_catalog is visible, so its names stand bare."""
    return qualified.removeprefix("pg_catalog.")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, view or materialized view; `default` is the expression of a generated one too."""

    name: str
    type: str
    not_null: bool
    default: str | None
    identity: str
    generated: str
    position: int
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class IndexKey:
    """One key of an index: either a column or an expression. Names of classes and collations are qualified SQL."""

    column: str | None
    expression: str | None
    opclass: str
    opclass_family: str
    default_opclass: bool
    collation: str | None
    default_collation: bool
    descending: bool
    nulls_first: bool
    opclass_options: str = ""

    def __str__(self) -> str:
        """The key as CREATE INDEX would have it."""
        parts = [quote(self.column) if self.column else self.expression or ""]
        if self.collation and not self.default_collation:
            parts.append(f"COLLATE {as_shown(self.collation)}")
        if not self.default_opclass:
            parts.append(as_shown(self.opclass) + (f" ({self.opclass_options})" if self.opclass_options else ""))
        if self.descending:
            parts.append("DESC")
        if self.nulls_first != self.descending:
            parts.append("NULLS FIRST" if self.nulls_first else "NULLS LAST")
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table; it lives in the table's schema.

    `partitioned` is true for the index of a partitioned table, valid only once every partition has its part; `parent`
    is the quoted name of the index that this one is a part of. `size_bytes` is None where there is no storage.
    """

    schema: str
    name: str
    table: str
    method: str
    unique: bool
    primary: bool
    exclusion: bool
    nulls_not_distinct: bool
    immediate: bool
    valid: bool
    ready: bool
    live: bool
    keys: tuple[IndexKey, ...]
    included: tuple[str, ...]
    predicate: str | None
    definition: str
    size_bytes: int | None
    constraint: str | None
    partitioned: bool
    parent: str | None
    tablespace: str | None
    options: tuple[str, ...]

    @property
    def qualified(self) -> str:
        """The quoted name with its schema."""
        return quote(self.schema, self.name)

    @property
    def usable(self) -> bool:
        """Whether the planner may use it: a build that did not end, or a drop that did not, leaves it unusable."""
        return self.valid and self.ready and self.live


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint; `kind` is pg_constraint's: p, u, f, c, x, and from PostgreSQL 18 on n (NOT NULL)."""

    name: str
    kind: str
    definition: str
    validated: bool
    columns: tuple[str, ...]
    references: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A relation that holds or shows rows; `kind` is pg_class's: r table, p partitioned, m materialized view, v view,
    f foreign table.

    `estimated_rows` is -1 where nothing was counted yet; `size_bytes` is the heap with its TOAST, None where there is
    no storage. A `parent` without a `partition_bound` is plain inheritance (the first parent).
    """

    schema: str
    name: str
    kind: str
    owner: str
    persistence: str
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    constraints: tuple[Constraint, ...]
    estimated_rows: float
    size_bytes: int | None
    parent: tuple[str, str] | None
    partition_key: str | None
    partition_bound: str | None
    row_security: bool
    replica_identity: str
    _columns: dict[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_columns", {column.name: column for column in self.columns})

    @property
    def qualified(self) -> str:
        """The quoted name with its schema."""
        return quote(self.schema, self.name)

    def column(self, name: str) -> Column | None:
        """The column of exactly that name."""
        return self._columns.get(name)
