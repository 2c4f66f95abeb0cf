"""Finds N+1 queries exactly, in any application on SQLAlchemy: one statement per row, where one for all would do.

    with n_plus_one.detect() as found:
        render(proposals)
    found.assert_none()

Lazy loads are told by SQLAlchemy's own events, grouped by relationship and by the place in the application that
triggered them. Statements in a loop are told by the same statement, values aside, from the same call stack. What runs
inside one block counts together, so a block is one request or one job: the middleware (`NPlusOneMiddleware`) opens one
for each request. Nothing of this needs more than SQLAlchemy.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, event

from playbook.service import callsites
from playbook.service.callsites import CallSite, Stack
from playbook.service.fingerprint import Statements, fingerprint, reads_rows

FLAGGED = 2
"""So many statements of one kind from one place are told."""
FAILS = 5
"""So many fail a test: a page that shows fewer rows than that is rare, and two or three may be meant."""
HEADER = "x-n-plus-one"
_LOG = logging.getLogger("playbook.n_plus_one")

Kind = Literal["lazy load", "column load", "query in a loop"]


class NPlusOneError(AssertionError):
    """Statements were sent row by row; the message names each place."""


class NPlusOneWarning(UserWarning):
    """Statements were sent row by row, but too few to fail."""


@dataclass(frozen=True)
class Pattern:
    """One N+1 pattern. `seconds` is the time of its statements in the database, `wasted_s` that of all but the first.

    `subject` is the relationship (`Proposal.customer`), the model whose columns were loaded, or the statement without
    its values. `site` is the line that triggered it, `callers` those that led there.
    """

    kind: Kind
    subject: str
    site: CallSite | None
    callers: tuple[CallSite, ...]
    statements: int
    rows: int
    seconds: float
    wasted_s: float
    remedy: str

    @property
    def model(self) -> str:
        """The model of a relationship, `Proposal`; empty for a query in a loop."""
        return "" if self.kind == "query in a loop" else self.subject.partition(".")[0]

    @property
    def attribute(self) -> str:
        """The relationship's name, `customer`; empty for anything else."""
        return self.subject.partition(".")[2] if self.kind == "lazy load" else ""

    @property
    def failing(self) -> bool:
        """Whether it fails a test."""
        return self.statements >= FAILS

    def __str__(self) -> str:
        place = self.site or "an unknown place"
        return (
            f"{self.subject} ({self.kind}): {self.statements} statements, {self.rows} rows, "
            f"{1000 * self.wasted_s:.1f} ms wasted at {place}; {self.remedy}"
        )


@dataclass
class _Group:
    kind: Kind
    subject: str
    stack: Stack
    remedy: str
    sent: Statements
    seconds: float = 0.0
    first_s: float = 0.0
    rows: int = 0


class _Load(NamedTuple):
    """What the ORM loads with a statement: a mapper and its relationship, or a mapper alone."""

    kind: Kind
    subject: Any


@dataclass
class Found:
    """What one block sent, as far as it was sent row by row. `statements` counts every statement."""

    statements: int = 0
    _groups: dict[Any, _Group] = field(default_factory=dict, repr=False)
    _settled: dict[Any, _Group] = field(default_factory=dict, repr=False)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns of two statements and more, the largest first."""
        found = [_pattern(group) for group in self._groups.values() if group.sent.count >= FLAGGED and _guilty(group)]
        return tuple(sorted(found, key=lambda each: (-each.statements, each.subject)))

    @property
    def failing(self) -> tuple[Pattern, ...]:
        """Those of five and more."""
        return tuple(each for each in self.patterns if each.failing)

    def assert_none(self) -> None:
        """Fails on patterns of five statements and more, and warns of smaller ones.

        Raises:
            NPlusOneError: naming each pattern with its place.
        """
        if self.failing:
            raise NPlusOneError("\n".join(["N+1 queries:", *(f"  {each}" for each in self.failing)]))
        for each in self.patterns:
            warnings.warn(str(each), NPlusOneWarning, stacklevel=3)

    def __str__(self) -> str:
        return "\n".join(map(str, self.patterns)) or "no N+1 queries"

    def _add(self, load: _Load | None, sql: str, parameters: Any, seconds: float, rows: int) -> None:
        # A walk through the whole stack takes its time. Once a group fails, a statement of the same kind from the same
        # line is one of it, whoever called that line: so hundreds of statements cost little more than the first.
        kind_of = load or fingerprint(sql)
        near = (kind_of, callsites.site(kind_of))
        group = self._settled.get(near) or self._grouped(kind_of, load, sql, seconds)
        group.sent.add(sql, parameters)
        group.seconds += seconds
        if rows > 0:
            group.rows += rows
        if group.sent.count == FAILS and near[1]:
            self._settled[near] = group

    def _grouped(self, kind_of: Any, load: _Load | None, sql: str, seconds: float) -> _Group:
        stack = callsites.stack()
        key = (kind_of, stack)
        group = self._groups.get(key)
        if group is None:
            subject, remedy = _told(load, sql)
            kind = load.kind if load else "query in a loop"
            group = self._groups[key] = _Group(kind, subject, stack, remedy, Statements(), first_s=seconds)
        return group


_found: ContextVar[Found | None] = ContextVar("n_plus_one_found", default=None)


@contextmanager
def detect() -> Iterator[Found]:
    """Watches what this thread or task sends, on every engine, until the block ends."""
    _listen()
    found = Found()
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


class NPlusOneMiddleware:
    """ASGI middleware: watches each request, tells its patterns to `on_found` and their number in a response header.

    `on_found` gets the request's method and path and what was found; by default that is logged as a warning.
    """

    def __init__(self, app: Any, on_found: Callable[[str, Found], None] | None = None) -> None:
        self._app = app
        self._on_found = on_found or _log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Opens a block for the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_count(message: Any) -> None:
            if message["type"] == "http.response.start" and (patterns := found.patterns):
                header = (HEADER.encode(), str(len(patterns)).encode())
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        with detect() as found:
            await self._app(scope, receive, send_with_count)
        if found.patterns:
            self._on_found(f"{scope['method']} {scope['path']}", found)


def _log(request: str, found: Found) -> None:
    for each in found.patterns:
        _LOG.warning("%s: %s", request, each)


@cache
def _listen() -> None:
    """Once for the process; outside a block each event costs the look at one variable."""
    event.listen(Engine, "before_cursor_execute", _before_statement)
    event.listen(Engine, "after_cursor_execute", _after_statement)


def _before_statement(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
    if _found.get() is not None:
        context._n_plus_one_sent_at = time.perf_counter()


def _after_statement(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
    found = _found.get()
    if found is None:
        return
    seconds = time.perf_counter() - context._n_plus_one_sent_at
    found.statements += 1
    if many or context.isinsert or context.isupdate or context.isdelete:
        return
    load = _loaded_by(context)
    if load is _EAGER or (load is None and not reads_rows(sql)):
        return
    found._add(load, sql, parameters, seconds, cursor.rowcount)


def _loaded_by(context: Any) -> _Load | None:
    """Why the ORM sends a statement; None when the application asked for it.

    It stands in what the ORM hands on with it. The event `do_orm_execute` tells the same by public names, but
    has SQLAlchemy prepare each statement twice, which costs a lazy load as much again as all that is done here.
    """
    asked = getattr(context.invoked_statement, "_compile_options", None)
    path = getattr(asked, "_current_path", None)
    if path is None:
        return None
    if not path.is_root:
        # Without a parent it is an eager load in a statement of its own (selectinload), which may come in portions.
        # The path ends in the parent's mapper and the relationship, however the parent itself was loaded.
        lazy = context.execution_options["_sa_orm_load_options"]._lazy_loaded_from is not None
        return _Load("lazy load", path.path[-2:]) if lazy else _EAGER
    if asked._for_refresh_state:
        return _Load("column load", context.execution_options["_sa_orm_load_options"]._refresh_state.mapper)
    return None


_EAGER = _Load("lazy load", None)


def _told(load: _Load | None, sql: str) -> tuple[str, str]:
    """The subject of a group and its remedy."""
    if load is None:
        return fingerprint(sql), "ask for all rows at once, with a join or WHERE … = ANY(…)"
    if load.kind == "column load":
        remedy = (
            "undefer() the columns in the query that loads the rows, or do not expire them (expire_on_commit=False)"
        )
        return load.subject.class_.__name__, remedy
    mapper, relationship = load.subject
    subject = f"{mapper.class_.__name__}.{relationship.key}"
    return subject, f"{'selectinload' if relationship.uselist else 'joinedload'}({subject})"


def _guilty(group: _Group) -> bool:
    return group.kind != "query in a loop" or group.sent.ask_row_by_row()


def _pattern(group: _Group) -> Pattern:
    places = callsites.sites(group.stack)
    return Pattern(
        kind=group.kind,
        subject=group.subject,
        site=places[0] if places else None,
        callers=places[1:],
        statements=group.sent.count,
        rows=group.rows,
        seconds=group.seconds,
        wasted_s=group.seconds - group.first_s,
        remedy=group.remedy,
    )
