"""What a health check answers: ok, warn or not_checked, each with what was looked at and with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg

from playbook.assess.session import OutOfTime, Session
from playbook.errors import one_line
from playbook.results import Finding
from playbook.target.sql import quote

Status = Literal["ok", "warn", "not_checked"]
CALLS = ("call", "calls")
TOP = 5
"""Findings shown of one topic, the worst first; the rest is counted."""


@dataclass(frozen=True)
class Answer:
    """One answer. `remedy` is SQL to copy, with prose as comments; `step` is YAML to paste under a phase's `steps`."""

    status: Status
    detail: str
    remedy: str = ""
    step: str = ""


Topic = Callable[[Session], Iterable[Answer]]


@dataclass(frozen=True)
class Check:
    """One of the health checks: its topics by name, each a function that looks and answers.

    `place` is its rank among the checks as they are shown. A `late` one is looked at last, when the two snapshots of
    what the target did lie far enough apart.
    """

    place: int
    name: str
    title: str
    topics: Mapping[str, Topic]
    late: bool = False

    def look(self, session: Session) -> list[Finding]:
        """The answers to every topic. What cannot be looked at is `not_checked` with the reason; nothing is raised."""
        return [
            Finding(
                check=self.name,
                topic=name,
                status=answer.status,
                detail=answer.detail,
                remedy=answer.remedy,
                step=answer.step,
            )
            for name, topic in self.topics.items()
            for answer in _answers(topic, session)
        ]


def ok(detail: str) -> Answer:
    """It was looked at, and nothing was found."""
    return Answer("ok", detail)


def warn(detail: str, remedy: str = "", step: str = "") -> Answer:
    """Something was found."""
    return Answer("warn", detail, remedy, step)


def not_checked(reason: str, remedy: str = "") -> Answer:
    """It was not looked at, and why; the remedy is what would let it be looked at."""
    return Answer("not_checked", reason, remedy)


def judged(found: Sequence[Answer], looked_at: int, what: tuple[str, str], fine: str) -> Iterator[Answer]:
    """The findings, the worst first and the rest counted; else ok with how many were looked at; of none, not_checked.

    `what` names what was looked at, one and many (`("table", "tables")`); `fine` says what none of them is.
    """
    if not looked_at:
        yield not_checked(f"there is no {what[0]} to look at")
    elif not found:
        yield ok(f"{counted(looked_at, what)} looked at: {fine}")
    yield from found[:TOP]
    if len(found) > TOP:
        yield warn(f"and {len(found) - TOP:,} more, of {counted(looked_at, what)} looked at")


def counted(number: int, what: tuple[str, str]) -> str:
    """`1 table`, `5,000 tables`."""
    return f"{number:,} {what[number != 1]}"


def needs_role(session: Session, role: str, hidden: str) -> Answer:
    """What this role is not shown, and the GRANT that would show it."""
    return not_checked(f"{hidden} from role {session.server.user}", f"GRANT {role} TO {quote(session.server.user)};")


def _answers(topic: Topic, session: Session) -> list[Answer]:
    try:
        found = list(topic(session))
    except OutOfTime as error:
        return [not_checked(str(error))]
    except psycopg.Error as error:
        return [_why_not(error, session)]
    return found or [not_checked("nothing was looked at")]


def _why_not(error: psycopg.Error, session: Session) -> Answer:
    said = one_line(error.diag.message_primary or error)
    match error:
        case psycopg.errors.InsufficientPrivilege():
            return needs_role(session, "pg_monitor", f"it is hidden ({said})")
        case psycopg.errors.LockNotAvailable():
            return not_checked("another session holds a lock that this would have waited for; look again later")
        case psycopg.errors.QueryCanceled():
            return not_checked(f"it took longer than {session.statement_timeout_s:g} s, and was cancelled")
    return not_checked(f"the server refused: {said}")
