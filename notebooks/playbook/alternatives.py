"""Three ways to answer a summary's queries, side by side: the plain query, a materialized view, an incremental summary.

Each is tried on a copy of the table, in schemas that are dropped again. Reads are timed interleaved; writers insert
single rows into a copy with the triggers and into one without; one row in a hundred is changed before a refresh.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from playbook.changes.incremental_summary import IncrementalSummary
from playbook.changes.materialized_view import MaterializedView
from playbook.changes.summary import Summary
from playbook.changes.summary_spec import SummarySpec
from playbook.changes.view_query import relation_names
from playbook.context import Context
from playbook.errors import PlaybookError, TargetError, one_line
from playbook.evidence.measure import measure
from playbook.evidence.probes import Row, Side, refuse
from playbook.evidence.writes import insert_overhead
from playbook.plan.binds import bind, rebind
from playbook.plan.names import Names
from playbook.plan.workload import Bound, load
from playbook.step import Step
from playbook.target import catalog as catalogs
from playbook.target.catalog import Table
from playbook.target.sql import literal, quote

SCHEMAS: dict[Side, str] = {"without": "playbook_trial_refreshed", "with": "playbook_trial_incremental"}
ROWS = 40_000
"""Rows that are copied at most."""
HELD_OUT = 2_000
"""Rows kept out of the copies, to be inserted while writers are timed."""
CLIENTS = 8
ROUNDS = 12
BUDGET_S = 3.0
_OURS = "made by the playbook to try alternatives"


@dataclass(frozen=True)
class Alternative:
    """One way, and what it comes to. `read_ms` is one load: every claimed query once. What was not measured is None.

    `refresh_s` is one refresh after a hundredth of the rows was changed; `write_pct` is what single-row commits take
    longer, with its interval. `chosen` marks the plan's.
    """

    kind: str
    freshness: str
    read_ms: float | None
    write_pct: float | None
    write_ci95: tuple[float, float] | None
    refresh_s: float | None
    refresh_rows: int | None
    size_bytes: int | None
    chosen: bool = False


@dataclass(frozen=True)
class Alternatives:
    """The ways for one step, on so many rows; `reason` says why there are none."""

    step: str
    rows: int
    found: tuple[Alternative, ...] = ()
    reason: str = ""


def alternatives(context: Context, step: Step, *, budget_s: float = BUDGET_S, rows: int = ROWS) -> Alternatives:
    """Tries them on copies; only on the sample, or where writing for the sake of measuring was asked for."""
    change = step.change
    if not (context.target.embedded or context.settings.measure_writes):
        return Alternatives(step.id, 0, reason="not tried: copies are made only with --measure-writes")
    if not isinstance(change, Summary) or len(change.query.tables) != 1:
        return Alternatives(step.id, 0, reason="not tried: it does not sum one table")
    try:
        with _copies(context, change.query.tables[0], rows) as pair:
            return Alternatives(step.id, pair.copied, _tried(context, change.spec, step.spec.claims, pair, budget_s))
    except (psycopg.Error, PlaybookError) as error:
        return Alternatives(step.id, 0, reason=f"not tried: {one_line(error)}")


class _Copies:
    """A copy of the table in each schema, and the rows that were held out."""

    def __init__(self, connection: psycopg.Connection[Any], table: Table, rows: int) -> None:
        self._connection, self._table = connection, table
        self._key = next((c.columns for c in table.constraints if c.kind == "p"), ())
        if not self._key:
            raise TargetError(f"{table.qualified} has no primary key to tell its rows by")
        self._columns = [quote(column.name) for column in table.columns if not column.generated]
        columns, held = ", ".join(self._columns), self.name("without", "held_out")
        for schema in SCHEMAS.values():
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}".encode())
            connection.execute(f"COMMENT ON SCHEMA {schema} IS {literal(_OURS)}".encode())
        key = ", ".join(map(quote, self._key))
        source = f"SELECT {columns} FROM {table.qualified}"
        connection.execute(f"CREATE TABLE {held} AS {source} ORDER BY {key} DESC LIMIT {HELD_OUT}".encode())
        for side in SCHEMAS:
            copy = self.name(side)
            like = "INCLUDING ALL EXCLUDING DEFAULTS EXCLUDING IDENTITY EXCLUDING STATISTICS EXCLUDING COMMENTS"
            connection.execute(f"CREATE TABLE {copy} (LIKE {table.qualified} {like})".encode())
            rest = f"({key}) NOT IN (SELECT {key} FROM {held})"
            connection.execute(
                f"INSERT INTO {copy} ({columns}) {source} WHERE {rest} ORDER BY {key} DESC LIMIT {rows}".encode()
            )
            connection.execute(f"VACUUM (ANALYZE) {copy}".encode())
        ((self.copied,),) = connection.execute(f"SELECT count(*) FROM {self.name('with')}".encode()).fetchall()

    def name(self, side: Side, name: str = "") -> str:
        """The quoted name of what stands in that side's schema; of the copy, without a name."""
        return quote(SCHEMAS[side], name or self._table.name)

    def insert(self, side: Side) -> str:
        """One row, with a parameter for each value."""
        places = ", ".join(f"${number}" for number in range(1, len(self._columns) + 1))
        return f"INSERT INTO {self.name(side)} ({', '.join(self._columns)}) VALUES ({places})"

    def take_back(self) -> None:
        """Deletes the rows that were held out."""
        key, held = ", ".join(map(quote, self._key)), self.name("without", "held_out")
        for side in SCHEMAS:
            self._connection.execute(
                f"DELETE FROM {self.name(side)} WHERE ({key}) IN (SELECT {key} FROM {held})".encode()
            )

    def held_out(self) -> list[Row]:
        """Their values as text."""
        sql = f"SELECT {', '.join(self._columns)} FROM {self.name('without', 'held_out')}"
        result = self._connection.pgconn.exec_params(sql.encode(), None)
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.errors.error_from_result(result)
        return [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]

    def change_a_hundredth(self) -> None:
        """In both, deletes one row in a hundred."""
        key = " || ".join(f"{quote(column)}::text" for column in self._key)
        for side in SCHEMAS:
            self._connection.execute(
                f"DELETE FROM {self.name(side)} WHERE pg_catalog.hashtext({key}) % 100 = 0".encode()
            )


@contextmanager
def _copies(context: Context, table: Table, rows: int) -> Iterator[_Copies]:
    with context.connect() as connection:
        refuse(connection, table)
        for schema in SCHEMAS.values():
            named = "SELECT obj_description(to_regnamespace(%s), 'pg_namespace')"
            there = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [schema]).fetchone() == (True,)
            if there and connection.execute(named, [schema]).fetchone() != (_OURS,):
                raise TargetError(f"schema {schema} stands and was not made by the playbook; rename it")
        try:
            context.progress("alternatives: copying rows")
            yield _Copies(connection, table, rows)
        finally:
            if not connection.closed:
                for schema in SCHEMAS.values():
                    connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def _tried(
    context: Context, spec: SummarySpec, claims: tuple[str, ...], pair: _Copies, budget_s: float
) -> tuple[Alternative, ...]:
    relation = relation_names(spec.query)[0]
    kinds: dict[Side, type[Summary]] = {"without": MaterializedView, "with": IncrementalSummary}
    made = {side: _make(context, kinds[side], spec, {relation: pair.name(side)}) for side in SCHEMAS}
    context.progress("alternatives: reading")
    reads = _reads(context, claims, spec.name, relation, pair, budget_s)
    context.progress("alternatives: writing")
    paid = insert_overhead(context.connect, pair, pair.held_out(), clients=CLIENTS, budget_s=budget_s)
    context.progress("alternatives: refreshing")
    with context.connect() as connection:
        for summary in made.values():
            with connection.transaction():
                summary.refresh(connection)
        pair.change_a_hundredth()
        cost = {side: _refreshed(connection, summary) for side, summary in made.items()}
        sizes = {side: summary.size_bytes(connection) for side, summary in made.items()}
    plain = Alternative("plain query", "as fresh as the tables", reads["plain"], None, None, None, None, None)
    return (
        plain,
        *(
            Alternative(
                summary.kind,
                summary.freshness(),
                reads[side],
                paid.pct if side == "with" else None,
                paid.ci95 if side == "with" else None,
                *cost[side],
                sizes[side],
                chosen=summary.kind == spec.kind,
            )
            for side, summary in made.items()
        ),
    )


def _make(context: Context, kind: type[Summary], spec: SummarySpec, mapping: dict[str, str]) -> Summary:
    with context.connect() as connection:
        catalog = catalogs.read(connection)
        summary = kind(spec, Names(catalog, {**context.settings.map, **mapping}, context.plan.map), catalog)
        summary.ask(connection)
        for part in summary.parts():
            connection.execute(part.statement.sql.encode())
    return summary


def _reads(
    context: Context, claims: tuple[str, ...], name: str, relation: str, pair: _Copies, budget_s: float
) -> dict[str, float | None]:
    """Milliseconds of one load for each way: the medians of the claimed queries, added up."""
    workload = load(context.plan.workload_path)
    answers = {each.answers: each for each in workload.values() if each.answers}
    bounds: list[Bound] = []
    with context.connect() as connection:
        catalog = catalogs.read(connection)
        for side, way in (("without", "plain"), ("without", "without"), ("with", "with")):
            mapping = {relation: pair.name(side), name: pair.name(side, name)}
            names = Names(catalog, {**context.settings.map, **mapping}, context.plan.map)
            for claim in claims:
                asked = bind(workload[claim], names, connection, execute=True)[0]
                found = asked if way == "plain" or claim not in answers else rebind(answers[claim], asked, names)
                bounds.append(replace(found, query=f"{way} {claim}"))
    measured = measure(context.connect, bounds, rounds=ROUNDS, budget_s=budget_s, progress=context.progress)
    times = {each.query: each.median_ms for each in measured}
    loads: dict[str, float | None] = {}
    for way in ("plain", "without", "with"):
        own = [times[f"{way} {claim}"] for claim in claims]
        loads[way] = None if None in own else round(sum(each for each in own if each), 4)
    return loads


def _refreshed(connection: psycopg.Connection[Any], summary: Summary) -> tuple[float, int | None]:
    started = time.monotonic()
    with connection.transaction():
        done = summary.refresh(connection)
    return time.monotonic() - started, done.rows_changed
