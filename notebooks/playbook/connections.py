"""The connections of a phase's target: how many are free, what an engine per request costs, which pool size to take."""

from __future__ import annotations

from typing import Any

import psycopg

from playbook.answers import Advised, EnginePerRequest, NotApplicable, Swept
from playbook.application import Notebook, applied_switches

RATE_RPS = 20.0
LOAD_S = 4.0
SWEEP_S = 0.7
"""Seconds of load on each pool size."""


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
        """Pool sizes under the same load of one query, none above a quarter of the target's free connections."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        from playbook.service.pool import PoolSettings
        from playbook.service.pool_advice import slots
        from playbook.service.sweep import suitable_rate, sweep

        with self._context.connect() as connection:
            allowed = slots(connection).allowed
        engine = self._engine(PoolSettings(size=1))
        try:
            rate = suitable_rate(engine, _work)
        finally:
            engine.dispose()
        self._context.progress(f"pool sizes: {rate:.0f} requests a second on each")
        found = sweep(self._engine, _work, allowed=allowed, rate=rate, seconds=SWEEP_S)
        at = found.at
        self._phase.record(
            {
                "pool_recommended_connections": None if found.size is None else float(found.size),
                "pool_sweep_peak_utilization_pct": at and at.usage.peak_pct,
                "pool_sweep_mean_utilization_pct": at and at.usage.mean_pct,
            }
        )
        return Swept(found, rate)

    def load(self) -> Any:
        """The service's pool under load over HTTP: peak and time-weighted mean of what is checked out, and waits."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        on = applied_switches(self._context)
        if "pool" not in on:
            return NotApplicable("the step is not applied")
        from playbook.answers import PoolUsed
        from playbook.request_load import under_load

        load, usage = under_load(self._context, on.having("eager_load"), rate=RATE_RPS, seconds=LOAD_S)
        pool = usage["pool"]
        self._phase.record(
            {"pool_peak_utilization_pct": pool["peak_pct"], "pool_mean_utilization_pct": pool["mean_pct"]}
        )
        return PoolUsed(load, pool)

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
