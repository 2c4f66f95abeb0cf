"""The application beside a plan: its N+1 queries, how it bears load, and what its techniques change of both.

The reference application runs on the embedded sample. Of any target it tells what its statistics let suspect, and of
somebody's own service (`--api-url`) how fast it answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg

from playbook.answers import Detected, Loaded, NotApplicable, Strategies, Strategy, Suspected
from playbook.context import Context
from playbook.service.switches import Switches

RATE_RPS = 10.0
"""Requests a second: what the service as found bears without falling behind further and further on a small machine."""
LOAD_S = 2.0
WARM_UP_S = 0.5
SETTINGS = "settings"
"""Where the settings of a technique stand in the journal, with the evidence of its step."""
WINDOW_S = 10.0
"""Seconds between two snapshots of the statistics of a foreign target, at least; a dry run waits for a tenth."""


class Notebook(Protocol):
    """The phase that the figures belong to."""

    context: Context

    def record(self, metrics: dict[str, float | None]) -> None:
        """Adds figures to its part of the results."""


def applied_switches(context: Context) -> Switches:
    """The switches of the steps that are applied, as the journal has it, with the settings kept there."""
    applied = {entry.kind: entry for entry in context.journal.entries() if entry.status == "applied"}
    return Switches({name: applied[name].evidence.get(SETTINGS, {}) for name in Switches.names() if name in applied})


def keep_settings(context: Context, kind: str, settings: dict[str, Any]) -> None:
    """Has the service started with these settings of a technique from now on, where its step is applied."""
    for entry in context.journal.entries():
        if entry.kind == kind and entry.status == "applied":
            context.journal.keep_evidence(entry.step, {**entry.evidence, SETTINGS: settings})


class Application:
    """Looks at the application of one phase. Figures go into the phase's part of the results."""

    def __init__(self, phase: Notebook) -> None:
        self._phase = phase
        self._context = phase.context
        self._opened_at = time.monotonic()
        self._before = self._snapshot()

    def detect_as_found(self) -> Detected | NotApplicable:
        """The N+1 patterns of one request to every endpoint, with every technique off."""
        return self._detect(Switches(), "as_found")

    def detect(self) -> Detected | NotApplicable:
        """The N+1 patterns of one request to every endpoint, with the techniques that are applied."""
        return self._detect(applied_switches(self._context), "optimized")

    def _detect(self, switches: Switches, side: str) -> Detected | NotApplicable:
        """Read from the working copy, in this process; writes nothing."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        from playbook.service import n_plus_one
        from playbook.service.reads import ENDPOINTS

        found = []
        for endpoint in ENDPOINTS:
            with n_plus_one.detect() as each, self._session() as session:
                endpoint.read_example(session, switches)
            found.append((f"GET {endpoint.example}", each.statements, each.patterns))
        if side == "as_found" or "eager_load" in switches:
            sent = sum(pattern.statements for _, _, patterns in found for pattern in patterns)
            self._phase.record({f"n_plus_one_statements_{side}": float(sent)})
        return Detected(str(switches), tuple(found))

    def load(self) -> Loaded | NotApplicable:
        """The same open-loop load on the service as found, on a pristine copy, and as it is now, on the working copy.

        Its writes change a few rows of either.
        """
        if reason := self._hindrance():
            return NotApplicable(reason)
        on = applied_switches(self._context)
        if not on:
            return NotApplicable("no technique is applied, so there is nothing to hold the service as found against")
        from playbook.service import load, traffic

        self._context.progress("load: starting both services")
        urls = self._context.services.urls(None, on)
        with psycopg.connect(**self._context.services.copy()) as connection:
            asked = traffic.of_sample(connection)
        self._context.progress(f"load: {RATE_RPS:g} requests a second on each")
        before, after = load.run(urls, asked, rate=RATE_RPS, seconds=LOAD_S, warm_up_s=WARM_UP_S, blocks=2)
        self._phase.record(
            {
                f"api_{name}_{side}": getattr(each, figure)
                for side, each in (("as_found", before), ("optimized", after))
                for name, figure in (
                    ("p50_ms", "p50_ms"),
                    ("p95_ms", "p95_ms"),
                    ("p99_ms", "p99_ms"),
                    ("throughput_rps", "throughput_rps"),
                    ("statements_per_request", "statements"),
                    ("database_ms_per_request", "database_ms"),
                    ("rows_per_request", "rows"),
                    ("bytes_per_request", "bytes_each"),
                )
            }
        )
        return Loaded((("as found", before), (str(on), after)), RATE_RPS, f"{len(asked.reads):,} keys, 5 % writes")

    def strategies(self) -> Strategies | NotApplicable:
        """One list of proposals, loaded in four ways: each way's statements, rows, bytes and time."""
        if reason := self._hindrance():
            return NotApplicable(reason)
        from playbook.service import strategies

        with self._session() as session:
            return Strategies(tuple(Strategy(*each) for each in strategies.compare(session)))

    def suspects(self) -> Suspected:
        """What the target's own statistics let suspect, between the opening of this object and now; changes nothing."""
        from playbook.service import suspects

        if not isinstance(self._before, suspects.Snapshot):
            return Suspected((), 0.0, self._before)
        if not self._context.target.embedded:
            window = WINDOW_S if self._context.settings.measures else WINDOW_S / 10
            while (left := window - (time.monotonic() - self._opened_at)) > 0:
                self._context.progress(f"statistics: {left:.0f} s until the second snapshot")
                time.sleep(min(1.0, left))
        after = self._snapshot()
        seconds = time.monotonic() - self._opened_at
        if not isinstance(after, suspects.Snapshot):
            return Suspected((), seconds, after)
        try:
            found = suspects.suspects(self._before, after)
        except suspects.NotReadable as error:
            return Suspected((), seconds, str(error))
        hidden = f"{after.hidden} statements are hidden from this role; GRANT pg_read_all_stats shows them"
        return Suspected(tuple(found), seconds, hidden if after.hidden else "")

    def own_service(self) -> Loaded | NotApplicable:
        """How fast the service of `--api-url` answers, asked for `--api-path` at `--api-rate`, with GET alone."""
        settings = self._context.settings
        if not settings.api_url:
            return NotApplicable(
                "no service of your own was named: playbook run --api-url http://127.0.0.1:8000 --api-path /orders "
                "measures one"
            )
        from playbook.service import load, traffic

        place = urlsplit(settings.api_url)
        self._context.progress(f"load: {settings.api_rate:g} requests a second on {place.hostname}")
        asked = traffic.of_paths(settings.api_paths)
        url = settings.api_url.rstrip("/")
        (found,) = load.run([url], asked, rate=settings.api_rate, seconds=LOAD_S * 3, warm_up_s=WARM_UP_S)
        self._phase.record({f"own_api_{name}": getattr(found, name) for name in ("p50_ms", "p95_ms", "p99_ms")})
        port = f":{place.port}" if place.port else ""
        return Loaded(((f"{place.hostname}{port}", found),), settings.api_rate, ", ".join(settings.api_paths))

    def _hindrance(self) -> str:
        if self._context.target.embedded:
            return ""
        return (
            "the reference service runs on the embedded sample only. The detector works in your own application: "
            "see “N+1 queries in your own application” in the README"
        )

    def _session(self) -> Any:
        from sqlalchemy.orm import Session
        from sqlalchemy.pool import NullPool

        from playbook.service.engine import make_engine

        return Session(make_engine(self._context.target.conninfo, Switches(), poolclass=NullPool))

    def _snapshot(self) -> Any:
        """The statistics of the target, or the reason why there are none.

        The sample's copies lack the extension, so there it stands in the server's own database.
        """
        from playbook.service import suspects

        target = self._context.target
        connect: Callable[..., psycopg.Connection[Any]] = target.connect
        database = str(target.conninfo["dbname"]) if target.embedded else None
        with connect(dbname="postgres") if target.embedded else connect() as connection:
            if target.embedded:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            try:
                return suspects.snapshot(connection, database)
            except suspects.NotReadable as error:
                return str(error)
