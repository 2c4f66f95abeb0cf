"""Samples a target again and again: its server, and where one is named, an application that carries a meter."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg

from playbook.assess.activity import HIDDEN, Counts, is_own
from playbook.assess.masking import masked
from playbook.assess.session import Session, open_session
from playbook.context import Context
from playbook.errors import PlaybookError, one_line
from playbook.monitor import server
from playbook.monitor.history import Took
from playbook.monitor.metrics import DatabaseMetrics
from playbook.monitor.reading import Reading, Span
from playbook.monitor.sample import Sample, figures_of_application, figures_of_server, sparse
from playbook.monitor.server import ServerReading, ServerSpan
from playbook.results import cut

METRICS_LIMIT_S = 2.0
METRICS_BYTES = 4_000_000
"""An application that answers more, or later, is not waited for."""
CLOCK_S = 2.0
"""A clock that is off by more between two samples was moved."""
_KNOWN_TEXTS = 20_000
_LONGEST_TEXT = 2_000
_KEEPS = re.compile(r"\s*(INSERT INTO|DELETE FROM|UPDATE|SELECT .* FROM) playbook\.", re.S)
"""What a journal and a history on the target are kept with."""
_NOT_SHOWN = "<insufficient privilege>"
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""What an application tells of itself goes through nobody's proxy."""


@dataclass(frozen=True)
class Taken:
    """A sample with what it was made of, and the plan's figures of each side.

    `took` are statements by queryid; `texts` are of those not told before, without their literals.
    """

    sample: Sample
    server: ServerSpan | None
    application: Span | None
    took: Mapping[str, Took] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[DatabaseMetrics, ...] = ()


class Sampler:
    """Takes samples of one target. Between two of them it holds a connection, and opens another when that was lost."""

    def __init__(
        self, context: Context, metrics_url: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._context = context
        self._metrics_url = metrics_url
        self._clock = clock
        self._stack = ExitStack()
        self._session: Session | None = None
        self._server: ServerReading | None = None
        self._application: Reading | None = None
        self._texts: dict[int, str] = {}
        self._own: set[int] = set()
        self._at: tuple[float, float] | None = None

    def close(self) -> None:
        """Gives the connection back."""
        with suppress(psycopg.Error):
            self._stack.close()
        self._session = None

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session(self) -> Session | None:
        """The session that is held, to ask more with; None while the target cannot be reached."""
        return self._session

    def take(self) -> Taken | None:
        """What was done since the last call; the first one only begins, and answers None.

        Nothing is raised for a target or an application that cannot be asked: the sample's notes say so.
        """
        notes: list[str] = []
        reading, application = self._read_server(notes), self._read_application(notes)
        span = reading.since(self._server) if reading and self._server else None
        asked = application.since(self._application) if application else None
        if asked is not None and self._application is None:
            asked = None  # what it did before anybody looked belongs to no interval
        elif asked is not None and asked.restarted:
            notes.append("the application was started anew")
        wall, steady = self._clock(), time.monotonic()
        began, self._at = self._at, (wall, steady)
        self._server, self._application = reading or self._server, application or self._application
        if began is None:
            return None
        if abs(moved := (wall - began[0]) - (steady - began[1])) > CLOCK_S:
            notes.append(f"the clock was moved by {moved:+.0f} s")
        texts = self._new_texts(span, notes) if span else {}
        statements = span.by_statement(self._own) if span else {}
        figures = figures_of_server(span, statements) if span else {}
        figures |= figures_of_application(asked) if asked else {}
        notes += [*span.notes, *([span.reason] if span.reason else [])] if span else []
        sample = Sample(
            wall,
            steady - began[1],
            figures,
            sparse(asked.request_latencies) if asked else {},
            sparse(asked.latencies) if asked else {},
            tuple(dict.fromkeys(notes)),
        )
        sides = [asked.metrics()] if asked else []
        sides += [span.metrics(statements)] if span else []
        return Taken(sample, span, asked, _took(statements), texts, tuple(sides))

    def _read_server(self, notes: list[str]) -> ServerReading | None:
        for attempt in (1, 2):
            try:
                if self._session is None:
                    self._session = self._stack.enter_context(open_session(self._context))
                self._session.started = time.monotonic()
                return server.read(self._session)
            except (psycopg.Error, PlaybookError) as error:
                # An idle connection may have been ended since the last sample: that is no outage.
                self.close()
                if attempt == 2 or isinstance(error, PlaybookError):
                    notes.append(f"the server could not be asked: {one_line(error)}")
                    return None
        return None

    def _new_texts(self, span: ServerSpan, notes: list[str]) -> dict[str, str]:
        """The texts of statements that were not seen before, without their literals: what is kept holds no value."""
        if not span.statements or self._session is None:
            return {}
        try:
            found = server.texts(span, self._texts, self._session)
        except psycopg.Error as error:
            notes.append(f"texts of statements could not be read: {one_line(error)}")
            return {}
        if len(self._texts) > _KNOWN_TEXTS:
            self._texts.clear()
        self._own |= {queryid for queryid, text in found.items() if is_own(text) or _KEEPS.match(text)}
        told = {queryid: cut(masked(text), _LONGEST_TEXT) for queryid, text in found.items() if text != _NOT_SHOWN}
        self._texts |= dict.fromkeys(found, "") | told
        return {str(queryid): text for queryid, text in told.items() if text and queryid not in self._own}

    def _read_application(self, notes: list[str]) -> Reading | None:
        if not self._metrics_url:
            return None
        # Only http and https come here; see `settings`.
        request = urllib.request.Request(self._metrics_url, headers={"Accept": "application/json"})  # noqa: S310
        try:
            with _DIRECTLY.open(request, timeout=METRICS_LIMIT_S) as answer:
                told: Any = json.loads(answer.read(METRICS_BYTES))
            return Reading.from_json(told)
        except (OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"the application could not be asked: {one_line(error)}")
            return None


def _took(statements: Mapping[int | None, Counts]) -> dict[str, Took]:
    return {
        HIDDEN if queryid is None else str(queryid): Took(each.calls, each.ms, each.rows, each.blocks)
        for queryid, each in statements.items()
    }


def samples(sampler: Sampler, every_s: float, stop: threading.Event, until: float | None = None) -> Iterator[Taken]:
    """A sample every so many seconds, in step with the clock that only goes forward, until `stop` or `until` (of it).

    One that comes late is not made up for. The first one comes after the first interval.
    """
    due = time.monotonic()
    while not stop.is_set():
        if taken := sampler.take():
            yield taken
        now = time.monotonic()
        due = max(due + every_s, now) if now > due + every_s else due + every_s
        if until is not None and due > until:
            return
        stop.wait(due - time.monotonic())
