"""How far a backend has come with building an index, as pg_stat_progress_create_index tells it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

_BUILD = """
SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total, lockers_done, lockers_total, current_locker_pid
FROM pg_catalog.pg_stat_progress_create_index WHERE pid = %s
"""


def observer(pid: int, purpose: str, progress: Callable[[str], None]) -> Callable[[psycopg.Connection[Any]], None]:
    """Tells `progress` of that backend's work, over the connection that it is called with; at most twice a second."""
    last = 0.0

    def observe(connection: psycopg.Connection[Any]) -> None:
        nonlocal last
        if time.monotonic() - last < 0.5:
            return
        last = time.monotonic()
        if row := connection.execute(_BUILD, [pid]).fetchone():
            progress(f"{purpose}: {_phase(row)}")

    return observe


def _phase(row: tuple[Any, ...]) -> str:
    phase, blocks, blocks_total, tuples, tuples_total, lockers, lockers_total, locker = row
    if lockers_total and lockers is not None and lockers < lockers_total:
        return f"{phase} (backend {locker} must end its transaction first)"
    done, total = (blocks, blocks_total) if blocks_total else (tuples, tuples_total)
    return f"{phase} {100 * done / total:.0f} %" if total else str(phase)
