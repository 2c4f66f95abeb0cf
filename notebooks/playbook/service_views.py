"""How what is told of a pool and of a cache looks in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from markupsafe import escape

from playbook import answers, figures
from playbook.table import Cell, Row, Shown, number, table


def advised(answer: answers.Advised) -> Shown:
    """One sentence a line."""
    return _sentences(answer.lines)


def engine_per_request(answer: answers.EnginePerRequest) -> Shown:
    """The two side by side."""
    rows = [
        Row((Cell("an engine for each request", head=True), number(figures.milliseconds(answer.own_ms)))),
        Row((Cell("one engine for the process", head=True), number(figures.milliseconds(answer.shared_ms)))),
    ]
    return table(("a query with", "median"), rows, numeric=("median",))


def swept(answer: answers.Swept) -> Shown:
    """One line for each size, and the recommendation."""
    columns = ("size", "peak", "mean", "waits", "longest wait", "p95")
    rows = [
        Row(
            (
                Cell(str(each.size), head=True),
                number(f"{each.usage.peak_pct:.0f} %"),
                number(f"{each.usage.mean_pct:.0f} %"),
                number(figures.count(each.usage.waits)),
                number(figures.milliseconds(1000 * each.usage.longest_wait_s)),
                number(figures.milliseconds(each.p95_ms)),
            )
        )
        for each in answer.found.tried
    ]
    size = answer.found.size
    told = f"Take {size}: {answer.found.reason}." if size else f"None is recommended: {answer.found.reason}."
    return table(columns, rows, numeric=columns[1:], note=f"{answer.rate:.0f} requests a second on each. {told}")


def pool_used(answer: answers.PoolUsed) -> Shown:
    """The pool's figures in one line."""
    columns = ("connections", "peak", "mean", "waits", "longest wait", "failed", "requests", "p95")
    pool = answer.pool
    row = Row(
        (
            Cell(str(pool["capacity"]), head=True),
            number(f"{pool['peak_pct']:.0f} %"),
            number(f"{pool['mean_pct']:.1f} %"),
            number(figures.count(pool["waits"])),
            number(figures.milliseconds(1000 * pool["longest_wait_s"])),
            number(figures.count(pool["failures"])),
            number(figures.count(answer.load.requests)),
            number(figures.milliseconds(answer.load.p95_ms)),
        )
    )
    return table(columns, [row], numeric=columns[1:])


def cached(answer: answers.Cached) -> Shown:
    """The load without and with the cache; below it what the cache counted."""
    columns = ("service", "requests", "errors", "p50", "p95", "statements", "database")
    rows = []
    for name, load in (("without the cache", answer.without), ("with it", answer.with_it)):
        rows.append(
            Row(
                (
                    Cell(name, head=True),
                    number(figures.count(load.requests)),
                    number(figures.count(sum(load.errors.values()))),
                    number(figures.milliseconds(load.p50_ms)),
                    number(figures.milliseconds(load.p95_ms)),
                    number(figures.NOT_MEASURED if load.statements is None else figures.significant(load.statements)),
                    number(figures.milliseconds(load.database_ms)),
                )
            )
        )
    counts = answer.counts
    words = ("hits", "stale", "misses", "bypasses", "errors")
    told = ", ".join(f"{counts[word]} {word}" for word in words)
    rate = "not measured" if counts["hit_rate_pct"] is None else f"{counts['hit_rate_pct']:.0f} %"
    spared = "not measured" if answer.spared_pct is None else f"{answer.spared_pct:.0f} %"
    note = (
        f"{answer.rate:g} requests a second to {answer.keys:,} keys, a few of them mostly (Zipf), 5 % writes. The "
        f"cache had seen {answer.asked_before:,} requests of that kind, as many as come in its five minutes at "
        f"{answer.asked_before / 300:.0f} a second; these are not counted. Statements and database time are for each "
        f"request. Of the cache: {told}. Hit rate, stale ones not counted, {rate}; database time spared {spared}."
    )
    return table(columns, rows, numeric=columns[1:], note=note)


def without_server(answer: answers.WithoutServer) -> Shown:
    """What an outage of the cache server costs a request."""
    return _sentences(
        [
            f"{answer.requests} requests, none failed. The longest waited {figures.milliseconds(answer.longest_ms)} "
            f"more and the median {figures.milliseconds(answer.median_ms)}; {answer.tried} of them tried to connect, "
            "then the circuit breaker spared the rest the attempt."
        ]
    )


def _sentences(lines: Iterable[str]) -> Shown:
    lines = list(lines)
    return Shown("".join(f"<p>{escape(line)}</p>" for line in lines), "\n".join(lines))


VIEWS: dict[type, Callable[[Any], Shown]] = {
    answers.Advised: advised,
    answers.EnginePerRequest: engine_per_request,
    answers.Swept: swept,
    answers.PoolUsed: pool_used,
    answers.Cached: cached,
    answers.WithoutServer: without_server,
}
"""The view of each answer."""
