"""The result cache of a phase: how often it answers, what the database is spared, what happens without its server."""

from __future__ import annotations

from typing import Any

from playbook.answers import Cached, NotApplicable, WithoutServer
from playbook.application import Notebook, applied_switches

RATE_RPS = 40.0
LOAD_S = 3.0


class Caching:
    """Looks at the cache of the reference service, which runs on the embedded sample only."""

    def __init__(self, phase: Notebook) -> None:
        self._phase = phase
        self._context = phase.context

    def load(self) -> Cached | NotApplicable:
        """The same load without the cache and with it; `eager_load` is on in both, so the share is the cache's own."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        on = applied_switches(self._context)
        if "cache" not in on:
            return NotApplicable("the step is not applied")
        from playbook.request_load import asked_for, side_by_side

        found = side_by_side(
            self._context,
            [on.having("eager_load").without("cache"), on.having("eager_load")],
            rate=RATE_RPS,
            seconds=LOAD_S,
        )
        (without, _), (with_it, usage) = found
        counts = usage["cache"]
        spared = _reduction_pct(without.database_ms, with_it.database_ms)
        self._phase.record(
            {
                "cache_hit_rate_pct": counts["hit_rate_pct"],
                "db_time_reduction_pct": spared,
                "cache_p95_ms_without": without.p95_ms,
                "cache_p95_ms_with": with_it.p95_ms,
            }
        )
        return Cached(without, with_it, counts, spared, RATE_RPS, *asked_for(self._context))

    def without_its_server(self) -> WithoutServer:
        """What a request waits longer for while there is no cache server; none fails. Needs no target at all."""
        import time

        from playbook.service.cache import Cache

        cache = Cache("unix:///nowhere/cache.sock", namespace="nowhere")
        taken = []
        for number in range(200):
            began = time.perf_counter()
            cache.get_or_load("proposals", number, lambda: None, tables=("proposals",))
            taken.append(1000 * (time.perf_counter() - began))
        self._phase.record({"cache_down_added_ms": max(taken)})
        return WithoutServer(200, max(taken), sorted(taken)[100], cache.counts.errors)

    def _hindrance(self) -> str:
        if self._context.target.embedded:
            return ""
        return (
            "the reference service runs on the embedded sample only. The cache works in your own application: see “A "
            "result cache in your own application” in the README"
        )


def _reduction_pct(before: float | None, after: float | None) -> Any:
    return None if not before or after is None else 100 * (1 - after / before)
