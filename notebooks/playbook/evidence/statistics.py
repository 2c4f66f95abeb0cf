"""When a query counts as faster: pure functions over the times of its rounds, in milliseconds.

The rounds of a phase come in blocks that lie apart in time. `playbook.evidence.noise` tells how far their medians can
be trusted. A verdict asks for more than an interval that excludes 1, since nothing in a query's own times tells a
faster machine from a faster query: the effect must hold between every block before and every block after, and stand
out from the controls, queries that the step cannot affect and that were measured in the same rounds. What the controls
of a round have in common is taken out of it (`playbook.evidence.pace`), and a query counts as standing out only beyond
what one more control might show: the prediction interval of a random-effects model (Higgins, Thompson & Spiegelhalter
2009), since machines slow down what computes and what leans on memory by different shares.

The thresholds: an effect of 10 %, because repeated runs of unchanged programs differ by some per cent for reasons such
as memory layout (Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!"; Kalibera &
Jones 2013, "Rigorous benchmarking in reasonable time"); p < 0.002, because a run judges tens of queries
(Bonferroni: 25 comparisons at 0.002 are one family at 0.05).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from playbook.evidence.noise import Blocks, Floats, log_median, noise_of
from playbook.evidence.pace import FEWEST, Pace
from playbook.evidence.ranks import mann_whitney

Verdict = Literal["faster", "slower", "no gain", "unproven", "unstable", "not measured"]

EFFECT = 1.10
"""A speed-up of less is not called one; a slow-down is its mirror, a speed-up below 1 / 1.10."""
ALPHA = 0.002
MIN_ROUNDS = 7
"""Fewer on either side are not judged: six against six cannot reach p < 0.002."""
BUFFERS_FALL = 0.10
"""Buffers that fell by this share or more speak against `no gain`, even when the time does not show it."""

HIDING_PACE = 1.08
"""A machine that changed its pace by more may hide a gain of `EFFECT`: worth measuring again."""
LARGEST_PACE = 1.25
"""A machine that changed its pace by more between the two phases is not corrected for."""

_SMALLEST_MS = 1e-6


@dataclass(frozen=True, slots=True)
class Ratio:
    """before / after of one query: of the medians, with its 95 % interval.

    `least` and `most` are the smallest and largest ratio of any block before to any block after. `p` is the larger of
    Mann-Whitney's p, which takes the rounds for independent, and the block bootstrap's, which does not.
    """

    speedup: float
    ci95: tuple[float, float]
    p: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What the controls, which the step cannot affect, say of the machine between the two phases.

    `ratio` is the median of their before / after, None without controls; `ci95` is where one more control would lie.
    `paces` are those of the phases before and after.
    """

    controls: int
    ratio: float | None
    ci95: tuple[float, float] | None
    moved: bool
    reason: str
    paces: tuple[Pace, Pace] = (Pace(), Pace())

    @property
    def away(self) -> float:
        """How far the machine's pace is from what it was before, as a logarithm; beyond any bound where it moved."""
        return math.inf if self.moved else abs(math.log(self.ratio or 1.0))

    @property
    def hides(self) -> bool:
        """Whether it may hide what the step gained or lost."""
        return self.away >= math.log(HIDING_PACE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its figures; those that could not be had are None."""

    speedup: float | None
    ci95: tuple[float, float] | None
    p: float | None
    verdict: Verdict
    reason: str


def judge(
    before: Blocks,
    after: Blocks,
    *,
    buffers: tuple[int | None, int | None] = (None, None),
    drift: Drift | None = None,
) -> Judgement:
    """The verdict on one query from the times of its rounds (ms), block by block.

    `buffers` are the warm medians before and after; without them nothing is called `no gain`. Without `drift` the
    times are taken as they are: that is right for a control itself, and for nothing else.
    """
    if min(_count(before), _count(after)) < MIN_ROUNDS:
        reason = f"{_count(before)} rounds before and {_count(after)} after; {MIN_ROUNDS} are needed on each side"
        return Judgement(None, None, None, "not measured", reason)
    found = _at_usual_pace(before, after, drift)
    verdict, reason = _verdict(found, buffers, drift)
    return Judgement(found.speedup, found.ci95, found.p, verdict, reason)


def ratio(before: Blocks, after: Blocks) -> Ratio:
    """before / after of the medians over all blocks.

    Raises:
        ValueError: a side holds no round.
    """
    sides = [[_array(block) for block in side if len(block)] for side in (before, after)]
    if not all(sides):
        raise ValueError("there is no round to compare")
    effect = log_median(np.concatenate(sides[0])) - log_median(np.concatenate(sides[1]))
    noise = noise_of(effect, *sides)
    levels = [[log_median(block) for block in side] for side in sides]
    return Ratio(
        speedup=math.exp(effect),
        ci95=(math.exp(effect - noise.below), math.exp(effect + noise.above)),
        p=max(mann_whitney(*map(np.concatenate, sides)), noise.p(effect)),
        least=math.exp(min(levels[0]) - max(levels[1])),
        most=math.exp(max(levels[0]) - min(levels[1])),
    )


def _at_usual_pace(before: Blocks, after: Blocks, drift: Drift | None) -> Ratio:
    """The ratio of the medians as they were clocked; how sure it is, from the rounds at the machine's usual pace."""
    clocked = ratio(before, after)
    if drift is None:
        return clocked
    steady = ratio(drift.paces[0].steady(before), drift.paces[1].steady(after))
    low, high = (clocked.speedup / steady.speedup * end for end in steady.ci95)
    return replace(steady, speedup=clocked.speedup, ci95=(low, high))


def drift(controls: Sequence[tuple[Blocks, Blocks]]) -> Drift:
    """What the controls show; those with too few rounds are left out.

    The machine moved when one control left the others as a query would have to for being called faster or slower, or
    when all together changed by more than `LARGEST_PACE`.
    """
    measured = [pair for pair in controls if min(map(_count, pair)) >= MIN_ROUNDS]
    if not measured:
        return Drift(0, None, None, moved=False, reason="no control ran beside it")
    paces = Pace.of([before for before, _ in measured]), Pace.of([after for _, after in measured])
    found = [ratio(paces[0].steady(before), paces[1].steady(after)) for before, after in measured]
    middle, reach = _spread(found)
    apart = Drift(len(found), math.exp(middle) if len(found) >= FEWEST else 1.0, (1.0, 1.0), moved=False, reason="")
    by_itself = [each for each in found if _direction(each, apart) is not None]
    return Drift(
        controls=len(found),
        ratio=math.exp(middle),
        ci95=(math.exp(middle - reach), math.exp(middle + reach)),
        moved=bool(by_itself) or abs(middle) >= math.log(LARGEST_PACE),
        reason=_drift_reason(len(found), math.exp(middle), by_itself),
        paces=paces,
    )


def _spread(found: list[Ratio]) -> tuple[float, float]:
    """The middle of the controls' log ratios, and how far from it one more control would lie (95 %)."""
    logs = [math.log(each.speedup) for each in found]
    own = _half_width_of_median([math.log(each.ci95[1] / each.ci95[0]) / 2 for each in found])
    if len(logs) < FEWEST:
        return median(logs), own
    share = math.sqrt(1 + 1 / len(logs))
    return median(logs), max(own, float(stdtrit(len(logs) - 1, 0.975)) * float(np.std(logs, ddof=1)) * share)


def _verdict(found: Ratio, buffers: tuple[int | None, int | None], drift: Drift | None) -> tuple[Verdict, str]:
    if drift is not None and drift.moved:
        return "unstable", f"{drift.reason}: the machine moved, measure again"
    if drift is not None and drift.ratio is None:
        return "unproven", f"{drift.reason}, so a faster machine cannot be told from a faster query"
    if direction := _direction(found, drift):
        return direction, f"{_figures(found)}, p {_p_text(found.p)}{_beside(drift)}"
    if max(found.ci95[1], _apart_from(found, drift)[1][1]) >= EFFECT:
        return "unproven", f"{_figures(found)}: {_missing(found, drift)}{_beside(drift)}"
    return _without_gain(_figures(found), *buffers)


def _without_gain(figures: str, before: int | None, after: int | None) -> tuple[Verdict, str]:
    """What follows from an interval that leaves no room for a gain: the buffers have their say."""
    no_room = f"{figures} leaves no room for a gain of {_EFFECT_TEXT}"
    if before is None or after is None:
        return "unproven", f"{no_room}, but buffers were not measured"
    if after < before and after <= before * (1 - BUFFERS_FALL):
        return "unproven", f"{no_room}, but buffers fell from {before} to {after}"
    return "no gain", f"{no_room}, and buffers did not fall by that much"


_EFFECT_TEXT = f"{EFFECT - 1:.0%}".replace("%", " %")


def _direction(found: Ratio, drift: Drift | None = None) -> Literal["faster", "slower"] | None:
    """Which way the query moved, if every guard agrees: interval, p, size, each block, and beyond the controls."""
    speedup, (low, high) = _apart_from(found, drift)
    if found.p >= ALPHA:
        return None
    if min(found.ci95[0], low) > 1 and min(found.speedup, found.least, speedup) >= EFFECT:
        return "faster"
    if max(found.ci95[1], high) < 1 and max(found.speedup, found.most, speedup) <= 1 / EFFECT:
        return "slower"
    return None


def _apart_from(found: Ratio, drift: Drift | None) -> tuple[float, tuple[float, float]]:
    """The ratio and its interval as they would be had the controls stood still (a difference in differences)."""
    if drift is None or drift.ratio is None or drift.ci95 is None:
        return found.speedup, found.ci95
    noise = math.log(drift.ci95[1] / drift.ci95[0]) / 2
    speedup = found.speedup / drift.ratio
    low = math.hypot(math.log(found.speedup / found.ci95[0]), noise)
    high = math.hypot(math.log(found.ci95[1] / found.speedup), noise)
    return speedup, (speedup * math.exp(-low), speedup * math.exp(high))


def _half_width_of_median(halves: list[float]) -> float:
    """Half the interval of the median of some ratios: 1.25 times that of their mean, for more than two."""
    mean = math.sqrt(sum(half**2 for half in halves)) / len(halves)
    return mean * (math.sqrt(math.pi / 2) if len(halves) > 2 else 1.0)


def _array(block: Sequence[float]) -> Floats:
    return np.maximum(np.asarray(block, dtype=float), _SMALLEST_MS)


def _count(blocks: Blocks) -> int:
    return sum(map(len, blocks))


def _figures(found: Ratio) -> str:
    return f"{found.speedup:.2f} times as fast, 95 % interval {found.ci95[0]:.2f} to {found.ci95[1]:.2f}"


def _p_text(p: float) -> str:
    return f"< {ALPHA}" if p < ALPHA else f"= {p:.3f}"


def _beside(drift: Drift | None) -> str:
    return f"; {drift.reason}" if drift is not None else ""


def _missing(found: Ratio, drift: Drift | None) -> str:
    """The first guard that keeps an effect from being one, in words."""
    low, high = found.ci95
    if low <= 1 <= high:
        return "the interval includes 1"
    if 1 / EFFECT < found.speedup < EFFECT:
        return f"an effect below {_EFFECT_TEXT}"
    if found.p >= ALPHA:
        return f"p {_p_text(found.p)}, {ALPHA} is asked"
    if 1 / EFFECT < (found.least if found.speedup > 1 else found.most) < EFFECT:
        return f"not {_EFFECT_TEXT} between every block before and every block after"
    return "the controls explain part of it"


def _drift_reason(controls: int, middle: float, by_itself: list[Ratio]) -> str:
    noun = "control" if controls == 1 else "controls"
    if by_itself:
        most = max(by_itself, key=lambda each: abs(math.log(each.speedup)))
        return f"{len(by_itself)} of {controls} {noun} moved, one by {most.speedup:.2f} times"
    return f"{controls} {noun} at {middle:.2f} times"
