"""How what is told of an application looks in a notebook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import escape

from playbook import answers, figures
from playbook.table import Cell, Row, Shown, code, judged, number, table


def not_applicable(answer: answers.NotApplicable) -> Shown:
    """The reason in a sentence."""
    text = f"Not applicable here: {answer.reason}."
    return Shown(f"<p>{escape(text)}</p>", text)


def detected(answer: answers.Detected) -> Shown:
    """Each pattern with its request; a request without one says so."""
    columns = ("request", "N+1 pattern", "place in the code", "statements", "rows", "wasted")
    rows = [row for request in answer.requests for row in _patterns(*request)]
    return table(columns, rows, numeric=columns[3:], note=f"The service's techniques: {answer.switches}.")


def _patterns(request: str, statements: int, patterns: tuple[Any, ...]) -> list[Row]:
    if not patterns:
        cells = (code(request, head=True), Cell("none"), Cell(""), number(str(statements)), Cell(""), Cell(""))
        return [Row(cells)]
    rows = []
    for each in patterns:
        rows.append(
            Row(
                (
                    code(request, head=True),
                    Cell(f"{_short(each.subject)} ({each.kind})", f"remedy: {each.remedy}"),
                    Cell(str(each.site), f"called by {each.callers[0]}" if each.callers else ""),
                    number(figures.count(each.statements)),
                    number(figures.count(each.rows)),
                    number(figures.milliseconds(1000 * each.wasted_s)),
                )
            )
        )
    return rows


def loaded(answer: answers.Loaded) -> Shown:
    """One line for each service."""
    columns = ("service", "requests", "errors", "p50", "p95", "p99", "statements", "database", "rows", "answer")
    rows = []
    for name, load in answer.services:
        errors = ", ".join(f"{count} {error}" for error, count in load.errors.items())
        rows.append(
            Row(
                (
                    Cell(name, head=True),
                    number(figures.count(load.requests)),
                    Cell(errors or "none"),
                    *(number(figures.milliseconds(load.percentile_ms(percent))) for percent in (50, 95, 99)),
                    number(_each(load.statements)),
                    number(figures.milliseconds(load.database_ms)),
                    number(_each(load.rows)),
                    number(figures.size(load.bytes_each)),
                )
            )
        )
    note = (
        f"{answer.rate:g} requests a second, sent when they are due; how late an answer is counts from there. Asked: "
        f"{answer.asked}. Statements, database time, rows and answer are for each request."
    )
    return table(columns, rows, numeric=columns[1:2] + columns[3:], note=note)


def strategies(answer: answers.Strategies) -> Shown:
    """One line for each way of loading."""
    columns = ("loaded", "statements", "rows", "bytes", "time")
    rows = [
        Row(
            (
                Cell(each.name, head=True),
                number(figures.count(each.statements)),
                number(figures.count(each.rows)),
                number(figures.size(each.bytes)),
                number(figures.milliseconds(each.milliseconds)),
            )
        )
        for each in answer.ways
    ]
    return table(columns, rows, numeric=columns[1:])


def suspected(answer: answers.Suspected) -> Shown:
    """Suspects, called that; or why none can be told."""
    note = f"Statistics of {answer.seconds:.0f} s. These are suspects: the server cannot see what sent a statement."
    if answer.reason:
        note = f"{note} Not seen: {answer.reason}." if answer.suspects else f"Not checked: {answer.reason}."
    if not answer.suspects:
        text = note if answer.reason else f"Nothing is suspect in the statistics of {answer.seconds:.0f} s."
        return Shown(f"<p>{escape(text)}</p>", text)
    columns = ("suspect", "status", "calls", "rows", "time", "for each row of")
    rows = [
        Row(
            (
                code(_short(each.sql), head=True),
                judged("suspect", meaning="warn"),
                number(figures.count(each.calls)),
                number(figures.count(each.rows)),
                number(figures.milliseconds(each.milliseconds)),
                Cell(f"{_short(each.parent)} ({each.parent_calls} calls, {each.parent_rows} rows)"),
            )
        )
        for each in answer.suspects
    ]
    return table(columns, rows, numeric=("calls", "rows", "time"), note=note)


def _each(value: float | None) -> str:
    return figures.NOT_MEASURED if value is None else figures.significant(value)


def _short(sql: str) -> str:
    """A statement by its beginning and its end: what lies between is mostly a list of columns."""
    return sql if len(sql) <= 110 else f"{sql[:45]} … {sql[-60:]}"


VIEWS: dict[type, Callable[[Any], Shown]] = {
    answers.NotApplicable: not_applicable,
    answers.Detected: detected,
    answers.Loaded: loaded,
    answers.Strategies: strategies,
    answers.Suspected: suspected,
}
"""The view of each answer."""
