"""Probe tables: two copies of a table in schema `playbook`, one of them with a change, for measuring what it costs.

The target's own tables are read once, for a sample of their rows, and never written to. The copies are dropped at the
end, whatever that end is; what a killed process left is dropped by the next one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from playbook.errors import TargetError
from playbook.target.catalog import Table
from playbook.target.sql import literal, quote

Connect = Callable[[], psycopg.Connection[Any]]
WriteChange = Callable[[str], Sequence[str]]
"""From the quoted name of a probe table, the SQL that makes the change on it and on nothing else."""
Row = list[bytes | None]
"""The values of a row as PostgreSQL writes them out as text."""
Side = Literal["without", "with"]

SCHEMA = "playbook"
SIDES: tuple[Side, Side] = ("without", "with")
SAMPLE_BYTES = 64 * 2**20
"""A sample of wide rows is cut to about this size."""
HELD_OUT = 10_000
"""Rows kept out of the probes at most, to be inserted while the time is taken."""

_ROWS = "pg_temp.playbook_write_rows"
_LOCK_CLASS = 0x706C6279
_OURS = "made by the playbook for write probes"
_SETTINGS = "SET statement_timeout = '60s'; SET lock_timeout = '5s'; SET client_min_messages = 'error'"

_OBSTACLES = """
SELECT pg_backend_pid(), pg_is_in_recovery(),
  (SELECT min(pubname) FROM pg_catalog.pg_publication WHERE puballtables),
  (SELECT min(slot_name) FROM pg_catalog.pg_replication_slots
   WHERE slot_type = 'logical' AND plugin <> 'pgoutput' AND database = current_database())
"""
_PUBLISHED_SCHEMA = """
SELECT min(p.pubname) FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_namespace n ON n.pnpubid = p.oid
WHERE n.pnnspid = to_regnamespace(%s)
"""
_SIZE = """
SELECT coalesce(sum(greatest(reltuples, 0)), 0)::float8, coalesce(sum(pg_table_size(oid)), 0)::int8
FROM pg_catalog.pg_class
WHERE oid = %(table)s::regclass OR oid IN (SELECT relid FROM pg_partition_tree(%(table)s::regclass) WHERE isleaf)
"""
# Indexes without their names, since LIKE copies them under names of its own.
_INDEX_SHAPES = """
SELECT c.relname, k.conname, i.indisunique, substr(pg_get_indexdef(c.oid), 1 + length(format(
  'CREATE %%sINDEX %%I ON %%s%%I.%%I ', CASE WHEN i.indisunique THEN 'UNIQUE ' END, c.relname,
  CASE c.relkind WHEN 'I' THEN 'ONLY ' END, n.nspname, t.relname)))
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.conrelid = t.oid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = %s::regclass
ORDER BY k.conname IS NOT NULL, c.relname
"""
_CONSTRAINT = "SELECT conname FROM pg_catalog.pg_constraint WHERE conrelid = %s::regclass AND conname = %s"
_CHECKS = """
SELECT DISTINCT pg_get_expr(conbin, conrelid) FROM pg_catalog.pg_constraint
WHERE contype = 'c' AND conrelid = ANY(%s::regclass[])
"""
_NOT_NULL = """
SELECT DISTINCT attname FROM pg_catalog.pg_attribute
WHERE attnotnull AND attnum > 0 AND NOT attisdropped AND attrelid = ANY(%s::regclass[])
"""
_PROBES = r"""
SELECT c.relname, substring(c.relname from '^write_probe_(\d+)_')::int
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind = 'r' AND c.relname ~ '^write_probe_\d{1,9}_(with|without)$'
"""


class Probes:
    """The two copies of a table. The number in their names is an advisory lock of the session that makes them."""

    def __init__(self, connection: psycopg.Connection[Any], table: Table, number: int) -> None:
        self._connection = connection
        self._table = table
        self._names = {side: quote(SCHEMA, f"write_probe_{number}_{side}") for side in SIDES}
        self._columns = [quote(column.name) for column in table.columns if not column.generated]
        self._sampled = [f"c{number}" for number in range(len(self._columns))]
        self._filled_by: dict[Side, str] = {}

    def insert(self, side: Side) -> str:
        """The statement that inserts one row, with a parameter for each value."""
        places = ", ".join(f"${number}" for number in range(1, len(self._columns) + 1))
        return f"INSERT INTO {self._names[side]} ({', '.join(self._columns)}) VALUES ({places})"

    def make(self, change: WriteChange | None, applied: Sequence[str]) -> None:
        """Both copies, empty, and the change on one of them.

        `applied` names the indexes and constraints by which the table has the change already: their copies are taken
        out of both. Without a `change` only the one loses them.

        Raises:
            TargetError: the table has no index or constraint of that name that a copy would have.
        """
        unlogged = "UNLOGGED " if self._table.persistence == "u" else ""
        for name in self._names.values():
            # Every column is given a value: no sequence of the table's is drawn from, no identity stands in the way.
            self._execute(
                f"CREATE {unlogged}TABLE {name} (LIKE {self._table.qualified} INCLUDING ALL EXCLUDING DEFAULTS "
                "EXCLUDING IDENTITY EXCLUDING STATISTICS EXCLUDING COMMENTS) "
                "WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)"
            )
        for side in SIDES if change else SIDES[:1]:
            for name in applied:
                self._take_out(name, side)
        for sql in change(self._names["with"]) if change else ():
            self._execute(sql)

    def _take_out(self, name: str, side: Side) -> None:
        probe = self._names[side]
        shapes = {row[0]: row[2:] for row in self._ask(_INDEX_SHAPES, [self._table.qualified])}
        index = constraint = None
        if name in shapes:
            copies = self._ask(_INDEX_SHAPES, [probe])
            index, constraint = next((copy[:2] for copy in copies if copy[2:] == shapes[name]), (None, None))
        elif self._ask(_CONSTRAINT, [probe, name]):
            constraint = name  # LIKE leaves constraints their names
        if constraint:
            self._execute(f"ALTER TABLE {probe} DROP CONSTRAINT {quote(constraint)}")
        elif index:
            self._execute(f"DROP INDEX {quote(SCHEMA, index)}")
        else:
            raise TargetError(f"copies of {self._table.qualified} have no index or constraint {quote(name)} to drop")

    def fill(self, sample_rows: int, least: int) -> list[Row]:
        """Fills both with the same rows of the table and returns the rows held out.

        Held out are those that stand last in the sample: the nearest there is to what writers insert next.

        Raises:
            TargetError: the table has fewer than `least` rows that both probes take.
        """
        found = self._sample(sample_rows, least)
        if found < least:
            raise TargetError(f"{self._table.qualified} has {found} rows to sample, {least} are needed")
        filled = found - min(found // 2, HELD_OUT)
        columns, names = ", ".join(self._columns), ", ".join(self._sampled)
        for side in SIDES:
            with self._triggers_off(side):
                copy = f"SELECT {names} FROM {_ROWS} WHERE n <= {filled} ORDER BY n"
                self._execute(f"INSERT INTO {self._names[side]} ({columns}) {copy}")
            self._execute(f"VACUUM (ANALYZE) {self._names[side]}")
            ((self._filled_by[side],),) = self._ask(f"SELECT xmin::text FROM {self._names[side]} LIMIT 1")
        return self._texts(f"SELECT {names} FROM {_ROWS} WHERE n > {filled} ORDER BY n")

    def _sample(self, rows: int, least: int) -> int:
        ((estimated, size),) = self._ask(_SIZE, {"table": self._table.qualified})
        if size > SAMPLE_BYTES:
            width = size / estimated if estimated else 8192
            rows = min(rows, max(int(SAMPLE_BYTES / width), 1))
        share = 100 * rows / estimated if estimated else 100.0
        found = self._copy_rows(rows, f"TABLESAMPLE SYSTEM ({share})") if share < 50 else 0
        return found if found >= least else self._copy_rows(rows)

    def _copy_rows(self, rows: int, blocks: str = "") -> int:
        source = ("ONLY " if self._table.kind == "r" else "") + self._table.qualified
        self._execute(f"DROP TABLE IF EXISTS {_ROWS}")
        self._execute(
            f"CREATE TEMP TABLE playbook_write_rows (n, {', '.join(self._sampled)}) AS "
            f"SELECT row_number() OVER (), {', '.join(self._columns)} FROM {source} {blocks} "
            f"WHERE {self._admissible()} LIMIT {rows}"
        )
        ((found,),) = self._ask(f"SELECT count(*) FROM {_ROWS}")
        return int(found)

    def _admissible(self) -> str:
        """What the probes ask of a row: those from before the change, or a NOT VALID constraint, may violate it."""
        probes = list(self._names.values())
        checks = [f"({check}) IS NOT FALSE" for (check,) in self._ask(_CHECKS, [probes])]
        names = [quote(name) for (name,) in self._ask(_NOT_NULL, [probes])]
        return " AND ".join(["true", *checks, *(f"{name} IS NOT NULL" for name in names if name in self._columns)])

    def take_back(self) -> None:
        """Deletes what was inserted after the fill, so that the same rows can be inserted again."""
        for side in SIDES:
            with self._triggers_off(side):
                self._execute(f"DELETE FROM {self._names[side]} WHERE xmin::text <> {literal(self._filled_by[side])}")
            self._execute(f"VACUUM (INDEX_CLEANUP ON) {self._names[side]}")

    @contextmanager
    def _triggers_off(self, side: Side) -> Iterator[None]:
        """Only the timed writes pay for a trigger."""
        self._execute(f"ALTER TABLE {self._names[side]} DISABLE TRIGGER USER")
        yield
        self._execute(f"ALTER TABLE {self._names[side]} ENABLE TRIGGER USER")

    def _execute(self, sql: str) -> None:
        self._connection.execute(sql.encode(self._connection.info.encoding))

    def _ask(self, sql: str, parameters: Any = None) -> list[Any]:
        return self._connection.execute(sql.encode(), parameters).fetchall()

    def _texts(self, sql: str) -> list[Row]:
        result = self._connection.pgconn.exec_params(sql.encode(), None)
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result)
        return [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]


@contextmanager
def probe_tables(connect: Connect, table: Table) -> Iterator[Probes]:
    """Room for the probes of `table`, in a session of their own; leftovers of killed processes are dropped first.

    Schema `playbook` is made when it is missing, and dropped again when it holds nothing else.

    Raises:
        TargetError: probes could not stand for the table's writers, or would reach further than this database.
        psycopg.Error: the server refused, for want of a privilege as a rule.
    """
    with connect() as connection:
        refuse(connection, table)
        connection.execute(_SETTINGS)
        _sweep(connection)
        try:
            _make_schema(connection)
            yield Probes(connection, table, _claim(connection))
        finally:
            with suppress(psycopg.Error, TargetError):
                _clean(connect, connection)


def _clean(connect: Connect, connection: psycopg.Connection[Any]) -> None:
    if connection.info.transaction_status == TransactionStatus.IDLE:
        _sweep(connection)
        _drop_schema(connection)
        return
    connection.close()
    with connect() as another:
        another.execute(_SETTINGS)
        _sweep(another)
        _drop_schema(another)


def refuse(connection: psycopg.Connection[Any], table: Table) -> None:
    """Lets a table pass of which copies may be made and written to.

    Raises:
        TargetError: copies could not stand for its writers, or would reach further than this database.
    """
    if table.kind not in {"r", "p"} or table.persistence == "t":
        raise TargetError(f"{table.qualified} is not a table that several clients write to")
    if all(column.generated for column in table.columns):
        raise TargetError(f"{table.qualified} has no column that a writer gives a value")
    ((backend, standby, publication, slot),) = connection.execute(_OBSTACLES).fetchall()
    if connection.info.backend_pid != backend:
        raise TargetError("a transaction pooler is in between, through which no probe can be held: give the direct URL")
    if standby:
        raise TargetError("the target is a standby, which takes no writes")
    if connection.info.server_version >= 150000 and not publication:
        ((publication,),) = connection.execute(_PUBLISHED_SCHEMA, [SCHEMA]).fetchall()
    if carrier := (publication and f"publication {publication}") or (slot and f"replication slot {slot}"):
        raise TargetError(f"{carrier} would carry the probes' rows to its subscribers, which lack the tables")


def _claim(connection: psycopg.Connection[Any]) -> int:
    """A number that no living session uses; it stays locked for as long as this session lives."""
    while True:
        number = random.randrange(1, 10**9)  # noqa: S311 - a name, not a secret
        if _lock(connection, number):
            return number


def _lock(connection: psycopg.Connection[Any], number: int) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCK_CLASS, number]).fetchone()
    return row == (True,)


def _sweep(connection: psycopg.Connection[Any]) -> None:
    """Drops the probes of this session, and those whose session is gone."""
    for name, number in connection.execute(_PROBES, [SCHEMA]).fetchall():
        if _lock(connection, number):
            # Another role's leftovers are its own to drop; one that a dump is reading is dropped by the next run.
            with suppress(psycopg.Error):
                connection.execute(f"DROP TABLE IF EXISTS {quote(SCHEMA, name)}")
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", [_LOCK_CLASS, number])


def _make_schema(connection: psycopg.Connection[Any]) -> None:
    # Looked up first: IF NOT EXISTS asks for CREATE on the database even where the schema stands.
    if connection.execute("SELECT to_regnamespace(%s)", [SCHEMA]).fetchone() == (None,):
        with suppress(psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation):
            connection.execute(f"CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS {literal(_OURS)}")


def _drop_schema(connection: psycopg.Connection[Any]) -> None:
    """Drops the schema when probes made it, were it in a process that was killed, and nothing else came into it."""
    row = connection.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", [SCHEMA]).fetchone()
    if row == (_OURS,):
        with suppress(psycopg.Error):
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} RESTRICT")
