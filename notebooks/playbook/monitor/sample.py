"""One sample: what the server and the application did in one interval, in figures that can be kept for long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from playbook.assess.activity import Counts
from playbook.monitor.latencies import Latencies
from playbook.monitor.reading import Span
from playbook.monitor.server import ServerSpan

VERSION = 1
"""Of a sample as it is kept; one of another version is passed over."""

SUMS = (
    "db_calls",
    "db_ms",
    "db_slow",
    "hit",
    "read",
    "commits",
    "rollbacks",
    "deadlocks",
    "queries",
    "query_ms",
    "query_slow",
    "query_failed",
    "requests",
    "request_failed",
    "pool_waits",
    "cache_hits",
    "cache_asked",
)
"""Figures that add up over samples."""
LEVELS = ("connections_pct", "active", "pool_mean_pct")
"""Figures of which the mean over samples is meant."""
PEAKS = ("waiting", "idle_in_transaction", "longest_transaction_s", "pool_peak_pct", "connections_peak_pct")
"""Figures of which the highest over samples is meant."""


@dataclass(frozen=True)
class Sample:
    """The `seconds` that ended `at` (of the epoch). `figures` has what was measured of `SUMS`, `LEVELS` and `PEAKS`.

    `requests` and `statements` are the application's latencies in bins (see `latencies.BOUNDS_MS`), by their place.
    `notes` say what is missing in it, and why.
    """

    at: float
    seconds: float
    figures: Mapping[str, float]
    requests: Mapping[int, int] = field(default_factory=dict)
    statements: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def dump(self) -> str:
        """As it is kept."""
        kept: dict[str, Any] = {"v": VERSION, "s": round(self.seconds, 3)}
        kept["f"] = {name: round(value, 3) for name, value in self.figures.items()}
        for key, bins in (("r", self.requests), ("q", self.statements)):
            if bins:
                kept[key] = list(bins.items())
        if self.notes:
            kept["n"] = list(self.notes)
        return orjson.dumps(kept).decode()

    @classmethod
    def load(cls, at: float, text: str) -> Sample:
        """What `dump` wrote.

        Raises:
            ValueError: it is something else, or of another version.
        """
        kept = orjson.loads(text)
        try:
            if kept["v"] != VERSION:
                raise ValueError(f"a sample of version {kept['v']}")
            bins = (dict(kept.get(key, ())) for key in ("r", "q"))
            return cls(at, kept["s"], kept["f"], *bins, tuple(kept.get("n", ())))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no sample: {error}") from None


def figures_of_server(span: ServerSpan, statements: Mapping[int | None, Counts]) -> dict[str, float]:
    """What is kept of a server's span, with these of its statements; of them nothing where they are not counted."""
    sessions = span.sessions
    found: dict[str, float] = {
        name: getattr(span, name) for name in ("hit", "read", "commits", "rollbacks", "deadlocks")
    }
    for name in ("active", "waiting", "idle_in_transaction", "longest_transaction_s"):
        found[name] = getattr(sessions, name)
    if span.most_connections > 0:
        found["connections_pct"] = found["connections_peak_pct"] = 100 * sessions.used / span.most_connections
    if span.statements is not None:
        metrics = span.metrics(statements)
        found["db_calls"] = metrics.total_queries or 0
        found["db_ms"] = sum(each.ms for each in statements.values())
        found["db_slow"] = metrics.slow_query_count or 0
    return found


def figures_of_application(span: Span) -> dict[str, float]:
    """What is kept of an application's span."""
    found: dict[str, float] = {
        "queries": span.queries,
        "query_ms": 1000 * span.query_s,
        "query_slow": span.slow,
        "query_failed": span.failed + (span.pool.failures if span.pool else 0),
    }
    if span.requests is not None:
        found |= {"requests": span.requests, "request_failed": span.failed_requests}
    if span.pool:
        found |= {
            "pool_mean_pct": span.pool.mean_pct,
            "pool_peak_pct": span.pool.peak_pct,
            "pool_waits": span.pool.waits,
        }
    if span.cache:
        found |= {"cache_hits": span.cache["hits"], "cache_asked": span.cache_asked}
    return found


def sparse(latencies: Latencies | None) -> dict[int, int]:
    """The bins that are not empty, by their place."""
    return {} if latencies is None else {place: count for place, count in enumerate(latencies.bins()) if count}
