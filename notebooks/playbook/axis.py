"""The log axis that speed-ups are drawn on: a gain of 4 stands as far from 1 as a loss to a quarter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_MARGIN = 0.04
_MOST_TICKS = 8


@dataclass(frozen=True)
class LogAxis:
    """An axis from `low` to `high` (ratios, both above 0), which always holds 1."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float]) -> LogAxis:
        """The axis that shows all `values`, at least from a half to the double."""
        known = [value for value in values if value > 0 and math.isfinite(value)]
        low, high = min([0.5, *known]), max([2.0, *known])
        margin = (high / low) ** _MARGIN
        return cls(low / margin, high * margin)

    def at(self, value: float) -> float:
        """Where `value` stands: 0 at the low end, 1 at the high end, cut off there."""
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))

    @property
    def ticks(self) -> list[float]:
        """Round ratios to label; 1 is among them."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1, 2, 5), (1,)):
            ticks = [digit * 10.0**decade for decade in decades for digit in digits]
            inside = [tick for tick in ticks if self.low <= tick <= self.high]
            if len(inside) <= _MOST_TICKS:
                return inside
        return [tick for tick in inside if round(math.log10(tick)) % math.ceil(len(inside) / _MOST_TICKS) == 0]
