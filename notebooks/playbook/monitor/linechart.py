"""Charts of the dashboard: figures over time as SVG, with what changed as markers and times nobody watched as gaps.

Lines differ by colour and by dashes, and are named where they end; classes stand for colours, which the page's style
sheet sets, since its policy lets no style through that stands in an attribute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from playbook import figures

WIDTH, HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 18, 24
_NUMBER_WIDTH = 26
_STYLES = ("a", "b", "c")
_LEGEND = Markup(
    '<li><svg viewBox="0 0 24 8" width="24" height="8" aria-hidden="true"><path class="line {}" d="M0 4H24"/></svg>'
    "{} <b>{}</b></li>"
)


@dataclass(frozen=True)
class Line:
    """One line: its name and a value for each point in time, None where nothing is known."""

    name: str
    values: tuple[float | None, ...]

    @property
    def last(self) -> float | None:
        """The latest value that is known."""
        return next((value for value in reversed(self.values) if value is not None), None)

    @property
    def highest(self) -> float | None:
        """The highest value."""
        return max((value for value in self.values if value is not None), default=None)


@dataclass(frozen=True)
class Marker:
    """Something that was changed at a moment, by its number in the list of changes."""

    at: float
    number: int


@dataclass(frozen=True)
class Frame:
    """What all charts of a page have in common: the time shown, the points' moments, markers and gaps."""

    since: float
    until: float
    at: tuple[float, ...]
    markers: tuple[Marker, ...] = ()
    gaps: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Scale:
    """The axis of values: a unit to write them in, logarithmic or not, up to where at least, and a limit to draw."""

    write: Callable[[float | None], str]
    log: bool = False
    least: float = 0.0
    limit: float | None = None


def line_chart(key: str, title: str, frame: Frame, lines: Sequence[Line], scale: Scale) -> Markup:
    """The chart with its words: what it shows, and of each line the latest value and the highest."""
    known = [line for line in lines if line.last is not None]
    told = "; ".join(
        f"{line.name}: latest {scale.write(line.last)}, highest {scale.write(line.highest)}" for line in known
    )
    if not known:
        return Markup('<p class="none">{}: {}.</p>').format(title, figures.NOT_MEASURED)
    axis = _Axis.around(frame, known, scale)
    body = [*_gaps(frame, axis), *_grid(frame, axis, scale), *_limit(axis, scale), *_lines(frame, known, axis)]
    body += _markers(frame, axis)
    legend = Markup("").join(
        _LEGEND.format(_STYLES[place % 3], line.name, scale.write(line.last)) for place, line in enumerate(known)
    )
    return Markup(
        '<figure class="chart"><figcaption id="c-{key}">{title}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="c-{key} d-{key}">'
        '<desc id="d-{key}">{told}</desc>{body}</svg><ul class="legend">{legend}</ul></figure>'
    ).format(key=key, title=title, width=WIDTH, height=HEIGHT, told=told, body=Markup("").join(body), legend=legend)


@dataclass(frozen=True)
class _Axis:
    since: float
    until: float
    low: float
    high: float
    log: bool

    @classmethod
    def around(cls, frame: Frame, lines: Sequence[Line], scale: Scale) -> _Axis:
        values = [value for line in lines for value in line.values if value is not None]
        high = max([*values, scale.least, scale.limit or 0.0]) or 1.0
        if not scale.log:
            return cls(frame.since, frame.until, 0.0, high * 1.08 if high > scale.least else high, log=False)
        positive = [value for value in values if value > 0] or [1.0]
        low = 10 ** math.floor(math.log10(min(positive)))
        return cls(frame.since, frame.until, low, 10 ** math.ceil(math.log10(max(high, low * 10)) - 1e-9), log=True)

    def x(self, at: float) -> float:
        share = (at - self.since) / (self.until - self.since)
        return round(_LEFT + min(max(share, 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = value / self.high
        return round(HEIGHT - _BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM), 1)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            step = max(1, math.ceil((last - first) / 4))
            return [10.0**power for power in range(first, last + 1, step)]
        raw = self.high / 4
        unit = 10 ** math.floor(math.log10(raw))
        step = next(each * unit for each in (1, 2, 2.5, 5, 10) if each * unit >= raw)
        return [step * place for place in range(int(self.high / step) + 1)]


def _grid(frame: Frame, axis: _Axis, scale: Scale) -> Iterable[Markup]:
    right = WIDTH - _RIGHT
    for tick in axis.ticks():
        y = axis.y(tick)
        yield Markup(
            '<path class="grid" d="M{} {}H{}"/><text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
        ).format(_LEFT, y, right, _LEFT - 5, y + 4, _bare(scale.write(tick)))
    for share in (0.0, 0.5, 1.0):
        at = frame.since + share * (frame.until - frame.since)
        anchor = {0.0: "start", 0.5: "middle", 1.0: "end"}[share]
        yield Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            axis.x(at), HEIGHT - 7, anchor, moment(at, frame.until - frame.since)
        )


def _bare(written: str) -> str:
    """A figure without the zeros behind its point, as a tick needs it: `20.0 ms` is `20 ms`."""
    number, _, unit = written.partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {unit}".rstrip()


def moment(at: float, span_s: float) -> str:
    """A moment in UTC: the time of day, with its seconds in a short span, with the day in a long one."""
    when = datetime.fromtimestamp(at, UTC)
    if span_s <= 3600:
        return f"{when:%H:%M:%S}"
    return f"{when:%H:%M}" if span_s <= 86_400 else f"{when.day} {when:%b %H:%M}"


def _limit(axis: _Axis, scale: Scale) -> Iterable[Markup]:
    if scale.limit is not None:
        y = axis.y(scale.limit)
        yield Markup(
            '<path class="limit" d="M{} {}H{}"/><text class="tick" x="{}" y="{}" text-anchor="end">limit {}</text>'
        ).format(_LEFT, y, WIDTH - _RIGHT, WIDTH - _RIGHT, y - 3, _bare(scale.write(scale.limit)))


def _lines(frame: Frame, lines: Sequence[Line], axis: _Axis) -> Iterable[Markup]:
    for place, line in enumerate(lines):
        pieces: list[list[str]] = []
        ended_before = True
        for at, value in zip(frame.at, line.values, strict=True):
            if value is None:
                continue
            if any(
                begun <= at and at - ended < (frame.until - frame.since) / len(frame.at) for begun, ended in frame.gaps
            ):
                ended_before = True
            if ended_before:
                pieces.append([])
            pieces[-1].append(f"{axis.x(at)} {axis.y(value)}")
            ended_before = False
        # A piece of one point would not be seen.
        drawn = "".join(f"M{'L'.join(piece)}{'' if piece[1:] else 'h0.1'}" for piece in pieces)
        yield Markup('<path class="line {}" d="{}"/>').format(_STYLES[place % 3], drawn)


def _gaps(frame: Frame, axis: _Axis) -> Iterable[Markup]:
    for begun, ended in frame.gaps:
        left, right = axis.x(begun), axis.x(ended)
        if right - left > 0.5:
            yield Markup(
                '<rect class="gap" x="{}" y="{}" width="{}" height="{}"><title>nobody watched</title></rect>'
            ).format(left, _TOP, round(right - left, 1), HEIGHT - _TOP - _BOTTOM)


def _markers(frame: Frame, axis: _Axis) -> Iterable[Markup]:
    together: list[list[tuple[float, int]]] = []
    for marker in frame.markers:
        if not frame.since <= marker.at <= frame.until:
            continue
        x = axis.x(marker.at)
        yield Markup('<path class="marker" d="M{} {}V{}"/>').format(x, _TOP, HEIGHT - _BOTTOM)
        if not together or x - together[-1][-1][0] > _NUMBER_WIDTH:  # numbers must not lie on each other
            together.append([])
        together[-1].append((x, marker.number))
    for group in together:
        (first, number), (last, until) = group[0], group[-1]
        middle = min((first + last) / 2, WIDTH - _RIGHT - _NUMBER_WIDTH / 2)
        text = f"{number}" if number == until else f"{number}\N{EN DASH}{until}"
        yield Markup('<text class="marker-text" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            round(middle, 1), _TOP - 5, text
        )
