"""A log of two years, and other ways into the tables that a copy of the playbook makes: what it is measured against."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.target.connect import Target
from playbook.target.sql import Statement

LIMIT = 1.5
"""A copy may take so many times as long as a plain `INSERT … SELECT` with the indexes built after it."""
MEMORY_LIMIT_MB = 16.0

_LOG = """
CREATE TABLE log (id bigint PRIMARY KEY, person int, action text NOT NULL, at timestamptz NOT NULL);
INSERT INTO log SELECT n, 1 + n % 1000, 'action ' || n % 7, timestamptz '2024-01-01 00:00:00+00' + n * interval '1 day' *
  (730.0 / {rows}) FROM generate_series(1, {rows}) n;
CREATE INDEX log_person ON log (person);
CREATE INDEX log_at ON log (at);
"""


def make_log(target: Target, rows: int, more: str = "") -> None:
    """The log with two secondary indexes, and what `more` makes; analysed."""
    with target.connect() as connection:
        connection.execute(_LOG.format(rows=rows).encode())
        if more:
            connection.execute(more.encode())
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def client_mb() -> float:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Successor:
    """The partitioned table `name` of the statements that a copy runs; `indexes` are those that it builds after the rows."""

    name: str
    made: tuple[str, ...]
    indexes: tuple[str, ...]

    @classmethod
    def of(cls, statements: Iterable[Statement], name: str) -> Successor:
        ours = [each for each in statements if each.relation == f"public.{name}"]
        made = tuple(each.sql for each in ours if each.sql.startswith("CREATE TABLE"))
        return cls(name, made, tuple(each.sql for each in ours if each.lock == "SHARE"))

    def filled(self, target: Target, fill: Callable[[psycopg.Connection[Any]], Any]) -> float:
        """Seconds that `fill` takes in a session of its own; the table is empty before and gone after."""
        with target.connect() as connection:
            for sql in self.made:
                connection.execute(sql.encode())
            connection.execute("CHECKPOINT")
            started = time.monotonic()
            fill(connection)
            seconds = time.monotonic() - started
            connection.execute(f"DROP TABLE {self.name}".encode())
        return seconds

    def plainly(self, connection: psycopg.Connection[Any], source: str) -> float:
        """All rows at once, then the indexes; seconds for the rows alone."""
        started = time.monotonic()
        connection.execute(f"INSERT INTO {self.name} SELECT * FROM {source}".encode())
        seconds = time.monotonic() - started
        self.index(connection)
        return seconds

    def index(self, connection: psycopg.Connection[Any]) -> None:
        """Builds them, one after the other."""
        for sql in self.indexes:
            connection.execute(sql.encode())
