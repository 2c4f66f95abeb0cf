"""How what was watched looks in a notebook: figures side by side, targets with what lies behind a miss, a chart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from playbook import figures, show
from playbook.monitor import observation
from playbook.monitor.observation import Judged, Kept, SideBySide, TwoLines, Watched
from playbook.results import shown
from playbook.table import FRAME, Cell, Row, Shown, folded, number, table

_FIGURES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("average query time", "average_query_time", figures.milliseconds),
    ("slow queries", "slow_query_count", figures.count),
    ("connections in use, mean", "connection_pool_utilization", figures.percent),
    ("connections in use, peak", "connection_pool_peak", figures.percent),
    ("result cache hits", "cache_hit_rate", figures.percent),
    ("buffer cache hits", "buffer_cache_hit_rate", figures.percent),
    ("queries", "total_queries", figures.count),
    ("errors", "error_rate", figures.percent),
)


def two_lines(answer: TwoLines) -> Shown:
    """The code, to be copied."""
    return Shown(str(Markup('<pre style="{}">{}</pre>').format(FRAME, answer.code)), answer.code)


def side_by_side(answer: SideBySide) -> Shown:
    """The plan's six figures, a column for each side of each service."""
    columns, sides = ["figure"], []
    for watched in answer.sides:
        for metrics in watched.period.metrics():
            columns.append(f"{watched.side}, {metrics.source}")
            sides.append(metrics)
    rows = [
        Row((Cell(title, head=True), *(number(write(getattr(side, name))) for side in sides)))
        for title, name, write in _FIGURES
    ]
    last = answer.sides[-1]
    note = f"Watched for {figures.duration(last.period.seconds)}: {last.load}."
    said = [f"{text} ({times} samples)" for text, times in last.period.notes().items()]
    return table(columns, rows, numeric=columns[1:], note=" ".join([note, *said]))


def judged(answer: Judged) -> Shown:
    """The targets; below them the statements that took the most time, where one was missed."""
    held = show.targets_table(answer.targets)
    slowest = next((each.slowest for each in answer.targets if each.met is False and each.slowest), ())
    if not slowest:
        return held
    opened = Markup("").join(
        folded(f"{each.head}: {shown(each.text)}", Markup('<pre style="{}">{}</pre>').format(FRAME, each.plan))
        for each in slowest
    )
    text = "\n\n".join(f"{each.head}\n{shown(each.text)}\n{each.plan}" for each in slowest)
    html = f"{held.html}<p>Behind what was missed, the statements that took the most time:</p>{opened}"
    return Shown(html, f"{held.text}\n\n{text}")


def kept(answer: Kept) -> Shown:
    """One line for each run that is kept."""
    if not answer.runs:
        text = f"No run is kept yet in {answer.place}; `playbook run` keeps each one that it ends."
        return Shown(f"<p>{escape(text)}</p>", text)
    columns = ("run", "ended", "proven faster", "API p95", "query time", "cache hits", "pool peak")
    rows = []
    for run, told in answer.runs:
        faster = f"{told.get('faster', 0)} of {told.get('compared', 0)}" if told else figures.NOT_MEASURED
        rows.append(
            Row(
                (
                    Cell(run.run_id, "the baseline" if run.baseline else "", head=True),
                    Cell(f"{datetime.fromtimestamp(run.at, UTC):%Y-%m-%d %H:%M}"),
                    number(faster),
                    number(figures.milliseconds(told.get("api_p95_ms"))),
                    number(figures.milliseconds(told.get("database_average_query_ms"))),
                    number(figures.percent(told.get("cache_hit_rate_pct"))),
                    number(figures.percent(told.get("pool_peak_utilization_pct"))),
                )
            )
        )
    note = f"{answer.samples:,} samples are kept beside them, in {answer.place}."
    return table(columns, rows, numeric=columns[2:], note=note)


def trend_chart(answer: SideBySide, limit_ms: float = 200.0) -> Any:
    """Response times while each side was watched, on a log axis; a sentence where no request was seen."""
    drawn = [watched for watched in answer.sides if any(taken.sample.requests for taken in watched.period.samples)]
    if not drawn:
        text = "No request was seen, so there is no response time to draw."
        return Shown(f"<p>{text}</p>", text)
    from playbook import latency_chart  # here, since matplotlib takes a second to import

    return latency_chart.latency_chart([(watched.side, _times(watched)) for watched in drawn], limit_ms)


def _times(watched: Watched) -> list[tuple[float, float | None, float | None]]:
    """Seconds since the start, p50 and p95 in milliseconds, of each sample."""
    found, seconds = [], 0.0
    for taken in watched.period.samples:
        seconds += taken.sample.seconds
        asked = taken.application.request_latencies if taken.application else None
        if asked is not None:
            found.append((seconds, asked.percentile_ms(50), asked.percentile_ms(95)))
    return found


VIEWS: dict[type, Callable[[Any], Shown]] = {
    observation.TwoLines: two_lines,
    observation.SideBySide: side_by_side,
    observation.Judged: judged,
    observation.Kept: kept,
}
"""The view of each answer."""
