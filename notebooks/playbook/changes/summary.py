"""What summaries have in common: an aggregate that is kept, so that a query need not compute it at each load.

A summary is made in parts (a view, an index, rows, a job), each with its undo and a question by which the server tells
whether it stands. What a killed run left, or others made, is completed from there.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import psycopg
from psycopg import errors as pg

from playbook.changes import cron_job, preflight
from playbook.changes.change import Change, Finding, Stands
from playbook.changes.cron_job import Cron, Job
from playbook.changes.equality import columns
from playbook.changes.refresh_command import ISO, refresh_command
from playbook.changes.staleness import marker
from playbook.changes.summary_spec import SummarySpec
from playbook.changes.view_query import view_query
from playbook.errors import NotAnalysed, PlanError, one_line
from playbook.plan.admission import admit
from playbook.plan.names import Names
from playbook.target.catalog import LOCK_TIMEOUT_MS, Catalog, Table
from playbook.target.sql import Statement, literal, quote

_WITH = re.compile(r"\s*WITH\s+(?P<recursive>RECURSIVE\s+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """One statement, what takes it back, and a SELECT of one boolean that tells whether it stands."""

    statement: Statement
    undo: Statement | None
    probe: str


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did: `plain`, `concurrently` or `folded`, and how many rows it changed."""

    manner: str
    rows_changed: int | None


class Summary(Change):
    """An aggregate of the plan, kept on the target under the step's name."""

    answers = True
    gives_up_on = (pg.DataError, pg.IntegrityError, pg.ProgrammingError)
    relkind: ClassVar[str]
    spec: SummarySpec

    def __init__(self, spec: SummarySpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.query = view_query(spec.query, names, zone=spec.time_zone, stored_zone=spec.stored_time_zone)
        self.job: Job | None = None
        self._cron: Cron | None = None
        self._kind: str | None = None
        self._standing: tuple[bool, ...] = ()
        self._different = ""
        self.columns: tuple[tuple[str, str], ...] = ()
        self._refused = ""

    @property
    def schema(self) -> str:
        """Where it is made: beside the first table that it reads."""
        return self.query.tables[0].schema

    @property
    def qualified(self) -> str:
        """Its quoted name."""
        return quote(self.schema, self.spec.name)

    @property
    def tables(self) -> tuple[str, ...]:
        """The relations that it is made from."""
        return tuple(table.qualified for table in self.query.tables)

    @property
    def relations(self) -> tuple[Table, ...]:
        """These, and what stands under its name."""
        standing = self.catalog.table(self.schema, self.spec.name)
        return (*self.query.tables, *((standing,) if standing else ()))

    @property
    def marker(self) -> str:
        """The SELECT that tells whether anything has changed."""
        return marker(self.query.tables, self.query.clock)

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """What it consists of, in the order it is made, without its job."""

    @abstractmethod
    def difference(self, connection: psycopg.Connection[Any]) -> str:
        """How what stands under its name differs from the plan's, both shown; empty where it is the same."""

    @abstractmethod
    def refresh(self, connection: psycopg.Connection[Any]) -> Refreshed:
        """Brings it up to date, inside the transaction that is open; no reader waits for it."""

    @abstractmethod
    def is_filled(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether it was ever refreshed."""

    @abstractmethod
    def job_body(self) -> str:
        """The PL/pgSQL statements by which a job does what `refresh` does; they set `manner` and `changed`."""

    def ask(self, connection: psycopg.Connection[Any]) -> None:
        """What stands under its name, whether it is the same, whether pg_cron is there."""
        self._cron = Cron.ask(connection)
        try:
            self.columns = columns(connection, self.query.sql)
        except psycopg.Error as error:
            self._refused = one_line(error.diag.message_primary or error)
        self.job = Job.of(
            self._cron,
            self.qualified,
            refresh_command(self.qualified, self.marker, self.job_body()),
            does="refresh it",
            every_=self.spec.refresh_every,
            at=self.spec.refresh_at,
            zone=self.spec.time_zone,
        )
        row = connection.execute(
            "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)", [self.qualified]
        ).fetchone()
        self._kind = row[0] if row else None
        self._standing = tuple(self._stands(connection, part) for part in self._parts())
        self._different = self.difference(connection) if self._kind == self.relkind else ""

    def _parts(self) -> tuple[Part, ...]:
        job = (Part(self.job.make(), self.job.remove(), self.job.probe),) if self.job else ()
        return (*self.parts(), *job)

    @staticmethod
    def _stands(connection: psycopg.Connection[Any], part: Part) -> bool:
        try:
            with connection.transaction(force_rollback=True):
                return connection.execute(part.probe.encode()).fetchall() == [(True,)]
        except (pg.UndefinedTable, pg.InsufficientPrivilege):
            return False

    def _open(self) -> tuple[Part, ...]:
        """The parts to make; all of them where all stand, for what was made to be shown."""
        parts = self._parts()
        begun = self._kind is not None or self._unfinished
        return tuple(p for p, there in zip(parts, self._standing, strict=False) if begun and not there) or parts

    @property
    def _unfinished(self) -> bool:
        """Whether parts stand, its job aside, and the relation of its name does not."""
        return self._kind is None and any(self._standing[: len(self.parts())])

    def statements(self) -> tuple[Statement, ...]:
        """What makes it; what stands already is left out."""
        return tuple(part.statement for part in self._open())

    def undo(self) -> tuple[Statement, ...]:
        """What takes back what `statements` makes, the last part first."""
        undone = [part.undo for part in reversed(self._open()) if part.undo is not None]
        job = [statement for statement in undone if self.job and statement == self.job.remove()]
        return (*(statement for statement in undone if statement not in job), *job)

    def stands(self) -> Stands:
        """By name first, then by definition, then part by part."""
        if self._kind is None:
            return Stands("unfinished", f"parts of {self.spec.name} stand") if self._unfinished else Stands("absent")
        if self._kind != self.relkind:
            return Stands("other", f"{self.qualified} is another relation of that name")
        if self._different:
            return Stands("other", self._different)
        if all(self._standing):
            return Stands("exists", f"{self.spec.name} stands already with this definition")
        missing = ", ".join(statement.purpose for statement in self.statements())
        return Stands("begun", f"{self.spec.name} stands; yet to be done: {missing}")

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Standby, privileges, whether the server takes the query, row security, size, pg_cron."""
        found = [*preflight.standby(connection), *self._privileges(connection)]
        if any(each.concern == "blocked" for each in found):
            return found
        if self._refused:
            return [*found, Finding("blocked", f"the query is refused: {self._refused}", "mend it in the plan")]
        try:
            admit(connection, self.query.sql)
        except NotAnalysed as error:
            return [*found, Finding("blocked", f"the query cannot be kept: {error}", "mend it in the plan")]
        return [
            *found,
            *self._row_security(),
            *preflight.disk(self._expected_bytes(connection)),
            *(self._cron.findings("`playbook refresh --every` keeps it fresh") if self._cron else ()),
        ]

    def _privileges(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        user = preflight.current_user(connection)
        found = [
            Finding(
                "privilege",
                f"{user} may not read {table.qualified}",
                f"GRANT SELECT ON {table.qualified} TO {quote(user)};",
            )
            for table in self.query.tables
            if not preflight.has_privilege(connection, table, "SELECT")
        ]
        return [*found, *preflight.may_create(connection, self.schema, user)]

    def _row_security(self) -> list[Finding]:
        hidden = [table.qualified for table in self.query.tables if table.row_security]
        if not hidden:
            return []
        detail = f"{', '.join(hidden)} has row security, which does not hold for sums that are kept"
        return [Finding("warn", detail, "grant SELECT on the summary only to roles that may see every row's share")]

    def _expected_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}".encode())
                told = connection.execute(f"EXPLAIN (FORMAT JSON) {self.query.sql}".encode()).fetchall()[0][0][0][
                    "Plan"
                ]
        except psycopg.Error:
            return None
        return int(told["Plan Rows"] * (24 + told["Plan Width"]))

    def marks(self, connection: psycopg.Connection[Any]) -> dict[str, Any]:
        """How the tables were before the first refresh: read before it, so that nothing can be missed."""
        with connection.transaction(force_rollback=True):
            ((mark, now),) = connection.execute(
                f"SELECT ({self.marker}), to_char(clock_timestamp() AT TIME ZONE 'UTC', {ISO})".encode()
            ).fetchall()
        return {"refreshed": {"relation": self.qualified, "marker": mark or "", "started_at": now}}

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """Every statement is transactional: its part stands or does not."""
        part = next((part for part in self._parts() if part.statement.sql == statement.sql), None)
        return "done" if part is not None and self._stands(connection, part) else "absent"

    def repair(self, statement: Statement) -> Statement | None:
        """Nothing: a transactional statement leaves no remains."""
        return None

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """What it made, with the definitions."""
        found = {name: self.definition(connection, name) for name in self.makes()}
        return {name: definition for name, definition in found.items() if definition is not None}

    def over_definition(self, sql: str) -> str | None:
        """The query over the rows as they would be kept at this moment."""
        if not self.names.is_visible_as(self.schema, self.spec.name):
            return None
        inner = f"{quote(self.spec.name)} AS (\n{self.query.sql}\n)"
        if (match := _WITH.match(sql)) is not None:
            return f"WITH {match['recursive'] or ''}{inner}, {sql[match.end() :]}"
        return f"WITH {inner}\n{sql}"

    def freshness(self) -> str:
        """How old an answer may be, and who sees to that."""
        by = "pg_cron" if self.job else f"`playbook refresh --every {self.spec.refresh_every}`"
        return f"an answer is up to {self.spec.refresh_every} old ({by} refreshes it)"

    def remark(self) -> str:
        """How old an answer may be."""
        return self.freshness()

    def check_columns(self, wanted: tuple[str, ...]) -> None:
        """Raises PlanError where the query returns no column of such a name; nothing is known of a refused query."""
        known = {name for name, _ in self.columns}
        if known and (missing := [name for name in wanted if name not in known]):
            raise PlanError(f"{self.spec.name}: its query returns no column {missing[0]}")


def stands_as(name: str, kind: str) -> str:
    """A SELECT of one boolean: is there a relation of that quoted name and pg_class's kind?"""
    return (
        f"SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass({literal(name)}) "
        f"AND c.relkind = '{kind}')"
    )


def stands_otherwise(name: str, stored: str, wanted: str) -> str:
    """What is said of a relation of the plan's name that is not the plan's."""
    return f"{name} stands already as: {' '.join(stored.split())} The plan's is: {' '.join(wanted.split())}"


def view_definition(connection: psycopg.Connection[Any], name: str) -> str | None:
    """A view with its columns, its indexes and its comment, or a table; None where it is gone."""
    if name.startswith(cron_job.PREFIX):
        return cron_job.definition(connection, name)
    row = connection.execute(_DEFINITION, [name]).fetchone()
    return row[0] if row else None


_DEFINITION = """
SELECT pg_catalog.concat_ws(E'\\n', c.relkind, pg_catalog.array_to_string(c.reloptions, ', '),
  CASE WHEN c.relkind IN ('m', 'v') THEN pg_catalog.pg_get_viewdef(c.oid) END,
  (SELECT pg_catalog.string_agg(
     a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
   FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid), E'\\n' ORDER BY i.indexrelid::regclass::text)
   FROM pg_catalog.pg_index AS i WHERE i.indrelid = c.oid),
  pg_catalog.obj_description(c.oid, 'pg_class'))
FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
