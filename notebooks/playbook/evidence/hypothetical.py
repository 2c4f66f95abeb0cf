"""What the planner expects of indexes that do not stand: HypoPG's estimates, shown beside a dry run and never judged.

HypoPG keeps such indexes in the memory of one session: nothing is written, and nobody else's plans see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from playbook.errors import NotAnalysed, one_line
from playbook.evidence.explain import Plan, explain
from playbook.evidence.reading import Connection, why
from playbook.plan.workload import Bound
from playbook.target.sql import quote
from playbook.target.watchdog import Connect


@dataclass(frozen=True, slots=True)
class Estimate:
    """One query as the planner sees it without a step's indexes and with them.

    Costs are in the planner's own unit, which is no time. They are None, and `used` is, where the planner could not be
    asked; `reason` then says why.
    """

    step: str
    query: str
    bind: str
    cost_before: float | None = None
    cost_after: float | None = None
    used: bool | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As results.json lists it."""
        return asdict(self)


def estimates(connect: Connect, step: str, indexes: Sequence[str], queries: Sequence[Bound]) -> tuple[Estimate, ...]:
    """What each query would gain, where HypoPG stands in the database; nothing where it does not, or behind a pooler.

    `indexes` are CREATE INDEX statements. No query is executed.

    Raises:
        playbook.errors.TargetError: no connection.
    """
    with connect() as connection:
        if not queries or (schema := _schema(connection)) is None:
            return ()
        before = [_plan(connection, bound) for bound in queries]
        with _pretended(connection, schema, indexes) as (names, refusal):
            after = [_plan(connection, bound) for bound in queries]
        return tuple(
            _estimate(step, bound, first, refusal or second, names)
            for bound, first, second in zip(queries, before, after, strict=True)
        )


def _schema(connection: Connection) -> str | None:
    """Where HypoPG's functions are; None where it is not installed, or where the session is not ours alone."""
    row = connection.execute(
        "SELECT n.nspname::text, pg_catalog.pg_backend_pid() FROM pg_catalog.pg_extension e "
        "JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'hypopg'"
    ).fetchone()
    return row[0] if row and row[1] == connection.info.backend_pid else None


@contextmanager
def _pretended(connection: Connection, schema: str, indexes: Sequence[str]) -> Iterator[tuple[set[str], str]]:
    """The indexes for the planner of this session alone: their names, or why there are none; gone at the end."""
    create, reset = (quote(schema, f"hypopg_{verb}") for verb in ("create_index", "reset"))
    names: set[str] = set()
    refusal = ""
    try:
        for sql in indexes:
            rows = connection.execute(f"SELECT indexname FROM {create}(%s)".encode(), [sql]).fetchall()
            names |= {name for (name,) in rows}
    except psycopg.Error as error:
        refusal = f"HypoPG has no such index: {one_line(error.diag.message_primary or error)}"
    try:
        yield names, refusal
    finally:
        with suppress(psycopg.Error):
            connection.execute(f"SELECT {reset}()".encode())


def _plan(connection: Connection, bound: Bound) -> Plan | str:
    try:
        return explain(connection, bound, analyze=False)
    except (psycopg.Error, NotAnalysed) as error:
        return why(error, bound)


def _estimate(step: str, bound: Bound, before: Plan | str, after: Plan | str, names: set[str]) -> Estimate:
    for found in (before, after):
        if isinstance(found, str):
            return Estimate(step, bound.query, bound.bind, reason=found)
    assert isinstance(before, Plan)
    assert isinstance(after, Plan)
    used = bool(names.intersection(after.indexes))
    return Estimate(step, bound.query, bound.bind, before.cost, after.cost, used)
