"""Charts for notebooks: drawn by matplotlib without a window, displayed once, told in words as well."""

from __future__ import annotations

import warnings
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from playbook import figures
from playbook.axis import LogAxis
from playbook.results import Comparison

DPI = 100
WIDTH_INCHES = 9.6
ROW_INCHES = 0.3
REST_INCHES = 0.95
"""What a chart takes above and below its rows."""
_COLOURS = 64
_LONGEST_LABEL = 46
INK, MUTED, GRID = "#1b1f24", "#57606a", "#d5dae0"

# Okabe and Ito's colours; each verdict has a shape of its own too.
_MARKS: dict[str, dict[str, Any]] = {
    "faster": {"marker": "o", "color": "#0072b2"},
    "slower": {"marker": "v", "color": "#d55e00"},
    "no gain": {"marker": "D", "color": MUTED, "markersize": 5},
    "unproven": {"marker": "o", "color": MUTED, "markerfacecolor": "white"},
    "unstable": {"marker": "x", "color": "#8a6100", "markeredgewidth": 2},
}


@dataclass(frozen=True)
class Chart:
    """A chart as PNG at twice its size, `width` by `height` pixels, with what it shows in words."""

    png: bytes = field(repr=False)
    alt: str
    width: int
    height: int

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"image/png": b64encode(self.png).decode("ascii"), "text/plain": self.alt}
        return data, {"image/png": {"width": self.width, "height": self.height, "alt": self.alt}}

    def __repr__(self) -> str:
        return self.alt

    @property
    def html(self) -> str:
        """The chart as an `img` with its alternative text, for pages that are not notebooks."""
        source = "data:image/png;base64," + b64encode(self.png).decode("ascii")
        image = Markup('<img src="{}" width="{}" alt="{}" style="max-width: 100%;">')
        return str(image.format(source, self.width, self.alt))


def speedup_chart(comparisons: Sequence[Comparison]) -> Chart:
    """The speed-ups of comparisons with their 95 % intervals on a log axis, in the order given.

    Those without a speed-up are counted under the chart and named in its words; one at least has to have one.
    """
    drawn = [each for each in comparisons if each.speedup]
    missing = [each.label for each in comparisons if each not in drawn]
    alt = "\n".join([_told(each) for each in drawn] + [f"{label}: {figures.NOT_MEASURED}" for label in missing])
    height = REST_INCHES + ROW_INCHES * len(drawn)
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _draw(figure, drawn, len(missing))
    return Chart(png(figure), f"Speed-ups with 95 % intervals, log axis:\n{alt}", *pixels(height))


def _draw(figure: Figure, comparisons: Sequence[Comparison], missing: int) -> None:
    axis = LogAxis.around(value for each in comparisons for value in (each.speedup or 1, *(each.ci95 or ())))
    height = figure.get_figheight()
    axes = figure.add_axes((0.345, 0.5 / height, 0.36, 1 - 0.8 / height))
    axes.set_xscale("log")
    axes.set_xlim(axis.low, axis.high)
    axes.set_ylim(len(comparisons) - 0.4, -0.6)
    _dress(axes, axis, missing)
    for number, each in enumerate(comparisons):
        _mark(axes, number, each)


def _dress(axes: Axes, axis: LogAxis, missing: int) -> None:
    axes.set_xticks(axis.ticks, [f"{tick:g}{figures.TIMES}" for tick in axis.ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=MUTED, labelsize=9, length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.axvline(1, color=MUTED, linewidth=1.1)
    for side in axes.spines.values():
        side.set_visible(False)
    plural = "s" if missing != 1 else ""
    rest = f"; {missing} comparison{plural} not measured" if missing else ""
    axes.set_xlabel(f"time before / time after, right of 1{figures.TIMES} is faster{rest}", color=MUTED, fontsize=9)
    axes.set_axisbelow(True)


def _mark(axes: Axes, place: int, comparison: Comparison) -> None:
    style = {"markersize": 6.5, "linestyle": "none", **_MARKS.get(comparison.verdict, {"marker": "s", "color": MUTED})}
    if comparison.ci95:
        axes.plot(comparison.ci95, (place, place), color=style["color"], linewidth=1.8, marker="|", markersize=8)
    axes.plot([comparison.speedup], [place], **style)
    beside = {
        "va": "center",
        "fontsize": 9,
        "color": INK,
        "transform": axes.get_yaxis_transform(),
        "parse_math": False,
    }
    axes.text(-0.03, place, shortened(comparison.label), ha="right", **beside)
    within = f"{figures.times(comparison.speedup)}  {figures.interval(comparison.ci95) if comparison.ci95 else ''}"
    axes.text(1.03, place, within, ha="left", **beside)
    axes.text(1.59, place, comparison.verdict, ha="left", **beside)


def shortened(label: str) -> str:
    """The label on one line; a long one keeps its start and its end, where its bind stands."""
    label = " ".join(label.split())
    if len(label) <= _LONGEST_LABEL:
        return label
    return f"{label[: _LONGEST_LABEL - 17]}\N{HORIZONTAL ELLIPSIS}{label[-16:]}"


def _told(comparison: Comparison) -> str:
    within = f" {figures.interval(comparison.ci95)}" if comparison.ci95 else ""
    return f"{comparison.label}: {figures.times(comparison.speedup)}{within} {comparison.verdict}"


def png(figure: Figure) -> bytes:
    """The figure as a PNG file at twice its size."""
    file = BytesIO()
    with warnings.catch_warnings():
        # A query may be named in a script that the font lacks: its boxes are in the chart, its name in the words.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="png", dpi=2 * DPI)
    small = BytesIO()
    # A third of the size, for notebooks that are committed with their outputs; max coverage keeps every hue.
    few = Image.open(file).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True)
    return small.getvalue()


def pixels(height: float) -> tuple[int, int]:
    """Width and height as shown, of a chart that is `height` inches high."""
    return round(WIDTH_INCHES * DPI), round(height * DPI)
