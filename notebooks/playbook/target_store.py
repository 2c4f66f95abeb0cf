"""The journal on the target: schema `playbook` with its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg

from playbook import stores
from playbook.changes import preflight
from playbook.changes.change import Finding
from playbook.errors import Interrupted, TargetError, one_line
from playbook.target.sql import OWN, Statement, literal
from playbook.target.watchdog import Connect

SCHEMA = "playbook"
TABLES = ("step", "statement")
BESIDE = ("refresh", "detached", "sample", "usage", "usage_text", "run")
"""What stands beside the journal once it is needed: records of refreshes and of detached partitions, the history."""
ELSE = "keep the journal in a file: --journal FILE"


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
        made += [ddl.format(prefix=self.prefix).strip() for ddl in stores.DEFINITIONS]
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


def within(connection: psycopg.Connection[Any]) -> Callable[..., list[Any]]:
    """`execute(sql, values) -> rows` inside the connection's present transaction."""

    def execute(sql: str, values: Sequence[Any] = ()) -> list[Any]:
        cursor = connection.execute(sql.replace("?", "%s").encode(), list(values))
        return cursor.fetchall() if cursor.description else []

    return execute
