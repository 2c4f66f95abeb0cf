"""The session that the checks look through: read-only, bounded in time and in locks, a fixed number of queries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from playbook.assess import activity, counters
from playbook.assess.activity import marked
from playbook.assess.masking import masked
from playbook.context import Context
from playbook.target.catalog import Catalog
from playbook.target.connect import Server
from playbook.target.sql import OWN

STATEMENT_TIMEOUT_S = 5.0
LOCK_TIMEOUT_MS = 200
"""The queries take ACCESS SHARE at most, which waits for nothing but ACCESS EXCLUSIVE: not for long, though."""
LIMIT_S = 60.0
"""For all checks together; what comes after that is not checked."""


class OutOfTime(Exception):
    """The checks together took longer than they may."""


@dataclass
class Session:
    """A connection with what the checks need to know: server, catalog, rights, and whether values may be shown.

    `sees_all`: what other roles' sessions do is shown to this role (pg_read_all_stats, part of pg_monitor).
    `measures`: rows of the target's tables may be read.
    """

    context: Context
    connection: psycopg.Connection[Any]
    sees_all: bool = False
    first: activity.Snapshot | None = None
    queries: int = 0
    statement_timeout_s: float = STATEMENT_TIMEOUT_S
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        sql = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all"
        self.sees_all = self.row(sql).sees_all

    @property
    def server(self) -> Server:
        """What the server said of itself."""
        assert self.context.target.server is not None
        return self.context.target.server

    @property
    def catalog(self) -> Catalog:
        """The catalog as it was last read."""
        return self.context.catalog

    @property
    def measures(self) -> bool:
        """Whether rows of the target's tables may be read."""
        return self.context.settings.measures

    @property
    def shows_values(self) -> bool:
        """Whether literals of the target's statements may stand in outputs."""
        return self.context.shows_values

    @cached_property
    def settings(self) -> dict[str, counters.Setting]:
        """The server's settings that this role may see."""
        return counters.settings(self)

    @cached_property
    def tables(self) -> list[counters.TableCounters]:
        """What the server counted for each user table, one query for all."""
        return counters.tables(self)

    @cached_property
    def indexes(self) -> dict[tuple[str, str], counters.IndexCounters]:
        """What the server counted for each user index by schema and name, one query for all."""
        return counters.indexes(self)

    @cached_property
    def since(self) -> counters.Since:
        """From when on the server's counters of this database count."""
        return counters.since(self)

    @cached_property
    def activity(self) -> activity.Activity:
        """What the target did between the first snapshot and now; asked once, so by the late check only."""
        return activity.between(self.first, activity.snapshot(self), self)

    def text(self, query: str | None) -> str:
        """A statement in one line as it may be shown: masked unless values may be; empty where it is hidden."""
        if not query or query == "<insufficient privilege>":
            return ""
        return " ".join(query.split()) if self.shows_values else masked(query)

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """The rows of one query, as named tuples.

        Raises:
            OutOfTime: the checks took too long already.
            psycopg.Error: the query was refused or cancelled.
        """
        if time.monotonic() - self.started > LIMIT_S:
            raise OutOfTime(f"the checks together took longer than {LIMIT_S:g} s")
        self.queries += 1
        with self._bounded(), self.connection.cursor(row_factory=namedtuple_row) as cursor:
            return cursor.execute(marked(sql).encode(), values or None, prepare=False).fetchall()

    def row(self, sql: str, *values: Any) -> Any:
        """The one row of a query."""
        return self.rows(sql, *values)[0]

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Behind a transaction pooler the bounds are set for one transaction, else they stand for the session."""
        if not self.server.pooled:
            yield
            return
        with self.connection.transaction():
            self.connection.execute("SET TRANSACTION READ ONLY")
            _bound(self.connection, local=True)
            yield


@contextmanager
def open_session(context: Context) -> Iterator[Session]:
    """A session of its own, closed afterwards.

    Raises:
        Unreachable: no connection.
    """
    with context.connect() as connection:
        assert context.target.server is not None
        if not context.target.server.pooled:
            _bound(connection, local=False)
        yield Session(context, connection)


def _bound(connection: psycopg.Connection[Any], *, local: bool) -> None:
    settings = {
        "default_transaction_read_only": "on",
        "statement_timeout": f"{STATEMENT_TIMEOUT_S:g}s",
        "lock_timeout": f"{LOCK_TIMEOUT_MS}ms",
        "search_path": "pg_catalog",  # so that no operator or function of the target's own is called
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
    }
    connection.execute(
        f"{OWN} " + ", ".join(["pg_catalog.set_config(%s, %s, %s)"] * len(settings)),
        [value for pair in settings.items() for value in (*pair, local)],
    )
