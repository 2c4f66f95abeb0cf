"""Bars for notebooks: amounts side by side, each in up to two parts, drawn by matplotlib and told in words as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from playbook import charts
from playbook.charts import Chart

# Okabe and Ito's blue and orange; the second part is hatched too, for those who see neither.
_PARTS: tuple[dict[str, Any], ...] = (
    {"facecolor": "#0072b2"},
    {"facecolor": "#e69f00", "hatch": "////", "edgecolor": "white", "linewidth": 0},
)


@dataclass(frozen=True)
class Bar:
    """A bar: what it stands for, its parts in one unit, and the figure to write at its end."""

    label: str
    parts: tuple[float, ...]
    figure: str


@dataclass(frozen=True)
class Unit:
    """The unit that an axis is marked in; amounts are divided by `size` for it."""

    name: str
    size: float


def bar_chart(title: str, bars: Sequence[Bar], unit: Unit, parts: Sequence[str] = ()) -> Chart:
    """The bars in the order given, the first one on top; `parts` says what the parts of each are."""
    height = charts.REST_INCHES + charts.ROW_INCHES * (len(bars) + (1 if parts else 0))
    figure = Figure(figsize=(charts.WIDTH_INCHES, height), dpi=charts.DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.38, 0.35 / height, 0.36, 1 - 0.75 / height))
    axes.set_ylim(len(bars) - 0.4, -0.6 - (1 if parts else 0))
    for place, bar in enumerate(bars):
        _draw(axes, place, bar, unit)
    _dress(axes, unit)
    _legend(axes, parts)
    figure.text(0.02, 1 - 0.3 / height, title, fontsize=10, color=charts.INK, parse_math=False)
    words = "\n".join(f"{bar.label}: {bar.figure}" for bar in bars)
    return Chart(charts.png(figure), f"{title}:\n{words}", *charts.pixels(height))


def _draw(axes: Axes, place: int, bar: Bar, unit: Unit) -> None:
    start = 0.0
    for amount, style in zip(bar.parts, _PARTS, strict=False):
        axes.barh(place, amount / unit.size, left=start, height=0.62, **style)
        start += amount / unit.size
    beside = {"va": "center", "fontsize": 9, "color": charts.INK, "parse_math": False}
    across = axes.get_yaxis_transform()
    axes.text(-0.02, place, charts.shortened(bar.label), ha="right", transform=across, **beside)
    axes.text(1.03, place, bar.figure, ha="left", transform=across, **beside)


def _dress(axes: Axes, unit: Unit) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:g} {unit.name}")
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=charts.MUTED, labelsize=9, length=0)
    axes.grid(axis="x", color=charts.GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(axes: Axes, parts: Sequence[str]) -> None:
    across = axes.get_yaxis_transform()
    for number, (part, style) in enumerate(zip(parts, _PARTS, strict=False)):
        left = 0.02 + 0.5 * number
        axes.add_patch(Rectangle((left, -1.3), 0.04, 0.6, transform=across, **style))
        axes.text(left + 0.06, -1, part, va="center", fontsize=9, color=charts.INK, transform=across)
