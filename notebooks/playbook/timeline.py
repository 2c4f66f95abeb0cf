"""The chart of a change under load: each write's latency, and under it the locks that the change had on the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from playbook import charts, figures
from playbook.evidence.live import POLL_S, Lock, Timeline

_HEIGHT_INCHES = 3.6
_WRITES, _STRONG, _WEAK = "#0072b2", "#d55e00", "#009e73"
"""Okabe and Ito's colours: writes, locks that stop writers, and locks that do not."""
_LANES = ("ShareUpdateExclusive", "AccessExclusive")
_NAMES = {"ShareUpdateExclusive": "SHARE UPDATE EXCLUSIVE", "AccessExclusive": "ACCESS EXCLUSIVE"}


def timeline_chart(timeline: Timeline) -> charts.Chart:
    """Latency of every write over time, on a log axis, with the spans in which the change held or awaited a lock."""
    figure = Figure(figsize=(charts.WIDTH_INCHES, _HEIGHT_INCHES), dpi=charts.DPI, facecolor="white")
    FigureCanvasAgg(figure)
    above = figure.add_axes((0.22, 0.42, 0.74, 0.54))
    below = figure.add_axes((0.22, 0.15, 0.74, 0.19), sharex=above)
    _latencies(above, timeline)
    _locks(below, timeline)
    return charts.Chart(charts.png(figure), told(timeline), *charts.pixels(_HEIGHT_INCHES))


def told(timeline: Timeline) -> str:
    """The chart in words."""
    words = [f"{len(timeline.writes):,} writes in {timeline.seconds:.1f} s, {len(timeline.failed)} of them refused"]
    words.append(f"the slowest took {figures.milliseconds(timeline.worst_ms)}")
    for mode in _LANES:
        seconds = sum(end - start for start, end, granted in _spans(timeline.locks, mode) if granted)
        words.append(f"{_NAMES[mode]} was seen held for {figures.milliseconds(1000 * seconds)} in all")
    if timeline.difference is not None:
        words.append(f"{timeline.rows:,} rows compared with the twin table, {timeline.difference} differ")
    return "; ".join(words)


def _latencies(axes: Axes, timeline: Timeline) -> None:
    axes.set_yscale("log")
    axes.plot(
        [write.at_s for write in timeline.writes],
        [write.ms for write in timeline.writes],
        linestyle="none",
        marker=".",
        markersize=3,
        color=_WRITES,
    )
    axes.set_ylabel("a write took (ms)", color=charts.MUTED, fontsize=9)
    axes.grid(axis="y", color=charts.GRID, linewidth=0.8)
    axes.tick_params(labelbottom=False, labelsize=9, length=0, colors=charts.MUTED)
    _bare(axes)


def _locks(axes: Axes, timeline: Timeline) -> None:
    for lane, mode in enumerate(_LANES):
        for start, end, granted in _spans(timeline.locks, mode):
            colour = _STRONG if mode == "AccessExclusive" else _WEAK
            style = {"color": colour} if granted else {"facecolor": "white", "edgecolor": colour, "hatch": "////"}
            axes.barh(lane, max(end - start, POLL_S), left=start, height=0.6, **style)
    axes.set_yticks(range(len(_LANES)), [_NAMES[mode] for mode in _LANES])
    axes.set_ylim(-0.6, len(_LANES) - 0.4)
    axes.set_xlim(0, max(timeline.seconds, 0.1))
    axes.set_xlabel("seconds; locks of the change on the table (hatched: waited for)", color=charts.MUTED, fontsize=9)
    axes.tick_params(labelsize=9, length=0, colors=charts.MUTED)
    _bare(axes)


def _bare(axes: Axes) -> None:
    for side in axes.spines.values():
        side.set_visible(False)


def _spans(locks: Iterable[Lock], mode: str) -> Iterator[tuple[float, float, bool]]:
    """Moments at which a lock was seen, joined where no more than three looks lie between them."""
    for granted in (True, False):
        seen = sorted(lock.at_s for lock in locks if lock.mode == mode and lock.granted is granted)
        start = end = None
        for at in seen:
            if end is not None and at - end > 3 * POLL_S + 0.01:
                yield start or 0.0, end, granted
                start = None
            start, end = at if start is None else start, at
        if start is not None and end is not None:
            yield start, end + POLL_S, granted
