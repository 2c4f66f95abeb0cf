"""The catalog: one consistent snapshot of what the target holds, as plain values.

`read` asks ten queries whatever the number of tables. Names in the values are bare, as the catalog has them
(`userId`); texts that PostgreSQL deparsed (types, defaults, expressions, definitions) are SQL with every name qualified
that is not PostgreSQL's own, the same whoever reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from playbook.errors import Busy
from playbook.target import catalog_queries as queries
from playbook.target.relations import Column, Constraint, Index, IndexKey, Table, as_shown
from playbook.target.sql import quote

__all__ = ["Catalog", "Column", "Constraint", "Index", "IndexKey", "Table", "read"]

LOCK_TIMEOUT_MS = 5_000
"""How long a read waits for a table that another session holds exclusively."""
_ATTEMPTS = 10
_DESCENDING, _NULLS_FIRST = 1, 2

_ToldOfKeys: TypeAlias = tuple[tuple[str | None, ...], str, list[str | None] | None, list[str | None] | None]
"""Of an index's keys: the columns (None for an expression), classes, collations and option bits, the expressions and
the options of the classes."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The target's user relations; system schemas, temporary tables and the schema `playbook` are left out.

    `search_path` is the effective one of the role that read: the schemas that exist and that it may use, in order.
    """

    server_version: int
    database: str
    search_path: tuple[str, ...]
    tables: tuple[Table, ...]
    _tables: dict[tuple[str, str], Table] = field(init=False, repr=False, compare=False)
    _indexes: dict[tuple[str, str], Index] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        indexes = {(index.schema, index.name): index for table in self.tables for index in table.indexes}
        object.__setattr__(self, "_tables", {(table.schema, table.name): table for table in self.tables})
        object.__setattr__(self, "_indexes", indexes)

    def table(self, schema: str, name: str) -> Table | None:
        """The relation of exactly that name."""
        return self._tables.get((schema, name))

    def index(self, schema: str, name: str) -> Index | None:
        """The index of exactly that name, whichever table of the schema it is on."""
        return self._indexes.get((schema, name))

    @staticmethod
    def fingerprint(tables: Iterable[Table]) -> str:
        """sha256 (hex) of what DDL can change on `tables`, in any order: no sizes, row counts, OIDs or column numbers.

        Equal on a restored copy of the database; different after any change of a column, index or constraint, a
        build that left an index INVALID included.
        """
        return digest(tuple(sorted(tables, key=lambda table: (table.schema, table.name))))


def digest(value: Any) -> str:
    """sha256 (hex) of what DDL can change on `value`: a table, a column, an index, a constraint, or several."""
    return hashlib.sha256(json.dumps(_facts(value)).encode()).hexdigest()


_NOT_DEFINED = frozenset({"size_bytes", "estimated_rows", "position"})


def _facts(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_facts(each) for each in value]
    if is_dataclass(value):
        return [_facts(getattr(value, f.name)) for f in fields(value) if f.compare and f.name not in _NOT_DEFINED]
    return value


def read(connection: psycopg.Connection[Any]) -> Catalog:
    """The catalog as one REPEATABLE READ, READ ONLY transaction sees it. Any role may read it.

    Within a transaction that the caller has open, it is read as that transaction sees it. No setting of the session
    stays changed.

    Raises:
        Busy: another session holds a table exclusively, and did so for longer than `LOCK_TIMEOUT_MS`.
    """
    within = connection.info.transaction_status != TransactionStatus.IDLE
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _read(connection, within)
        except psycopg.errors.LockNotAvailable:
            raise Busy(_who_locks(connection)) from None
        except (psycopg.errors.InternalError_, psycopg.errors.UndefinedTable):
            # A table of the snapshot that was dropped meanwhile can no longer be deparsed; the next snapshot lacks it.
            if within or attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def _read(connection: psycopg.Connection[Any], within: bool) -> Catalog:
    # Rolled back so that the settings end here too when a savepoint is all there is.
    with connection.transaction(force_rollback=True), connection.cursor(row_factory=tuple_row) as cursor:
        if not within:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return _Reading(cursor).catalog()


def _ask(cursor: psycopg.Cursor[TupleRow], sql: str) -> list[TupleRow]:
    return cursor.execute(sql, prepare=False).fetchall()


def _who_locks(connection: psycopg.Connection[Any]) -> str:
    message = "the catalog cannot be read: another session holds a table exclusively"
    if connection.info.transaction_status == TransactionStatus.IDLE:
        with connection.cursor(row_factory=tuple_row) as cursor:
            (relation, pid), *_ = _ask(cursor, queries.EXCLUSIVELY_LOCKED)
        if relation:
            message += f" ({relation}, process {pid})"
    return message + "; try again when it is done"


class _Reading:
    """One read: the rows of the queries put together. What is equal (strings, columns, keys) is kept once."""

    def __init__(self, cursor: psycopg.Cursor[TupleRow]) -> None:
        self._cursor = cursor
        self._kept: dict[Any, Any] = {}
        self._version = 0
        self._collations: dict[str, str] = {}
        self._opclasses: dict[str, tuple[str, str]] = {}
        self._column_names: dict[int, dict[int, str]] = {}
        self._constraint_of_index: dict[int, str] = {}

    def catalog(self) -> Catalog:
        ((self._version, database, search_path, *_),) = self._rows(
            queries.SETTINGS.format(lock_timeout_ms=LOCK_TIMEOUT_MS)
        )
        self._collations = {oid: quote(*name) for oid, *name in self._rows(queries.COLLATIONS)}
        self._opclasses = {oid: (quote(*name[:2]), quote(*name[2:])) for oid, *name in self._rows(queries.OPCLASSES)}
        relations = self._rows(queries.RELATIONS)
        columns = self._columns()
        constraints = self._constraints()
        indexes = self._indexes({row[0]: (row[1], row[2], quote(row[1], row[2])) for row in relations})
        tables = (
            self._table(row, columns.get(row[0], ()), indexes.get(row[0], ()), constraints.get(row[0], ()))
            for row in relations
        )
        return Catalog(self._version, database, tuple(search_path), tuple(tables))

    def _rows(self, sql: str) -> list[TupleRow]:
        return _ask(self._cursor, sql)

    def _keep(self, value: Any) -> Any:
        return self._kept.setdefault(value, value)

    def _table(
        self, row: TupleRow, columns: Iterable[Column], indexes: Iterable[Index], constraints: Iterable[Constraint]
    ) -> Table:
        (_, schema, name, kind, owner, persistence, estimated_rows, pages, size_bytes, parent,
         partition_key, partition_bound, row_security, replica_identity) = row  # fmt: skip
        never_counted = self._version < 140000 and pages == 0  # later versions say -1 themselves
        return Table(
            schema=self._keep(schema),
            name=name,
            kind=self._keep(kind),
            owner=self._keep(owner),
            persistence=self._keep(persistence),
            columns=tuple(columns),
            indexes=tuple(indexes),
            constraints=tuple(constraints),
            estimated_rows=-1.0 if never_counted else estimated_rows,
            size_bytes=size_bytes,
            parent=(parent[0], parent[1]) if parent else None,
            partition_key=partition_key,
            partition_bound=partition_bound,
            row_security=row_security,
            replica_identity=self._keep(replica_identity),
        )

    def _columns(self) -> dict[int, list[Column]]:
        columns: dict[int, list[Column]] = {}
        for oid, rows in groupby(self._rows(queries.COLUMNS), itemgetter(0)):
            columns[oid] = [self._column(row[1:]) for row in rows]
            self._column_names[oid] = {column.position: column.name for column in columns[oid]}
        return columns

    def _column(self, told: TupleRow) -> Column:
        if told not in self._kept:
            *described, collation = told
            self._kept[told] = Column(*described, self._collations.get(collation))
        return self._kept[told]

    def _constraints(self) -> dict[int, list[Constraint]]:
        constraints: dict[int, list[Constraint]] = defaultdict(list)
        for oid, name, kind, definition, validated, numbers, index, references in self._rows(queries.CONSTRAINTS):
            if definition is None:  # dropped since the snapshot
                continue
            names = self._column_names[oid]
            columns = self._keep(tuple([names[number] for number in _numbers(numbers) if number in names]))
            referenced = quote(*references) if references else None
            constraints[oid].append(
                Constraint(name, self._keep(kind), self._keep(definition), validated, columns, referenced)
            )
            self._constraint_of_index[index] = name
        return constraints

    def _indexes(self, relations: dict[int, tuple[str, str, str]]) -> dict[int, list[Index]]:
        indexes: dict[int, list[Index]] = defaultdict(list)
        nulls_not_distinct = "i.indnullsnotdistinct" if self._version >= 150000 else "false"
        for (
            relation, oid, name, method, unique, primary, exclusion, nulls_equal, immediate, valid, ready, live,
            key_count, numbers, arrays, expressions, class_options, predicate, definition,
            size_bytes, partitioned, parent, tablespace, storage,
        ) in self._rows(queries.INDEXES.format(nulls_not_distinct=nulls_not_distinct)):  # fmt: skip
            if definition is None:  # dropped since the snapshot
                continue
            schema, table, qualified = relations[relation]
            names = self._column_names[relation]
            columns = tuple([names.get(number) for number in _numbers(numbers)])
            head = (
                f"CREATE {'UNIQUE ' if unique else ''}INDEX {quote(name)} "
                f"ON {'ONLY ' if partitioned else ''}{qualified} USING {quote(method)} "
            )
            indexes[relation].append(
                Index(
                    schema=self._keep(schema),
                    name=name,
                    table=table,
                    method=self._keep(method),
                    unique=unique,
                    primary=primary,
                    exclusion=exclusion,
                    nulls_not_distinct=nulls_equal,
                    immediate=immediate,
                    valid=valid,
                    ready=ready,
                    live=live,
                    keys=self._keys(definition, head, (columns[:key_count], arrays, expressions, class_options)),
                    included=self._keep(columns[key_count:]),
                    predicate=self._keep(predicate),
                    definition=definition,
                    size_bytes=size_bytes,
                    constraint=self._constraint_of_index.get(oid),
                    partitioned=partitioned,
                    parent=quote(*parent) if parent else None,
                    tablespace=tablespace,
                    options=tuple(storage or ()),
                )
            )
        return indexes

    def _keys(self, definition: str, head: str, told: _ToldOfKeys) -> tuple[IndexKey, ...]:
        """The keys. Which classes and collations are defaults is read off the server's own definition, which states
        only the others. Most indexes state none: that is supposed first, and then held against the definition."""
        asked = (told[0], told[1], *(tuple(each) if each else None for each in told[2:]))
        if asked not in self._kept:
            supposed = self._supposed(told)
            self._kept[asked] = supposed, f"({', '.join(map(str, supposed))})"
        supposed, text = self._kept[asked]
        if definition.startswith(text, len(head)) and definition.startswith(head):
            return supposed
        return self._keep(tuple([_stated(key, definition.removeprefix(head)) for key in supposed]))

    def _supposed(self, told: _ToldOfKeys) -> tuple[IndexKey, ...]:
        columns, arrays, expressions, class_options = told
        classes, collations, bits = (array.split() for array in arrays.split(","))
        return tuple(
            IndexKey(
                column=column,
                expression=expressions[place] if expressions and column is None else None,
                opclass=self._opclasses[classes[place]][0],
                opclass_family=self._opclasses[classes[place]][1],
                default_opclass=True,
                collation=self._collations.get(collations[place]),
                default_collation=True,
                descending=bool(int(bits[place]) & _DESCENDING),
                nulls_first=bool(int(bits[place]) & _NULLS_FIRST),
                opclass_options=(class_options[place] if class_options else None) or "",
            )
            for place, column in enumerate(columns)
        )


def _stated(key: IndexKey, definition: str) -> IndexKey:
    """The key with what `definition` (its part from the keys on) states of it."""
    # A column's name that became a keyword in a later version than the server's stands there bare.
    texts = (quote(key.column), key.column) if key.column else (key.expression,)

    def states(rest: str) -> bool:
        return any(f"({text}{rest}" in definition or f", {text}{rest}" in definition for text in texts)

    collate = f" COLLATE {as_shown(key.collation)}" if key.collation else ""
    default_collation = not collate or not states(collate)
    opclass = f" {as_shown(key.opclass)}"
    default_opclass = not states(opclass if default_collation else collate + opclass)
    if default_opclass and default_collation:
        return key
    return replace(key, default_opclass=default_opclass, default_collation=default_collation)


@lru_cache(maxsize=4096)
def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split())) if text else ()
