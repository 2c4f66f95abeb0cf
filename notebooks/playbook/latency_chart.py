"""The chart of response times while a service was watched: median and p95 of each sample, one panel a service."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from playbook import charts, figures

_HEIGHT_INCHES = 2.9
_MEDIAN, _P95 = {"color": "#0072b2", "marker": "o"}, {"color": "#d55e00", "marker": "v"}

Times = Sequence[tuple[float, float | None, float | None]]
"""Of each sample: seconds since the start, median and p95 in milliseconds; None where nothing was asked."""


def latency_chart(services: Sequence[tuple[str, Times]], limit_ms: float) -> charts.Chart:
    """One panel a service beside each other, on one log axis, with the plan's limit as a line."""
    figure = Figure(figsize=(charts.WIDTH_INCHES, _HEIGHT_INCHES), dpi=charts.DPI, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(services), sharey=True, squeeze=False)[0]
    for axes, (name, times) in zip(panels, services, strict=True):
        axes.set_yscale("log")
        for place, (label, style) in enumerate((("p50", _MEDIAN), ("p95", _P95)), 1):
            drawn = [(each[0], each[place]) for each in times if each[place] is not None]
            axes.plot(*zip(*drawn, strict=True), markersize=4, linewidth=1.4, label=label, **style) if drawn else None
        axes.axhline(limit_ms, color=charts.MUTED, linestyle=":", linewidth=1.2)
        axes.set_title(name, fontsize=10, color=charts.INK, parse_math=False)
        axes.set_xlabel(
            f"seconds; dotted: the limit of {figures.milliseconds(limit_ms)}", fontsize=9, color=charts.MUTED
        )
        axes.grid(axis="y", color=charts.GRID, linewidth=0.8)
        axes.tick_params(labelsize=9, length=0, colors=charts.MUTED)
        for side in axes.spines.values():
            side.set_visible(False)
    panels[0].set_ylabel("a request took (ms)", fontsize=9, color=charts.MUTED)
    panels[-1].legend(frameon=False, fontsize=9)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.9, bottom=0.2, wspace=0.06)
    return charts.Chart(charts.png(figure), _told(services), *charts.pixels(_HEIGHT_INCHES))


def _told(services: Sequence[tuple[str, Times]]) -> str:
    lines = []
    for name, times in services:
        medians, p95s = ([each[place] for each in times if each[place] is not None] for place in (1, 2))
        told = [
            f"{label} up to {figures.milliseconds(max(found))}"
            for label, found in (("p50", medians), ("p95", p95s))
            if found
        ]
        lines.append(f"{name}: {len(times)} samples, {', '.join(told)}")
    return "Response times while the service was watched, log axis:\n" + "\n".join(lines)
