"""A table under load while it is changed: how long each write took, who held which lock, and whether a row was lost.

Writers run in processes of their own, so that they share no interpreter with what they are to be measured beside. Each
writes the table and, in the same statement, a twin without any of the table's constraints: in the end both have to hold
the same rows. An observer looks at the locks on the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from playbook.errors import RunError
from playbook.target.catalog import Table
from playbook.target.sql import quote
from playbook.target.watchdog import Connect

TWIN_SCHEMA = "playbook_twin"
"""Where the twin stands while it is needed."""
_ORIGINAL = f"{TWIN_SCHEMA}.original"
POLL_S = 0.005
"""How often the observer looks at the locks."""


@dataclass(frozen=True)
class Write:
    """One write: when it began (seconds from the start), how long it took, and what it was; `error` where it failed."""

    at_s: float
    ms: float
    what: str
    error: str = ""


@dataclass(frozen=True)
class Lock:
    """A lock of the playbook on the table, held or waited for, as it was seen at one moment; `query` is what ran."""

    at_s: float
    mode: str
    granted: bool
    query: str


@dataclass
class Timeline:
    """What happened to the table's writers meanwhile; filled when the `with` block ends."""

    table: str
    writes: list[Write] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    difference: int | None = None
    rows: int | None = None
    seconds: float = 0.0

    @property
    def worst_ms(self) -> float:
        """The slowest write."""
        return max((write.ms for write in self.writes), default=0.0)

    @property
    def failed(self) -> list[Write]:
        """Writes that the server refused."""
        return [write for write in self.writes if write.error]


@contextmanager
def under_load(
    connect: Connect,
    conninfo: Mapping[str, Any],
    table: Table,
    key: str,
    *,
    writers: int = 2,
    least: int = 20,
    restore: bool = False,
) -> Iterator[Timeline]:
    """Writes the table as long as the block runs, each writer at least `least` times before and after.

    `key` is the column that moves between periods. The twin is dropped at the end; with `restore` the rows written are
    taken back then.

    Raises:
        RunError: the table has no primary key of one column, or a writer could not be started.
    """
    timeline = Timeline(table.qualified)
    primary = next((each for each in table.constraints if each.kind == "p"), None)
    if primary is None:
        raise RunError(f"{table.qualified} has no primary key, by which writers could tell rows apart")
    row_key = primary.columns[0]
    twin = _make_twin(connect, table, row_key, restore)
    try:
        with ExitStack() as stack:
            crew = [
                stack.enter_context(_Helper("writer", conninfo, _orders(table, twin, row_key, key, number, writers)))
                for number in range(writers)
            ]
            observer = stack.enter_context(_Helper("observer", conninfo, {"table": table.qualified, "poll_s": POLL_S}))
            for helper in (*crew, observer):
                helper.is_ready()
            started = time.time()
            for helper in (*crew, observer):
                helper.wait_for(least)
            yield timeline
            for helper in crew:
                helper.wait_for(least)
            timeline.writes = [Write(at - started, *rest) for helper in crew for at, *rest in helper.stop()]
            timeline.locks = [Lock(at - started, *rest) for at, *rest in observer.stop()]
            timeline.seconds = time.time() - started
        timeline.writes.sort(key=lambda write: write.at_s)
        timeline.difference, timeline.rows = _difference(connect, table.qualified, twin)
        if restore:
            _restore(connect, table, row_key)
    finally:
        with connect() as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {TWIN_SCHEMA} CASCADE".encode())


def _orders(table: Table, twin: str, row_key: str, key: str, number: int, writers: int) -> dict[str, Any]:
    plain = [column.name for column in table.columns if not column.generated]
    nullable = [c.name for c in table.columns if not (c.not_null or c.generated or c.name in {row_key, key})]
    drawn = [c.name for c in table.columns if c.identity or "nextval(" in (c.default or "")]
    id_type = next(column.type for column in table.columns if column.name == row_key)
    return {
        "table": table.qualified,
        "twin": twin,
        "id": quote(row_key),
        "new_id": "gen_random_uuid()" if id_type == "uuid" else "gen_random_uuid()::text",
        "key": quote(key),
        "columns": list(map(quote, plain)),
        "nullable": list(map(quote, nullable)),
        "drawn": list(map(quote, drawn)),
        "number": number,
        "writers": writers,
    }


def _make_twin(connect: Connect, table: Table, row_key: str, restore: bool) -> str:
    twin = quote(TWIN_SCHEMA, table.name)
    with connect() as connection, connection.transaction():
        connection.execute(f"DROP SCHEMA IF EXISTS {TWIN_SCHEMA} CASCADE; CREATE SCHEMA {TWIN_SCHEMA}".encode())
        connection.execute(f"CREATE TABLE {twin} AS SELECT * FROM {table.qualified}".encode())
        connection.execute(f"CREATE INDEX ON {twin} ({quote(row_key)})".encode())
        if restore:
            connection.execute(f"CREATE TABLE {_ORIGINAL} AS SELECT * FROM {twin}".encode())
    return twin


def _restore(connect: Connect, table: Table, row_key: str) -> None:
    """Puts the rows that differ from the original back, and tidies up after that."""
    name, key = table.qualified, quote(row_key)
    columns = ", ".join(quote(column.name) for column in table.columns if not column.generated)
    differ = f"SELECT {key} FROM touched"
    with connect() as connection:
        with connection.transaction():
            connection.execute(
                f"CREATE TEMP TABLE touched ON COMMIT DROP AS SELECT {key} FROM (SELECT * FROM {name} EXCEPT ALL "
                f"SELECT * FROM {_ORIGINAL}) a UNION SELECT {key} FROM (SELECT * FROM {_ORIGINAL} EXCEPT ALL "
                f"SELECT * FROM {name}) b".encode()
            )
            connection.execute(f"DELETE FROM {name} WHERE {key} IN ({differ})".encode())
            connection.execute(
                f"INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {_ORIGINAL} "
                f"WHERE {key} IN ({differ})".encode()
            )
        connection.execute(f"VACUUM (ANALYZE) {name}".encode())


def _difference(connect: Connect, table: str, twin: str) -> tuple[int, int]:
    """Rows that only one of the two holds, counted as often as they occur, and all rows."""
    with connect() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = connection.execute(
            f"SELECT (SELECT count(*) FROM (SELECT * FROM {table} EXCEPT ALL SELECT * FROM {twin}) a) + "
            f"(SELECT count(*) FROM (SELECT * FROM {twin} EXCEPT ALL SELECT * FROM {table}) b), "
            f"(SELECT count(*) FROM {table})".encode()
        ).fetchone()
    assert row is not None
    return row[0], row[1]


class _Helper:
    """A process that does one job until it is told to stop, and answers with what it saw."""

    def __init__(self, job: str, conninfo: Mapping[str, Any], orders: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "playbook.evidence.live_jobs", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell({"conninfo": dict(conninfo), **orders})  # by the pipe: no process list shows a password

    def _tell(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RunError("a process that was to write or observe the table ended early; its error stands above")
        return json.loads(line)

    def is_ready(self) -> None:
        """Returns once it is about to begin."""
        self._answer()

    def wait_for(self, count: int) -> None:
        """Returns once that many more of its rounds are done."""
        self._tell({"wait_for": count})
        self._answer()

    def stop(self) -> Sequence[Any]:
        """Ends it and returns what it saw."""
        self._tell({"stop": True})
        return list(self._answer())

    def __enter__(self) -> _Helper:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
