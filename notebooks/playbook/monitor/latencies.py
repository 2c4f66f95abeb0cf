"""Latencies in a histogram of full resolution, which can be added, subtracted, and sent as text.

An average hides what people wait for, and buckets chosen beforehand decide nothing between their bounds (those that
OpenTelemetry advises have none at 200 ms). So every latency is kept to three digits, in an HDR histogram.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from hdrh.histogram import HdrHistogram

_HOUR_US = 3_600_000_000

BOUNDS_MS = tuple(round(10 ** (step / 10), 4) for step in range(-10, 51))
"""Upper bounds of the bins in which a latency is kept for long, from 0.1 ms to 100 s: ten a decade, each 26 % wider."""


class Latencies:
    """Latencies of up to an hour; longer ones count as one."""

    def __init__(self, text: str | None = None) -> None:
        self._kept = HdrHistogram.decode(text) if text else HdrHistogram(1, _HOUR_US, 3)

    def add(self, seconds: Iterable[float]) -> None:
        """Some more of them."""
        record = self._kept.record_value
        for each in seconds:
            record(min(_HOUR_US, int(1_000_000 * each) or 1))

    def merge(self, other: Latencies) -> None:
        """Those of `other` as well."""
        self._kept.add(other._kept)

    def since(self, earlier: Latencies) -> Latencies:
        """Those that are here and were not in `earlier`, of which this is a continuation."""
        rest = Latencies()
        then = earlier._kept.counts[:]
        for index, count in enumerate(self._kept.counts[:]):
            if count > then[index]:
                rest._kept.record_value(self._kept.get_value_from_index(index), count - then[index])
        return rest

    def __len__(self) -> int:
        return self._kept.total_count

    def percentile_ms(self, percent: float) -> float | None:
        """What so many per cent of them did not exceed, at least; None of none."""
        if not len(self):
            return None
        # The library rounds the rank to the nearest one, below which fewer may lie than were asked for.
        rank = max(1, math.ceil(percent / 100 * len(self) - 1e-9))
        return self._kept.get_value_at_percentile(100 * (rank - 0.25) / len(self)) / 1000

    @property
    def longest_ms(self) -> float | None:
        """The longest one."""
        return self._kept.get_max_value() / 1000 if len(self) else None

    def above(self, ms: float) -> int:
        """How many took longer than `ms`."""
        return sum(count for each_ms, count in self._recorded() if each_ms > ms)

    def bins(self, bounds_ms: Sequence[float] = BOUNDS_MS) -> tuple[int, ...]:
        """How many lie in each bin, by their upper bounds; one more bin holds what is longer than all of them."""
        counts = [0] * (len(bounds_ms) + 1)
        for each_ms, count in self._recorded():
            counts[bisect_left(bounds_ms, each_ms)] += count
        return tuple(counts)

    def text(self) -> str:
        """All of it, compressed, for `Latencies(text)`."""
        return self._kept.encode().decode("ascii")

    def _recorded(self) -> Iterator[tuple[float, int]]:
        """Milliseconds, and how often. The library's own iterator takes ten times as long."""
        for index, count in enumerate(self._kept.counts[:]):
            if count:
                yield self._kept.get_value_from_index(index) / 1000, count


def percentile_of_bins_ms(counts: Iterable[int], percent: float) -> float | None:
    """The upper bound of the bin in which the percentile lies: at most 26 % above it. None of none."""
    counts = list(counts)
    wanted, seen = sum(counts) * percent / 100, 0
    for bound, count in zip((*BOUNDS_MS, BOUNDS_MS[-1]), counts, strict=True):
        seen += count
        if count and seen >= wanted:
            return bound
    return None
