"""What the dashboard shows at one moment: targets, figures, trends, statements, locks and changes, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from playbook import figures
from playbook.assess import connections, locks
from playbook.assess.activity import HIDDEN
from playbook.assess.check import Answer
from playbook.assess.session import Session
from playbook.journal import Entry
from playbook.monitor import trend
from playbook.monitor.history import Slot, Took
from playbook.monitor.linechart import Frame, Line, Marker, Scale
from playbook.monitor.metrics import DatabaseMetrics
from playbook.monitor.sample import Sample
from playbook.monitor.trend import Point
from playbook.results import Limit

RANGES: Mapping[str, float] = {"15min": 900.0, "1h": 3600.0, "24h": 86_400.0, "7d": 604_800.0, "30d": 2_592_000.0}
"""The spans of time that can be looked at, in seconds."""
MOST_STATEMENTS = 12
POINTS = 120


Held = tuple[tuple[str, tuple[Answer, ...]], ...]
"""Titles, and under each of them what was found."""


@dataclass(frozen=True)
class StatementRow:
    """One statement of the table: its share of the time, calls, mean, all of it."""

    queryid: str
    text: str
    share_pct: float
    took: Took


@dataclass(frozen=True)
class Change:
    """A step that was applied or taken back, by its number among the markers."""

    number: int
    at: float
    step: str
    status: str


@dataclass(frozen=True)
class Chart:
    """A chart of the page."""

    key: str
    title: str
    lines: tuple[Line, ...]
    scale: Scale


@dataclass(frozen=True)
class Board:
    """Everything that the page shows. `sequence` grows with each sample; `held` are locks and transactions."""

    sequence: int
    at: float
    span: str
    target: str
    version: str
    every_s: float
    watched_s: float
    place: str
    targets: tuple[Limit, ...]
    metrics: tuple[DatabaseMetrics, ...]
    frame: Frame
    charts: tuple[Chart, ...]
    statements: tuple[StatementRow, ...]
    held: Held
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def figures(self) -> dict[str, Any]:
        """The figures as JSON values, for programs."""
        return {
            "sequence": self.sequence,
            "at": self.at,
            "target": self.target,
            "metrics": {each.source: each.plan_names() for each in self.metrics},
            "targets": [each.model_dump() for each in self.targets],
            "statements": [
                {"queryid": row.queryid, "calls": row.took.calls, "ms": row.took.ms, "share_pct": row.share_pct}
                for row in self.statements
            ],
            "notes": list(self.notes),
        }


def frame_of(
    samples: Sequence[Sample], points: Sequence[Point], since: float, until: float, changes: Sequence[Change]
) -> Frame:
    """The frame of all charts."""
    return Frame(
        since,
        until,
        tuple((point.start + point.end) / 2 for point in points),
        tuple(Marker(change.at, change.number) for change in changes),
        tuple(_unwatched(samples, since, until)),
    )


def _unwatched(samples: Sequence[Sample], since: float, until: float) -> list[tuple[float, float]]:
    """From when to when nobody watched: between samples, and before the first one."""
    inside = [sample for sample in samples if since <= sample.at <= until]
    if not inside:
        return [(since, until)]
    first = inside[0].at - inside[0].seconds
    before = [(since, first)] if first - since > trend.GAP * inside[0].seconds else []
    return before + trend.gaps(inside)


def charts_of(points: Sequence[Point], limits: Mapping[str, float]) -> tuple[Chart, ...]:
    """The charts, in the order of the page. Latencies are the requests' where there are some, else the statements'."""

    def line(name: str, read: Any) -> Line:
        return Line(name, tuple(read(point) for point in points))

    if any(point.requests for point in points):
        latency = Chart(
            "latency",
            "Response time of requests",
            tuple(line(f"p{p}", lambda point, p=p: point.request_ms(p)) for p in (50, 95, 99)),
            Scale(figures.milliseconds, log=True, limit=limits.get("api_p95_ms")),
        )
    else:
        latency = Chart(
            "latency",
            "Time of a statement, by the application",
            tuple(line(f"p{p}", lambda point, p=p: point.statement_ms(p)) for p in (50, 95, 99)),
            Scale(figures.milliseconds, log=True),
        )
    return (
        latency,
        Chart(
            "average",
            "Mean time of a statement",
            (
                line("by the server", lambda point: point.db_average_ms),
                line("by the application", lambda point: point.query_average_ms),
            ),
            Scale(figures.milliseconds),
        ),
        Chart(
            "throughput",
            "Statements and requests a second",
            (
                line("statements", lambda point: point.per_second("db_calls")),
                line("requests", lambda point: point.per_second("requests")),
            ),
            Scale(_plain),
        ),
        Chart(
            "pool",
            "Connections in use",
            (
                line("pool, peak", lambda point: point.peak("pool_peak_pct")),
                line("pool, mean", lambda point: point.mean("pool_mean_pct")),
                line("server", lambda point: point.mean("connections_pct")),
            ),
            Scale(figures.percent, least=100.0, limit=limits.get("pool_peak_utilization_pct")),
        ),
        Chart(
            "cache",
            "Found in a cache",
            (
                line("result cache", lambda point: point.cache_hit_pct),
                line("shared buffers", lambda point: point.buffer_hit_pct),
            ),
            Scale(figures.percent, least=100.0, limit=limits.get("cache_hit_rate_pct")),
        ),
        Chart(
            "waiting",
            "Sessions that wait or hold a transaction open",
            (
                line("waiting for a lock", lambda point: point.peak("waiting")),
                line("idle in transaction", lambda point: point.peak("idle_in_transaction")),
            ),
            Scale(_plain, least=4.0),
        ),
        Chart(
            "longest",
            "Longest open transaction",
            (line("seconds", lambda point: point.peak("longest_transaction_s")),),
            Scale(_plain, least=1.0),
        ),
        Chart(
            "slow",
            "Slow statements",
            (
                line("by the server", lambda point: point.sum("db_slow")),
                line("by the application", lambda point: point.sum("query_slow")),
            ),
            Scale(_plain, least=4.0),
        ),
        Chart(
            "errors",
            "Failed, or rolled back (reads too end so)",
            (
                line("statements", lambda point: point.share_pct("query_failed", ["queries"])),
                line("requests", lambda point: point.share_pct("request_failed", ["requests"])),
                line("rolled back", lambda point: point.rolled_back_pct),
            ),
            Scale(figures.percent, least=1.0),
        ),
    )


def _plain(value: float | None) -> str:
    return figures.named("", value)


def changes_of(entries: Sequence[Entry], since: float) -> tuple[Change, ...]:
    """What was applied and taken back since a moment, numbered from the first one on."""
    dated = [(datetime.fromisoformat(entry.changed_at).timestamp(), entry) for entry in entries if entry.changed_at]
    ordered = sorted(dated, key=lambda pair: pair[0])
    return tuple(
        Change(number, at, entry.step, entry.status)
        for number, (at, entry) in enumerate([pair for pair in ordered if pair[0] >= since], 1)
    )


def statements_of(took: Mapping[str, Took], texts: Mapping[str, str]) -> tuple[StatementRow, ...]:
    """The statements that took the most time."""
    whole = sum(each.ms for each in took.values())
    ranked = sorted(took.items(), key=lambda item: -item[1].ms)[:MOST_STATEMENTS]
    return tuple(
        StatementRow(queryid, texts.get(queryid) or _unnamed(queryid), 100 * each.ms / whole if whole else 0.0, each)
        for queryid, each in ranked
    )


def _unnamed(queryid: str) -> str:
    return queryid if queryid == HIDDEN else f"statement {queryid}, whose text was not seen"


def of_slots(slots: Sequence[Slot]) -> dict[str, Took]:
    """What statements took in all these slots."""
    sums: dict[str, Took] = {}
    for slot in slots:
        for queryid, took in slot.took.items():
            sums[queryid] = sums.get(queryid, Took()) + took
    return sums


def held_of(session: Session | None) -> Held:
    """Who waits for a lock at this moment, and who holds a transaction open, as the health check tells it."""
    if session is None:
        return ()
    return tuple(
        (title, tuple(topic(session)))
        for title, topic in (
            ("Locks", locks.waiting),
            ("Idle in transaction", connections.idle_in_transaction),
            ("Long transactions", connections.long_transactions),
        )
    )
