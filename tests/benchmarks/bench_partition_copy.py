"""What copying a table into its partitions costs: `pytest tests/benchmarks/bench_partition_copy.py -s -n 0`.

2 M rows of two years (BENCH_COPY_ROWS for another number) with two secondary indexes and a light writer. Measured beside
the copy are two other ways into the very same tables and indexes, with the same writer: the limit, a plain
`INSERT … SELECT` with the indexes built after it, and batches of 10,000 by primary key with the indexes in place. All three
run under the server's settings as they are; the copy works with two sessions at once, as it does unless told otherwise.
"""

import json
import os
import time

from tests.benchmarks.copying import LIMIT, MEMORY_LIMIT_MB, Successor, client_mb, make_log
from tests.benchmarks.planned import planned
from tests.benchmarks.writing import written

from playbook.context import open_context
from playbook.phase import Playbook

COPY_ROWS = int(os.environ.get("BENCH_COPY_ROWS", "2000000"))
BUFFERS_LIMIT = 10.0
BATCH = 10_000
WRITES_PER_S = 50.0

STEP = (
    "{name: log_partitioned, kind: partition, table: log, key: at, every: month, route: copy, "
    "keep: always, accept: per-partition uniqueness of id}"
)
MONTH = "SELECT action, count(*) FROM {table} WHERE at >= '2025-03-01' AND at < '2025-04-01' GROUP BY action"


def test_a_copy_takes_little_longer_than_a_plain_one_and_less_than_batches(empty, tmp_path, monkeypatch):
    make_log(empty, COPY_ROWS, "CREATE TABLE unindexed AS SELECT * FROM log")
    settings = planned(empty, tmp_path, monkeypatch, STEP, "log")
    ((_, statements, _),) = Playbook(open_context(settings)).phase("1").preview().steps
    successor = Successor.of(statements, "log_partitioned")
    seconds: dict[str, float] = {}
    parts: dict[str, float] = {}
    told: list[tuple[float, str]] = []

    def plain(connection):
        parts["plain_rows_s"] = round(successor.plainly(connection, "log"), 2)

    def batched(connection):
        successor.index(connection)
        for low in range(0, COPY_ROWS, BATCH):
            connection.execute(
                f"INSERT INTO log_partitioned SELECT * FROM log WHERE id > {low} AND id <= {low + BATCH}"
            )

    def other(name, fill):
        seconds[name] = successor.filled(empty, fill)

    def beside_a_writer(number, work):
        insert = f"INSERT INTO log VALUES ({number * COPY_ROWS} + %s, 1, 'written', now())"
        return written(empty, insert, work, per_s=WRITES_PER_S)

    def ours():
        with empty.connect() as connection:
            connection.execute("CHECKPOINT")
        started = time.monotonic()
        context = open_context(settings, lambda text: told.append((round(time.monotonic() - started, 2), text)))
        ((_, state, _),) = Playbook(context).phase("1").apply().steps
        seconds["copy"] = time.monotonic() - started
        assert state.status == "applied", state.reason

    beside_a_writer(10, lambda: other("plain", plain))
    memory = client_mb()
    during = beside_a_writer(20, ours)
    grown_mb = client_mb() - memory
    buffers = {name: _buffers(empty, name) for name in ("log", "log_unpartitioned", "unindexed")}
    with empty.connect() as connection:
        ((differ,),) = connection.execute(
            f"SELECT count(*) FROM (SELECT * FROM log EXCEPT ALL SELECT * FROM log_unpartitioned) d WHERE id < {COPY_ROWS}"
        ).fetchall()
        connection.execute("ALTER TABLE log RENAME TO done; ALTER TABLE log_unpartitioned RENAME TO log")
        connection.execute("DROP TABLE done; DROP FUNCTION log_changes_since() CASCADE; DROP TABLE log_changes_since")
    beside_a_writer(30, lambda: other("batches", batched))
    figures = {
        "rows": COPY_ROWS,
        **{f"{name}_s": round(value, 2) for name, value in seconds.items()},
        **parts,
        "ratio": round(seconds["copy"] / seconds["plain"], 2),
        "limit_s": round(LIMIT * seconds["plain"], 2),
        "client_grown_mb": round(grown_mb, 1),
        "statements": len(during),
        "worst_ms": round(max(during), 1),
        "month_buffers": buffers["log"],
        "month_buffers_indexed": buffers["log_unpartitioned"],
        "month_buffers_unindexed": buffers["unindexed"],
    }
    print(json.dumps({"benchmark": "partition by copying", **figures}))
    print(*(f"{at:8.2f} s {text}" for at, text in told), sep="\n")
    assert differ == 0
    assert seconds["copy"] <= LIMIT * seconds["plain"]
    assert seconds["copy"] < seconds["batches"]
    assert BUFFERS_LIMIT * buffers["log"] <= buffers["unindexed"]
    assert grown_mb <= MEMORY_LIMIT_MB


def _buffers(target, table: str) -> int:
    """Pages that the query of one month touches, the second time it runs."""
    with target.connect() as connection:
        connection.execute(f"VACUUM (ANALYZE) {table}".encode())
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {MONTH.format(table=table)}".encode()
        connection.execute(explain)
        ((plan,),) = connection.execute(explain).fetchall()
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
