"""The connections of a phase's target: how many are free, what an engine per request costs, which pool size to take."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import psycopg

from playbook.answers import Advised, EnginePerRequest, NotApplicable, Swept
from playbook.application import Notebook, applied_switches, keep_settings
from playbook.service.switches import Switches

RATE_RPS = 10.0
LOAD_S = 3.0
SWEEP_RPS, SWEEP_S = 2 * RATE_RPS, 2.4
"""Load on each pool size, in requests a second and seconds: twice what the service gets afterwards, since the peak of
some seconds has to leave room for that of a longer time."""
SIZES = ((2, 4, 8), (16, 32))
"""Tried together; the second ones where none of the first is large enough."""


class Connections:
    """Looks at connections. Reading advice works on any target; load is put on the embedded sample only."""

    def __init__(self, phase: Notebook) -> None:
        self._phase = phase
        self._context = phase.context

    def advice(self) -> Advised:
        """What the target says of its connections now, and what follows; changes nothing."""
        from playbook.service.pool_advice import slots

        with self._context.connect() as connection:
            found = slots(connection)
        self._phase.record({"connections_used": float(found.used), "connections_free": float(found.free)})
        return Advised(found.advice())

    def engine_per_request(self) -> EnginePerRequest | NotApplicable:
        """What a small query takes with an engine of its own for each request, and with the process's one."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        from playbook.service.sweep import engine_per_request_ms

        own_ms, shared_ms = engine_per_request_ms(self._engine, _work)
        self._phase.record({"engine_per_request_ms": own_ms, "engine_shared_ms": shared_ms})
        return EnginePerRequest(own_ms, shared_ms)

    def sweep(self) -> Swept | NotApplicable:
        """Pool sizes of the service under the same requests over HTTP, none above a quarter of the free connections.

        Without the cache, since the pool has to hold when that is gone. The service is started with the recommended
        size from then on, where the step is applied.
        """
        if reason := self._hindrance():
            return NotApplicable(reason)
        from playbook.request_load import side_by_side
        from playbook.service.pool_advice import slots
        from playbook.service.sweep import Tried, recommend

        with self._context.connect() as connection:
            allowed = slots(connection).allowed
        on = applied_switches(self._context).having("eager_load").without("cache", "pool")
        tried: list[Tried] = []
        for group in SIZES:
            sizes = [size for size in group if size <= allowed] or ([] if tried else [allowed])
            services = [Switches({**on, "pool": {"size": size}}) for size in sizes]
            measured = side_by_side(self._context, services, rate=SWEEP_RPS, seconds=SWEEP_S)
            tried += [
                Tried(size, load.p95_ms or 0.0, _usage(said["pool"]), sum(load.errors.values()))
                for size, (load, said) in zip(sizes, measured, strict=True)
            ]
            if (found := recommend(tried, allowed, self._peak_limit_pct())).size:
                break
        if found.size:
            keep_settings(self._context, "pool", {"size": found.size})
        at = found.at
        self._phase.record(
            {
                "pool_recommended_connections": None if found.size is None else float(found.size),
                "pool_sweep_peak_utilization_pct": at and at.usage.peak_pct,
                "pool_sweep_mean_utilization_pct": at and at.usage.mean_pct,
            }
        )
        return Swept(found, SWEEP_RPS)

    def load(self) -> Any:
        """The service's pool under load over HTTP: peak and time-weighted mean of what is checked out, and waits."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        on = applied_switches(self._context)
        if "pool" not in on:
            return NotApplicable("the step is not applied")
        from playbook.answers import PoolUsed
        from playbook.request_load import side_by_side

        [(load, usage)] = side_by_side(
            self._context, [on.having("eager_load").without("cache")], rate=RATE_RPS, seconds=LOAD_S
        )
        pool = usage["pool"]
        self._phase.record(
            {"pool_peak_utilization_pct": pool["peak_pct"], "pool_mean_utilization_pct": pool["mean_pct"]}
        )
        return PoolUsed(load, pool)

    def _peak_limit_pct(self) -> float:
        """The plan's target for the pool's peak, where it has one."""
        from playbook.service.sweep import PEAK_LIMIT_PCT

        limits = {each.name: each.limit for each in self._context.plan.targets}
        return limits.get("pool_peak_utilization_pct", PEAK_LIMIT_PCT)

    def _hindrance(self) -> str:
        if self._context.target.embedded:
            return ""
        return (
            "load is put on the embedded sample only. The sweep works in your own application: see “The connection "
            "pool of your own application” in the README"
        )

    def _engine(self, settings: Any) -> Any:
        from sqlalchemy import create_engine

        conninfo = {**self._context.target.conninfo, **settings.connect_options()}
        return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**conninfo), **settings.options())


def _work(connection: Any) -> None:
    """A page of the newest proposals: a few milliseconds, as a request's query takes them."""
    from sqlalchemy import text

    connection.execute(text("SELECT * FROM proposals ORDER BY created_at DESC, id LIMIT 50")).all()


def _usage(said: dict[str, Any]) -> Any:
    from playbook.service.pool import Usage

    return Usage(**{each.name: said[each.name] for each in fields(Usage)})
