"""Are the verdicts right on a real server? Unchanged queries compared with themselves, and gains of known size.

    python tests/benchmarks/bench_statistics.py "host=… dbname=…" [--phases 10] [--seed 1]

Each phase measures 20 unchanged queries, 4 that do 1.3 times the work before, and the controls; before and after are
two blocks of 20 rounds each, after measured again while the controls are off their pace before. The plans are not looked at: only the times speak. Prints one JSON line a comparison and
a last one with the rates. Works in a schema of its own, which it drops. Takes about three minutes on an idle machine.

Wanted: of 200 unchanged queries at most 2 faster or slower and at most 20 unstable; of 40 gains at least 38 found.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from playbook.evidence.compare import Comparison, compare, machine_drift, steadiest
from playbook.evidence.measure import measure, yardsticks
from playbook.plan.workload import Bound

SCHEMA = "playbook_bench"
GAIN = 1.3
GAINS = 4
TABLES = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
CREATE TABLE {SCHEMA}.events AS
  SELECT i AS id, i % 997 AS user_id, md5(i::text) AS name, (i * 7919 % 10007) / 100.0 AS value,
         timestamptz '2024-01-01' + i * interval '1 minute' AS at
  FROM generate_series(1, 50000) AS i;
CREATE TABLE {SCHEMA}.users AS SELECT i AS id, md5(i::text) AS name FROM generate_series(0, 996) AS i;
CREATE INDEX ON {SCHEMA}.events (user_id, at);
CREATE INDEX ON {SCHEMA}.events (id);
CREATE INDEX ON {SCHEMA}.users (id);
"""
UNCHANGED = [
    f"SELECT * FROM {SCHEMA}.events WHERE user_id = {{0}} ORDER BY at DESC LIMIT 20",
    f"SELECT count(*), sum(value) FROM {SCHEMA}.events WHERE id BETWEEN {{0}} AND {{0}} + 5000",
    f"SELECT name, count(*) FROM {SCHEMA}.events WHERE id < {{0}} + 2000 GROUP BY name ORDER BY 2 DESC, 1 LIMIT 5",
    f"SELECT u.name, avg(e.value) FROM {SCHEMA}.events e JOIN {SCHEMA}.users u ON u.id = e.user_id"
    " WHERE e.id < {0} + 3000 GROUP BY u.name",
    f"SELECT * FROM {SCHEMA}.events WHERE name LIKE '%{{0}}%' LIMIT 50",
]


def main() -> int:
    """Runs the benchmark; 1 when a rate is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dsn", help="libpq connection string of a database to work in")
    parser.add_argument("--phases", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(arguments.dsn, autocommit=True)

    start = time.monotonic()
    with connect() as connection:
        connection.execute(TABLES)
        connection.execute(f"VACUUM (ANALYZE, PARALLEL 0) {SCHEMA}.events, {SCHEMA}.users")
    try:
        found = [each for phase in range(arguments.phases) for each in _phase(connect, phase, arguments.seed)]
    finally:
        with connect() as connection:
            connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
    summary = _summary(found) | {"seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(summary))
    return 0 if summary["met"] else 1


def _phase(connect: Callable[[], psycopg.Connection[Any]], phase: int, seed: int) -> Iterator[Comparison]:
    chosen = random.Random(f"{seed}/{phase}")
    unchanged = [
        Bound(f"unchanged_{n}", "common", UNCHANGED[n % len(UNCHANGED)].format(chosen.randrange(997)))
        for n in range(20)
    ]
    controls = [*yardsticks(), Bound("control", "common", f"SELECT max(name) FROM {SCHEMA}.events WHERE id < 20000")]
    worked, less = _gains(connect, chosen)
    before = measure(connect, [*unchanged, *worked, *controls], blocks=2, budget_s=300)
    names = {control.query for control in controls}
    after = steadiest(
        lambda: measure(connect, [*unchanged, *less, *controls], blocks=2, budget_s=300),
        lambda after: machine_drift(before, after, controls=names),
    )
    for comparison in compare(before, after, controls=names, by_plan=False):
        print(json.dumps({"phase": phase} | _line(comparison)), flush=True)
        yield comparison


def _gains(connect: Callable[[], psycopg.Connection[Any]], chosen: random.Random) -> tuple[list[Bound], list[Bound]]:
    """Queries that hash a series, with a number of rows before for which they take `GAIN` times as long as after."""
    low, high = 2_000, 12_000
    calibrated = measure(connect, [_hashing("low", low), _hashing("high", high)], rounds=15, budget_s=30)
    low_ms, high_ms = (each.median_ms or 0.0 for each in calibrated)
    per_row = (high_ms - low_ms) / (high - low)
    fixed = max(low_ms - per_row * low, 0.0)
    sizes = [chosen.randrange(3_000, 9_000) for _ in range(GAINS)]
    more = [round(size + (GAIN - 1) * (size + fixed / per_row)) for size in sizes]
    return (
        [_hashing(f"gain_{n}", size) for n, size in enumerate(more)],
        [_hashing(f"gain_{n}", size) for n, size in enumerate(sizes)],
    )


def _hashing(name: str, rows: int) -> Bound:
    return Bound(name, "common", "SELECT max(md5(i::text)) FROM generate_series(1, $1::int) AS i", (str(rows),))


def _line(comparison: Comparison) -> dict[str, Any]:
    shown = ("query", "rounds", "before_ms", "after_ms", "speedup", "ci95", "verdict", "reason")
    return {name: getattr(comparison, name) for name in shown}


def _summary(found: list[Comparison]) -> dict[str, Any]:
    verdicts = {
        kind: Counter(each.verdict for each in found if each.query.startswith(kind)) for kind in ("unchanged", "gain")
    }
    totals = {kind: sum(counted.values()) for kind, counted in verdicts.items()}
    false = verdicts["unchanged"]["faster"] + verdicts["unchanged"]["slower"]
    rates = {
        "false_pct": 100 * false / totals["unchanged"],
        "unstable_pct": 100 * verdicts["unchanged"]["unstable"] / totals["unchanged"],
        "gains_found_pct": 100 * verdicts["gain"]["faster"] / totals["gain"],
    }
    met = rates["false_pct"] <= 1 and rates["unstable_pct"] <= 10 and rates["gains_found_pct"] >= 95
    return {"verdicts": {kind: dict(counted) for kind, counted in verdicts.items()}} | rates | {"met": met}


if __name__ == "__main__":
    sys.exit(main())
