"""The reference service: the plan's endpoints over HTTP, as the plan found them or with its techniques switched on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine, event
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
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
    Text,
)
from playbook.service.parts import Change, changes
from playbook.service.pool import Gauge
from playbook.service.reads import Endpoint, NotThere
from playbook.service.results import Direct, Kept, Results
from playbook.service.switches import Switches
from playbook.service.techniques.technique import AS_OF
from playbook.service.views import encode
from playbook.service.writes import Write

USAGE_PATH = "/usage"
"""What the pool and the cache came to since the start, or since a DELETE of it."""
AS_OF_HEADER = "x-as-of"
"""The moment as of which an answer is true; where it is missing, that was when it was read, or is kept in a cache."""


class Service:
    """Reads and writes of the reference service on one engine."""

    def __init__(self, engine: Engine, switches: Switches, results: Results) -> None:
        self._engine = engine
        self._switches = switches
        self._results = results

    def read(self, endpoint: Endpoint, filters: Any = None, key: str = "") -> Response:
        """The endpoint's answer, with the moment as of which it is true where that is not the present."""

        def load() -> bytes:
            with Session(self._engine) as session:
                found = encode(endpoint.read(session, self._switches, filters, key))
                return f"{session.info.get(AS_OF, '')}\n".encode() + found

        as_of, _, body = self._results.answer(endpoint, key, filters, load).partition(b"\n")
        answer = _json(body)
        if as_of:
            answer.headers[AS_OF_HEADER] = as_of.decode()
        return answer

    def write(self, write: Write, key: str, body: Any) -> Response:
        """Writes in one transaction, and lets go what was read from the rows it changed once that is committed."""
        changed: list[Change] = []
        with Session(self._engine) as session:
            event.listen(session, "after_flush", lambda session, _: changed.extend(changes(session)))
            with session.begin():
                answer = encode(write.write(session, key, body))
        self._results.changed(changed)
        return _json(answer)


def create_app(engine: Engine, switches: Switches, results: Results | None = None) -> FastAPI:
    """The application. Its answers hold what they cost in headers (see `accounting`), `/metrics` what all of them did.

    A database that is down or has no connection left is answered with 503 and `Retry-After`, an unknown key with 404,
    what cannot be asked for with 422, and a value that the database cannot take with 400.
    """
    # No pages of documentation: they load their scripts from elsewhere.
    app = FastAPI(title="Reference service", docs_url=None, redoc_url=None)
    service = Service(engine, switches, results or Direct())
    accounting.watch(engine)
    app.add_middleware(accounting.Accounting)
    app.add_exception_handler(NotThere, _not_there)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(DataError, _not_storable)
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
    def proposal(key: Text) -> Response:
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
    def results(key: Text, filters: Annotated[ResultFilters, Query()]) -> Response:
        return service.read(reads.RESULTS, filters, key)


def _add_writes(app: FastAPI, service: Service) -> None:
    @app.patch(writes.CHANGE_PROPOSAL.path)
    def change_proposal(key: Text, body: ProposalChange) -> Response:
        return service.write(writes.CHANGE_PROPOSAL, key, body)

    @app.post(writes.DECIDE_APPROVAL.path)
    def decide_approval(key: Text, body: Decision) -> Response:
        return service.write(writes.DECIDE_APPROVAL, key, body)

    @app.post(writes.RESOLVE_ISSUE.path)
    def resolve_issue(key: Text, body: Resolution) -> Response:
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
            "stale_rate_pct": counts.stale_rate_pct,
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


def _refused(request: Request, error: Any) -> Response:
    """Where it is wrong and why. What was sent is not sent back: it may hold what is no JSON, such as NaN."""
    found = [{"loc": each["loc"], "msg": each["msg"], "type": each["type"]} for each in error.errors()]
    return Response(json.dumps({"detail": found}), 422, media_type="application/json")


def _not_storable(request: Request, error: Exception) -> Response:
    return Response(encode({"error": "a value that the database cannot take"}), 400, media_type="application/json")


def _unavailable(request: Request, error: Exception) -> Response:
    """The cause stands in the service's own log; a client is told no more than that it may come again."""
    return Response(
        encode({"error": "the database cannot be reached or has no connection left; try again"}),
        503,
        {"Retry-After": "1"},
        media_type="application/json",
    )
