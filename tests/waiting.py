"""Waiting for what comes to pass at a time of its own: for the event, and never for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def until(holds: Callable[[], Answer], complaint: str = "it did not come to pass", *, limit_s: float = 20.0) -> Answer:
    """Asks again and again until the answer is true, and gives it.

    Raises:
        AssertionError: it was not, with the complaint, after a limit that a loaded machine keeps too.
    """
    end = time.monotonic() + limit_s
    while not (answer := holds()):
        assert time.monotonic() < end, complaint
        time.sleep(0.005)
    return answer
