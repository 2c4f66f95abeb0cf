"""The noise of a ratio of medians: how wide its interval has to be for rounds that are not independent.

Two kinds of noise can be read off a query's own rounds:

* *within a phase*, neighbouring rounds resemble each other. The ratio of medians is therefore bootstrapped in runs of
  rounds (circular block bootstrap: Politis & Romano 1992, after Künsch 1989), as long as Carlstein's (1986) rule says
  for the autocorrelation found. In twenty rounds such runs still show too little of a strong autocorrelation, and its
  estimate is too low (Kendall 1954; Marriott & Pope 1954): both shares are known for an AR(1) process and made up for.
  Rounds that hang together also count for fewer (effective number: Bayley & Hammersley 1946), so that Student's t for
  that number widens the interval, as it does for the bootstrap's narrowness in small samples (Hesterberg 2015).
* *between the blocks* of one phase, the machine drifts. What they differ by, beyond that first noise, widens the
  interval as variance between groups does in a one-way layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Blocks = Sequence[Sequence[float]]
Floats = NDArray[np.float64]

_RESAMPLES = 1000
_HIGHEST_AUTOCORRELATION = 0.95
_FEWEST_DEGREES = 5
_NORMAL_95 = 1.96
_SHORTEST_SERIES = 7  # rounds; fewer do not show how they hang together


@dataclass(frozen=True, slots=True)
class Noise:
    """How far the 95 % interval of a log ratio reaches below and above it, and from how many independent rounds."""

    below: float
    above: float
    degrees: float

    def p(self, effect: float) -> float:
        """The probability of an effect this far from none, both ways, by the noise on the side towards none."""
        reach = self.below if effect > 0 else self.above
        if not reach:
            return 1.0 if not effect else 0.0
        return 2 * float(stdtr(self.degrees, -abs(effect) / reach * stdtrit(self.degrees, 0.975)))


def noise_of(effect: float, before: list[Floats], after: list[Floats]) -> Noise:
    """The noise of the log ratio `effect` of the medians of two phases, each given block by block (ms)."""
    rounds = min(sum(map(len, before)), sum(map(len, after)))
    rho = _autocorrelation([block for side in (before, after) for block in _long_enough(side)])
    length = _run_length(rho, rounds)
    medians = _bootstrapped_medians(before, length, "before") - _bootstrapped_medians(after, length, "after")
    low, high = np.quantile(medians, (0.025, 0.975))
    # Rounds that hang together count for fewer: their effective number (Bayley & Hammersley 1946) is what is known.
    degrees = max(rounds / _inflation(rho, rounds) - 1, _FEWEST_DEGREES)
    wider = _unseen_by_runs(rho, rounds, length) * float(stdtrit(degrees, 0.975)) / _NORMAL_95
    below, above = (wider * max(reach, 0.0) for reach in (effect - low, high - effect))
    own = ((below + above) / (2 * _NORMAL_95)) ** 2
    between = _NORMAL_95 * math.sqrt(_between_blocks(before, after, own))
    return Noise(math.hypot(below, between), math.hypot(above, between), degrees)


def _long_enough(blocks: list[Floats]) -> list[Floats]:
    """Blocks too short to show how their rounds hang together are taken as one series."""
    return blocks if min(map(len, blocks)) >= _SHORTEST_SERIES else [np.concatenate(blocks)]


def _autocorrelation(blocks: list[Floats]) -> float:
    """Lag-1 rank autocorrelation inside the blocks, its downward bias of about (1 + 4 rho) / n taken back."""
    ranks = [_ranks(block) for block in blocks]
    total = sum(float(rank @ rank) for rank in ranks)
    if not total:
        return 0.0
    found = sum(float(rank[1:] @ rank[:-1]) for rank in ranks) / total
    rounds = sum(map(len, blocks)) / len(blocks)
    unbiased = (found + 1 / rounds) / max(1 - 4 / rounds, 0.2)
    return min(max(unbiased, 0.0), _HIGHEST_AUTOCORRELATION)


def _ranks(block: Floats) -> Floats:
    """Ranks around their mean; ties share one, or equal times would seem to rise."""
    ordered = np.sort(block)
    ranks = (np.searchsorted(ordered, block, "left") + np.searchsorted(ordered, block, "right")) / 2
    return ranks - len(block) / 2


def _run_length(rho: float, rounds: int) -> int:
    """Carlstein's run length for an AR(1) process, a third of the block at most."""
    best = (2 * rho / (1 - rho**2)) ** (2 / 3) * rounds ** (1 / 3)
    return max(1, min(math.ceil(best), rounds // 3))


def _inflation(rho: float, rounds: int) -> float:
    """The variance of a mean of so many rounds of an AR(1) process, in terms of independent ones."""
    return 1 + 2 * sum((1 - lag / rounds) * rho**lag for lag in range(1, rounds))


def _unseen_by_runs(rho: float, rounds: int, length: int) -> float:
    """How much wider an AR(1) process is than a bootstrap in runs of `length` sees it, in standard deviations."""
    whole = _inflation(rho, rounds)
    # The bootstrap looks from the phase's own median, and so misses what moved the phase as a whole.
    seen = _inflation(rho, length) * max(1 - whole / rounds, 0.1)
    return math.sqrt(max(whole / seen, 1.0))


def _between_blocks(before: list[Floats], after: list[Floats], own: float) -> float:
    """The variance of the log ratio that comes from blocks differing by more than its `own` variance explains."""
    levels = [np.array([log_median(block) for block in side]) for side in (before, after)]
    degrees = sum(len(side) - 1 for side in levels)
    share = sum(1 / len(side) for side in levels)
    if not degrees:
        return 0.0
    seen = sum(float(((side - side.mean()) ** 2).sum()) for side in levels) / degrees
    return max(seen - own / share, 0.0) * share


def _bootstrapped_medians(blocks: list[Floats], length: int, stream: str) -> Floats:
    """Log medians of one side resampled in runs of rounds; the same in every process."""
    rounds = np.concatenate(blocks)
    ordered, middle = np.sort(rounds), (len(rounds) - 1) // 2
    # Small integers are parted faster than floats.
    places = np.argsort(np.argsort(rounds)).astype(np.uint8 if len(rounds) < 256 else np.uint32)
    drawn = np.partition(places[_draws(len(rounds), length, stream)], (middle, len(rounds) // 2), axis=1)
    return np.log((ordered[drawn[:, middle]] + ordered[drawn[:, len(rounds) // 2]]) / 2)


@lru_cache(maxsize=64)
def _draws(rounds: int, length: int, stream: str) -> NDArray[np.intp]:
    random = np.random.default_rng([rounds, length, *stream.encode()])
    starts = random.integers(0, rounds, (_RESAMPLES, math.ceil(rounds / length), 1))
    runs = (starts + np.arange(length)) % rounds
    return runs.reshape(_RESAMPLES, -1)[:, :rounds]


def log_median(values: Floats) -> float:
    """The natural logarithm of the median."""
    return math.log(median(values.tolist()))
