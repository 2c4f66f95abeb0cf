"""How the scorecard looks in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playbook import balance, figures, outcome, promises, scorecard
from playbook.table import Cell, Row, Shown, code, judged, number, table

_MET = {True: "met", False: "missed"}


def promised(answer: promises.Promises) -> Shown:
    """The four rows of the plan."""
    rows = [Row((Cell(each.title, head=True), number(f"{each.low:g} to {each.high:g} %"))) for each in answer.expected]
    return table(("the plan expects", "by"), rows, numeric=("by",))


def matrix(answer: scorecard.Matrix) -> Shown:
    """One line an item."""
    rows = [
        Row(
            (
                Cell(each.item.item, head=True),
                Cell(each.item.priority.replace("_", " ")),
                Cell(", ".join(each.item.phases or each.item.notebooks)),
                Cell(each.status),
                Cell(each.evidence or "none", each.why),
            )
        )
        for each in answer.items
    ]
    return table(("item", "priority", "where", "status", "evidence"), rows)


def whole(shown: scorecard.Whole) -> Shown:
    """One line an endpoint, and all of them."""
    answer = shown.found
    columns = (
        "requests to",
        "requests",
        "median as found",
        "now",
        "less by",
        "95 % interval",
        "statements",
        "database",
    )
    rows = []
    for name in ("", *answer.endpoints):
        before, after = (side.part(name) if name else side for side in (answer.as_found, answer.optimized))
        fell = answer.reduction("p50_ms", name)
        rows.append(
            Row(
                (
                    Cell(name or "all", head=True),
                    number(figures.count(before.requests)),
                    number(figures.milliseconds(before.p50_ms)),
                    number(figures.milliseconds(after.p50_ms)),
                    number(figures.percent(fell.pct)),
                    number(_interval(fell.ci95)),
                    number(_pair(before.statements, after.statements)),
                    number(_pair(before.database_ms, after.database_ms, " ms")),
                )
            )
        )
    note = (
        f"{answer.rate:g} requests a second on each side, sent when they are due, in {len(answer.rounds)} rounds in "
        f"turns; {answer.keys:,} different requests, 5 % writes. The interval is a bootstrap over rounds. Statements "
        "and database time are for each request."
    )
    return table(columns, rows, numeric=columns[1:], note=note)


def expected(answer: promises.Expected) -> Shown:
    """Expected against measured."""
    rows = [
        Row(
            (
                Cell(each.expected.title, head=True),
                number(f"{each.expected.low:g} to {each.expected.high:g} %"),
                number(figures.percent(each.value)),
                number(_interval(each.ci95)),
                judged(_MET.get(each.met, "unproven" if each.value is not None else figures.NOT_MEASURED)),  # type: ignore[arg-type]
                Cell(each.reason),
            )
        )
        for each in answer.promises
    ]
    columns = ("expected", "by", "measured", "95 % interval", "met", "from")
    return table(columns, rows, numeric=columns[1:4])


def outcomes(answer: balance.Outcomes) -> Shown:
    """One line a step; below it the whole cost."""
    columns = ("step", "decision", "queries", "proven gain", "disk", "write cost")
    rows = [
        Row(
            (
                code(each.step.id, head=True),
                judged(each.decision.word, each.step.reason, meaning=each.step.status),
                Cell(each.verdicts or "none claimed or measured"),
                number(figures.times(each.gain) if each.gain else "none"),
                number(figures.size(each.step.size_bytes)),
                number(figures.write_cost(each.step.write_overhead_pct, each.step.write_overhead_ci95)),
            )
        )
        for each in answer.steps
    ]
    return table(columns, rows, numeric=columns[3:], note=_costs(answer))


def _costs(answer: balance.Outcomes) -> str:
    counts: dict[str, int] = {}
    for each in answer.steps:
        word = outcome.status(each.step.status)
        counts[word] = counts.get(word, 0) + 1
    told = ", ".join(f"{number} {word}" for word, number in counts.items())
    unsized = f", not measured for {answer.unsized}" if answer.unsized else ""
    disk = f"Disk of all that stands: {figures.size(answer.size_bytes)}{unsized}."
    if answer.dearest is None:
        return f"{told}. {disk} What writers pay was not measured."
    dearest = answer.dearest
    paid = figures.write_cost(dearest.write_overhead_pct, dearest.write_overhead_ci95)
    rest = f"; not measured for {answer.unpaid}" if answer.unpaid else ""
    return f"{told}. {disk} Writers pay most for {dearest.id}: {paid} of a write's time{rest}."


def actions(answer: balance.Actions) -> Shown:
    """One line for each thing to do."""
    if not answer.actions:
        text = "Nothing is open: no step waits, none made a query slower, none is kept without proof."
        return Shown(f"<p>{text}</p>", text)
    rows = [
        Row((Cell(each.what, head=True), code(each.step) if each.step else Cell(""), Cell(each.gain), Cell(each.cost)))
        for each in answer.actions
    ]
    return table(("what", "step", "gain", "cost, or what it waits for"), rows)


def _interval(bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return figures.NOT_MEASURED
    return f"{figures.significant(bounds[0])} to {figures.significant(bounds[1])} %"


def _pair(before: float | None, after: float | None, unit: str = "") -> str:
    if before is None or after is None:
        return figures.NOT_MEASURED
    return f"{figures.significant(before)} {figures.ARROW} {figures.significant(after)}{unit}"


VIEWS: dict[type, Callable[[Any], Shown]] = {
    promises.Promises: promised,
    scorecard.Matrix: matrix,
    scorecard.Whole: whole,
    promises.Expected: expected,
    balance.Outcomes: outcomes,
    balance.Actions: actions,
}
"""The view of each answer."""
