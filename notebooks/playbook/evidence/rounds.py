"""The timed rounds: which query runs when, on what connection, and inside what time."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Self

import psycopg
from psycopg import errors as pg

from playbook.errors import NotAnalysed
from playbook.evidence.explain import Plan, explain
from playbook.evidence.reading import Connection, Select, one_select, reading, why
from playbook.evidence.statistics import MIN_ROUNDS
from playbook.plan.workload import Bound
from playbook.target.watchdog import Connect

BUFFER_RUNS = 3
"""EXPLAIN (ANALYZE, BUFFERS) runs, outside the timed rounds; their median is a query's warm buffers."""
LARGEST_RESULT = 1 << 30
"""A query whose result the planner takes for larger (bytes) is left out: it would have to fit into this process."""

REPEATS = 5
SHORT_MS = 2.0
"""A shorter query runs up to `REPEATS` times a round, until it has run about so long, and the median counts.

One run of a tenth of a millisecond clocks the scheduler and the processor's caches, which the query before has filled:
a control of that length seemed to move by 17 % with nothing changed.
"""

EXTRA_BLOCKS = 2
STEADY = 1.05
"""Blocks of one phase agree when the slowest of them is slower by no more than this, all queries taken together."""

Progress = Callable[[str], None]

_SEED = 20
_EXPLAIN_ROUNDS = 4  # what the EXPLAIN runs take, in rounds: clocking the nodes slows them down
_SHARE_GRANTED = 0.9  # of the time left; rounds are not all as short as the one that was tried
_COLD = 3  # how much longer than a round the first run may take
_SHORTEST_TIMEOUT_S = 2.0
_OUTLIER = 20


def share(costs: Sequence[float], left: float, wanted: int, least: int) -> list[int]:
    """How many runs each query gets when one costs it `costs` and all have `left` (the same unit): max-min fair.

    Cheap ones get all they want, what they leave is parted among the others. While the dearest would get fewer than
    `least`, it gets none and the others share again.
    """
    order = sorted(range(len(costs)), key=costs.__getitem__)
    while order:
        granted, rest = [0] * len(costs), left
        for place, query in enumerate(order):
            fair = rest / (len(order) - place)
            granted[query] = min(wanted, int(fair / max(costs[query], 1e-9)))
            rest -= granted[query] * costs[query]
        if granted[order[-1]] >= least:
            return granted
        order.pop()
    return [0] * len(costs)


@dataclass
class Subject:
    """One query while it is being measured; `cost_s` is what one round of it takes with all around it.

    A round is `repeats` runs. It is `ready` once warmed up, and has its `granted` rounds of all blocks.
    """

    bound: Bound
    blocks: list[list[float]] = field(default_factory=list)
    rows: int | None = None
    plan: Plan | None = None
    buffers: int | None = None
    cost_s: float = 0.0
    repeats: int = 1
    granted: int = 0
    ready: bool = False
    error: str = ""

    @property
    def rounds(self) -> int:
        """The rounds of all blocks so far."""
        return sum(map(len, self.blocks))

    def takes_part(self, place: int, rounds: int) -> bool:
        """Whether it runs in the round of this place, its rounds being spread evenly over all."""
        return (place + 1) * self.granted // rounds > place * self.granted // rounds


class Session:
    """The connection that queries run on, opened anew when the server closes it, and the time that is left."""

    def __init__(self, connect: Connect, budget_s: float, timeout_s: float, progress: Progress) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._start = time.monotonic()
        self.budget_s = budget_s
        self.timeout_s = timeout_s
        self.progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    @property
    def connection(self) -> Connection:
        """The open connection.

        Raises:
            playbook.errors.TargetError: there is none to be had.
        """
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    @property
    def spent_s(self) -> float:
        """Seconds since the session was made."""
        return time.monotonic() - self._start

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left."""
        return max(self.budget_s - self.spent_s, 0.0)

    def plan(self, subject: Subject) -> None:
        """The plan without execution; a query that cannot be planned or is not to be run keeps the error."""
        try:
            subject.plan = explain(self.connection, subject.bound, analyze=False, timeout_s=self.timeout_s)
        except (psycopg.Error, NotAnalysed) as error:
            subject.error = why(error, subject.bound)
            return
        root = subject.plan.root
        if root.planned_rows * root.width > LARGEST_RESULT:
            subject.error = f"the planner expects {root.planned_rows:,.0f} rows, too large a result to be fetched"

    def clock(self, subject: Subject, timeout_s: float) -> float:
        """Runs the query for one round: the median time of its runs, in milliseconds from sending it to its last row.

        Raises:
            psycopg.Error: it failed or took longer than `timeout_s`.
        """
        bound = subject.bound
        connection, sql = self.connection, one_select(bound.sql)
        elapsed = []
        begin = time.perf_counter()
        with reading(connection, timeout_s=timeout_s):
            for _ in range(subject.repeats):
                with Select(connection) as cursor:
                    start = time.perf_counter()
                    cursor.run(sql, bound.values)
                    elapsed.append(time.perf_counter() - start)
                    subject.rows = cursor.rowcount
        subject.cost_s = time.perf_counter() - begin
        return round(median(elapsed) * 1000, 4)

    def analyse(self, subject: Subject) -> None:
        """The plan and buffers of warm executions; where these time out, the buffers stay unknown."""
        if not subject.ready or subject.error or not subject.rounds:
            return
        with suppress(psycopg.Error):
            found = [
                explain(self.connection, subject.bound, analyze=True, timing=timing, timeout_s=self.patience_s(subject))
                for timing in (*[False] * (BUFFER_RUNS - 1), True)
            ]
            subject.plan = found[-1]
            buffers = [plan.buffers for plan in found if plan.buffers is not None]
            subject.buffers = round(median(buffers)) if buffers else None

    def patience_s(self, subject: Subject) -> float:
        """How long one run may take once its usual time is known: a blocked query must not starve the others."""
        return min(self.timeout_s, max(_OUTLIER * subject.cost_s, _SHORTEST_TIMEOUT_S))


def warm_up(session: Session, subjects: list[Subject]) -> None:
    """Runs each query twice, which fills the caches and tells its cost. Those longer than a fair share come last."""
    least = MIN_ROUNDS + _EXPLAIN_ROUNDS
    slow = [subject for subject in subjects if not _tried(session, subject, session.budget_s / (least * len(subjects)))]
    for subject in slow:
        wanted = sum(other.cost_s * least for other in subjects if other.ready)
        allowed = max(session.left_s - wanted, 0.0) / least
        if not _tried(session, subject, allowed):
            subject.error = subject.error or _does_not_fit(session, f"one run takes longer than {allowed:.2g} s")


def _tried(session: Session, subject: Subject, allowed_s: float) -> bool:
    """Whether it needs no further try: it ran within `allowed_s`, or failed for another reason than that."""
    session.progress(f"warming up {subject.bound.query} ({subject.bound.bind})")
    try:
        session.clock(subject, min(session.timeout_s, _COLD * allowed_s))
        warm_ms = session.clock(subject, min(session.timeout_s, allowed_s))
        subject.repeats = max(1, min(REPEATS, math.ceil(SHORT_MS / max(warm_ms, 1e-3))))
        subject.cost_s *= subject.repeats
    except pg.QueryCanceled as error:
        if allowed_s < session.timeout_s:
            return False
        subject.error = f"longer than the timeout of {session.timeout_s:g} s ({why(error, subject.bound)})"
    except psycopg.Error as error:
        subject.error = why(error, subject.bound)
    else:
        subject.ready = True
    return True


def _does_not_fit(session: Session, cost: str) -> str:
    return f"{cost}: {MIN_ROUNDS} rounds do not fit into the budget of {session.budget_s:g} s beside the other queries"


def grant(session: Session, subjects: list[Subject], rounds: int) -> None:
    """Gives each query its rounds out of the time that is left, or the reason why it gets none."""
    left, least = session.left_s * _SHARE_GRANTED, min(MIN_ROUNDS, rounds) + _EXPLAIN_ROUNDS
    costs = [subject.cost_s for subject in subjects]
    for subject, runs in zip(subjects, share(costs, left, rounds + _EXPLAIN_ROUNDS, least), strict=True):
        subject.granted = max(runs - _EXPLAIN_ROUNDS, 0)
        if not subject.granted:
            subject.error = _does_not_fit(session, f"one run takes {subject.cost_s:.2g} s")


def run(session: Session, subjects: list[Subject], rounds: int, blocks: int) -> None:
    """The timed rounds. A block that runs late is cut short, so that each has its part of the time.

    Where the machine moved all queries between the blocks, up to `EXTRA_BLOCKS` more are run if the budget has room,
    and those that agree best are kept: a burst of other work then costs time and not the verdict. This looks at one
    phase only, at all its queries together, and so favours neither side of a comparison.
    """
    running = [subject for subject in subjects if subject.granted]
    shuffled = random.Random(_SEED)  # noqa: S311
    explaining = sum(subject.cost_s * _EXPLAIN_ROUNDS for subject in running)
    start, part = session.spent_s, max(session.left_s - explaining, 0.0) / blocks
    for block in range(blocks):
        places = range(block * rounds, (block + 1) * rounds)
        _block(session, running, places, rounds * blocks, shuffled, start + part * (block + 1))
    usual = (session.spent_s - start) / blocks
    for _ in range(EXTRA_BLOCKS if blocks > 1 else 0):
        if _steadiest(running, blocks)[0] <= STEADY or session.left_s - explaining < usual:
            break
        _block(session, running, range(rounds), rounds * blocks, shuffled, session.spent_s + 2 * usual)
    kept = _steadiest(running, blocks)[1]
    for subject in running:
        subject.blocks = [subject.blocks[place] for place in kept]


def _block(
    session: Session, running: list[Subject], places: range, of: int, shuffled: random.Random, until_s: float
) -> None:
    """One more block of rounds, as long as there is time for it."""
    for subject in running:
        subject.blocks.append([])
    for place in places:
        if session.spent_s > until_s:
            break
        order = [subject for subject in running if not subject.error and subject.takes_part(place, of)]
        shuffled.shuffle(order)
        _round(session, order)
        session.progress(f"round {place + 1} of {of}")


def _steadiest(running: list[Subject], blocks: int) -> tuple[float, tuple[int, ...]]:
    """The blocks that agree best, and by what factor the slowest of them is slower, all queries taken together."""
    whole = [subject.blocks for subject in running if not subject.error and all(subject.blocks)]
    if not whole:
        return 1.0, tuple(range(blocks))
    levels = [median(median(own[place]) / median(own[0]) for own in whole) for place in range(len(whole[0]))]
    chosen = min(combinations(range(len(levels)), blocks), key=lambda each: _spread(levels, each))
    return _spread(levels, chosen), chosen


def _spread(levels: Sequence[float], chosen: Sequence[int]) -> float:
    return max(levels[place] for place in chosen) / min(levels[place] for place in chosen)


def _round(session: Session, order: list[Subject]) -> None:
    with _uncollected():
        for subject in order:
            try:
                subject.blocks[-1].append(session.clock(subject, session.patience_s(subject)))
            except psycopg.Error as error:
                subject.error = why(error, subject.bound)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps the garbage collector from running inside a timed round."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
