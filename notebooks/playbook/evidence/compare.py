"""Before and after, query by query: what the rounds, buffers, plans and rows say of a step, and whether it stays."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar

from playbook.evidence.explain import Plan
from playbook.evidence.measure import Measurement
from playbook.evidence.rows import SameRows
from playbook.evidence.statistics import MIN_ROUNDS, Drift, Judgement, Verdict, drift, judge

Keep = Literal["if_faster", "always"]
Measured = TypeVar("Measured")
AGAIN = 1
"""How often the phase after a change is measured once more at most."""
NEAREST = 5
"""How many controls a query is judged beside: those that take most nearly as long as it does."""
Case = tuple[str, str]
"""A query and its bind, which together name one measurement of a phase."""

RESULT_FIELDS = (
    "step",
    "query",
    "bind",
    "rounds",
    "before_ms",
    "after_ms",
    "speedup",
    "ci95",
    "before_buffers",
    "after_buffers",
    "before_nodes",
    "after_nodes",
    "same_rows",
    "same_rows_reason",
    "verdict",
)
"""The fields of a comparison in results.json, in their order."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One query before and after a step. What was not measured is None, and `reason` says why the verdict is this.

    `rounds` is the number on the side that has fewer, milliseconds are medians over all rounds, `speedup` is
    before / after of these. The plans are texts made for a diff, with literals masked. `now_ms` is the median of a
    later run, beside the evidence that the journal kept; times of different days are shown and not compared.
    """

    step: str
    query: str
    bind: str
    rounds: int
    before_ms: float | None
    after_ms: float | None
    speedup: float | None
    ci95: tuple[float, float] | None
    before_buffers: int | None
    after_buffers: int | None
    before_nodes: tuple[str, ...]
    after_nodes: tuple[str, ...]
    same_rows: bool | None
    same_rows_reason: str
    verdict: Verdict
    reason: str
    before_plan: str = ""
    after_plan: str = ""
    before_hash: str | None = None
    after_hash: str | None = None
    before_indexes: tuple[str, ...] = ()
    after_indexes: tuple[str, ...] = ()
    now_ms: float | None = None

    @property
    def label(self) -> str:
        """`events_of_user (rare)`."""
        return f"{self.query} ({self.bind})"

    @property
    def same_plan(self) -> bool | None:
        """Whether nodes, indexes and conditions are the same on both sides; None where a plan is missing."""
        return self.before_plan == self.after_plan if self.before_plan and self.after_plan else None

    def with_rows(self, found: SameRows) -> Comparison:
        """This comparison with what came of comparing the rows."""
        return replace(self, same_rows=found.equal, same_rows_reason=found.reason)

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON values, those of results.json (`RESULT_FIELDS`) first."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Comparison:
        """The comparison that `to_json` wrote."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in kept.items()})


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a step stays. `failed` when its rows differ: then the run fails, whatever the times say."""

    keep: bool
    reason: str
    failed: bool = False


def compare(
    before: Iterable[Measurement],
    after: Iterable[Measurement],
    *,
    controls: Collection[str],
    step_of: Mapping[str, str] | None = None,
    by_plan: bool = True,
    rows: Mapping[Case, SameRows] | None = None,
) -> tuple[Comparison, ...]:
    """Compares every query of `before` that is not a control, in that order.

    `controls` names the queries that the step cannot affect: they tell a moved machine from a moved query, and are
    not compared themselves. Without any, nothing is called faster, slower or `no gain`. `step_of` names the step that a
    query is compared for. `by_plan` holds for steps that work through the plan alone (index, check, not_null): where
    the plan stayed the same, such a step cannot have made the query faster.
    """
    pairs = _pairs(before, after)
    measured = [pair for pair in pairs if _is_control(*pair, controls) and _rounds(pair) >= MIN_ROUNDS]
    beside = cache(lambda places: drift([(measured[place][0].blocks, measured[place][1].blocks) for place in places]))
    return tuple(
        _comparison(
            first, second, beside(_nearest(first, measured)), (step_of or {}).get(first.query, ""), by_plan, rows or {}
        )
        for first, second in pairs
        if first.query not in controls
    )


def machine_drift(before: Iterable[Measurement], after: Iterable[Measurement], *, controls: Collection[str]) -> Drift:
    """What the controls say of the machine between the two phases."""
    pairs = [pair for pair in _pairs(before, after) if _is_control(*pair, controls)]
    return drift([(first.blocks, second.blocks) for first, second in pairs])


def steadiest(measure_after: Callable[[], Measured], drift_to: Callable[[Measured], Drift]) -> Measured:
    """The phase after a change, measured up to `AGAIN` times more while the machine's pace may hide what was gained.

    Kept is the one that ran at a pace nearest to that before. Only the controls decide, which know nothing of the step,
    so this favours no verdict.
    """
    found = measure_after()
    moved = drift_to(found)
    for _ in range(AGAIN):
        if not moved.hides:
            break
        again = measure_after()
        if (moved_again := drift_to(again)).away < moved.away:
            found, moved = again, moved_again
    return found


Pair = tuple[Measurement, Measurement]


def _pairs(before: Iterable[Measurement], after: Iterable[Measurement]) -> list[Pair]:
    later = {(each.query, each.bind): each for each in after}
    return [(each, later.get((each.query, each.bind), _absent(each))) for each in before]


def _rounds(pair: Pair) -> int:
    return min(each.rounds for each in pair)


def _nearest(query: Measurement, controls: Sequence[Pair]) -> tuple[int, ...]:
    """The places of the controls that took most nearly as long: what slows short queries down may leave long ones."""
    places = range(len(controls))
    if not query.median_ms:
        return tuple(places)

    def apart(place: int) -> float:
        return abs(math.log((controls[place][0].median_ms or math.inf) / query.median_ms))

    return tuple(sorted(sorted(places, key=apart)[:NEAREST]))


def keep_or_drop(comparisons: Sequence[Comparison], keep: Keep) -> Decision:
    """Whether a step stays, by the comparisons of the queries it claims to speed up.

    Under `if_faster` it is dropped only if every one of them is `no gain`: what could not be proven or measured stays
    and is said.
    """
    differing = [each for each in comparisons if each.same_rows is False]
    if differing:
        return Decision(keep=False, failed=True, reason=f"rows differ: {_names(differing)}")
    counts = _counted(comparisons)
    if keep == "always":
        return Decision(keep=True, reason=f"kept whatever it gains; {counts}")
    if not comparisons:
        return Decision(keep=True, reason=f"kept: {counts}")
    if all(each.verdict == "no gain" for each in comparisons):
        return Decision(keep=False, reason=f"dropped: {counts}")
    slower = [each for each in comparisons if each.verdict == "slower"]
    advice = f"; undo is advised, it made slower: {_names(slower)}" if slower else ""
    return Decision(keep=True, reason=f"kept: {counts}{advice}")


def _is_control(before: Measurement, after: Measurement, controls: Collection[str]) -> bool:
    return before.query in controls and not before.error and not after.error


def _absent(before: Measurement) -> Measurement:
    return Measurement(before.query, before.bind, error="it was not measured again")


def _comparison(
    before: Measurement,
    after: Measurement,
    moved: Drift,
    step: str,
    by_plan: bool,
    rows: Mapping[Case, SameRows],
) -> Comparison:
    found = _judged(before, after, moved)
    same = rows.get((before.query, before.bind), SameRows(None, "not compared"))
    comparison = Comparison(
        step=step,
        query=before.query,
        bind=before.bind,
        rounds=_rounds((before, after)),
        before_ms=_median_ms(before),
        after_ms=_median_ms(after),
        speedup=found.speedup,
        ci95=found.ci95,
        before_buffers=before.buffers,
        after_buffers=after.buffers,
        before_nodes=before.plan.nodes if before.plan else (),
        after_nodes=after.plan.nodes if after.plan else (),
        same_rows=same.equal,
        same_rows_reason=same.reason,
        verdict=found.verdict,
        reason=found.reason,
        before_plan=_text(before.plan),
        after_plan=_text(after.plan),
        before_hash=before.plan.hash if before.plan else None,
        after_hash=after.plan.hash if after.plan else None,
        before_indexes=before.plan.indexes if before.plan else (),
        after_indexes=after.plan.indexes if after.plan else (),
    )
    if by_plan and found.verdict == "faster" and comparison.same_plan:
        reason = f"the plan is the same before and after, so the step is not the cause: {found.reason}"
        return replace(comparison, verdict="unproven", reason=reason)
    return comparison


def _judged(before: Measurement, after: Measurement, moved: Drift) -> Judgement:
    if not before.rounds and not before.error and not after.rounds:
        return Judgement(None, None, None, "not measured", "planned only, nothing was executed")
    if before.error and before.error == after.error:
        return Judgement(None, None, None, "not measured", before.error)
    errors = [f"{when}: {each.error}" for when, each in (("before", before), ("after", after)) if each.error]
    if errors:
        return Judgement(None, None, None, "not measured", "; ".join(errors))
    return judge(before.blocks, after.blocks, buffers=(before.buffers, after.buffers), drift=moved)


def _median_ms(measured: Measurement) -> float | None:
    """The median, if the rounds are enough to call it measured."""
    return measured.median_ms if measured.rounds >= MIN_ROUNDS and not measured.error else None


def _text(plan: Plan | None) -> str:
    return plan.text() if plan else ""


def _names(comparisons: Iterable[Comparison]) -> str:
    return ", ".join(each.label for each in comparisons)


def _counted(comparisons: Sequence[Comparison]) -> str:
    verdicts = [each.verdict for each in comparisons]
    counts = [f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts)]
    return ", ".join(counts) if counts else "no query measures it"
