"""What the cache did, counted apart."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields, replace


@dataclass
class Counts:
    """Each request is one of `hits`, `stale`, `misses`, `bypasses`.

    `hits` were answered from the cache, `stale` too but with a value past its time, `misses` waited for a load, their
    own or another's (`shared`), and `bypasses` called the loader since the cache server could not be asked: it was
    down or slow (`errors`), its breaker open, or every connection in use (`exhausted`). `refused` callers found as
    many loads running beside the cache as are allowed. `loads` ended well, `failed_loads` raised; `refreshes` are
    loads in the background. `rejected` entries were unreadable, `uncacheable` values of a type that would not come
    back as it was, `oversized` larger than allowed. `bumps` let go everything that was read from a table. Seconds:
    `load_s` spent in loaders, `saved_s` what those whom the cache answered would have spent there.
    """

    hits: int = 0
    stale: int = 0
    misses: int = 0
    bypasses: int = 0
    shared: int = 0
    loads: int = 0
    failed_loads: int = 0
    refreshes: int = 0
    errors: int = 0
    exhausted: int = 0
    refused: int = 0
    rejected: int = 0
    uncacheable: int = 0
    oversized: int = 0
    bumps: int = 0
    load_s: float = 0.0
    saved_s: float = 0.0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, **amounts: float) -> None:
        """Adds to some of them."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def reset(self) -> None:
        """Begins anew."""
        with self._lock:
            for each in fields(self):
                setattr(self, each.name, each.default)

    def snapshot(self) -> Counts:
        """As they stand now."""
        with self._lock:
            return replace(self)

    def since(self, earlier: Counts) -> Counts:
        """What was counted since `earlier`."""
        now = self.snapshot()
        return Counts(**{f.name: getattr(now, f.name) - getattr(earlier, f.name) for f in fields(Counts)})

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.hits + self.stale + self.misses + self.bypasses

    @property
    def hit_rate_pct(self) -> float | None:
        """The share of requests answered from the cache with a fresh value; None without requests."""
        return 100 * self.hits / self.requests if self.requests else None

    @property
    def stale_rate_pct(self) -> float | None:
        """The share answered from the cache with a value past its time; None without requests."""
        return 100 * self.stale / self.requests if self.requests else None

    @property
    def time_saved_pct(self) -> float | None:
        """The share of the loaders' time that the cache saved; None while there was none."""
        whole = self.load_s + self.saved_s
        return 100 * self.saved_s / whole if whole else None
