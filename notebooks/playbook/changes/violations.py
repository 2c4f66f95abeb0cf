"""Which rows of a table violate a condition: counted and named by their keys, in a transaction that can only read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.errors import NotAnalysed
from playbook.plan.admission import admit
from playbook.target.catalog import Table
from playbook.target.server_errors import without_values
from playbook.target.sql import quote

COUNT_LIMIT_S = 600
"""Counting reads the whole table, as VALIDATE CONSTRAINT will; a table that takes longer is left to a person."""
SAMPLE = 5
"""Violating rows named by their keys."""


@dataclass(frozen=True)
class Violations:
    """How many rows violate the condition, and the keys of the first of them (`id = 17`)."""

    rows: int
    keys: tuple[str, ...] = ()


def violations(connection: psycopg.Connection[Any], table: Table, condition: str) -> Violations:
    """Counts the rows for which `condition` is true; the table goes by the alias `checked` in it.

    Raises:
        NotAnalysed: it cannot be counted: no valid condition, volatile functions, rows hidden by a policy, too slow.
    """
    source = f"{table.qualified} AS checked WHERE {condition}"
    count = f"SELECT count(*) FROM {source}"
    admit(connection, count)
    with _reading(connection):
        rows = connection.execute(count.encode()).fetchall()[0][0]
        if not rows:
            return Violations(0)
        columns = key_columns(table)
        told = ", ".join(f"checked.{column}::text" for column in columns)
        order = ", ".join(f"checked.{column}" for column in columns)
        sample = connection.execute(f"SELECT {told} FROM {source} ORDER BY {order} LIMIT {SAMPLE}".encode()).fetchall()
    return Violations(rows, tuple(", ".join(map(" = ".join, zip(columns, key, strict=True))) for key in sample))


def count_rows(connection: psycopg.Connection[Any], table: Table) -> int:
    """The rows of the table at this moment.

    Raises:
        NotAnalysed: see `violations`.
    """
    with _reading(connection):
        return int(connection.execute(f"SELECT count(*) FROM {table.qualified}".encode()).fetchall()[0][0])


def key_columns(table: Table) -> tuple[str, ...]:
    """The quoted columns of the primary key; without one, where the row stands (`ctid`)."""
    primary = next((constraint for constraint in table.constraints if constraint.kind == "p"), None)
    return tuple(map(quote, primary.columns)) if primary else ("ctid",)


@contextmanager
def _reading(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """READ ONLY, with a time limit, and refused where a row security policy would hide rows."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("SET TRANSACTION READ ONLY")
            connection.execute("SET LOCAL row_security = off")
            connection.execute(f"SET LOCAL statement_timeout = {1000 * COUNT_LIMIT_S}".encode())
            yield
    except psycopg.errors.QueryCanceled:
        raise NotAnalysed(f"counting its rows took longer than {COUNT_LIMIT_S} s") from None
    except psycopg.Error as error:
        raise NotAnalysed(without_values(error)) from None
