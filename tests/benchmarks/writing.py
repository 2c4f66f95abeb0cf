"""A writer at a steady rate beside whatever is measured: how long each of its statements took from when it was due."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from playbook.target.connect import Target


def written(target: Target, sql: str, work: Callable[[], None], *, per_s: float = 200.0) -> list[float]:
    """Milliseconds of each statement of an open loop while `work` runs, counted from its scheduled start.

    The writer is a process of its own, which shares no interpreter with what it is held up by, and does not wait for the
    disk, which would be measured instead. `sql` has one number to fill in, that of the statement: -1 for one that is
    not counted, then from 0 on.
    """
    context = multiprocessing.get_context("spawn")
    ready, stop, told = context.Event(), context.Event(), context.Queue()
    writer = context.Process(target=_write, args=(dict(target.conninfo), sql, per_s, ready, stop, told))
    writer.start()
    try:
        assert ready.wait(30)
        work()
    finally:
        stop.set()
        taken = told.get(timeout=60)
        writer.join()
    return taken


def _write(conninfo: Mapping[str, Any], sql: str, per_s: float, ready: Any, stop: Any, told: Any) -> None:
    taken: list[float] = []
    with psycopg.connect(**conninfo, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(sql, [-1])
        ready.set()
        began = time.perf_counter()
        while not stop.is_set():
            due = began + len(taken) / per_s
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.execute(sql, [len(taken)])
            taken.append(1000 * (time.perf_counter() - due))
    told.put(taken)


def tell(benchmark: str, during: list[float], idle: list[float], **figures: Any) -> None:
    """Prints one line of JSON: how long the writer's statements took beside the work, and the slowest beside none."""
    ranked = sorted(during)
    latencies = {
        "statements": len(during),
        "worst_ms": round(ranked[-1], 1),
        "next_ms": [round(ms, 1) for ms in ranked[-6:-1]],
        "worst_idle_ms": round(max(idle), 1),
    }
    print(json.dumps({"benchmark": benchmark, **figures, **latencies}))


class Reader:
    """A session whose transaction holds what it has read, for `seconds` from entry on."""

    def __init__(self, target: Target, sql: str, seconds: float) -> None:
        self._connection = target.connect()
        self._sql, self._seconds = sql, seconds

    def __enter__(self) -> Reader:
        self._connection.execute("BEGIN")
        self._connection.execute(self._sql.encode())
        self._timer = threading.Timer(self._seconds, self._connection.rollback)
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.join()
        self._connection.close()
