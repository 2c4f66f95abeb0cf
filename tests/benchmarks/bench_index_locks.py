"""How long a writer waits while an index is made and taken back beside a reader: `pytest tests/benchmarks/bench_index_locks.py -s`.

A reader's transaction holds the table for 30 s, a writer updates 200 rows a second (open loop, counted from the
scheduled start), on a plain table and on one of twelve partitions.
"""

import time

import pytest
from tests.benchmarks.planned import apply, opened, planned
from tests.benchmarks.writing import Reader, tell, written

from playbook import undoing

ROWS = 300_000
WAIT_LIMIT_MS = 60.0
READER_S = 30.0

STEP = "{name: readings_value, kind: index, table: readings, columns: [value, id], keep: always}"
COLUMNS = "(id int NOT NULL, value int NOT NULL, note text NOT NULL)"
PLAIN = f"CREATE TABLE readings {COLUMNS}"
PARTS = "".join(
    f"; CREATE TABLE readings_{n} PARTITION OF readings FOR VALUES FROM ({n * ROWS // 12}) TO ({(n + 1) * ROWS // 12})"
    for n in range(12)
)
WRITE = f"UPDATE readings SET value = value + 1 WHERE id = %s % {ROWS}".replace(" % ", " %% ")


@pytest.mark.parametrize("table", [PLAIN, f"{PLAIN} PARTITION BY RANGE (id){PARTS}"], ids=["plain", "partitioned"])
def test_no_writer_waits_long_while_an_index_is_made_and_taken_back(empty, tmp_path, monkeypatch, table):
    with empty.connect() as connection:
        connection.execute(table)
        connection.execute(
            f"INSERT INTO readings SELECT n, n % 1000, 'note ' || n FROM generate_series(0, {ROWS - 1}) n"
        )
        connection.execute("CREATE INDEX readings_id ON readings (id)")
        connection.execute("VACUUM (ANALYZE) readings")
    settings = planned(empty, tmp_path, monkeypatch, STEP, "readings")
    refusals: list[str] = []

    def apply_beside_a_reader():
        with Reader(empty, "SELECT count(*) FROM readings", READER_S):
            apply(opened(settings, refusals))

    def undo_beside_a_reader():
        with Reader(empty, "SELECT count(*) FROM readings", READER_S):
            (one,) = undoing.undo(opened(settings, refusals))
        assert one.error == ""

    idle = written(empty, WRITE, lambda: time.sleep(3))
    worst = {}
    for name, work in (("apply", apply_beside_a_reader), ("undo", undo_beside_a_reader)):
        refusals.clear()
        taken = written(empty, WRITE, work)
        worst[name] = max(taken)
        shape = {"verb": name, "rows": ROWS, "partitioned": "PARTITION" in table}
        tell("index_locks", taken, idle, **shape, refused_locks=len(refusals), limit_ms=WAIT_LIMIT_MS)
    assert max(worst.values()) <= WAIT_LIMIT_MS
