"""Are two queries the same? Asked of the server's planner, which executes nothing and writes nothing.

EXPLAIN (VERBOSE) shows every expression as the server itself deparses it, constants folded. Two queries that are
planned alike, line by line, and return columns of the same names and types are the same. Planned unlike they may still
be the same, so only a yes is an answer.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import ExecStatus

from playbook.target.catalog import Table

_PLAIN = ("jit = off", "max_parallel_workers_per_gather = 0", "transaction_read_only = on")


def columns(connection: psycopg.Connection[Any], sql: str) -> tuple[tuple[str, str], ...]:
    """Names and types of the columns that a query returns, from parsing it alone.

    Raises:
        psycopg.Error: the server does not take the query.
    """
    with connection.transaction(force_rollback=True):
        described = connection.pgconn
        prepared = described.prepare(b"", sql.encode(connection.info.encoding))
        if prepared.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(prepared)
        row = described.describe_prepared(b"")
        told = [
            ((row.fname(i) or b"").decode(connection.info.encoding), row.ftype(i), row.fmod(i))
            for i in range(row.nfields)
        ]
        types = connection.execute(
            "SELECT pg_catalog.format_type(t, m) FROM ROWS FROM (pg_catalog.unnest(%s::oid[]), "
            "pg_catalog.unnest(%s::int[])) WITH ORDINALITY AS each(t, m, n) ORDER BY n",
            [[oid for _, oid, _ in told], [modifier for _, _, modifier in told]],
        ).fetchall()
    return tuple((name, type_) for (name, _, _), (type_,) in zip(told, types, strict=True))


def same_query(connection: psycopg.Connection[Any], one: str, other: str) -> bool:
    """Whether two SELECTs are surely the same; False where the server does not take one of them, too."""
    try:
        return columns(connection, one) == columns(connection, other) and same_plan(connection, one, other)
    except psycopg.Error:
        return False


def same_condition(connection: psycopg.Connection[Any], table: Table, one: str, other: str) -> bool:
    """Whether two conditions on a row of the table are surely the same."""
    select = "SELECT ({}\n) FROM ONLY {}"
    return same_query(connection, select.format(one, table.qualified), select.format(other, table.qualified))


def same_plan(connection: psycopg.Connection[Any], one: str, other: str) -> bool:
    """Whether two SELECTs are planned alike, in one transaction.

    Raises:
        psycopg.Error: the server does not take one of them.
    """
    with connection.transaction(force_rollback=True):
        for setting in _PLAIN:
            connection.execute(f"SET LOCAL {setting}".encode())
        return _plan(connection, one) == _plan(connection, other)


def _plan(connection: psycopg.Connection[Any], sql: str) -> list[str]:
    rows = connection.execute(f"EXPLAIN (VERBOSE, COSTS OFF) {sql}".encode()).fetchall()
    # The identifier leaves constants aside and is no part of the plan.
    return [line for (line,) in rows if not line.startswith("Query Identifier")]
