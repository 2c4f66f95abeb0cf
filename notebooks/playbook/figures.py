"""How a figure is written: with its unit, in three significant digits, and never as 0 when it was not measured."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOT_MEASURED = "not measured"
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"
ARROW = "\N{RIGHTWARDS ARROW}"

_UNITS = {"pct": "%", "ms": "ms", "bytes": "bytes", "seconds": "s", "s": "s", "rps": "per s"}
_NOUNS = ("statements", "rows", "connections", "errors")
_EACH = "_per_request"
_SMALLEST = 0.0001


def milliseconds(value: float | None) -> str:
    """`41.2 ms`."""
    return NOT_MEASURED if value is None else f"{significant(value)} ms"


def times(value: float | None) -> str:
    """A ratio such as a speed-up; above 1 is faster."""
    return NOT_MEASURED if value is None else f"{significant(value)}{TIMES}"


def interval(bounds: tuple[float, float] | None) -> str:
    """The 95 % interval of a ratio, both bounds written as ratios."""
    return NOT_MEASURED if bounds is None else f"[{times(bounds[0])}, {times(bounds[1])}]"


def size(bytes_: float | None) -> str:
    """Bytes in powers of 1024 under the names that `pg_size_pretty` uses; negative when room was won back."""
    if bytes_ is None:
        return NOT_MEASURED
    value, unit = abs(bytes_), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        # 1023.6 would be written 1,024 of the smaller unit.
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    digits = f"{value:,.0f}" if unit == "bytes" else significant(value)
    return f"{MINUS if bytes_ < 0 else ''}{digits} {unit}"


def percent(value: float | None, *, change: bool = False) -> str:
    """`4.10 %`; a change carries its sign."""
    if value is None:
        return NOT_MEASURED
    return f"{_signed(value) if change else significant(value)} %"


def write_cost(pct: float | None, ci95: tuple[float, float] | None) -> str:
    """`+3.20 % [−1.10, +7.40]`: how much longer a write takes, with its 95 % interval where there is one."""
    within = f" [{_signed(ci95[0])}, {_signed(ci95[1])}]" if pct is not None and ci95 else ""
    return percent(pct, change=True) + within


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{significant(value)}"


def count(value: float | None, unit: str = "") -> str:
    """A whole number with its thousands parted."""
    return NOT_MEASURED if value is None else f"{value:,.0f} {unit}".rstrip()


def duration(seconds: float | None) -> str:
    """`0.420 s`, `12.3 s`, `2 min 13 s`, `1 h 04 min`."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 59.5:
        return f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def named(name: str, value: float | None, unit: str = "") -> str:
    """A figure whose unit is the last that its name holds (`api_p95_ms_as_found`), unless `unit` says it."""
    if value is None:
        return NOT_MEASURED
    counted, each = name.partition(_EACH)[0].rpartition("_")[2], ""
    if not unit and _EACH in name and (counted in _UNITS or counted in _NOUNS):
        unit, each = counted, " per request"
    unit = _UNITS.get(unit, unit) or _unit(name)
    if unit == "bytes":
        return size(value) + each
    digits = f"{value:,.0f}" if float(value).is_integer() else significant(value)
    return f"{digits} {unit}".rstrip() + each


def _unit(name: str) -> str:
    words = reversed(name.split("_"))
    return next((_UNITS.get(word, word) for word in words if word in _UNITS or word in _NOUNS), "")


def moment(text: str) -> str:
    """An ISO 8601 time as `22 November 2026, 21:05 UTC`; what cannot be read as one comes back as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is None:
        return f"{when.day} {when:%B %Y, %H:%M}"
    when = when.astimezone(UTC)
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def significant(value: float) -> str:
    """`value` in three significant digits, thousands parted, four decimals at most."""
    if value == 0:
        return "0"
    sign, value = (MINUS if value < 0 else ""), abs(value)
    if value < _SMALLEST:
        return f"{sign}{_SMALLEST}" if sign else f"< {_SMALLEST}"
    rounded = float(f"{value:.3g}")
    if rounded >= 1000:
        return f"{sign}{value:,.0f}"
    decimals = min(4, 2 - math.floor(math.log10(rounded)))
    return f"{sign}{value:.{decimals}f}"
