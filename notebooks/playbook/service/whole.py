"""The whole service under one load: as the plan found it on the pristine sample, and with everything that is applied.

Both get the same requests at the same intervals, in turns, round by round, so that whatever slows the machine down
slows both. The service with a cache is measured as one that has run for a while: before the load it is given what is
left to do of the requests that come in five minutes (see `Traffic.settled`), writes included; they are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import psycopg

from playbook.service import copies, load, process, traffic
from playbook.service.api import USAGE_PATH
from playbook.service.load import Load
from playbook.service.switches import Switches
from playbook.target.connect import Target

RATE_RPS = 10.0
"""What the service as found bears without falling behind further and further, on a small machine."""
ROUNDS = 6
ROUND_S = 3.0
ASKED_BEFORE = 30_000
"""Requests that the cache has seen: what comes in its five minutes at 100 a second."""
WARM_UP_S = 2.0
_RESAMPLES = 2000

Interval = tuple[float, float]


@dataclass(frozen=True)
class Reduction:
    """By how many per cent a figure fell, with the 95 % interval over rounds; None where it was not measured."""

    pct: float | None
    ci95: Interval | None


@dataclass(frozen=True)
class WholeComparison:
    """What each side came to, in all and round by round. `as_found` and `optimized` hold p50, p95, p99, statements and
    database time of a request, in all and by endpoint (`parts`). `cache` and `pool` are what the optimized service says
    of these; `cache` is None where it has none. `asked_before` is how many requests its cache had seen.
    """

    on: Switches
    rounds: tuple[tuple[Load, Load], ...]
    cache: Mapping[str, Any] | None
    pool: Mapping[str, Any]
    rate: float
    keys: int
    asked_before: int

    @property
    def as_found(self) -> Load:
        """All rounds of the service as found."""
        return Load.merged([before for before, _ in self.rounds])

    @property
    def optimized(self) -> Load:
        """All rounds of the other."""
        return Load.merged([after for _, after in self.rounds])

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The names of `parts`: endpoints, and the writes."""
        return tuple(self.as_found.parts)

    @property
    def hit_rate_pct(self) -> float | None:
        """Reads that were answered from the cache with a fresh value."""
        return self.cache and self.cache["hit_rate_pct"]

    @property
    def pool_peak_pct(self) -> float:
        """The most connections that the optimized service had checked out at once, of those that it may have."""
        return float(self.pool["peak_pct"])

    def reduction(self, figure: str, endpoint: str = "") -> Reduction:
        """How far p50_ms, p95_ms, p99_ms, mean_ms, database_ms or statements fell, of all requests or of an endpoint.

        The interval is a percentile bootstrap over rounds (Efron & Tibshirani 1993): both sides of a round are drawn
        together, since they were measured together.
        """
        pairs = [pair for pair in self._pairs(endpoint) if all(each.requests for each in pair)]
        if not pairs or (whole := _fall(figure, pairs)) is None:
            return Reduction(None, None)
        draw = np.random.default_rng(1)
        drawn = [
            _fall(figure, [pairs[place] for place in draw.integers(len(pairs), size=len(pairs))])
            for _ in range(_RESAMPLES if len(pairs) > 1 else 0)
        ]
        falls = [each for each in drawn if each is not None]
        low, high = np.percentile(falls, (2.5, 97.5)) if falls else (whole, whole)
        return Reduction(whole, (float(low), float(high)) if falls else None)

    def metrics(self) -> dict[str, float | None]:
        """The figures by name, with their units; ends of intervals too."""
        found: dict[str, float | None] = {}
        for side, whole in (("as_found", self.as_found), ("optimized", self.optimized)):
            found |= {f"whole_{name}_{side}": getattr(whole, name) for name in ("p50_ms", "p95_ms", "p99_ms")}
            found[f"whole_database_ms_per_request_{side}"] = whole.database_ms
            found[f"whole_statements_per_request_{side}"] = whole.statements
            found[f"whole_errors_{side}"] = float(sum(whole.errors.values()))
        for name, figure, endpoint in (
            ("whole_p50_reduction_pct", "p50_ms", ""),
            ("whole_p95_reduction_pct", "p95_ms", ""),
            ("whole_database_time_reduction_pct", "database_ms", ""),
            ("whole_statements_reduction_pct", "statements", ""),
            ("whole_dashboard_p50_reduction_pct", "p50_ms", "analytics dashboard"),
        ):
            fell = self.reduction(figure, endpoint)
            low, high = fell.ci95 or (None, None)
            found |= {name: fell.pct, f"{name}_low": low, f"{name}_high": high}
        return {
            **found,
            "whole_cache_hit_rate_pct": self.hit_rate_pct,
            "whole_cache_stale_rate_pct": self.cache and self.cache["stale_rate_pct"],
            "whole_pool_peak_utilization_pct": self.pool_peak_pct,
        }

    def _pairs(self, endpoint: str) -> list[tuple[Load, Load]]:
        if not endpoint:
            return list(self.rounds)
        return [(before.part(endpoint), after.part(endpoint)) for before, after in self.rounds]


def compare_whole(
    target: Target,
    on: Switches,
    *,
    rate: float = RATE_RPS,
    rounds: int = ROUNDS,
    round_s: float = ROUND_S,
    keys: int = traffic.KEYS,
    asked_before: int = ASKED_BEFORE,
    warm_up_s: float = WARM_UP_S,
    progress: Callable[[str], None] = lambda text: None,
) -> WholeComparison:
    """The service as found, on a copy of the pristine template, and with `on`, on the embedded `target` as it stands.

    Indexes and summaries are what stands on the target. Its writes change some hundred rows of it. Takes twice
    `rounds` times `round_s` seconds, and before that about a second for every 150 of `asked_before` (of 5,000 keys).

    Raises:
        Busy: somebody is in the template, so that it cannot be copied.
        EmbeddedError: a service did not start.
    """
    with ExitStack() as stack:
        progress("load: starting both services")
        copy = stack.enter_context(copies.as_found(target))
        with psycopg.connect(**copy) as connection:
            asked = traffic.of_sample(connection, keys)
        services = process.start_all([(copy, Switches()), (target.conninfo, on)])
        urls = [stack.enter_context(each).url for each in services]
        client = stack.enter_context(httpx.Client(base_url=urls[1], timeout=60))
        progress(f"load: warming up with what is left of {asked_before:,} requests")
        load.run(urls, asked, rate=rate, seconds=0.0, warm_up_s=warm_up_s)
        if "cache" in on:
            load.settle(urls[1], asked.settled(asked_before))
        client.delete(USAGE_PATH)
        found = []
        for number in range(1, rounds + 1):
            progress(f"load: {rate:g} requests a second on each, round {number} of {rounds}")
            # The seed of the warm-up is 1: these are others.
            found.append(load.run(urls, asked, rate=rate, seconds=round_s, warm_up_s=0.0, seed=1 + number))
        usage = client.get(USAGE_PATH).json()
    pairs = tuple((before, after) for before, after in found)
    return WholeComparison(on, pairs, usage["cache"], usage["pool"], rate, len(asked.reads), asked_before)


def _fall(figure: str, pairs: Sequence[tuple[Load, Load]]) -> float | None:
    before, after = (_figure(figure, [pair[side] for pair in pairs]) for side in range(2))
    return None if not before or after is None else 100 * (1 - after / before)


def _figure(figure: str, loads: Sequence[Load]) -> float | None:
    if figure in {"database_ms", "statements"}:
        told = sum(each.told for each in loads)
        return sum(each.cost(figure) for each in loads) / told if told else None
    taken = [ms for each in loads for ms in each.latencies_ms]
    if figure == "mean_ms":
        return float(np.mean(taken))
    return float(np.percentile(taken, {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}[figure]))
