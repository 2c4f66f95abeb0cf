"""What the plan expects of itself, and what came of it: a promise is kept only with the whole of its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playbook.plan.model import ExpectedImprovement

if TYPE_CHECKING:
    from playbook.service.whole import Reduction


@dataclass(frozen=True)
class Promises:
    """What the plan expects, before anything is measured."""

    expected: tuple[ExpectedImprovement, ...]


@dataclass(frozen=True)
class Promise:
    """What the plan expects and what came of it, in per cent; `reason` tells where the value is from, or why it lacks.

    `met` is None where it was not measured, and where the 95 % interval holds the limit: then it is unproven.
    """

    expected: ExpectedImprovement
    value: float | None
    ci95: tuple[float, float] | None
    met: bool | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As `results.json` lists it."""
        return {
            "name": self.expected.name,
            "title": self.expected.title,
            "low": self.expected.low,
            "high": self.expected.high,
            "unit": "%",
            "value": None if self.value is None else round(self.value, 2),
            "ci95": None if self.ci95 is None else [round(end, 2) for end in self.ci95],
            "met": self.met,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Expected:
    """The plan's promises, each judged."""

    promises: tuple[Promise, ...]


def judged(expected: ExpectedImprovement, fell: Reduction, words: str) -> Promise:
    """What was expected against how far a figure fell: met only with the whole of its 95 % interval."""
    if fell.pct is None:
        return Promise(expected, None, None, None, f"{words}: too few requests to tell")
    ci95 = fell.ci95
    low, high = ci95 or (fell.pct, fell.pct)
    met = True if low >= expected.low else (False if high < expected.low else None)
    reason = words if met is not None else f"{words}; unproven: its 95 % interval holds {expected.low:g} %"
    return Promise(expected, fell.pct, ci95, met, reason)
