"""The circuit breaker: after some failures in a row nobody asks for a while, then one tries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row, for `pause_s` seconds, doubled up to `longest_s` while the tries fail."""

    def __init__(
        self,
        failures: int = 3,
        pause_s: float = 0.5,
        longest_s: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._first_s, self._longest_s, self._clock = failures, pause_s, longest_s, clock
        self._lock = threading.Lock()
        self._failed = 0
        self._pause_s = pause_s
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has opened and no try has succeeded since."""
        return self._open_until is not None

    def allows(self) -> bool:
        """Whether to ask now. While open, one caller is let through at the end of each pause."""
        if self._open_until is None:
            return True
        with self._lock:
            now = self._clock()
            if self._open_until is None:
                return True
            if now < self._open_until:
                return False
            self._open_until = now + self._pause_s  # the others wait for what this one finds
            return True

    def succeeded(self) -> None:
        """An answer came."""
        if self._failed or self._open_until is not None:
            with self._lock:
                self._failed, self._pause_s, self._open_until = 0, self._first_s, None

    def failed(self) -> None:
        """No answer came."""
        with self._lock:
            self._failed += 1
            if self._open_until is not None:
                self._pause_s = min(2 * self._pause_s, self._longest_s)
            if self._open_until is not None or self._failed >= self._limit:
                self._open_until = self._clock() + self._pause_s
