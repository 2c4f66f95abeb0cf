"""Client time to the last row: the queries interleaved round by round, inside one time budget for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from playbook.evidence.explain import Plan
from playbook.evidence.rounds import Progress, Session, Subject, grant, run, warm_up
from playbook.evidence.statistics import MIN_ROUNDS
from playbook.plan.workload import Bound
from playbook.target.watchdog import Connect

ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Measurement:
    """One query with one set of values, measured.

    `blocks` holds milliseconds, one number a round. `rows` is how many rows came. `plan` has figures of execution
    if the query ran; `buffers` is the warm median of shared buffers (8 kB each) of several executions. `error` says
    why there are no rounds, or too few. What was not measured is None or empty.
    """

    query: str
    bind: str
    blocks: tuple[tuple[float, ...], ...] = ()
    rows: int | None = None
    plan: Plan | None = None
    buffers: int | None = None
    error: str = ""

    @property
    def rounds(self) -> int:
        """The rounds of all blocks."""
        return sum(map(len, self.blocks))

    @property
    def median_ms(self) -> float | None:
        """The median over all blocks."""
        return round(median(ms for block in self.blocks for ms in block), 4) if self.rounds else None

    def to_json(self) -> dict[str, Any]:
        """The measurement as JSON values, as the journal keeps it."""
        plan = self.plan.to_json() if self.plan else None
        return {name: getattr(self, name) for name in _KEPT} | {"blocks": list(map(list, self.blocks)), "plan": plan}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_json` wrote."""
        plan = Plan.from_json(kept["plan"]) if kept["plan"] else None
        return cls(**{name: kept[name] for name in _KEPT}, blocks=tuple(map(tuple, kept["blocks"])), plan=plan)


_KEPT = ("query", "bind", "rows", "buffers", "error")


def measure(
    connect: Connect,
    queries: Sequence[Bound],
    *,
    rounds: int = ROUNDS,
    blocks: int = 1,
    budget_s: float = 60.0,
    timeout_s: float = 30.0,
    execute: bool = True,
    progress: Progress | None = None,
) -> tuple[Measurement, ...]:
    """Measures the queries, each `rounds` times in each of `blocks` blocks as far as `budget_s` reaches for all.

    A query too slow for that gets fewer rounds, as many as a fair share of the budget allows, or is left out when
    fewer than `MIN_ROUNDS` fit. A query that fails or takes longer than `timeout_s` keeps its error and lets the others
    go on. Without `execute` the queries are only planned (plain EXPLAIN).

    Raises:
        playbook.errors.TargetError: no connection.
    """
    subjects = [Subject(bound) for bound in queries]
    with Session(connect, budget_s, timeout_s, progress or (lambda _: None)) as session:
        for subject in subjects:
            session.plan(subject)
        if execute:
            warm_up(session, [subject for subject in subjects if not subject.error])
            grant(session, [subject for subject in subjects if subject.ready], rounds * blocks)
            run(session, subjects, rounds, blocks)
            session.progress("reading plans and buffers")
            for subject in subjects:
                session.analyse(subject)
    return tuple(_measurement(subject, budget_s) for subject in subjects)


def yardsticks() -> tuple[Bound, ...]:
    """Controls that any target has: no step can affect them, so when they move, the machine did.

    One computes, one sorts, one reads a table of the system catalog that holds functions, and one is little more than
    its way to the server and back: short queries feel a machine's other troubles than long ones.
    """
    return (
        Bound("yardstick_compute", "common", "SELECT count(*) FROM pg_catalog.generate_series(1, 20000) AS i"),
        Bound(
            "yardstick_sort",
            "common",
            "SELECT pg_catalog.md5(i::text) AS h FROM pg_catalog.generate_series(1, 2000) AS i ORDER BY h LIMIT 1",
        ),
        Bound(
            "yardstick_group",
            "common",
            "SELECT pg_catalog.md5((i % 997)::text) AS h, avg(i::numeric) FROM pg_catalog.generate_series(1, 5000) AS i"
            " GROUP BY h",
        ),
        Bound(
            "yardstick_join",
            "common",
            "SELECT t.typname, count(*) FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t"
            " ON t.oid = a.atttypid GROUP BY t.typname",
        ),
        Bound("yardstick_read", "common", "SELECT max(length(prosrc)) FROM pg_catalog.pg_proc"),
        Bound("yardstick_lookup", "common", "SELECT typname FROM pg_catalog.pg_type WHERE oid = 23"),
    )


def _measurement(subject: Subject, budget_s: float) -> Measurement:
    error = subject.error
    if not error and 0 < subject.rounds < MIN_ROUNDS:
        error = f"{subject.rounds} rounds in the budget of {budget_s:g} s, {MIN_ROUNDS} are needed"
    return Measurement(
        query=subject.bound.query,
        bind=subject.bound.bind,
        blocks=tuple(tuple(block) for block in subject.blocks),
        rows=subject.rows,
        plan=subject.plan,
        buffers=subject.buffers,
        error=error,
    )
