"""The reference service: the plan's endpoints over HTTP, as the plan found them or with its techniques switched on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Query, Request, Response
from sqlalchemy import Engine, event
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from playbook.monitor.meter import Meter
from playbook.service import accounting, reads, writes
from playbook.service.filters import (
    ApprovalFilters,
    ContentFilters,
    DashboardFilters,
    Decision,
    IssueFilters,
    ProposalChange,
    ProposalFilters,
    Resolution,
    ResultFilters,
)
from playbook.service.pool import Gauge
from playbook.service.reads import Endpoint, NotThere
from playbook.service.results import Kept, written
from playbook.service.switches import Switches
from playbook.service.views import encode
from playbook.service.writes import Write

USAGE_PATH = "/usage"
"""What the pool and the cache came to since the start, or since a DELETE of it."""


class Results(Protocol):
    """What stands between the endpoints and the database: nothing, or a cache."""

    def answer(self, endpoint: Endpoint, key: str, filters: Any, load: Callable[[], bytes]) -> bytes:
        """The answer to a request, by `load` or from what was kept of an earlier one."""

    def changed(self, tables: Iterable[str]) -> None:
        """Called after a commit that changed `tables`, or parts of them (see `results.written`)."""


class Direct:
    """Every request is answered from the database."""

    def answer(self, endpoint: Endpoint, key: str, filters: Any, load: Callable[[], bytes]) -> bytes:
        """By `load`, always."""
        return load()

    def changed(self, tables: Iterable[str]) -> None:
        """Nothing was kept."""


class Service:
    """Reads and writes of the reference service on one engine."""

    def __init__(self, engine: Engine, switches: Switches, results: Results) -> None:
        self._engine = engine
        self._switches = switches
        self._results = results

    def read(self, endpoint: Endpoint, filters: Any = None, key: str = "") -> Response:
        """The endpoint's answer."""

        def load() -> bytes:
            with Session(self._engine) as session:
                return encode(endpoint.read(session, self._switches, filters, key))

        return _json(self._results.answer(endpoint, key, filters, load))

    def write(self, write: Write, key: str, body: Any) -> Response:
        """Writes in one transaction, and lets go what was read from the tables it changed once that is committed."""
        changed: set[str] = set(write.tables)
        with Session(self._engine) as session:
            event.listen(session, "after_flush", lambda session, _: changed.update(*map(written, session.dirty)))
            with session.begin():
                answer = encode(write.write(session, key, body))
        self._results.changed(changed)
        return _json(answer)


def create_app(engine: Engine, switches: Switches, results: Results | None = None) -> FastAPI:
    """The application. Its answers hold what they cost in headers (see `accounting`), `/metrics` what all of them did.

    A database that is down or has no connection left is answered with 503 and `Retry-After`, an unknown key with 404.
    """
    # No pages of documentation: they load their scripts from elsewhere.
    app = FastAPI(title="Reference service", docs_url=None, redoc_url=None)
    service = Service(engine, switches, results or Direct())
    accounting.watch(engine)
    app.add_middleware(accounting.Accounting)
    app.add_exception_handler(NotThere, _not_there)
    for unavailable in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(unavailable, _unavailable)
    _add_reads(app, service)
    _add_writes(app, service)
    gauge = Gauge(engine)
    _add_usage(app, gauge, results)
    Meter(engine, cache=results.cache if isinstance(results, Kept) else None, gauge=gauge).attach(app)
    return app


def _add_reads(app: FastAPI, service: Service) -> None:
    @app.get(reads.PROPOSALS.path)
    def proposals(filters: Annotated[ProposalFilters, Query()]) -> Response:
        return service.read(reads.PROPOSALS, filters)

    @app.get(reads.PROPOSAL.path)
    def proposal(key: str) -> Response:
        return service.read(reads.PROPOSAL, key=key)

    @app.get(reads.DASHBOARD.path)
    def dashboard(filters: Annotated[DashboardFilters, Query()]) -> Response:
        return service.read(reads.DASHBOARD, filters)

    @app.get(reads.CONTENT.path)
    def content(filters: Annotated[ContentFilters, Query()]) -> Response:
        return service.read(reads.CONTENT, filters)

    @app.get(reads.APPROVALS.path)
    def approvals(filters: Annotated[ApprovalFilters, Query()]) -> Response:
        return service.read(reads.APPROVALS, filters)

    @app.get(reads.ISSUES.path)
    def issues(filters: Annotated[IssueFilters, Query()]) -> Response:
        return service.read(reads.ISSUES, filters)

    @app.get(reads.RESULTS.path)
    def results(key: str, filters: Annotated[ResultFilters, Query()]) -> Response:
        return service.read(reads.RESULTS, filters, key)


def _add_writes(app: FastAPI, service: Service) -> None:
    @app.patch(writes.CHANGE_PROPOSAL.path)
    def change_proposal(key: str, body: ProposalChange) -> Response:
        return service.write(writes.CHANGE_PROPOSAL, key, body)

    @app.post(writes.DECIDE_APPROVAL.path)
    def decide_approval(key: str, body: Decision) -> Response:
        return service.write(writes.DECIDE_APPROVAL, key, body)

    @app.post(writes.RESOLVE_ISSUE.path)
    def resolve_issue(key: str, body: Resolution) -> Response:
        return service.write(writes.RESOLVE_ISSUE, key, body)


def _add_usage(app: FastAPI, gauge: Gauge, results: Results | None) -> None:
    @app.get(USAGE_PATH)
    def usage() -> Response:
        found = gauge.usage()
        pool = {**asdict(found), "peak_pct": found.peak_pct, "mean_pct": found.mean_pct}
        counts = results.cache.counts.snapshot() if isinstance(results, Kept) else None
        cache = counts and {
            **asdict(counts),
            "hit_rate_pct": counts.hit_rate_pct,
            "time_saved_pct": counts.time_saved_pct,
        }
        return _json(encode({"pool": pool, "cache": cache}))

    @app.delete(USAGE_PATH)
    def forget() -> Response:
        gauge.reset()
        if isinstance(results, Kept):
            results.cache.counts.reset()
        return _json(b"{}")


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _not_there(request: Request, error: Exception) -> Response:
    return Response(encode({"error": str(error)}), 404, media_type="application/json")


def _unavailable(request: Request, error: Exception) -> Response:
    """The cause stands in the service's own log; a client is told no more than that it may come again."""
    return Response(
        encode({"error": "the database cannot be reached or has no connection left; try again"}),
        503,
        {"Retry-After": "1"},
        media_type="application/json",
    )
