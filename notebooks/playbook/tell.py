"""What the command line prints, besides errors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from playbook import figures
from playbook.markdown import headline
from playbook.regressions import Compared, count
from playbook.results import Limit, cut

if TYPE_CHECKING:
    from playbook.context import Context
    from playbook.finishing import Finished
    from playbook.journal import Entry
    from playbook.maintaining import Maintained
    from playbook.matrix import MatrixItem
    from playbook.monitor.metrics import DatabaseMetrics
    from playbook.monitor.sampler import Taken
    from playbook.monitor.traffic import TrafficVerdict
    from playbook.refreshing import Kept, Outcome
    from playbook.target.sql import Statement
    from playbook.undoing import Undone


def print_matrix(console: Console, context: Context, matrix: list[MatrixItem]) -> None:
    """The priority matrix, then every step with its status and reason."""
    console.print(escape(f"{context.plan.title}: {context.target.label}"))
    items = Table("priority", "week", "item", "phase", "status on the target", box=None, pad_edge=False)
    for entry in matrix:
        item = entry.item
        where = ", ".join(item.phases) or "monitoring"
        items.add_row(item.priority, str(item.week), escape(item.item), where, escape(entry.summary))
    console.print(items)
    steps = Table("step", "kind", "status", "reason", box=None, pad_edge=False)
    for step, state in {step.id: (step, state) for entry in matrix for step, state in entry.steps}.values():
        steps.add_row(escape(step.id), step.spec.kind, state.status, escape(state.reason))
    console.print()
    console.print(steps)


def print_steps(console: Console, context: Context, entries: list[Entry]) -> None:
    """The journal's steps, in the order they were applied."""
    console.print(escape(f"{context.target.label}, journal in {context.journal.store.place}"))
    if not entries:
        console.print("nothing was applied here yet")
        return
    table = Table("step", "status", "when", "run", "reason", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(escape(entry.step), entry.status, entry.changed_at, entry.run_id, escape(entry.reason))
    console.print(table)


def print_kept(console: Console, context: Context, kept: list[Kept]) -> None:
    """What is kept, how old it may be, its job, and its last refreshes with their costs and failures."""
    if not kept:
        console.print(escape(f"{context.target.label}: no summary of the plan stands"))
        return
    rows = Table("step", "kept as", "age", "pg_cron (its zone)", box=None, pad_edge=False)
    for each in kept:
        age = figures.duration(each.last.age_s) if each.last else "not recorded"
        rows.add_row(escape(each.step), escape(each.summary.qualified), age, escape(each.job or "no job"))
    console.print(rows)
    console.print()
    rows = Table("refreshed at", "step", "how", "took", "rows changed", "WAL", "error", box=None, pad_edge=False)
    for each in kept:
        for one in each.history[:10]:
            rows.add_row(
                one.started_at,
                escape(each.step),
                one.manner or "failed",
                figures.duration(one.seconds),
                figures.count(one.rows_changed),
                figures.size(one.wal_bytes),
                escape(one.error),
            )
    console.print(rows)


def print_refreshed(console: Console, outcomes: list[Outcome]) -> None:
    """What became of each summary."""
    if not outcomes:
        console.print("no summary of the plan stands here, so there is nothing to refresh")
    for one in outcomes:
        console.print(escape(f"{one.step}: {one.word}: {one.said}"))


def print_maintained(console: Console, context: Context, maintained: list[Maintained], *, dry_run: bool) -> None:
    """Each partitioned table with the partitions that were made for it, or the reason why not, and its old ones."""
    if not maintained:
        console.print(escape(f"{context.target.label}: the plan has partitioned nothing here"))
    for one in maintained:
        lines = [("to make: " if dry_run and one.made else "") + (", ".join(one.made) or "no partition was missing")]
        lines += [one.error] if one.error else []
        lines += [f"pg_cron job: {one.job}"] if one.job else []
        lines += [f"{retired.partition} {retired.said}" for retired in one.retired]
        for line in lines:
            console.print(escape(f"{one.step}: {line}"))


def print_compared(console: Console, compared: Compared) -> None:
    """The verdict, what the reader has to know first, then what is not as it was, the regressions first."""
    for note in compared.notes:
        console.print(escape(f"note: {note}"))
    alarms = compared.of("regression") + [each for each in compared.missed if each.word != "regression"]
    told = alarms + [each for word in ("changed", "better") for each in compared.of(word) if each not in alarms]
    if told:
        table = Table("", "", "what", "was", "is", "why", box=None, pad_edge=False)
        for each in told:
            word = "missed" if each in alarms and each.word != "regression" else each.word
            table.add_row(word, each.topic, *map(escape, (each.name, each.old, each.new, each.reason)))
        console.print(table)
    console.print(escape(f"{headline(compared)}. Compared: {count(compared.differences) or 'nothing'}."))


def print_finished(console: Console, context: Context, finished: list[Finished], *, apply: bool) -> None:
    """The statements that finish each step, with their locks and what takes them back, or what became of them."""
    if not finished:
        console.print(escape(f"{context.target.label}: no step keeps anything for its undo"))
    for one in finished:
        if apply or one.said or one.error:
            console.print(escape(f"{one.step}: {one.error or one.said}"))
            continue
        for statement in one.statements:
            console.print(escape(f"-- {one.step}: {_about(statement)}\n{statement}"))
        for statement in one.undo:
            console.print(escape(f"-- undo of {one.step}: {_about(statement)}\n{statement}"))
        for note in one.notes:
            console.print(escape(f"{one.step}: {note}"))
        after = "undo returns the table after it" if one.undo else "no undo is possible after it"
        console.print(escape(f"{one.step}: nothing was changed; --apply runs this, and {after}"))


def _about(statement: Statement) -> str:
    """What it is for and the lock that it takes."""
    return f"{statement.purpose} ({statement.lock} on {statement.relation})" if statement.lock else statement.purpose


def print_undone(console: Console, context: Context, undone: list[Undone]) -> None:
    """Each step that was taken back, or the reason why not."""
    if not undone:
        console.print(escape(f"{context.target.label}: nothing is applied, so there is nothing to undo"))
    for one in undone:
        console.print(escape(f"{one.step}: {one.error or 'undone'}"))


def print_taken(console: Console, taken: Taken, *, json_lines: bool = False) -> None:
    """One sample: a line of its figures, or one JSON object for each side, under the plan's names."""
    at = datetime.fromtimestamp(taken.sample.at, UTC)
    for metrics in taken.metrics:
        if json_lines:
            from playbook.monitor.metrics import EVENT

            told = {"event": EVENT, "source": metrics.source, "timestamp": at.isoformat(timespec="seconds")}
            line = json.dumps({**told, "seconds": round(metrics.seconds, 3), **metrics.plan_names()})
        else:
            line = f"{at:%H:%M:%S} {metrics.source}: {_in_words(metrics)}"
        console.print(line, markup=False)
    if not json_lines:
        for note in taken.sample.notes:
            console.print(f"{at:%H:%M:%S} {note}", markup=False)


def _in_words(metrics: DatabaseMetrics) -> str:
    words = [
        figures.count(metrics.total_queries, "queries"),
        f"{figures.milliseconds(metrics.average_query_time)} mean",
    ]
    words += [f"{metrics.slow_query_count:,} slow"] if metrics.slow_query_count is not None else []
    for name, value in (
        ("pool peak", metrics.connection_pool_peak),
        ("connections", metrics.connection_pool_utilization if metrics.source == "server" else None),
        ("cache hits", metrics.cache_hit_rate),
        ("buffer hits", metrics.buffer_cache_hit_rate),
        ("errors", metrics.error_rate),
    ):
        words += [] if value is None else [f"{name} {figures.percent(value)}"]
    return ", ".join(words)


def print_targets(console: Console, targets: Iterable[Limit]) -> None:
    """The plan's targets: what was wanted, what was measured, met or not; under a miss the slowest statements."""
    words = {True: "met", False: "missed", None: figures.NOT_MEASURED}
    rows = Table("target", "wanted", "measured", "", "how, or why not", box=None, pad_edge=False)
    targets = list(targets)
    for each in targets:
        rows.add_row(escape(each.title or each.name), each.wanted, each.measured, words[each.met], escape(each.reason))
    console.print(rows)
    slowest = next((each.slowest for each in targets if each.met is False and each.slowest), ())
    for each in slowest:
        console.print()
        console.print(each.head, markup=False)
        console.print(each.text, markup=False)
        for line in each.plan.splitlines():
            console.print(f"    {line}", markup=False)


def print_traffic(console: Console, verdicts: Iterable[TrafficVerdict]) -> None:
    """Each step's statements before and after as the target's own users ran them."""
    for found in verdicts:
        before, after = map(figures.duration, found.seconds)
        told = (
            f"{found.step}: {found.verdict}, by {found.source} ({before} before, {after} after; nothing was replayed)"
        )
        console.print(escape(told))
        rows = Table("statement", "calls", "before", "after", "speed-up", "verdict", box=None, pad_edge=False)
        for each in found.statements:
            rows.add_row(
                escape(cut(each.text, _LONGEST_STATEMENT)),
                f"{each.calls[0]:,} {figures.ARROW} {each.calls[1]:,}",
                figures.milliseconds(each.before_ms),
                figures.milliseconds(each.after_ms),
                f"{figures.times(each.speedup)} {figures.interval(each.ci95) if each.ci95 else ''}".rstrip(),
                each.verdict,
            )
        if found.statements:
            console.print(rows)
        for each in found.statements:
            console.print(f"  {cut(each.text, 60)}: {each.reason}", markup=False)
        console.print(escape(f"{found.controls} controls; {found.advice}"))
        console.print()


_LONGEST_STATEMENT = 80
