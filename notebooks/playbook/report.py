"""What a run hands on: the HTML report, JUnit XML, and the lines that end a run on the terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from playbook import figures, junit, outcome, trees
from playbook.axis import LogAxis
from playbook.results import Comparison, Results, Step, read
from playbook.table import breakable
from playbook.templates import environment

_MOST_GAINS = 3
_AS_FOUND, _NOW, _ENDS = "_as_found", "_optimized", ("_low", "_high")
_FIGURE = re.compile(r"(?<=\d) (?=(?:%|ms|s|min|h|kB|MB|GB|TB)(?!\w))")
_SECTIONS = ("steps", "findings", "targets", "expected", "metrics", "notebooks")


@dataclass(frozen=True)
class Mark:
    """A comparison on the chart; positions in percent of its width."""

    of: Comparison
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Figure:
    """A metric: its name, its value, that of the service as found where it was `compared`, its 95 % interval."""

    name: str
    value: float | None
    as_found: float | None = None
    compared: bool = False
    within: str = ""


@dataclass(frozen=True)
class Tick:
    """A labelled place on the chart's axis, in percent of its width."""

    at: float
    label: str
    one: bool


def write_html(results: Mapping[str, Any], path: str | Path) -> None:
    """Writes the report as one HTML file that holds no script and sends no request.

    Raises:
        UsageError: the results are not of the schema this version reads.
    """
    Path(path).write_text(_html(read(results)), encoding="utf-8")


def write_junit(results: Mapping[str, Any], path: str | Path) -> None:
    """Writes JUnit XML: a suite for the notebooks and one a phase, with a case per step and per check of its rows.

    Raises:
        UsageError: the results are not of the schema this version reads.
    """
    Path(path).write_bytes(junit.document(read(results)))


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """The few lines that end a run on the terminal: where, how it went, the biggest gains, what needs attention.

    Raises:
        UsageError: the results are not of the schema this version reads.
    """
    found = read(results)
    lines = [f"{found.target}, {figures.duration(found.seconds)}", *outcome.sentences(found)]
    lines += [f"gain: {each.label}: {each.change}" for each in outcome.gains(found)[:_MOST_GAINS]]
    lines += [f"{each.head}: {each.text}" for each in outcome.notices(found)]
    return [" ".join(line.split()) for line in lines]


def _html(results: Results) -> str:
    drawn = sorted((each for each in results.comparisons if each.speedup), key=lambda each: -(each.speedup or 0))
    axis = LogAxis.around(_drawn_values(drawn))
    return _template().render(
        results=results,
        sections=_sections(results, bool(drawn)),
        verdict=outcome.verdict(results),
        sentences=outcome.sentences(results),
        findings=outcome.findings(results),
        notices=outcome.notices(results),
        gains=outcome.gains(results),
        decisions={step.id: outcome.decide(step, results.of(step)) for step in results.steps},
        anchors={step.id: f"step-{number}" for number, step in reversed(list(enumerate(results.steps, 1)))},
        comparisons_of=results.of,
        estimates_of=results.estimated,
        marks=[_mark(each, axis) for each in drawn],
        ticks=[Tick(_place(axis, tick), f"{tick:g}{figures.TIMES}", tick == 1) for tick in axis.ticks],
        ambiguous={label for label, times in Counter(each.label for each in drawn).items() if times > 1},
        undrawn=_undrawn(len(results.comparisons) - len(drawn)),
        figures=_figures(results.metrics),
        elsewhere=results.elsewhere,
        since=lambda step: step.reason.removeprefix(f"by run {results.run_id}").removeprefix("; "),
        not_measured=figures.NOT_MEASURED,
        arrow=figures.ARROW,
        times_sign=figures.TIMES,
    )


@cache
def _template() -> Template:
    made = environment(__file__)
    for function in (
        figures.milliseconds,
        figures.times,
        figures.interval,
        figures.size,
        figures.write_cost,
        figures.count,
        figures.duration,
        figures.named,
        figures.moment,
        outcome.tone,
        outcome.status,
    ):
        made.filters[function.__name__] = function
    made.filters["plans"] = _plans
    made.filters["together"] = _together
    made.filters["with_locks"] = _with_locks
    made.filters["breakable"] = breakable
    made.filters["words"] = lambda name: name.replace("_", " ")
    return made.get_template("report.html.j2")


def _together(text: str) -> str:
    """`text` in which no figure is parted from its unit at the end of a line."""
    return _FIGURE.sub("\N{NO-BREAK SPACE}", text)


def _figures(metrics: Mapping[str, float | None]) -> list[Figure]:
    """The metrics; the two sides of one stand in one row, and so do the ends of its interval."""
    found = []
    for name, value in metrics.items():
        whole = next((name.removesuffix(end) for end in _ENDS if name.endswith(end)), "")
        if whole in metrics or (name.endswith(_AS_FOUND) and name.replace(_AS_FOUND, _NOW) in metrics):
            continue
        ends = [metrics.get(name + end) for end in _ENDS]
        within = f"[{', '.join(figures.named(name, end) for end in ends)}]" if None not in ends else ""
        then = name.removesuffix(_NOW) + _AS_FOUND
        compared = name.endswith(_NOW) and then in metrics
        shown = name.removesuffix(_NOW) if compared else name
        found.append(Figure(shown, value, metrics.get(then), compared, within))
    return found


def _with_locks(step: Step) -> list[str]:
    """The statements of a step, each below its lock as a comment."""
    locks = step.locks if len(step.locks) == len(step.statements) else ("",) * len(step.statements)
    heads = (f"-- lock: {' '.join(lock.split())}\n" if lock else "" for lock in locks)
    return [head + statement for head, statement in zip(heads, step.statements, strict=True)]


def _plans(comparison: Comparison) -> tuple[tuple[str, tuple[trees.Line, ...]], ...]:
    before, after = trees.pair(comparison.before_plan, comparison.after_plan)
    return ("before", before), ("after", after)


def _undrawn(number: int) -> str:
    if not number:
        return ""
    return f"{number} comparison{' without a speed-up is' if number == 1 else 's without a speed-up are'} not drawn."


def _sections(results: Results, drawn: bool) -> list[tuple[str, str]]:
    names = {"expected": "Expected improvements"}
    sections = [("summary", "Verdict")]
    if drawn:
        sections.append(("speedups", "Speed-ups"))
    for section in _SECTIONS:
        if getattr(results, section):
            sections.append((section, names.get(section, section.capitalize())))
        if section == "steps" and (results.steps or results.elsewhere):
            sections.append(("evidence", "Step by step" if results.only_planned else "Evidence"))
    return sections


def _drawn_values(comparisons: list[Comparison]) -> list[float]:
    return [value for each in comparisons for value in (each.speedup, *(each.ci95 or ())) if value is not None]


def _mark(comparison: Comparison, axis: LogAxis) -> Mark:
    low, high = (_place(axis, bound) for bound in comparison.ci95) if comparison.ci95 else (None, None)
    return Mark(comparison, _place(axis, comparison.speedup or 1), low, high)


def _place(axis: LogAxis, value: float) -> float:
    return round(axis.at(value) * 100, 2)
