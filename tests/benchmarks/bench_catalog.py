"""Reading large catalogs and looking at them: `pytest -n 0 tests/benchmarks/bench_catalog.py -s`.

One read of the catalog and all the checks on 5,000 tables with 20,000 indexes: queries, seconds, memory. And a whole dry
run on 60 tables with 260 indexes, beside the start-up of its notebooks.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import psycopg
from nbformat.v4 import new_code_cell, new_notebook

from playbook.assess.assessment import assess
from playbook.context import open_context
from playbook.run import run
from playbook.settings import NOTEBOOKS, Settings
from playbook.target.catalog import read

TABLES, INDEXES = 5_000, 20_000
QUERIES_LIMIT, SECONDS_LIMIT, MEGABYTES_LIMIT = 12, 5.0, 500.0
CHECKS_LIMIT_S = 10.0
"""As much as a dry run of a small database may take: a large one is looked at in the same time."""
DRY_RUN_LIMIT_S = 10.0
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
IMPORTS = "import matplotlib.figure, pandas, sql.magic, playbook.health, playbook.notebook"
"""What every notebook has to load before it can do anything; its kernel's start and this are its start-up."""
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


def build(connection, tables):
    """`tables` tables with four indexes each."""
    for first in range(1, tables + 1, BATCH):
        connection.execute(BUILD.format(first=first, last=min(tables, first + BATCH - 1)))


def test_reading_and_checking_5000_tables_and_20000_indexes(scratch, tmp_path):
    connection = scratch()
    started = time.perf_counter()
    build(connection, TABLES)
    print(f"\nbuilt in {time.perf_counter() - started:.0f} s")
    read_, checked = measured("read_once", connection), measured("check_once", connection, PLAYBOOK_OUT=str(tmp_path))
    for figures, limit_s in ((read_, SECONDS_LIMIT), (checked, CHECKS_LIMIT_S)):
        print(json.dumps({**figures, "limit_s": limit_s, "limit_mb": MEGABYTES_LIMIT}))
        assert (figures["tables"], figures["indexes"]) == (TABLES, INDEXES)
        assert figures["seconds"] <= limit_s
        assert figures["megabytes"] <= MEGABYTES_LIMIT
    assert read_["queries"] <= QUERIES_LIMIT


def measured(what, connection, **environ):
    """In a process of its own, so that its peak memory is the work's; over a new session, whose caches are cold."""
    told = subprocess.run(
        [sys.executable, __file__, what],
        env={
            **os.environ,
            "BENCH_CONNINFO": connection.info.dsn,
            "PGPASSWORD": connection.info.password,
            "BENCH_URL": url(connection),
            **environ,
        },
        check=True,
        capture_output=True,
        text=True,
    )
    return {"benchmark": what, **json.loads(told.stdout.splitlines()[-1])}


def url(connection):
    info = connection.info
    return f"postgresql://{info.user}:{info.password}@/{info.dbname}?host={info.host}&port={info.port}"


def told(catalog, queries, seconds):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    indexes = sum(len(table.indexes) for table in catalog.tables)
    figures = {"tables": len(catalog.tables), "indexes": indexes, "queries": queries}
    own = {"seconds": round(seconds, 3), "client_cpu_s": round(time.process_time(), 3), "megabytes": round(peak, 1)}
    print(json.dumps({**figures, **own}))


class Counted(psycopg.Cursor):
    """Counts what is asked."""

    asked = 0

    def execute(self, *arguments, **options):
        Counted.asked += 1
        return super().execute(*arguments, **options)


def read_once() -> None:
    with psycopg.connect(os.environ["BENCH_CONNINFO"], autocommit=True, cursor_factory=Counted) as connection:
        started = time.perf_counter()
        catalog = read(connection)
        seconds = time.perf_counter() - started
    told(catalog, Counted.asked, seconds)


def check_once() -> None:
    """All the checks, the two snapshots at once; connecting and reading the catalog come before."""
    context = open_context(Settings.from_environ(target="env:BENCH_URL"))
    assessment = assess(context, window_s=0.0)
    told(context.catalog, assessment.queries, assessment.seconds)


def started_up(folder):
    """Seconds that a notebook takes which only loads what all of them load."""
    path = folder / "bare.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(IMPORTS)], metadata={"kernelspec": KERNEL}), path)
    started = time.perf_counter()
    papermill.execute_notebook(str(path), str(folder / "bare_run.ipynb"), cwd=str(NOTEBOOKS), progress_bar=False)
    return time.perf_counter() - started


def test_a_dry_run_on_60_tables_and_260_indexes(scratch, tmp_path, monkeypatch):
    connection = scratch()
    build(connection, 60)
    connection.execute(
        "DO $$ BEGIN FOR i IN 1..20 LOOP EXECUTE format('CREATE INDEX ON %I (note)', 'table ' || i); END LOOP; END $$"
    )
    count = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE relnamespace = 'public'::regnamespace"
    assert connection.execute(count).fetchone() == (260,)
    monkeypatch.setenv("BENCH_URL", url(connection))
    started = time.perf_counter()
    result = run(Settings(target="env:BENCH_URL", out=Path(tmp_path)), progress=lambda text: None)
    seconds = time.perf_counter() - started
    notebooks = result.results["notebooks"]
    start_up_s = started_up(tmp_path)
    beside = seconds - start_up_s * len(notebooks)
    figures = {
        "benchmark": "dry run",
        "notebooks": len(notebooks),
        "seconds": round(seconds, 1),
        "start_up_s": round(start_up_s, 1),
    }
    print("\n" + json.dumps({**figures, "beside_start_up_s": round(beside, 1), "limit_s": DRY_RUN_LIMIT_S}))
    print(json.dumps({each["name"]: each["seconds"] for each in notebooks}))
    assert {each["status"] for each in notebooks} == {"ok"}
    assert result.results["findings"]
    assert beside <= DRY_RUN_LIMIT_S


if __name__ == "__main__":
    {"read_once": read_once, "check_once": check_once}[sys.argv[1]]()
