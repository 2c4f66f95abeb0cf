"""All that hangs on one table, read once: what has to be there again on the table that takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.changes.partitioning import attributes_queries as queries
from playbook.target.sql import quote


@dataclass(frozen=True)
class Grant:
    """One privilege; `column` is empty for one on the whole table, `grantee` is quoted or PUBLIC."""

    grantee: str
    privilege: str
    grantable: bool
    column: str = ""


@dataclass(frozen=True)
class Column:
    """A column; storage, compression and statistics target are None where they are the default."""

    name: str
    type: str
    collation: str | None
    not_null: bool
    not_null_name: str | None
    default: str | None
    generated: str
    identity: str
    storage: str | None
    compression: str | None
    statistics: int | None
    options: tuple[str, ...]
    comment: str | None


@dataclass(frozen=True)
class Constraint:
    """A CHECK (c), FOREIGN KEY (f) or exclusion constraint (x); `references` is the quoted other table."""

    name: str
    kind: str
    definition: str
    validated: bool
    no_inherit: bool
    references: str | None
    comment: str | None


@dataclass(frozen=True)
class Index:
    """An index; `body` is its definition from the method on, `constraint` p, u or x where it is one's.

    `constraint_definition` is that one's, `computed` says that it has expressions or a predicate.
    """

    name: str
    body: str
    unique: bool
    valid: bool
    clustered: bool
    replica_identity: bool
    constraint: str | None
    constraint_definition: str | None
    constraint_comment: str | None
    comment: str | None
    columns: tuple[str, ...]
    computed: bool
    tablespace: str | None


@dataclass(frozen=True)
class Trigger:
    """A trigger of a user; `head` and `tail` are its definition before and after the table's name."""

    name: str
    head: str
    tail: str
    enabled: str
    for_each_row: bool
    transition_tables: bool
    comment: str | None


@dataclass(frozen=True)
class Policy:
    """A row security policy."""

    name: str
    permissive: bool
    command: str
    roles: tuple[str, ...]
    using: str | None
    check: str | None
    comment: str | None


@dataclass(frozen=True)
class Statistics:
    """An extended statistics object; `body` is its definition between its name and FROM."""

    schema: str
    name: str
    body: str
    target: int | None
    comment: str | None
    owner: str
    ours: bool


@dataclass(frozen=True)
class Sequence:
    """A sequence that belongs to a column: an identity's (`i`) or a serial's (`a`); `%` in a grant is its name."""

    schema: str
    name: str
    column: str
    belongs: str
    options: str
    comment: str | None
    grants: tuple[str, ...]

    @property
    def qualified(self) -> str:
        """The quoted name."""
        return quote(self.schema, self.name)


@dataclass(frozen=True)
class Publication:
    """A publication that carries the table, by itself (`named`) or with all tables or its schema."""

    name: str
    via_root: bool
    all_tables: bool
    of_schema: bool
    named: bool
    rows: str | None
    columns: tuple[str, ...]
    ours: bool


@dataclass(frozen=True)
class Attributes:
    """One table with all that hangs on it, as the server tells it."""

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    persistence: str
    method: str
    tablespace: str | None
    row_security: bool
    force_row_security: bool
    replica_identity: str
    comment: str | None
    is_partition: bool
    typed: bool
    partition_key: str | None
    options: tuple[str, ...]
    relatives: int
    labels: int
    server_version: int
    grants: tuple[Grant, ...]
    default_grantees: tuple[str, ...]
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    triggers: tuple[Trigger, ...]
    policies: tuple[Policy, ...]
    statistics: tuple[Statistics, ...]
    sequences: tuple[Sequence, ...]
    publications: tuple[Publication, ...]

    @property
    def qualified(self) -> str:
        """The quoted name."""
        return quote(self.schema, self.name)

    @property
    def primary_key(self) -> Index | None:
        """The index of the primary key."""
        return next((index for index in self.indexes if index.constraint == "p"), None)

    @property
    def checks(self) -> tuple[Constraint, ...]:
        """The CHECK constraints."""
        return tuple(each for each in self.constraints if each.kind == "c")

    @property
    def foreign_keys(self) -> tuple[Constraint, ...]:
        """Those that refer to other tables."""
        return tuple(each for each in self.constraints if each.kind == "f")

    @property
    def identity(self) -> tuple[Sequence, ...]:
        """The sequences of identity columns."""
        return tuple(each for each in self.sequences if each.belongs == "i")

    @property
    def serial(self) -> tuple[Sequence, ...]:
        """The sequences that only belong to a column."""
        return tuple(each for each in self.sequences if each.belongs == "a")

    def column(self, name: str) -> Column:
        """The column of exactly that name."""
        return next(column for column in self.columns if column.name == name)


def read(connection: psycopg.Connection[Any], qualified: str) -> Attributes | None:
    """The attributes of the table with that quoted name, in one snapshot; None where there is none."""
    with connection.transaction():
        version = _rows(connection, queries.SETTINGS, {})[0][-1]
        found = _rows(connection, queries.TABLE, {"table": qualified})
        if not found:
            return None
        row = found[0]
        oid = {"oid": row[0]}
        columns = queries.COLUMNS.format(
            compression=queries.COMPRESSION if version >= 140000 else "NULL::text",
            not_null_name=queries.NOT_NULL_NAME if version >= 180000 else "NULL::text",
        )
        new = version >= 150000
        publications = queries.PUBLICATIONS.format(
            of_schema=queries.PUBLISHED_SCHEMA if new else "false",
            filter=queries.PUBLISHED_ROWS if new else "NULL::text",
            columns=queries.PUBLISHED_COLUMNS if new else "ARRAY[]::text[]",
        )
        table = quote(row[1], row[2])
        return Attributes(
            *row[:15],
            options=tuple(row[15] or ()),
            relatives=row[16],
            labels=row[17],
            server_version=version,
            grants=tuple(Grant(*each[:3], each[3] or "") for each in _rows(connection, queries.GRANTS, oid)),
            default_grantees=tuple(each[0] for each in _rows(connection, queries.DEFAULT_GRANTEES, oid)),
            columns=tuple(
                Column(*each[:11], tuple(each[11] or ()), each[12]) for each in _rows(connection, columns, oid)
            ),
            constraints=tuple(Constraint(*each) for each in _rows(connection, queries.CONSTRAINTS, oid)),
            indexes=tuple(_index(each, table) for each in _rows(connection, queries.INDEXES, oid)),
            triggers=tuple(_trigger(each, table) for each in _rows(connection, queries.TRIGGERS, oid)),
            policies=tuple(
                Policy(*each[:3], tuple(each[3]), *each[4:]) for each in _rows(connection, queries.POLICIES, oid)
            ),
            statistics=tuple(_statistics(each, table) for each in _rows(connection, queries.STATISTICS, oid)),
            sequences=tuple(Sequence(*each[:6], tuple(each[6])) for each in _rows(connection, queries.SEQUENCES, oid)),
            publications=tuple(
                Publication(*each[:6], tuple(each[6]), each[7]) for each in _rows(connection, publications, oid)
            ),
        )


def _rows(connection: psycopg.Connection[Any], sql: str, values: dict[str, Any]) -> list[Any]:
    return connection.execute(sql.encode(), values or None).fetchall()


def _index(row: Any, table: str) -> Index:
    name, definition, unique, *rest = row
    for on in (" ON ", " ON ONLY "):
        definition = definition.removeprefix(
            f"CREATE {'UNIQUE ' if unique else ''}INDEX {quote(name)}{on}{table} USING "
        )
    return Index(name, definition, unique, *rest[:-3], tuple(rest[-3]), *rest[-2:])


def _trigger(row: Any, table: str) -> Trigger:
    name, definition, *rest = row
    head, _, tail = definition.partition(f" ON {table} ")
    return Trigger(name, head, tail, *rest)


def _statistics(row: Any, table: str) -> Statistics:
    schema, name, definition, *rest = row
    body = definition.removeprefix(f"CREATE STATISTICS {quote(schema, name)} ").removesuffix(f" FROM {table}")
    return Statistics(schema, name, body, *rest)
