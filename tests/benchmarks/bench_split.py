"""What splitting an attached history into months costs: `pytest tests/benchmarks/bench_split.py -s -n 0`.

A history of 2 M rows of two years (BENCH_ROWS for another number) with two secondary indexes, beside a writer that inserts
200 rows a second into it. In the same run, with the same writer, a plain `INSERT … SELECT` fills the very same tables, and
then builds the same indexes: the limit. While the swap is at work another session asks for a writer's lock again and again:
the longest that it waits is how long the swap keeps the table to itself.
"""

import os
import threading
import time

from tests.benchmarks.copying import LIMIT, MEMORY_LIMIT_MB, Successor, client_mb, make_log
from tests.benchmarks.planned import planned
from tests.benchmarks.writing import tell, written

from playbook import finishing
from playbook.context import open_context
from playbook.phase import Playbook

ROWS = int(os.environ.get("BENCH_ROWS", "2000000"))
WAIT_LIMIT_MS = 60.0

STEP = (
    "{name: log_partitioned, kind: partition, table: log, key: at, every: month, route: attach, "
    "keep: always, accept: per-partition uniqueness of id}"
)
DIFFERENCE = f"""
SELECT count(*) FROM ((SELECT * FROM log EXCEPT ALL SELECT * FROM log_history)
  UNION ALL (SELECT * FROM log_history EXCEPT ALL SELECT * FROM log)) d WHERE id <= {ROWS}
"""


def test_a_split_takes_little_longer_than_a_plain_copy_and_no_writer_waits_long(empty, tmp_path, monkeypatch):
    make_log(empty, ROWS)
    settings = planned(empty, tmp_path, monkeypatch, STEP, "log")
    ((_, state, _),) = Playbook(open_context(settings)).phase("1").apply().steps
    assert state.status == "applied", state.reason
    (shown,) = finishing.finish(open_context(settings), apply=False)
    months = Successor.of(shown.statements, "log_history_partitioned")
    swap = next(each.purpose for each in shown.statements if each.purpose.startswith("the swap"))
    told: list[tuple[float, str]] = []
    figures: dict[str, float] = {}

    def plain(connection):
        figures["plain_rows_s"] = round(months.plainly(connection, "log_history"), 2)

    def copied():
        figures["plain_s"] = round(months.filled(empty, plain), 2)

    def split():
        with empty.connect() as connection:
            connection.execute("CHECKPOINT")
        with Probe(empty) as probe:
            started = time.monotonic()

            def heard(text):
                told.append((round(time.monotonic() - started, 2), text))
                probe.asks(text.startswith(swap))

            (finished,) = finishing.finish(open_context(settings, heard), apply=True)
            figures["split_s"] = round(time.monotonic() - started, 2)
        assert finished.said == finishing.SPLIT, finished.error
        figures["swap_lock_ms"] = round(probe.longest_ms, 1)

    def beside_a_writer(number, work):
        return written(empty, f"INSERT INTO log VALUES ({number * ROWS} + %s, 1, 'written', now())", work)

    idle = beside_a_writer(10, lambda: time.sleep(3))
    beside_a_writer(20, copied)
    memory = client_mb()
    during = beside_a_writer(30, split)
    figures["ratio"] = round(figures["split_s"] / figures["plain_s"], 2)
    figures["client_grown_mb"] = round(client_mb() - memory, 1)
    tell("splitting a history", during, idle, rows=ROWS, **figures, limit=LIMIT, worst_limit_ms=WAIT_LIMIT_MS)
    print(*(f"{at:8.2f} s {text}" for at, text in told), sep="\n")
    with empty.connect() as connection:
        assert connection.execute(DIFFERENCE).fetchall() == [(0,)]
    assert figures["ratio"] <= LIMIT
    assert max(during) <= WAIT_LIMIT_MS
    assert 0 < figures["swap_lock_ms"] <= WAIT_LIMIT_MS
    assert figures["client_grown_mb"] <= MEMORY_LIMIT_MB


class Probe:
    """A session that asks for a writer's lock on the log every millisecond, while it is told to."""

    def __init__(self, target) -> None:
        self._connection = target.connect()
        self._asking, self._ended = threading.Event(), False
        self._thread = threading.Thread(target=self._ask)
        self.longest_ms = 0.0

    def asks(self, now: bool) -> None:
        self._asking.set() if now else self._asking.clear()

    def _ask(self) -> None:
        while self._asking.wait() and not self._ended:
            asked = time.perf_counter()
            with self._connection.transaction():
                self._connection.execute("LOCK TABLE ONLY log IN ROW EXCLUSIVE MODE")
                self.longest_ms = max(self.longest_ms, 1000 * (time.perf_counter() - asked))
            time.sleep(0.001)

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._asking.set()
        self._thread.join()
        self._connection.close()
