"""How long writers are kept waiting while their table is partitioned: `pytest tests/benchmarks/bench_partition.py -s -n 0`.

The attach route copies no row, so its locks are held as briefly on a large table as on a small one: that is what is
measured here, at 0.2 M and 2 M rows (BENCH_ROWS=10000000 for more), beside a writer that inserts 200 rows a second. The
table is partitioned twice. The first time nobody else is at work, so that a lock is granted at once, and each that stops
writers is timed until another session has the table. The second time a reader's transactions hold it for two seconds
each, and what the writer waits counts, from when its statement was due. Then it is undone beside the writer while a
twentieth as many rows lie past the cutoff, which has the table built anew.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from tests.benchmarks.planned import apply, opened, planned
from tests.benchmarks.writing import tell, written

from playbook import undoing
from playbook.context import open_context
from playbook.phase import Playbook
from playbook.target.execute import STOPS_WRITERS, LockPolicy

SIZES = [int(size) for size in os.environ.get("BENCH_ROWS", "200000 2000000").split()]
LOCKS_LIMIT_MS = 20.0
WAIT_LIMIT_MS = 60.0
READER_S = 2.0

STEP = (
    "{name: log_partitioned, kind: partition, table: log, key: at, every: month, keep: always, "
    "accept: per-partition uniqueness of id}"
)

ROWS = """
CREATE TABLE people (id int PRIMARY KEY);
INSERT INTO people SELECT generate_series(1, 1000);
CREATE TABLE log (id bigint PRIMARY KEY, person int REFERENCES people, action text NOT NULL, at timestamptz NOT NULL);
INSERT INTO log SELECT n, 1 + n % 1000, 'action ' || n % 7, timestamptz '2024-01-01 00:00:00+00' + interval '1000 days' * (n / {rows}.0)
FROM generate_series(1, {rows}) n;
CREATE INDEX log_person ON log (person);
CREATE INDEX log_at ON log (at);
"""


@pytest.mark.parametrize("rows", SIZES)
def test_locks_are_held_as_briefly_on_a_large_table_as_on_a_small_one(empty, tmp_path, monkeypatch, rows):
    with empty.connect() as connection:
        connection.execute(ROWS.format(rows=rows))
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
    settings = planned(empty, tmp_path, monkeypatch, STEP, "log")
    refusals: list[str] = []

    def context():
        context = opened(settings, refusals)
        context.policy = LockPolicy(backoff_s=(0.1, 0.5))
        return context

    def apply_beside_a_reader():
        with _reader(empty):
            apply(context())

    locks: dict[str, float] = {}

    def apply_timed():
        stopping = {
            statement.sql: statement.purpose
            for _, statements, _ in Playbook(context()).phase("1").preview().steps
            for statement in statements
            if statement.lock in STOPS_WRITERS
        }
        with empty.connect() as prober, _timed(prober, stopping, locks):
            apply(context())

    write = "INSERT INTO log VALUES ({} + %s, 1, 'written', now())"
    idle = written(empty, write.format(10 * rows), lambda: time.sleep(3))
    started = time.monotonic()
    during = written(empty, write.format(20 * rows), apply_timed)
    seconds = time.monotonic() - started
    figures = {"rows": rows, "seconds": round(seconds, 1), "refused_locks": len(refusals)}
    figures |= {"locks_ms": {purpose: round(ms, 1) for purpose, ms in locks.items()}}
    figures |= {"locks_together_ms": round(sum(locks.values()), 1), "locks_limit_ms": LOCKS_LIMIT_MS}
    tell("partition by attaching: locks", during, idle, **figures)
    assert [one.error for one in undoing.undo(context())] == [""]
    refusals.clear()
    during = written(empty, write.format(30 * rows), apply_beside_a_reader)
    figures = {"rows": rows, "refused_locks": len(refusals), "worst_limit_ms": WAIT_LIMIT_MS}
    tell("partition by attaching: a writer beside a reader", during, idle, **figures)
    assert sum(locks.values()) <= LOCKS_LIMIT_MS
    assert refusals, "no lock was asked for while the reader held the table"
    assert max(during) <= WAIT_LIMIT_MS


@pytest.mark.parametrize("rows", SIZES)
def test_undo_long_after_the_cutoff_keeps_no_writer_waiting(empty, tmp_path, monkeypatch, rows):
    with empty.connect() as connection:
        connection.execute(ROWS.format(rows=rows))
        connection.execute("VACUUM (ANALYZE)")
    settings = planned(empty, tmp_path, monkeypatch, STEP, "log")
    apply(open_context(settings))
    with empty.connect() as connection:
        late = "timestamptz '2040-01-01 00:00:00+00' + n * interval '1 second'"
        connection.execute(f"INSERT INTO log SELECT -n, 1, 'late', {late} FROM generate_series(1, {rows // 20}) n")
        connection.execute("CHECKPOINT")
    write = "INSERT INTO log VALUES ({} + %s, 1, 'written', now())"
    idle = written(empty, write.format(10 * rows), lambda: time.sleep(3))
    told: list[tuple[float, str]] = []

    def undo():
        started = time.monotonic()
        context = open_context(settings, lambda text: told.append((round(time.monotonic() - started, 2), text)))
        assert [one.error for one in undoing.undo(context)] == [""]
        told.append((round(time.monotonic() - started, 2), "undone"))

    during = written(empty, write.format(20 * rows), undo)
    tell("undo of an attached table", during, idle, rows=rows, seconds=told[-1][0], worst_limit_ms=WAIT_LIMIT_MS)
    print(*(f"{at:8.2f} s {text}" for at, text in told), sep="\n")
    assert any("copy the rows" in text for _, text in told)
    assert max(during) <= WAIT_LIMIT_MS


@contextmanager
def _timed(prober: psycopg.Connection, stopping: dict[str, str], locks: dict[str, float]) -> Iterator[None]:
    """Milliseconds from sending each statement that stops writers until another session has what it locked.

    The prober asks as the COMMIT is sent; a client hears of the COMMIT only later, when files are removed as well.
    """
    began: dict[int, tuple[str, float]] = {}
    execute, leave = psycopg.Connection.execute, psycopg.Transaction.__exit__

    def timed_execute(self, query, *args, **kwargs):
        text = query.decode() if isinstance(query, bytes) else ""
        if text in stopping:
            began[id(self)] = (stopping[text], time.perf_counter())
        return execute(self, query, *args, **kwargs)

    def timed_leave(self, kind, *rest):
        purpose, start = began.pop(id(self.connection), ("", 0.0))
        if not purpose or kind is not None:
            return leave(self, kind, *rest)
        ended: list[float] = []

        def probe():
            execute(prober, "LOCK TABLE log, people IN ROW EXCLUSIVE MODE")
            ended.append(time.perf_counter())
            prober.rollback()

        execute(prober, "BEGIN")
        probing = threading.Thread(target=probe)
        probing.start()
        done = leave(self, kind, *rest)
        probing.join()
        locks[purpose] = 1000 * (ended[0] - start)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", timed_execute)
        patch.setattr(psycopg.Transaction, "__exit__", timed_leave)
        yield


@contextmanager
def _reader(target) -> Iterator[None]:
    """Transactions that have read the table and hold it for `READER_S` each, with half as long in between."""
    stop, reading = threading.Event(), threading.Event()

    def read() -> None:
        with target.connect() as reader:
            while not stop.is_set():
                with reader.transaction():
                    reader.execute("SELECT count(*) FROM log WHERE id < 1000")
                    reading.set()
                    stop.wait(READER_S)
                stop.wait(READER_S / 2)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert reading.wait(30)
        yield
    finally:
        stop.set()
        thread.join()
