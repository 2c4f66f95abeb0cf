"""The plan's targets, held against what was measured: met, missed, or not measured and why.

The thresholds stand in the plan file under `targets:`. Each is judged by the figure of its own name in a run's metrics;
where a run has measured the same under another name too, that one stands in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from playbook.plan.model import TargetFigure
from playbook.results import Limit

STANDS_IN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "api_p95_ms": (
        ("api_p95_ms_optimized", "of the service with the techniques that are applied, under the same load"),
    )
}
"""What may stand in for a target's own figure: its name in the metrics, and what it is of."""
NOBODY = "no notebook of this run measured it; 05_monitoring does"


def judge(
    targets: Iterable[TargetFigure], metrics: Mapping[str, float | None], reasons: Mapping[str, str] | None = None
) -> list[Limit]:
    """Each target in the plan's order. A figure that lies at its limit has not met it.

    `reasons` say, by the target's name, under which circumstances a figure was measured, or why it was not.
    """
    return [_judged(target, metrics, reasons or {}) for target in targets]


def complete(
    targets: Iterable[TargetFigure], judged: Iterable[Mapping[str, Any]], metrics: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """The targets as results.json lists them: as a notebook `judged` them, the others by the run's metrics."""
    known = {row["name"]: dict(row) for row in judged if row.get("met") is not None}
    told = {row["name"]: row.get("reason", "") for row in judged}
    return [known.get(each.name) or each.model_dump() for each in judge(targets, metrics, told)]


def _judged(target: TargetFigure, metrics: Mapping[str, float | None], reasons: Mapping[str, str]) -> Limit:
    value, reason = _measured(target.name, metrics)
    reason = reasons.get(target.name) or reason
    met = None if value is None else value < target.limit if target.bound == "below" else value > target.limit
    return Limit(
        name=target.name,
        title=target.title,
        unit=target.unit,
        bound=target.bound,
        limit=target.limit,
        value=value,
        met=met,
        reason=reason if met is not None else reason or NOBODY,
    )


def _measured(name: str, metrics: Mapping[str, float | None]) -> tuple[float | None, str]:
    for metric, what in ((name, ""), *STANDS_IN.get(name, ())):
        value = metrics.get(metric)
        if value is not None and math.isfinite(value):
            return value, what
    return None, ""
