"""The rows of the sample: the SQL files of its domain, run on an empty database, two tables at a time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any

import psycopg

from playbook.target.sql import quote

SOURCE = Path(__file__).parents[3] / "data" / "proposals"
WORKERS = 2

_SECTION = re.compile(r"^-- section: (.+)$", re.MULTILINE)
_SESSION = """
    SET synchronous_commit = off;
    SET jit = off;
    SET maintenance_work_mem = '256MB';
    SET max_parallel_maintenance_workers = 0;
    SET statement_timeout = 0;
    SET lock_timeout = 0;
"""
# What a table's rows and indexes cost, in tenths of a second of one core at scale 1: progress is reckoned by it.
_EFFORT = {
    "hypothesis_validation_events": 98,
    "audit_logs": 130,
    "proposal_sections": 66,
    "proposal_products": 55,
    "validation_issues": 50,
    "approval_executions": 30,
    "proposals": 42,
    "content": 20,
}
_SMALL = 2
_VACUUM_TRIES = 5


def digest(scale: str, major: int) -> str:
    """Tells apart what samples are made from: the SQL files, the scale, the server's major version."""
    found = hashlib.sha256(f"{scale} {major}\n".encode())
    for file in ("schema.sql", "generate.sql"):
        found.update((SOURCE / file).read_bytes())
    return found.hexdigest()


def fill(workers: Sequence[psycopg.Connection[Any]], scale: str, tell: Callable[[str, float], None]) -> None:
    """Makes tables, rows, indexes, foreign keys and statistics in the empty database that `workers` are connected to.

    Args:
        workers: autocommit sessions of the owner; each works on another table.
        scale: 1 makes 4.4 million rows.
        tell: told what was done, and its share of all.
    """
    schema, rows = _sections("schema.sql"), _sections("generate.sql")
    prelude = rows.pop("")
    for worker in workers:
        worker.execute(_SESSION)
        worker.execute("SELECT set_config('playbook.scale', %s, false)", [scale])
        worker.execute(prelude)
    workers[0].execute(schema["tables"])
    loads = {table: (insert, schema[f"indexes {table}"]) for table, insert in rows.items()}
    _run(workers, loads, lambda table, share: tell(f"rows and indexes of {table}", 0.85 * share))
    # On disk before VACUUM looks: it takes rows for visible to all only when their commit has been flushed.
    workers[0].execute("SET synchronous_commit = on")
    workers[0].execute(schema["foreign keys"])
    checks = {table: (schema.get(f"validate {table}", ""),) for table in rows}
    _run(workers, checks, lambda table, share: tell(f"foreign keys of {table}", 0.85 + 0.05 * share))
    vacuums = {table: (f"VACUUM (FREEZE) {quote(table)}",) for table in rows}
    _run(workers, vacuums, lambda table, share: tell(f"visibility of {table}", 0.9 + 0.05 * share))
    _vacuum_missed(workers[0])
    analyses = {table: (f"ANALYZE {quote(table)}",) for table in rows}
    _run(workers, analyses, lambda table, share: tell(f"statistics of {table}", 0.95 + 0.05 * share))


def _vacuum_missed(worker: psycopg.Connection[Any]) -> None:
    """Vacuums, with nothing beside it, the tables in which VACUUM took rows for invisible to some transaction.

    It does so when another session of this database, autovacuum's for one, holds a snapshot just then, since that looks
    back to the oldest transaction of the whole server. Index-only scans would visit the table for those rows.
    """
    for _ in range(_VACUUM_TRIES):
        missed = worker.execute(
            "SELECT oid::regclass::text FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relallvisible < relpages"
        ).fetchall()
        for (table,) in missed:
            worker.execute(f"VACUUM (FREEZE) {table}")


def _run(
    workers: Sequence[psycopg.Connection[Any]],
    tables: Mapping[str, Sequence[str]],
    tell: Callable[[str, float], None],
) -> None:
    """Runs the statements of every table in their order, as many tables at a time as there are workers."""
    idle, stop = list(workers), Event()
    done, total = 0, sum(_EFFORT.get(table, _SMALL) for table in tables)

    def work(table: str) -> str:
        worker = idle.pop()
        try:
            for statement in tables[table]:
                if not stop.is_set():
                    worker.execute(statement)
        finally:
            idle.append(worker)
        return table

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            for future in as_completed([pool.submit(work, table) for table in tables]):
                table = future.result()
                done += _EFFORT.get(table, _SMALL)
                tell(table, done / total)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.cancel_safe()
            raise


def _sections(file: str) -> dict[str, str]:
    """The parts of an SQL file by name; what stands before the first one is `""`."""
    parts = _SECTION.split((SOURCE / file).read_text(encoding="utf-8"))
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))
