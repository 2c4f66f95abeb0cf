"""The whole health check: every check looked at once, between two snapshots of what the target does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from playbook import parts
from playbook.assess import checks
from playbook.assess.activity import Activity, snapshot
from playbook.assess.check import Check
from playbook.assess.session import Session, open_session
from playbook.assess.space import Space, space
from playbook.context import Context
from playbook.results import Finding
from playbook.step import planned_steps
from playbook.trial import Trial

NOTEBOOK = "00_current_state"
"""Whose part of the results the findings are."""
WINDOW_S = 3.0
"""At least so long lie the two snapshots apart; a longer window sees more of what the target does."""
_STATUSES = ("warn", "not_checked", "ok")


@dataclass(frozen=True)
class Assessment:
    """What was found. `activity` is None where pg_stat_statements cannot be read; `queries` were asked in `seconds`."""

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    activity: Activity | None
    space: tuple[Space, ...]
    queries: int
    seconds: float

    def of(self, check: str) -> tuple[Finding, ...]:
        """The findings of one check."""
        return tuple(finding for finding in self.findings if finding.check == check)

    def status(self, check: str) -> str:
        """`warn` where a topic of it warns, else `not_checked` where one was not looked at, else `ok`."""
        found = {finding.status for finding in self.of(check)}
        return next(status for status in _STATUSES if status in found)

    def remedies(self) -> Remedies:
        """What would mend what warns, as SQL to copy."""
        return Remedies(tuple(each for each in self.findings if each.status == "warn" and each.remedy))

    def steps(self) -> Steps:
        """The findings that a step of a plan mends, as YAML to paste."""
        return Steps(tuple(each for each in self.findings if each.step))

    def verdict(self) -> Overview:
        """Each check in one line."""
        return Overview(self)


@dataclass(frozen=True)
class Remedies:
    """Findings with a remedy."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Steps:
    """Findings with a step."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Overview:
    """The checks with their statuses."""

    assessment: Assessment


def assess(context: Context, window_s: float = WINDOW_S) -> Assessment:
    """Looks at everything, changes nothing, and writes the notebook's part of the results.

    The two snapshots lie at least `window_s` seconds apart. Nobody works on the embedded sample, so there the plan's
    queries run once in between.

    Raises:
        TargetError: the target cannot be reached.
    """
    part, started = parts.Part(context, NOTEBOOK), time.monotonic()
    with open_session(context) as session:
        trial = _prepared(context)
        session.first = _first(session)
        found: dict[str, list[Finding]] = {}
        for check in (each for each in checks() if not each.late):
            context.progress(f"check: {check.title}")
            found[check.name] = check.look(session)
        if trial:
            context.progress("the plan's queries, once each")
            trial.play(planned_steps(context))
        elif session.first is not None:
            _wait(context, session.first.at + window_s)
        for check in (each for each in checks() if each.late):
            context.progress(f"check: {check.title}")
            found[check.name] = check.look(session)
        context.progress("")
        assessment = Assessment(
            checks=checks(),
            findings=tuple(finding for check in checks() for finding in found[check.name]),
            activity=_activity(session),
            space=tuple(space(context.catalog)),
            queries=session.queries,
            seconds=time.monotonic() - started,
        )
    part.write(seconds=round(assessment.seconds, 3), findings=_rows(assessment.findings))
    return assessment


def _first(session: Session) -> Any:
    """The snapshot before; what keeps it from being taken is told by the check of statements, which tries again."""
    try:
        return snapshot(session)
    except psycopg.Error:
        return None


def _activity(session: Session) -> Activity | None:
    try:
        return session.activity
    except psycopg.Error:
        return None


def _prepared(context: Context) -> Trial | None:
    """The plan's queries with their values, where they are to be played."""
    if not context.target.embedded:
        return None
    context.progress("the plan's queries: values")
    trial = Trial(context)
    for step in planned_steps(context):
        trial.claims(step)
    return trial


def _wait(context: Context, until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        context.progress(f"waiting {left:.0f} s for what the target does")
        time.sleep(min(left, 1.0))


def _rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [finding.model_dump() for finding in findings]
