"""Where a journal stands: schema `playbook` on the target, or a SQLite file where that is not wanted."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg

from playbook.changes import preflight
from playbook.changes.change import Finding
from playbook.errors import Interrupted, TargetError, UsageError, one_line
from playbook.target.sql import OWN, Statement, literal
from playbook.target.watchdog import Connect

SCHEMA = "playbook"
TABLES = ("step", "statement")
BESIDE = ("refresh", "detached", "sample", "usage", "usage_text", "run")
"""What stands beside the journal once it is needed: records of refreshes and of detached partitions, the history."""
ELSE = "keep the journal in a file: --journal FILE"

_STEP = """
CREATE TABLE {prefix}step (
  plan text NOT NULL,
  step text NOT NULL,
  position bigint NOT NULL,
  kind text NOT NULL,
  status text NOT NULL,
  reason text NOT NULL,
  run_id text NOT NULL,
  changed_at text NOT NULL,
  seconds double precision NOT NULL,
  statements text NOT NULL,
  undo text NOT NULL,
  objects text NOT NULL,
  evidence text NOT NULL,
  PRIMARY KEY (plan, step)
)"""
_STATEMENT = """
CREATE TABLE {prefix}statement (
  plan text NOT NULL,
  step text NOT NULL,
  direction text NOT NULL,
  position bigint NOT NULL,
  sql text NOT NULL,
  state text NOT NULL,
  backend_pid bigint NOT NULL,
  backend_start text NOT NULL,
  changed_at text NOT NULL,
  PRIMARY KEY (plan, step, direction, position)
)"""


class Store(Protocol):
    """Where a journal stands: two tables reached with SQL that PostgreSQL and SQLite share (`?` for values)."""

    prefix: str
    place: str
    announcement: str

    def statements(self) -> tuple[Statement, ...]:
        """What creating the store runs on the target, for `preview`; empty when it stands."""

    def exists(self) -> bool:
        """Whether the tables stand."""

    def has(self, table: str) -> bool:
        """Whether the journal stands and a further table of that name beside it."""

    def create(self) -> None:
        """Makes the tables."""

    def drop(self) -> str:
        """Removes the tables and what holds them; says what was removed."""

    def obstacles(self) -> list[Finding]:
        """What speaks against writing the journal there."""

    def session(self) -> Any:
        """A context manager that yields `execute(sql, values) -> rows` and commits at its end."""

    def reading(self) -> Any:
        """The same for what is only read; it yields None where the tables do not stand."""


class _SchemaState(NamedTuple):
    """What is known of schema `playbook`: `ours` when the journal stands there, `made` when the playbook made it."""

    schema: bool
    ours: bool
    anything: bool
    made: bool
    owner: str
    may_read: bool
    publication: str | None


_MADE = "made by the playbook for its journal; `playbook uninstall` removes it"
_STATE = f"""
{OWN} n.oid IS NOT NULL,
  2 = (SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
       WHERE c.relnamespace = n.oid
         AND (c.relname, a.attname) IN (('step', 'evidence'), ('statement', 'backend_start'))),
  EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid),
  coalesce(obj_description(n.oid, 'pg_namespace') LIKE 'made by the playbook%', false),
  coalesce(quote_ident(pg_get_userbyid(n.nspowner)), ''),
  (SELECT coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')), false)
   FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname IN ('step', 'statement')),
  coalesce((SELECT min(pubname) FROM pg_publication WHERE puballtables)"""
_PUBLISHED = """
    , (SELECT min(p.pubname) FROM pg_publication p JOIN pg_publication_namespace s ON s.pnpubid = p.oid
       WHERE s.pnnspid = n.oid)"""
_STATE_FROM = f")::text\nFROM (SELECT 1) one LEFT JOIN pg_namespace n ON n.nspname = '{SCHEMA}'"


class TargetStore:
    """Schema `playbook` on the target itself."""

    prefix = f"{SCHEMA}."

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.place = f"schema {SCHEMA} on the target"
        self.announcement = f"schema {SCHEMA} on the target, with the tables {SCHEMA}.step and {SCHEMA}.statement"

    def statements(self) -> tuple[Statement, ...]:
        """CREATE SCHEMA and the two tables, unless they stand."""
        if self.exists():
            return ()
        with self._connect() as connection:
            there = self._state(connection).schema
        made = [] if there else [f"CREATE SCHEMA {SCHEMA}", f"COMMENT ON SCHEMA {SCHEMA} IS {literal(_MADE)}"]
        made += [ddl.format(prefix=self.prefix).strip() for ddl in _TABLES]
        return tuple(Statement(sql, "journal of what is applied, with its undo", relation=SCHEMA) for sql in made)

    def exists(self) -> bool:
        """Whether the journal stands and may be read: another role's is closed to this one."""
        with self._connect() as connection:
            return self._stands(connection)

    def has(self, table: str) -> bool:
        """Asked of the catalog."""
        if not self.exists():
            return False
        with self.session() as execute:
            return execute(f"{OWN} to_regclass(?) IS NOT NULL", (f"{SCHEMA}.{table}",))[0][0]

    def obstacles(self) -> list[Finding]:
        """A publication that would carry its rows, a schema of that name that is not ours, a missing privilege."""
        with self._connect() as connection:
            state = self._state(connection)
            if state.publication:
                carries = f"publication {state.publication} would carry the journal's rows to its subscribers"
                by_hand = "let it publish tables by name, or take steps back by hand with undo.sql"
                return [Finding("blocked", f"{carries}, which lack the tables", by_hand if state.ours else ELSE)]
            if state.anything and not (state.ours or state.made):
                return [Finding("blocked", f"a schema {SCHEMA} stands, which is not the playbook's", ELSE)]
            return preflight.journal(connection, SCHEMA, TABLES)

    def create(self) -> None:
        """Makes schema and tables in one transaction."""
        made_meanwhile = suppress(psycopg.errors.DuplicateTable, psycopg.errors.DuplicateSchema)
        with self._connect() as connection, made_meanwhile, connection.transaction():
            for statement in self.statements():
                connection.execute(statement.sql.encode())

    def _stands(self, connection: psycopg.Connection[Any]) -> bool:
        state = self._state(connection)
        return state.ours and state.may_read

    @staticmethod
    def _state(connection: psycopg.Connection[Any]) -> _SchemaState:
        publication = _PUBLISHED if connection.info.server_version >= 150000 else ""
        row = connection.execute((_STATE + publication + _STATE_FROM).encode()).fetchone()
        assert row is not None
        return _SchemaState(*row)

    def drop(self) -> str:
        """Drops the schema with all that the playbook keeps there; of one that it did not make, only its tables.

        Raises:
            TargetError: it belongs to another role.
        """
        with self._connect() as connection:
            state = self._state(connection)
            if not (state.ours or state.made):
                return "nothing, since no journal stands there"
            beside = ", ".join(f"{SCHEMA}.{table}" for table in BESIDE)
            tables = f"DROP TABLE {SCHEMA}.step, {SCHEMA}.statement; DROP TABLE IF EXISTS {beside}"
            try:
                connection.execute((f"DROP SCHEMA {SCHEMA} CASCADE" if state.made else tables).encode())
            except psycopg.errors.InsufficientPrivilege as error:
                raise TargetError(f"{one_line(error)}: connect as {state.owner}") from None
        return self.place if state.made else f"the journal's tables in schema {SCHEMA}, which was there before"

    @contextmanager
    def session(self) -> Iterator[Callable[..., list[Any]]]:
        """Executes in one transaction of its own.

        Raises:
            Interrupted: the connection was lost.
        """
        with self._reached(), self._connect() as connection, connection.transaction():
            yield within(connection)

    @staticmethod
    @contextmanager
    def _reached() -> Iterator[None]:
        try:
            yield
        except psycopg.OperationalError as error:
            raise Interrupted(f"the journal cannot be reached: {one_line(error)}; run again to resume") from error

    @contextmanager
    def reading(self) -> Iterator[Callable[..., list[Any]] | None]:
        """The same for what is only read; None where the journal does not stand. It takes one connection.

        Raises:
            Interrupted: the connection was lost.
        """
        with self._reached(), self._connect() as connection, connection.transaction():
            yield within(connection) if self._stands(connection) else None


class FileStore:
    """A SQLite file beside the engineer, for targets on which nothing but the change itself may be made."""

    prefix = ""

    def __init__(self, path: Path, connect: Connect | None = None) -> None:
        self.path = path
        self._connect = connect
        self._database = ""
        self.place = f"file {path}"
        self.announcement = f"the file {path}, and nothing on the target"

    def statements(self) -> tuple[Statement, ...]:
        """Nothing is made on the target."""
        return ()

    def exists(self) -> bool:
        """Whether the file holds a journal."""
        return self.has("statement")

    def has(self, table: str) -> bool:
        """Asked of the file, which is not made by that."""
        if not self.path.exists():
            return False
        with self.session() as execute:
            return bool(execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)))

    def create(self) -> None:
        """Makes the file with its tables, for this database alone."""
        with self.session() as execute:
            for ddl in _TABLES:
                execute(ddl.format(prefix=""))
            execute("CREATE TABLE target (database text NOT NULL)")
            execute("INSERT INTO target VALUES (?)", (self._identity(),))

    def _identity(self) -> str:
        """The database's name in its cluster, which has a number of its own."""
        if self._connect and not self._database:
            with self._connect() as connection:
                row = connection.execute(
                    "SELECT current_database() || ' of cluster ' || system_identifier FROM pg_control_system()"
                ).fetchone()
            self._database = row[0] if row else ""
        return self._database

    def obstacles(self) -> list[Finding]:
        """Nothing on the target; what is wrong with the file is said when it is opened."""
        return []

    def drop(self) -> str:
        """Removes the file.

        Raises:
            UsageError: it is no journal, or that of another database.
        """
        if self.path.exists():
            with self.session():
                pass
        self.path.unlink(missing_ok=True)
        return self.place

    @contextmanager
    def session(self) -> Iterator[Callable[..., list[Any]]]:
        """Executes in one transaction, fsynced at its end.

        Raises:
            UsageError: the file cannot be opened, is no journal, or is that of another database.
        """
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                self._check(connection)
                yield lambda sql, values=(): connection.execute(sql, tuple(values)).fetchall()
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise UsageError(f"the journal file {self.path} cannot be used: {error}; name a writable file") from error

    @contextmanager
    def reading(self) -> Iterator[Callable[..., list[Any]] | None]:
        """The same for what is only read; None where there is no journal."""
        if not self.exists():
            yield None
            return
        with self.session() as execute:
            yield execute

    def _check(self, connection: sqlite3.Connection) -> None:
        known = connection.execute("SELECT name FROM sqlite_master WHERE name = 'target'").fetchall()
        kept = connection.execute("SELECT database FROM target").fetchone() if known else None
        if kept and self._connect and kept[0] != self._identity():
            raise UsageError(
                f"{self.path} is the journal of {kept[0]}, and the target is {self._identity()}: name another file"
            )


_TABLES = (_STEP, _STATEMENT)


def within(connection: psycopg.Connection[Any]) -> Callable[..., list[Any]]:
    """`execute(sql, values) -> rows` inside the connection's present transaction."""

    def execute(sql: str, values: Sequence[Any] = ()) -> list[Any]:
        cursor = connection.execute(sql.replace("?", "%s").encode(), list(values))
        return cursor.fetchall() if cursor.description else []

    return execute
