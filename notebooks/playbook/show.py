"""How things look in a notebook. Each function returns one object to display, as HTML and as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel

from playbook import figures, trees
from playbook.evidence.live import Timeline
from playbook.outcome import decide, status
from playbook.results import Comparison, Estimate, Finding, Limit, Promise, Step, Text, shown
from playbook.table import FRAME, Cell, Row, Shown, code, folded, judged, number, small, table
from playbook.target.sql import Statement

__all__ = [
    "Shown",
    "banner",
    "estimates_table",
    "expected_table",
    "findings_table",
    "node_changes",
    "plan_pair",
    "priority_matrix",
    "speedup_chart",
    "statements",
    "status_table",
    "targets_table",
    "timeline_chart",
    "verdict_table",
]

_SPEEDUP = "speed-up [95 % interval]".replace("95 % ", "95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}")
_VERDICT = ("query", "before", "after", _SPEEDUP, "same rows", "disk", "write cost", "keep or drop")


def banner(
    label: str,
    server_version: str,
    *,
    changes: str,
    seconds: float | None,
    embedded: bool = False,
    notes: Iterable[str] = (),
) -> Shown:
    """The first output of a notebook: what it is connected to, what it will change, about how long it takes.

    `changes` says in words what will be changed; empty: nothing will be. `seconds` is the expected time. `notes` are
    remarks such as an untested server version.
    """
    kind = ", the embedded sample" if embedded and "embedded" not in label else ""
    lines = [
        f"Connected to {label}, PostgreSQL {server_version}{kind}.",
        f"Will be changed: {changes}." if changes else "Nothing will be changed.",
        "How long it takes is not known." if seconds is None else f"Takes about {figures.duration(seconds)}.",
        *notes,
    ]
    lines = [shown(line) for line in lines]
    edge = "#d55e00" if changes else "#0072b2"
    html = Markup(
        '<div style="border-left: 4px solid {}; padding: 2px 12px; margin: 4px 0; line-height: 1.5;">{}</div>'
    )
    first = Markup('<div style="font-weight: 600;">{}</div>').format(lines[0])
    return Shown(str(html.format(edge, first + _blocks(lines[1:]))), "\n".join(lines))


def statements(planned: Iterable[Statement]) -> Shown:
    """The statements as SQL to copy; comments say what each is for and which lock it takes.

    Those of a way that is taken only sometimes are folded together, under the words that say when.
    """
    ways = [(when, list(found)) for when, found in groupby(enumerate(planned, 1), lambda each: each[1].when)]
    if not ways:
        return Shown("<p>There is nothing to run.</p>", "There is nothing to run.")
    blocks = [(when, [(_comment(number_, each), shown(str(each))) for number_, each in found]) for when, found in ways]
    html = Markup("").join(_way(when, found) for when, found in blocks)
    texts = [[*([f"-- {shown(when)}:"] if when else []), *map("\n".join, found)] for when, found in blocks]
    return Shown(str(html), "\n\n".join(chain.from_iterable(texts)))


def _way(when: str, blocks: list[tuple[str, str]]) -> Markup:
    dimmed = Markup('<span style="opacity: 0.75;">{}</span>\n{}')
    sql = block(Markup("\n\n").join(dimmed.format(comment, sql) for comment, sql in blocks))
    return folded(f"{len(blocks)} statements {shown(when)}", sql) if when else sql


def verdict_table(rows: Iterable[Any], steps: Iterable[Any] = ()) -> Shown:
    """The verdict of a phase: a line for each step with its costs and decision, under it one for each query.

    `rows` are comparisons as results.json has them, or objects with these fields; `before_plan` and `after_plan` may be
    plans or their texts, and each row opens to them. What is known of a step comes from `steps`, or else from the row's
    own `status` (applied unless it says otherwise), `size_bytes` and `write_overhead_pct`.
    """
    rows = list(rows)
    known = {step.id: step for step in map(Step.model_validate, steps)}
    for row in rows:
        step = _step_of(row)
        known.setdefault(step.id, step)
    comparisons = [Comparison.model_validate(row) for row in rows]
    lines = chain.from_iterable(
        _verdict(step, [c for c in comparisons if c.step == step.id]) for step in known.values()
    )
    return table(_VERDICT, list(lines), numeric=("before", "after", _SPEEDUP, "disk", "write cost"))


def plan_pair(before: Any, after: Any, *, figures: bool = True) -> Shown:
    """Both plan trees side by side, the nodes that changed marked - and +.

    A plan is its text or an object with `text()` and `root`. Without `figures` the output is the same in every run.
    """
    sides = trees.pair(before, after, figures=figures)
    return Shown(str(trees.html(sides)), trees.text(sides))


def node_changes(rows: Iterable[Any]) -> Shown:
    """What is the same in every run: for each query its plan nodes before and after, and whether its rows agree."""
    lines = [
        Row((code(each.query, head=True), Cell(each.bind), Cell(each.nodes), Cell(each.rows)))
        for each in map(Comparison.model_validate, rows)
    ]
    return table(("query", "bind", "plan nodes", "same rows"), lines)


def status_table(steps: Iterable[Any]) -> Shown:
    """Each step with its status and the reason for it, its disk and its write cost."""
    lines = [
        Row(
            (
                code(step.id, head=True),
                Cell(words(step.kind)),
                Cell(words(step.priority)),
                judged(status(step.status), step.reason, meaning=step.status),
                number(figures.size(step.size_bytes)),
                number(figures.write_cost(step.write_overhead_pct, step.write_overhead_ci95)),
            )
        )
        for step in _read(Step, steps)
    ]
    columns = ("step", "kind", "priority", "status", "disk", "write cost")
    return table(columns, lines, numeric=("disk", "write cost"))


def findings_table(findings: Iterable[Any]) -> Shown:
    """The health checks: what was found, and below it what to do about it, to copy."""
    return table(("check", "status", "what was found"), [_found(each) for each in _read(Finding, findings)])


def _found(finding: Finding) -> Row:
    cells = (Cell(finding.label, head=True), judged(words(finding.status), meaning=finding.status))
    opened = {"remedy": finding.remedy, "as a step of a plan": finding.step}
    below = Markup("").join(folded(name, block(text)) for name, text in opened.items() if text)
    lines = tuple(line for text in opened.values() for line in text.splitlines())
    return Row((*cells, Cell(finding.detail)), below or None, lines)


def block(text: str) -> Markup:
    """Text to copy as it is."""
    return Markup('<pre style="{}">{}</pre>').format(FRAME, text)


def estimates_table(estimates: Iterable[Any]) -> Shown:
    """What the planner expects of steps that do not stand: estimates, which are no measurement and no verdict."""
    lines = [
        Row(
            (
                code(each.step, head=True),
                code(each.label),
                number(figures.count(each.cost_before)),
                number(figures.count(each.cost_after)),
                Cell(each.reason or ("yes" if each.used else "no")),
            )
        )
        for each in _read(Estimate, estimates)
    ]
    head = "Estimates, by HypoPG: what the planner expects if the index stood. Its cost is no time; nothing was built."
    columns = ("step", "query", "cost today", "cost with it", "index used")
    shown = table(columns, lines, numeric=("cost today", "cost with it"))
    return Shown(f"<p>{head}</p>{shown.html}", f"{head}\n{shown.text}")


def targets_table(targets: Iterable[Any]) -> Shown:
    """The plan's targets beside what was measured."""
    return _held("limit", _read(Limit, targets))


def expected_table(expected: Iterable[Any]) -> Shown:
    """The improvements that the plan expects beside what was measured."""
    return _held("expected", _read(Promise, expected))


class _Item(BaseModel, from_attributes=True):
    """An item of the priority matrix; `status` and `result` say what came of it."""

    priority: Text = ""
    week: int | None = None
    item: Text = ""
    phases: tuple[Text, ...] = ()
    status: Text = ""
    result: Text = ""


def priority_matrix(items: Iterable[Any]) -> Shown:
    """The plan's items by priority: `priority`, `week`, `item`, `phases`; `status` and `result` where there are any."""
    lines, last = [], None
    for each in _read(_Item, items):
        head = words(each.priority) if each.priority != last else ""
        week = "" if each.week is None or not head else f"week {each.week}"
        last = each.priority
        lines.append(
            Row(
                (
                    Cell(f"{head} ({week})" if week else head, head=True),
                    Cell(each.item),
                    Cell(", ".join(each.phases)),
                    judged(status(each.status), meaning=each.status),
                    Cell(each.result or figures.NOT_MEASURED),
                )
            )
        )
    return table(("priority", "item", "phases", "status", "measured"), lines)


def _verdict(step: Step, comparisons: Sequence[Comparison]) -> Iterator[Row]:
    decision = decide(step, comparisons)
    why = "; ".join(dict.fromkeys(filter(None, (step.reason, decision.why))))
    yield Row(
        (
            Cell(step.id, why, Markup("<strong>{}</strong>").format(step.id), span=5, head=True),
            number(figures.size(step.size_bytes)),
            number(figures.write_cost(step.write_overhead_pct, step.write_overhead_ci95)),
            judged(decision.word),
        )
    )
    for each in comparisons:
        below, lines = _below(each)
        yield Row(
            (
                code(each.label, head=True),
                number(figures.milliseconds(each.before_ms)),
                number(figures.milliseconds(each.after_ms)),
                _speedup(each),
                judged(each.rows) if each.same_rows is False else Cell(each.rows),
                Cell("", span=2),
                judged(each.verdict),
            ),
            below,
            lines,
        )


def _step_of(row: Any) -> Step:
    """What a row knows of its step."""
    names = ("step", "status", "size_bytes", "write_overhead_pct", "write_overhead_ci95")
    known = {name: row.get(name) if isinstance(row, Mapping) else getattr(row, name, None) for name in names}
    return Step.model_validate(known | {"id": known["step"] or "", "status": known["status"] or "applied"})


def _speedup(comparison: Comparison) -> Cell:
    if comparison.speedup is None:
        return number(figures.NOT_MEASURED)
    times, within = figures.times(comparison.speedup), figures.interval(comparison.ci95)
    html = Markup("<strong>{}</strong>{}").format(times, small(within))
    return Cell(f"{times} {within}", html=html, numeric=True)


def _below(comparison: Comparison) -> tuple[Markup, tuple[str, ...]]:
    """What a row opens to: its plans; with the reasons for what is not as it should be above them."""
    reasons = [f"rows: {comparison.same_rows_reason}"] if comparison.same_rows_reason else []
    reasons += [f"{comparison.verdict}: {comparison.reason}"] if comparison.reason else []
    summary = f"plan: {comparison.nodes}"
    if comparison.before_buffers is not None or comparison.after_buffers is not None:
        before, after = figures.count(comparison.before_buffers), figures.count(comparison.after_buffers)
        summary += f"; buffers: {before} {figures.ARROW} {after}"
    if comparison.rounds is not None:
        summary += f"; {figures.count(comparison.rounds)} rounds"
    plans = (comparison.before_plan, comparison.after_plan)
    opened = small(summary) if not any(plans) else folded(summary, trees.html(trees.pair(*plans)))
    return Markup("").join(small(reason) for reason in reasons) + opened, (*reasons, summary)


def _comment(number_: int, statement: Statement) -> str:
    """Comment lines; a line feed in a purpose or a name must not end the comment and start SQL."""
    if statement.language != "sql":
        return f"# {number_}. {shown(statement.purpose)}".replace("\n", " ").rstrip()
    lock = f"{statement.lock} on {statement.relation}" if statement.lock and statement.relation else statement.lock
    facts = [f"lock: {lock or 'none'}"]
    if not statement.transactional:
        facts.append("outside a transaction")
    if statement.long:
        facts.append("blocks no writer, may take long")
    lines = (f"{number_}. {statement.purpose}", "   " + "; ".join(facts))
    return "\n".join("-- " + shown(line).replace("\n", " ").rstrip() for line in lines)


def speedup_chart(rows: Iterable[Any]) -> Shown:
    """The speed-ups of comparisons with their intervals on a log axis; see `playbook.charts`.

    `rows` are comparisons as results.json has them, or objects with these fields. Without a single speed-up, a sentence
    says so.
    """
    comparisons: list[Comparison] = _read(Comparison, rows)
    if not any(each.speedup for each in comparisons):
        return Shown("<p>No speed-up was measured.</p>", "No speed-up was measured.")
    from playbook import charts  # here, since matplotlib takes a second to import

    return charts.speedup_chart(comparisons)


def timeline_chart(timeline: Timeline) -> Shown:
    """Each write's latency and the locks of a change under load; see `playbook.timeline`.

    Where no writer was at work, a sentence says so.
    """
    if not timeline.writes:
        text = "No writers were at work: only the embedded sample is written to."
        return Shown(f"<p>{text}</p>", text)
    from playbook import timeline as charts  # here, since matplotlib takes a second to import

    return charts.timeline_chart(timeline)


def _held(wanted: str, held: Iterable[Limit | Promise]) -> Shown:
    words = {True: "met", False: "missed", None: figures.NOT_MEASURED}
    lines = [
        Row(
            (
                Cell(each.title, head=True) if each.title else code(each.name, head=True),
                number(each.measured),
                number(each.wanted),
                judged(words[each.met], each.reason),
            )
        )
        for each in held
    ]
    return table(("figure", "measured", wanted, "met"), lines, numeric=("measured", wanted))


def _read(model: type[Any], items: Iterable[Any]) -> list[Any]:
    return [model.model_validate(item) for item in items]


def words(name: str) -> str:
    """A name of the results in words: `not_checked` is `not checked`."""
    return name.replace("_", " ")


def _blocks(lines: Iterable[str]) -> Markup:
    return Markup("").join(Markup("<div>{}</div>").format(line) for line in lines)
