"""How a query is run for evidence: one SELECT, read-only, for a limited time, never prepared on the server."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import psycopg

from playbook.errors import NotAnalysed, PlanError, one_line
from playbook.plan.parsing import parse_select
from playbook.target.pooling import local_settings
from playbook.target.server_errors import without_values

if TYPE_CHECKING:
    from playbook.plan.workload import Bound

Connection = psycopg.Connection[Any]


class Select(psycopg.RawCursor[tuple[Any, ...]]):
    """A cursor that always speaks the extended protocol, so that the server refuses a second statement.

    psycopg sends a statement without values over the simple protocol, which would run `SELECT 1; DELETE …` whole.
    """

    def _execute_send(self, query: Any, *, force_extended: bool = True, binary: bool | None = None) -> None:
        super()._execute_send(query, force_extended=True, binary=binary)

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> Select:
        """Executes one statement, planned for its values (`$1`, `$2`, …).

        When this returns, the whole result has arrived; none of it is turned into Python yet.
        """
        return self.execute(sql, values, prepare=False)


# Were psycopg to rename this, the override would be dead and the simple protocol back: rather not start at all.
if "force_extended" not in inspect.signature(psycopg.RawCursor._execute_send).parameters:
    raise ImportError("this psycopg cannot be told to use the extended protocol; install psycopg 3.2 or 3.3")


@lru_cache(maxsize=1024)
def one_select(sql: str) -> str:
    """`sql` itself, if it is exactly one SELECT that only reads: READ ONLY alone does not stop COPY TO PROGRAM.

    Raises:
        NotAnalysed: it is something else.
    """
    try:
        parse_select(sql)
    except PlanError as error:
        raise NotAnalysed(f"not analysed: {error}") from None
    return sql


@contextmanager
def reading(connection: Connection, *, timeout_s: float, repeatable: bool = False) -> Iterator[None]:
    """A READ ONLY transaction with a statement timeout (s); `repeatable` gives all its statements one snapshot.

    Everything is SET LOCAL, so behind a transaction pooler the next client inherits nothing.

    Raises:
        psycopg.Error: the transaction could not be begun; `connection` must be in autocommit and idle.
    """
    isolation = "REPEATABLE READ" if repeatable else "READ COMMITTED"
    timeout_ms = max(1, math.ceil(timeout_s * 1000))
    begin = f"BEGIN ISOLATION LEVEL {isolation}, READ ONLY; SET LOCAL statement_timeout = {timeout_ms}"
    connection.execute(f"{begin}; {local_settings(connection)}".encode(), prepare=False)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK", prepare=False)


def why(error: Exception, bound: Bound) -> str:
    """The error in one line, with the query's values masked: the server likes to quote them."""
    text = without_values(error) if isinstance(error, psycopg.Error) else one_line(error)
    for value in sorted((str(value) for value in bound.values if value not in (None, "")), key=len, reverse=True):
        text = text.replace(value, "***")
    return text
