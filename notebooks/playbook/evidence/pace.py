"""The machine's pace while a phase was measured, read off the controls that ran in every round.

A shared machine is slowed down in bursts that hit all queries of a round alike. What the controls have in common in a
round is therefore not the query's doing, and taking it out leaves less noise: the idea of a paired comparison, with the
controls as the other half of the pair (a randomised block design, the rounds being its blocks: Fisher 1935).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from playbook.evidence.noise import Blocks

FEWEST = 3
"""Of fewer controls no middle can be told from one of them."""

_BESIDE = 2  # rounds on each side that are read with one: a single round of a few controls says little
_SMALLEST_MS = 1e-6


@dataclass(frozen=True, slots=True)
class Pace:
    """How many times as long as usual a round's queries took, as a logarithm: one number a round, block by block.

    Usual is the median over the whole phase. Empty where there are too few controls to tell.
    """

    levels: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def of(cls, controls: Sequence[Blocks]) -> Pace:
        """The pace that the controls of one phase show; those without a round in every block do not count."""
        blocks = max((len(control) for control in controls), default=0)
        whole = [_around_median(control) for control in controls if len(control) == blocks and all(map(len, control))]
        if len(whole) < FEWEST:
            return cls()
        return cls(tuple(_smooth([control[block] for control in whole]) for block in range(blocks)))

    def steady(self, blocks: Blocks) -> Blocks:
        """The rounds of a query as they would have been at the usual pace (ms)."""
        if len(blocks) != len(self.levels):
            return blocks
        return [
            [ms / math.exp(level[place * len(level) // len(block)]) for place, ms in enumerate(block)]
            for block, level in zip(blocks, self.levels, strict=True)
        ]


def _around_median(control: Blocks) -> list[list[float]]:
    logs = [[math.log(max(ms, _SMALLEST_MS)) for ms in block] for block in control]
    middle = median(each for block in logs for each in block)
    return [[each - middle for each in block] for block in logs]


def _smooth(controls: list[list[float]]) -> tuple[float, ...]:
    """The median of the controls round by round, and of the rounds next to it."""
    rounds = range(min(map(len, controls)))
    each = [median(control[place * len(control) // len(rounds)] for control in controls) for place in rounds]
    return tuple(median(each[max(place - _BESIDE, 0) : place + _BESIDE + 1]) for place in rounds)
