"""What a change costs the writers: single-row commits by several clients, with the change and without it.

Two probe tables hold the same sample of the table's rows; one has the change. Clients insert and commit the same
held-out rows into either, in many short rounds that alternate (without, with, with, without, ...): the noise of a
machine comes in bursts, and two rounds that lie milliseconds apart mostly meet the same burst.

Two decisions behind the figure:

* `synchronous_commit` is left as the session has it, since that is what users pay. Waiting for the disk is a large part
  of a commit, so the figure is smaller than the change's share of processor time, and noisier while the disk is busy.
* Single-row INSERTs stand for all writes. An UPDATE of a column that the index covers pays at least this much, and is
  no longer a HOT update; one of other columns may pay nothing. Triggers and foreign keys of the table are not copied:
  where it has costly ones, the true overhead is smaller.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import psycopg
from psycopg.pq import ExecStatus

from playbook.errors import TargetError, one_line
from playbook.evidence.probes import SIDES, Connect, Row, Side, WriteChange, probe_tables
from playbook.target.catalog import Table

SAMPLE_ROWS = 30_000
"""Rows of the table that are copied at most, those held out included."""
MIN_ROWS = 200
COMMITS_PER_CLIENT = 4
"""A round's commits per client: in the same time, rounds of 16 commits told more than rounds of 64, on any disk."""
WARM_UPS = 3
PRECISION_PCT = 10.0
"""The half width of the interval that is aimed at."""
OVERTIME = 3
"""Slow writes and noisy disks get up to this many times the budget."""


@dataclass(frozen=True, slots=True)
class WriteOverhead:
    """How much longer single-row commits take with the change, in percent of what they take without it.

    `pct` is the median over `rounds` pairs of rounds, `ci95` its 95 % interval. Where nothing could be measured both
    are None, and `reason` says why (it quotes no value of a row).
    """

    pct: float | None
    ci95: tuple[float, float] | None
    clients: int
    rounds: int
    reason: str = ""


def write_overhead(
    connect: Connect,
    table: Table,
    change: WriteChange | None,
    *,
    applied: Sequence[str] = (),
    clients: int = 4,
    rounds: int = 20,
    budget_s: float = 4.0,
    sample_rows: int = SAMPLE_ROWS,
) -> WriteOverhead:
    """Measures what `change` costs the writers of `table`, on probe tables that are gone again when it returns.

    `applied` names the indexes and constraints by which the table has the change already: their copies are taken out
    of both probes before the one gets `change`. Without a `change` only the other probe loses them.

    The SQL of `change` must name nothing but the probe (a foreign key would lock rows of the target's tables), and
    give an index no name of its own; a trigger's function may stand in `pg_temp`.

    Pairs of rounds are run for `budget_s` seconds, and for up to `OVERTIME` times that while there are fewer than
    `rounds` of them or the interval is wider than `PRECISION_PCT` each way. Making and filling the probes takes its
    time (mostly one to three seconds) on top.

    Whatever keeps it from measuring becomes the `reason` of a result without figures.
    """
    try:
        with probe_tables(connect, table) as probes:
            probes.make(change, applied)
            rows = probes.fill(sample_rows, least=max(MIN_ROWS, 2 * COMMITS_PER_CLIENT * clients))
            return insert_overhead(connect, probes, rows, clients=clients, rounds=rounds, budget_s=budget_s)
    except (psycopg.Error, TargetError) as error:
        return WriteOverhead(None, None, clients, 0, _cause(error))


class Pair(Protocol):
    """Two tables that take the same rows, one of them with a change."""

    def insert(self, side: Side) -> str:
        """The statement that inserts one row, with a parameter for each value."""

    def take_back(self) -> None:
        """Deletes what was inserted, so that the same rows can be inserted again."""


def insert_overhead(
    connect: Connect, pair: Pair, rows: list[Row], *, clients: int = 4, rounds: int = 20, budget_s: float = 4.0
) -> WriteOverhead:
    """As `write_overhead`, on two tables that stand already: single-row commits of `rows` into either in turn.

    Raises:
        psycopg.Error: the tables do not take the rows.
    """
    with _crew(connect, pair, clients, timeout_s=OVERTIME * budget_s) as crew:
        ratios = _ratios(crew, pair, rows, rounds, budget_s)
    if len(ratios) < rounds:
        reason = f"only {len(ratios)} of {rounds} rounds fitted into {OVERTIME * budget_s:g} s"
        return WriteOverhead(None, None, clients, len(ratios), reason)
    pct, low, high = _percent(ratios)
    return WriteOverhead(pct, (low, high), clients, len(ratios))


def _ratios(crew: _Crew, pair: Pair, rows: list[Row], rounds: int, budget_s: float) -> list[float]:
    """Time with the change over time without it, pair of rounds by pair of rounds."""
    ratios: list[float] = []
    commits = min(COMMITS_PER_CLIENT * crew.clients, len(rows) // 4)
    started = time.monotonic()
    warm_ups, turn, position = WARM_UPS, 0, 0
    while (elapsed := time.monotonic() - started) < OVERTIME * budget_s:
        if elapsed >= budget_s and len(ratios) >= rounds and _precise(ratios):
            break
        if position + commits > len(rows):
            pair.take_back()
            warm_ups, position = max(warm_ups, 1), 0
        batch = rows[position : position + commits]
        order = SIDES if turn % 2 == 0 else SIDES[::-1]
        seconds = {side: crew.insert(side, batch) for side in order}
        turn, position = turn + 1, position + commits
        if warm_ups:
            warm_ups -= 1
            commits = _fitting(commits, crew.clients, budget_s / (rounds * sum(seconds.values())))
        else:
            ratios.append(seconds["with"] / seconds["without"])
    return ratios


def _fitting(commits: int, clients: int, share: float) -> int:
    """Fewer commits a round where the budget holds only a `share` of the rounds, but one for each client."""
    return max(clients, int(commits * min(share, 1)))


def _percent(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval, from the order statistics (the sign test turned round), in percent above 1.

    It assumes no distribution, and keeps its promise in small samples: of 27 pairs of rounds of the same work, the
    percentile bootstrap's interval of the median included 1 in 91 % of the cases, this one in 96 to 99 %.
    """
    ordered = 100 * (np.sort(np.asarray(ratios)) - 1)
    from scipy.stats import binom  # here, since it takes a second to import

    below = max(int(binom.ppf(0.025, len(ordered), 0.5)), 1)
    return float(np.median(ordered)), float(ordered[below - 1]), float(ordered[-below])


def _precise(ratios: Sequence[float]) -> bool:
    """By the width alone, whatever the figure: stopping on the figure itself would bend it."""
    _, low, high = _percent(ratios)
    return high - low <= 2 * PRECISION_PCT


class _Crew:
    """Clients with a session each, that share the rows of a round among them."""

    def __init__(self, connections: Sequence[psycopg.Connection[Any]]) -> None:
        self.clients = len(connections)
        self._connections = connections
        self._pool = ThreadPoolExecutor(self.clients, thread_name_prefix="playbook-writer")
        self._pending: deque[Row] = deque()
        self._running: list[Future[None]] = []

    def insert(self, side: Side, rows: Sequence[Row]) -> float:
        """Seconds until every row is inserted and committed, each by itself."""
        self._pending.extend(rows)
        started = time.perf_counter()
        self._running = [self._pool.submit(self._work, each, side.encode()) for each in self._connections]
        wait(self._running)
        seconds = time.perf_counter() - started
        for client in self._running:
            client.result()
        return seconds

    def _work(self, connection: psycopg.Connection[Any], side: bytes) -> None:
        # libpq itself: psycopg's cursors would spend more time in Python than the server needs for the row.
        execute = connection.pgconn.exec_prepared
        while self._pending:
            try:
                row = self._pending.popleft()
            except IndexError:  # another client took the last one
                return
            result = execute(side, row)
            if result.status != ExecStatus.COMMAND_OK:
                self._pending.clear()
                raise psycopg.errors.error_from_result(result)

    def dismiss(self) -> None:
        """Ends what is still running, in the middle of a round too."""
        self._pending.clear()
        for connection, client in zip(self._connections, self._running, strict=False):
            if not client.done():
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=5)
        self._pool.shutdown()


@contextmanager
def _crew(connect: Connect, pair: Pair, clients: int, timeout_s: float) -> Iterator[_Crew]:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect()) for _ in range(clients)]
        for connection in connections:
            connection.execute(f"SET statement_timeout = {int(1000 * timeout_s)}")
            for side in SIDES:
                result = connection.pgconn.prepare(side.encode(), pair.insert(side).encode(connection.info.encoding))
                if result.status != ExecStatus.COMMAND_OK:
                    raise psycopg.errors.error_from_result(result)
        crew = _Crew(connections)
        stack.callback(crew.dismiss)
        yield crew


def _cause(error: Exception) -> str:
    """The error in one line, without what may quote a row: errors of data are told by their class."""
    if not isinstance(error, psycopg.Error) or not error.sqlstate:
        return one_line(error)
    if error.sqlstate[:2] in {"22", "23", "P0"}:
        constraint = f" of {error.diag.constraint_name}" if error.diag.constraint_name else ""
        return f"the probes do not take the table's rows: {type(error).__name__}{constraint}"
    return one_line(error.diag.message_primary)
