"""Many samples as a few points: what a chart can show of a day or a month, and the figures over the whole of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from playbook.monitor.latencies import BOUNDS_MS, percentile_of_bins_ms
from playbook.monitor.sample import LEVELS, PEAKS, SUMS, Sample

GAP = 2.5
"""So many intervals without a sample are a gap: nobody was watching."""


@dataclass
class Point:
    """Samples put together, of the time from `start` to `end`; of none every figure is None."""

    start: float
    end: float
    seconds: float = 0.0
    samples: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    requests: dict[int, int] = field(default_factory=dict)
    statements: dict[int, int] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """One more."""
        self.samples += 1
        self.seconds += sample.seconds
        mine = self.figures
        for name, value in sample.figures.items():
            if name in _PEAKS:
                mine[name] = max(mine.get(name, value), value)
            elif name in _LEVELS:
                mine[name] = mine.get(name, 0.0) + value * sample.seconds
            else:
                mine[name] = mine.get(name, 0.0) + value
        for bins, more in ((self.requests, sample.requests), (self.statements, sample.statements)):
            for place, count in more.items():
                bins[place] = bins.get(place, 0) + count

    def sum(self, name: str) -> float | None:
        """A figure that adds up."""
        return self.figures.get(name)

    def mean(self, name: str) -> float | None:
        """A level, weighted by time."""
        value = self.figures.get(name)
        return None if value is None or not self.seconds else value / self.seconds

    def peak(self, name: str) -> float | None:
        """The highest there was."""
        return self.figures.get(name)

    def share_pct(self, part: str, whole: Sequence[str]) -> float | None:
        """One sum as a share of others, in per cent; None where these are nothing."""
        over = sum(self.figures.get(name, 0.0) for name in whole)
        return 100 * self.figures.get(part, 0.0) / over if over else None

    def per_second(self, name: str) -> float | None:
        """A sum, each second that was watched."""
        value = self.figures.get(name)
        return None if value is None or not self.seconds else value / self.seconds

    @property
    def db_average_ms(self) -> float | None:
        """Mean time of execution of a statement, by the server."""
        return self._each("db_ms", "db_calls")

    @property
    def query_average_ms(self) -> float | None:
        """Mean time of a statement, by the application."""
        return self._each("query_ms", "queries")

    def _each(self, amount: str, count: str) -> float | None:
        times = self.figures.get(count)
        return self.figures[amount] / times if times else None

    @property
    def cache_hit_pct(self) -> float | None:
        """Reads that the result cache answered."""
        return self.share_pct("cache_hits", ["cache_asked"])

    @property
    def buffer_hit_pct(self) -> float | None:
        """Blocks found in shared buffers."""
        return self.share_pct("hit", ["hit", "read"])

    @property
    def rolled_back_pct(self) -> float | None:
        """Transactions that were rolled back."""
        return self.share_pct("rollbacks", ["commits", "rollbacks"])

    def request_ms(self, percent: float) -> float | None:
        """The latency of requests that so many per cent did not exceed; an upper bound, at most 26 % above it."""
        return _percentile(self.requests, percent)

    def statement_ms(self, percent: float) -> float | None:
        """The same of the application's statements."""
        return _percentile(self.statements, percent)


_PEAKS, _LEVELS = frozenset(PEAKS), frozenset(LEVELS)
assert not {*SUMS} & (_PEAKS | _LEVELS)


def _percentile(bins: Mapping[int, int], percent: float) -> float | None:
    return percentile_of_bins_ms([bins.get(place, 0) for place in range(len(BOUNDS_MS) + 1)], percent)


def points(samples: Iterable[Sample], since: float, until: float, most: int = 240) -> list[Point]:
    """The samples between two moments in `most` points of equal length, or in fewer where they lie further apart."""
    length = max((until - since) / most, 1e-3)
    made = [Point(since + place * length, since + (place + 1) * length) for place in range(most)]
    for sample in samples:
        place = int((sample.at - since) / length)
        if 0 <= place < most or (place == most and sample.at <= until):
            made[min(place, most - 1)].add(sample)
    return made


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """Samples in the order they were taken, none before the one that came first: a clock may have been turned back."""
    ordered: list[Sample] = []
    for sample in samples:
        late = bool(ordered) and sample.at < ordered[-1].at
        ordered.append(replace(sample, at=ordered[-1].at) if late else sample)
    return ordered


def gaps(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """From when to when nobody was watching, between samples."""
    return [
        (before.at, after.at - after.seconds)
        for before, after in pairwise(samples)
        if after.at - before.at > GAP * max(after.seconds, before.seconds)
    ]
