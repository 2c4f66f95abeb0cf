"""How the health check looks in a notebook: its findings, what mends them, where time and room go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from playbook import figures, show
from playbook.assess.assessment import Assessment, Overview, Remedies, Steps
from playbook.assess.check import CALLS, counted
from playbook.results import Finding, cut, shown
from playbook.table import Cell, Row, Shown, judged, number, table

MOST_BARS = 12
"""Bars of a chart; what is beyond is put together."""
_TIMES = (("ms", 1.0), ("s", 1e3), ("h", 3.6e6))
_SIZES = (("bytes", 1.0), *((name, 1024.0**power) for power, name in enumerate(("kB", "MB", "GB", "TB"), 1)))
_LONGEST = 140
"""Characters of a finding in the overview."""
_PHASES = {
    "index": "a phase of indexes, such as 1.1",
    "check": "a phase of constraints, such as 4.1",
    "foreign_key": "a phase of constraints, such as 4.1",
    "partition": "a phase of partitions, such as 4.2",
}


def assessed(assessment: Assessment) -> Shown:
    """Every finding; what mends it opens below."""
    return show.findings_table(assessment.findings)


def overview(answer: Overview) -> Shown:
    """One line a check: its status, and how many of its findings have which."""
    assessment = answer.assessment
    rows = []
    for check in assessment.checks:
        found = assessment.of(check.name)
        status = assessment.status(check.name)
        counts = [number(str(sum(each.status == word for each in found))) for word in ("warn", "not_checked", "ok")]
        first = next(each for each in found if each.status == status)
        rows.append(
            Row(
                (
                    Cell(check.title, head=True),
                    judged(show.words(status), meaning=status),
                    *counts,
                    Cell(cut(first.detail, _LONGEST)),
                )
            )
        )
    asked = f"{assessment.queries} queries in {figures.duration(assessment.seconds)}; nothing was changed."
    columns = ("check", "status", "warn", "not checked", "ok", "first finding")
    return table(columns, rows, numeric=("warn", "not checked", "ok"), note=asked)


def remedies(answer: Remedies) -> Shown:
    """One block of SQL to copy from, each remedy under the finding that it mends."""
    if not answer.findings:
        return _sentence("No finding calls for a change.")
    return _copied("\n\n".join(f"{_comment(each)}\n{each.remedy}" for each in answer.findings))


def steps(answer: Steps) -> Shown:
    """The steps as they stand in a plan file, by the kind of phase that they belong to."""
    if not answer.findings:
        return _sentence("No finding is mended by a step of a plan.")
    phases: dict[str, str] = {}
    for each in answer.findings:
        phase = next(phase for kind, phase in _PHASES.items() if f"\n        kind: {kind}\n" in each.step)
        phases[phase] = phases.get(phase, "") + each.step
    return _copied("\n\n".join(f"# under `steps:` of {phase}\n{steps}".rstrip() for phase, steps in phases.items()))


def time_chart(assessment: Assessment) -> Shown:
    """Where the time goes: the statements that took most of it, in the window where any ran, else since the reset."""
    activity = assessment.activity
    if activity is None or not activity.shown:
        return _sentence("Nothing tells where the time goes: see the check of statements.")
    from playbook import bars  # here, since matplotlib takes a second to import

    whole = sum(usage.ms for usage in activity.shown)
    first, rest = activity.shown[:MOST_BARS], activity.shown[MOST_BARS:]
    named = [(usage.text, [usage]) for usage in first] + ([(f"{len(rest):,} others", list(rest))] if rest else [])
    drawn = []
    for label, usages in named:
        ms, calls = sum(usage.ms for usage in usages), sum(usage.calls for usage in usages)
        share = f"{ms / whole:.0%}, " if whole else ""
        told = f"{share}{figures.milliseconds(ms)}, {counted(calls, CALLS)}"
        drawn.append(bars.Bar(shown(label), (ms,), told))
    when = f"the {figures.duration(activity.seconds)} between two snapshots" if activity.window else "since the reset"
    return bars.bar_chart(f"Time of execution by statement, {when}", drawn, bars.Unit(*_unit(drawn, _TIMES)))


def space_chart(assessment: Assessment) -> Shown:
    """Where the room goes: the largest tables, rows and indexes apart."""
    if not assessment.space:
        return _sentence("There is no table, so no room is taken.")
    from playbook import bars  # here, since matplotlib takes a second to import

    first, rest = assessment.space[:MOST_BARS], assessment.space[MOST_BARS:]
    named = [(each.name, [each]) for each in first] + ([(f"{len(rest):,} others", list(rest))] if rest else [])
    drawn = []
    for label, spaces in named:
        heap, indexes = sum(each.heap_bytes for each in spaces), sum(each.index_bytes for each in spaces)
        told = f"{figures.size(heap + indexes)}, indexes {figures.size(indexes)}"
        drawn.append(bars.Bar(shown(label), (heap, indexes), told))
    return bars.bar_chart(
        "Room on disk by table", drawn, bars.Unit(*_unit(drawn, _SIZES)), ("rows, with TOAST", "indexes")
    )


def _unit(bars: Sequence[Any], units: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """The largest unit of which the longest bar has one at least."""
    longest = max(sum(bar.parts) for bar in bars)
    return next((unit for unit in reversed(units) if longest >= unit[1]), units[0])


def _comment(finding: Finding) -> str:
    """The finding in a comment; a line feed in a name must not end the comment and start SQL."""
    return f"-- {finding.label}: {' '.join(finding.detail.split())}"


def _copied(text: str) -> Shown:
    return Shown(str(show.block(Markup.escape(text))), text)


def _sentence(text: str) -> Shown:
    return Shown(str(Markup("<p>{}</p>").format(text)), text)
