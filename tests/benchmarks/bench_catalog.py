"""How long one read of a large catalog takes, and how much memory: `pytest tests/benchmarks/bench_catalog.py -s`."""

import json
import os
import resource
import subprocess
import sys
import time

import psycopg

from playbook.target.catalog import read

TABLES, INDEXES = 5_000, 20_000
SECONDS_LIMIT, MEGABYTES_LIMIT = 5.0, 500.0
BATCH = 250  # tables a transaction: each table and index holds a lock until the commit

BUILD = """
DO $$
BEGIN
  FOR i IN {first}..{last} LOOP
    EXECUTE format('CREATE TABLE %1$I (id bigint PRIMARY KEY, user_id int NOT NULL, status varchar(20) NOT NULL,
      title text COLLATE "C", value numeric(12,2) DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(),
      updated_at timestamptz, tags text[], "isActive" boolean DEFAULT true, note text,
      CONSTRAINT %2$I CHECK (value >= 0), CONSTRAINT %3$I CHECK (id > 0) NOT VALID)',
      'table ' || i, 'c' || i, 'd' || i);
    EXECUTE format('CREATE INDEX %1$I ON %2$I (user_id, created_at DESC) INCLUDE (status)', 'a' || i, 'table ' || i);
    EXECUTE format('CREATE INDEX %1$I ON %2$I (lower(title), status text_pattern_ops) WHERE "isActive" AND value > 5',
                   'b' || i, 'table ' || i);
    EXECUTE format('CREATE INDEX %1$I ON %2$I (status, user_id, created_at DESC NULLS LAST)', 'e' || i, 'table ' || i);
  END LOOP;
END $$
"""


def test_reading_5000_tables_and_20000_indexes(scratch):
    connection = scratch()
    started = time.perf_counter()
    for first in range(1, TABLES + 1, BATCH):
        connection.execute(BUILD.format(first=first, last=first + BATCH - 1))
    built_s = time.perf_counter() - started
    told = subprocess.run(
        [sys.executable, __file__],
        env={**os.environ, "BENCH_CONNINFO": connection.info.dsn, "PGPASSWORD": connection.info.password},
        check=True,
        capture_output=True,
        text=True,
    )
    figures = json.loads(told.stdout)
    seconds, megabytes = figures["catalog_read_s"], figures["catalog_read_mb"]
    print(f"\nbuilt in {built_s:.0f} s; read {figures['tables']} tables and {figures['indexes']} indexes")
    print(f"  {seconds:.2f} s of {SECONDS_LIMIT:.0f} s allowed ({seconds / SECONDS_LIMIT:.0%})")
    print(f"  {megabytes:.0f} MB of {MEGABYTES_LIMIT:.0f} MB allowed ({megabytes / MEGABYTES_LIMIT:.0%})")
    print(json.dumps({"benchmark": "catalog", **figures, "limit_s": SECONDS_LIMIT, "limit_mb": MEGABYTES_LIMIT}))
    assert (figures["tables"], figures["indexes"]) == (TABLES, INDEXES)
    assert seconds <= SECONDS_LIMIT
    assert megabytes <= MEGABYTES_LIMIT


def read_once() -> None:
    """In a process of its own, so that its peak memory is the read's; over a new session, whose caches are cold."""
    with psycopg.connect(os.environ["BENCH_CONNINFO"], autocommit=True) as connection:
        started = time.perf_counter()
        catalog = read(connection)
        seconds = time.perf_counter() - started
    figures = {
        "tables": len(catalog.tables),
        "indexes": sum(len(table.indexes) for table in catalog.tables),
        "catalog_read_s": round(seconds, 3),
        "catalog_read_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    read_once()
