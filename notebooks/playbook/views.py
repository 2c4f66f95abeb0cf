"""How each answer of a verb looks in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from markupsafe import escape

from playbook import answers, application_views, figures, health, monitoring_views, scorecard_views, service_views, show
from playbook.alternatives import Alternative, Alternatives
from playbook.assess.assessment import Assessment, Overview, Remedies, Steps
from playbook.context import Context
from playbook.evidence.measure import Measurement
from playbook.table import Cell, Row, Shown, code, judged, number, table

NOTEBOOK_START_S = 4.0
"""Kernel start and imports; what the banner adds to the time of measuring."""


def banner(context: Context, takes_s: float | None = None, changes: str = "") -> Shown:
    """The first output: what we are connected to, whether anything will be changed, about how long it takes."""
    server, settings = context.target.server, context.settings
    assert server is not None
    changes = changes or f"the plan's steps are applied, with their journal in {context.journal.store.place}"
    notes = []
    if not server.tested:
        notes.append(f"PostgreSQL {server.major} is accepted, but the playbook's own tests do not cover it.")
    if not settings.measures:
        notes.append("Queries are planned, not executed; measure with `playbook run --measure` or `--apply`.")
    if server.standby:
        notes.append("A standby: it can be looked at and measured, not changed.")
    if server.pooled:
        notes.append("Reached through a transaction pooler: apply is refused, name the direct URL for that.")
    measuring_s = 1.5 * settings.budget_s if settings.measures else 1.0
    return show.banner(
        context.target.label,
        server.version,
        changes=changes if settings.applies else "",
        seconds=NOTEBOOK_START_S + measuring_s if takes_s is None else takes_s,
        embedded=context.target.embedded,
        notes=notes,
    )


def preview(answer: answers.Preview) -> Shown:
    """The statements of every step; what the journal makes is told in a sentence."""
    shown = show.statements(statement for _, statements, _ in answer.steps for statement in statements)
    journal = _paragraphs([f"First, unless it stands, the journal is made: {answer.journal}."])
    return Shown(journal.html + shown.html, f"{journal.text}\n\n{shown.text}")


def undo_preview(answer: answers.UndoPreview) -> Shown:
    """The statements that take the steps back."""
    return show.statements(answer.statements)


def checked(answer: answers.Checked) -> Shown:
    """Each step's status with its reason, and what the preflight found."""
    rows = []
    for step, state in answer.steps:
        rows.append(
            Row(
                (
                    code(step, head=True),
                    judged(show.words(state.status), meaning=state.status),
                    Cell("; ".join(filter(None, [state.reason, *state.notes]))),
                )
            )
        )
    return table(("step", "status", "what was found"), rows)


def measured(answer: answers.Measured) -> Shown:
    """Median, rounds, rows, buffers and plan nodes of each query; what was left out says why."""
    rows = [_measurement(each, answer.values.get((each.query, each.bind), "")) for each in answer.measurements]
    rows += [
        Row((code(query, head=True), Cell(""), *[number(figures.NOT_MEASURED)] * 4, Cell(reason)))
        for query, reason in answer.left_out.items()
    ]
    if not rows:
        return Shown("<p>There is nothing to measure.</p>", "There is nothing to measure.")
    shown = table(("query", "bind", "median", "rounds", "rows", "buffers", "plan nodes"), rows)
    if answer.estimates:
        estimated = show.estimates_table(answer.estimates)
        shown = Shown(shown.html + estimated.html, f"{shown.text}\n\n{estimated.text}")
    if not answer.kept:
        return shown
    kept = f"Measured before by the run that applied them: {', '.join(answer.kept)}."
    return Shown(f"{shown.html}<p>{kept}</p>", f"{shown.text}\n{kept}")


def _measurement(each: Measurement, values: str) -> Row:
    nodes = ", ".join(each.plan.nodes) if each.plan else ""
    return Row(
        (
            code(each.query, head=True),
            Cell(each.bind, values),
            number(figures.milliseconds(each.median_ms)),
            number(figures.count(each.rounds)),
            number(figures.count(each.rows)),
            number(figures.count(each.buffers)),
            Cell("; ".join(filter(None, [nodes, each.error]))),
        )
    )


def applied(answer: answers.Applied) -> Shown:
    """Each step's status after applying, with the seconds it took."""
    if not answer.changes:
        text = (
            "Nothing was changed: on this target steps are applied only with apply=True (on the command line, --apply)."
        )
        return Shown(f"<p>{text}</p>", text)
    rows = [
        Row(
            (
                code(step, head=True),
                judged(show.words(state.status), meaning=state.status),
                number(figures.duration(seconds)),
                Cell(state.reason),
            )
        )
        for step, state, seconds in answer.steps
    ]
    return table(("step", "status", "took", "reason"), rows)


def verdicts(answer: answers.Verdicts) -> Shown:
    """The one table of the verdict."""
    return show.verdict_table(answer.rows, [found.row for found in answer.steps])


def settled(answer: answers.Settled) -> Shown:
    """What was taken back, and what was kept."""
    lines = [f"Dropped: {step}: {reason}." for step, reason in answer.dropped]
    lines += [f"Kept: {', '.join(answer.kept)}."] if answer.kept else []
    return _paragraphs(lines or ["Nothing is applied, so there is nothing to settle."])


def refreshed(answer: answers.Refreshed) -> Shown:
    """One line for each summary."""
    if not answer.summaries:
        return _paragraphs(["Nothing is kept here, so there is nothing to refresh."])
    rows = [Row((code(step, head=True), Cell(word), Cell(said))) for step, word, said in answer.summaries]
    return table(("step", "refresh", "how, or why not"), rows)


def alternatives(answer: Alternatives) -> Shown:
    """A line for each way: freshness, reads, what writers pay, what a refresh costs; the plan's choice is marked."""
    if not answer.found:
        return _paragraphs([f"{answer.step}: {answer.reason}."])
    rows = [
        Row(
            (
                code(each.kind, head=True),
                Cell("chosen in the plan" if each.chosen else ""),
                Cell(each.freshness),
                number(figures.milliseconds(each.read_ms)),
                Cell(_write_cost(each)),
                number("none" if each.refresh_s is None else figures.duration(each.refresh_s)),
                number("none" if each.refresh_rows is None else figures.count(each.refresh_rows)),
                number("none" if each.size_bytes is None else figures.size(each.size_bytes)),
            )
        )
        for each in answer.found
    ]
    head = ("way", "", "freshness", "one load", "what writers pay", "one refresh", "rows it changed", "disk")
    shown = table(head, rows)
    said = f"On a copy of {answer.rows:,} rows; before the refresh, one in a hundred was deleted."
    return Shown(f"{shown.html}<p>{said}</p>", f"{shown.text}\n{said}")


def _write_cost(each: Alternative) -> str:
    if each.kind != "incremental_summary":
        return "nothing"
    if each.write_pct is None or each.write_ci95 is None:
        return figures.NOT_MEASURED
    low, high = each.write_ci95
    return f"{each.write_pct:+.0f} % [{low:+.0f}, {high:+.0f}]"


def plans(answer: answers.Plans) -> Shown:
    """The plan trees of each query side by side, one under the other."""
    both = [each for each in answer.comparisons if each.before_plan and each.after_plan]
    if not both:
        return _paragraphs(["No query has a plan both before and after."])
    changed = [each for each in both if not each.same_plan]
    pairs = [(each.label, show.plan_pair(each.before_plan, each.after_plan)) for each in changed]
    same = ", ".join(each.label for each in both if each.same_plan)
    return _joined([*pairs, ("Planned as before", _paragraphs([same]))] if same else pairs)


def same_rows(answer: answers.SameRows) -> Shown:
    """One line for each query."""
    words = {True: "same", False: "differ", None: figures.NOT_MEASURED}
    rows = [
        Row((code(each.query, head=True), Cell(each.bind), Cell(words[each.same_rows]))) for each in answer.comparisons
    ]
    return table(("query", "bind", "rows with and without the change"), rows)


def _paragraphs(lines: Iterable[str]) -> Shown:
    lines = list(lines)
    return Shown("".join(f"<p>{escape(line)}</p>" for line in lines), "\n".join(lines))


def _joined(pairs: Iterable[tuple[str, Shown]]) -> Shown:
    pairs = list(pairs)
    html = "".join(f"<p><strong>{escape(head)}</strong></p>{shown.html}" for head, shown in pairs)
    return Shown(html, "\n\n".join(f"{head}\n{shown.text}" for head, shown in pairs))


VIEWS: dict[type, Callable[[Any], Shown]] = {
    answers.Preview: preview,
    answers.UndoPreview: undo_preview,
    answers.Checked: checked,
    answers.Measured: measured,
    answers.Applied: applied,
    answers.Verdicts: verdicts,
    answers.Settled: settled,
    answers.Plans: plans,
    answers.SameRows: same_rows,
    answers.Refreshed: refreshed,
    Assessment: health.assessed,
    Overview: health.overview,
    Remedies: health.remedies,
    Steps: health.steps,
    **application_views.VIEWS,
    **service_views.VIEWS,
    **monitoring_views.VIEWS,
    **scorecard_views.VIEWS,
    Alternatives: alternatives,
}
"""The view of each answer; `playbook.open` tells IPython of them."""
