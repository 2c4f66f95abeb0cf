"""The sample database: what is in it, and the life of its template, working copies and scratch copies."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors as e

from playbook.errors import Busy, EmbeddedError, UsageError
from playbook.plan import workload
from playbook.plan.binds import bind
from playbook.plan.names import Names
from playbook.target import catalog, embedded, generator, sample

Connect = Callable[[str], psycopg.Connection[Any]]

SCALE = 0.02
TINY = 0.001
ROWS = {
    "hypothesis_validation_events": 20_000,
    "audit_logs": 20_000,
    "proposals": 4_000,
    "proposal_products": 12_000,
    "proposal_sections": 12_000,
    "content": 2_000,
    "approval_executions": 6_000,
    "validation_issues": 8_000,
    "performance_baselines": 1_000,
    "users": 100,
    "customers": 400,
    "products": 100,
}
PLANNED = {
    "idx_hypothesis_events_user_timestamp_hypothesis": (
        "hypothesis_validation_events (user_id, timestamp DESC, hypothesis)",
        "user_activity_by_hypothesis",
    ),
    "idx_proposal_status_customer_created": (
        "proposals (status, customer_id, created_at DESC)",
        "proposal_count_of_customer_by_status",
    ),
    "idx_content_search_optimization": (
        "content (type, is_active, category, created_at DESC)",
        "content_counts_by_category",
    ),
    "idx_approval_execution_status_workflow_started": (
        "approval_executions (status, workflow_id, started_at DESC)",
        "approval_queue_total",
    ),
    "idx_validation_issues_entity_severity_status": (
        "validation_issues (entity_type, severity, status, detected_at DESC)",
        "validation_inbox_total",
    ),
    "idx_hypothesis_validation_compound": (
        "hypothesis_validation_events (hypothesis, user_id, timestamp DESC, target_value, actual_value)"
        " WHERE actual_value IS NOT NULL",
        "hypothesis_results_by_user",
    ),
    "idx_performance_baseline_lookup": (
        "performance_baselines (hypothesis, metric_name, collection_date DESC)",
        "baseline_coverage",
    ),
}


@pytest.fixture(scope="module")
def connect(server: embedded.Server) -> Connect:
    return lambda dbname: psycopg.connect(**server.conninfo(dbname), autocommit=True)


@pytest.fixture
def pristine(connect: Connect) -> Iterator[psycopg.Connection[Any]]:
    """The template of the tests' scale, which nothing may change."""
    with connect(sample.provision(connect, SCALE).pristine) as connection:
        yield connection


@pytest.fixture
def tiny(connect: Connect) -> sample.Sample:
    """A sample that a test may replace or spoil: whatever an earlier one left of it is mended first."""
    made = sample.provision(connect, TINY)
    return made if made.current else sample.reset(connect, TINY, force=True)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The SQL files, to be changed by a test."""
    monkeypatch.setattr(generator, "SOURCE", Path(shutil.copytree(generator.SOURCE, tmp_path / "proposals")))
    return generator.SOURCE


def one(connection: psycopg.Connection[Any], sql: str, *values: Any) -> Any:
    return connection.execute(sql, values or None).fetchone()[0]


def databases(connect: Connect, like: str) -> set[str]:
    with connect("postgres") as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [like])}


def drop_all(connect: Connect, names: tuple[str, ...]) -> None:
    with connect("postgres") as connection:
        for name in names:
            if databases(connect, name):
                connection.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def checksums(connection: psycopg.Connection[Any]) -> dict[str, str]:
    tables = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    return {
        table: one(connection, f"SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM {table} AS t")
        for (table,) in tables
    }


def assert_grows_to_the_whole(told: list[tuple[str, float]]) -> None:
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "rows and indexes of audit_logs" in dict(told)


# what is in it


def test_it_holds_the_promised_rows_in_proportion_to_its_scale(pristine):
    assert {table: one(pristine, f"SELECT count(*) FROM {table}") for table in ROWS} == ROWS


def test_two_generations_hold_the_same_rows(connect, tiny):
    with connect(tiny.pristine) as connection:
        first = checksums(connection)
    drop_all(connect, (tiny.pristine, tiny.working))
    told: list[tuple[str, float]] = []
    sample.provision(connect, TINY, lambda step, share: told.append((step, share)))
    with connect(tiny.pristine) as connection:
        assert checksums(connection) == first
    assert len(first) == 16
    assert None not in first.values()
    assert_grows_to_the_whole(told)


def test_a_hundredth_of_the_users_makes_much_more_than_a_hundredth_of_the_events(pristine):
    share = """
        SELECT max(n) / sum(n) FROM (SELECT count(*) AS n FROM hypothesis_validation_events GROUP BY user_id) AS by_user
    """
    assert one(pristine, share) > 0.1


def test_its_last_months_are_denser_than_its_first(pristine):
    for table, column in [("proposals", "created_at"), ("audit_logs", "timestamp")]:
        by_year = f"SELECT count(*) FROM {table} WHERE date_part('year', {column} AT TIME ZONE 'UTC') = %s"
        assert one(pristine, by_year, 2025) > 1.5 * one(pristine, by_year, 2024)
        assert one(pristine, f"SELECT count(*) FROM {table} WHERE {column} >= '2026-01-01+00'") == 0


def test_open_work_is_recent_and_rare_states_are_rare(pristine):
    last = "created_at >= '2025-12-01+00'"
    assert one(
        pristine, f"SELECT count(*) FILTER (WHERE {last}) > 0.9 * count(*) FROM proposals WHERE status = 'IN_REVIEW'"
    )
    states = Counter(dict(pristine.execute("SELECT status, count(*) FROM proposals GROUP BY status").fetchall()))
    assert states["ACCEPTED"] > 1_000
    assert 0 < states["ON_HOLD"] < 40


def test_values_are_missing_where_they_are_in_real_life(pristine):
    missing = "SELECT count(*) FILTER (WHERE {0} IS NULL) / count(*)::float8 FROM {1}"
    assert 0.2 < one(pristine, missing.format("actual_value", "hypothesis_validation_events")) < 0.5
    assert 0.02 < one(pristine, missing.format("value", "proposals")) < 0.2
    assert one(pristine, "SELECT bool_and(approved_at IS NULL) FROM proposals WHERE status IN ('DRAFT', 'REJECTED')")
    assert one(pristine, "SELECT bool_and(approved_at IS NOT NULL) FROM proposals WHERE status = 'APPROVED'")


@pytest.mark.parametrize(
    ("table", "rule"),
    [
        ("proposals", "value IS NULL OR value >= 0"),
        ("proposal_products", "quantity > 0"),
        ("hypothesis_validation_events", "performance_improvement >= -100 AND performance_improvement <= 1000"),
    ],
)
def test_a_few_rows_break_each_rule_that_the_plan_adds(pristine, table, rule):
    assert 3 <= one(pristine, f"SELECT count(*) FROM {table} WHERE NOT ({rule})") <= 10


def test_more_than_fifty_indexes_stand_beside_the_keys_and_all_are_valid(pristine):
    standing = pristine.execute(
        "SELECT i.indisvalid, i.indisunique FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid"
        " WHERE t.relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert all(valid for valid, _ in standing)
    assert sum(not unique for _, unique in standing) >= 50


def test_some_indexes_are_made_redundant_by_others(pristine):
    keys = [[key.column for key in index.keys] for table in catalog.read(pristine).tables for index in table.indexes]
    tables = [table.name for table in catalog.read(pristine).tables for _ in table.indexes]
    redundant = [
        (table, key)
        for table, key in zip(tables, keys, strict=True)
        if sum(t == table and k[: len(key)] == key for t, k in zip(tables, keys, strict=True)) > 1
    ]
    assert len(redundant) >= 3


@pytest.mark.parametrize("name", PLANNED)
def test_no_standing_index_does_half_the_work_of_a_planned_one(pristine, name):
    table, columns = PLANNED[name][0].split(" WHERE ")[0].rstrip(")").split(" (")
    first_two = [column.split()[0] for column in columns.split(", ")[:2]]
    standing = catalog.read(pristine).table("public", table).indexes
    assert [index.name for index in standing if {key.column for key in index.keys[:2]} >= set(first_two)] == []


def test_its_foreign_keys_are_validated(pristine):
    keys = pristine.execute("SELECT convalidated FROM pg_constraint WHERE contype = 'f'").fetchall()
    assert len(keys) == 19
    assert all(validated for (validated,) in keys)


def test_it_is_vacuumed_and_analyzed(pristine):
    tables = pristine.execute(
        "SELECT relname, relpages, relallvisible, reltuples FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ).fetchall()
    assert [row for row in tables if not row[1] == row[2] > 0] == []
    analyzed = {row[0] for row in pristine.execute("SELECT tablename FROM pg_stats WHERE attname = 'id'")}
    assert len(analyzed) == len(tables) == 16


def test_its_texts_have_the_same_order_on_every_machine(pristine):
    locale = "SELECT datlocprovider::text, datlocale FROM pg_database WHERE datname = current_database()"
    assert pristine.execute(locale).fetchone() == ("b", "C.UTF-8")


# its workload


def test_each_query_of_the_workload_finds_rows_for_common_values(pristine):
    names = Names(catalog.read(pristine))
    empty = [
        query.name
        for query in workload.load(generator.SOURCE / "workload.sql").values()
        if not query.answers  # it asks what a step has yet to make
        for bound in bind(query, names, pristine, execute=True)[:1]
        if not psycopg.RawCursor(pristine).execute(bound.sql, bound.values).fetchone()
    ]
    assert empty == []


def test_the_planner_takes_each_planned_index_for_a_query_of_the_workload(connect):
    sample.provision(connect, SCALE)
    queries = workload.load(generator.SOURCE / "workload.sql")
    database = sample.copy(connect, SCALE, "sample_planned_indexes")
    try:
        with connect(database) as connection:
            names = Names(catalog.read(connection))
            for index, (columns, query) in PLANNED.items():
                connection.execute(f"CREATE INDEX {index} ON {columns}")
                plans = [
                    str(psycopg.RawCursor(connection).execute(f"EXPLAIN {bound.sql}", bound.values).fetchall())
                    for bound in bind(queries[query], names, connection, execute=True)
                ]
                assert any(index in plan for plan in plans), (index, plans)
    finally:
        sample.drop(connect, database)


def test_the_controls_touch_no_table_that_the_plan_changes():
    queries = workload.load(generator.SOURCE / "workload.sql")
    controls = [query.sql for query in queries.values() if query.name.startswith("control_")]
    changed = {columns.split()[0] for columns, _ in PLANNED.values()} | {"proposals", "proposal_products", "audit_logs"}
    assert len(controls) >= 3
    assert [
        table for table in changed for sql in controls if f" {table}" in sql.replace("\n", " ").replace(f"{table}_", "")
    ] == []


# its life


def test_a_working_copy_that_stands_is_left_as_it_is(connect, tiny):
    with connect(tiny.working) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS mine ()")
    told = []
    again = sample.provision(connect, TINY, lambda step, share: told.append((step, share)))
    with connect(again.working) as connection:
        assert one(connection, "SELECT to_regclass('mine') IS NOT NULL")
    assert again == tiny
    assert told == [(f"{tiny.working} stands", 1.0)]


def test_reset_brings_back_the_state_as_generated(connect, tiny):
    with connect(tiny.working) as connection:
        connection.execute("DROP TABLE audit_logs; DELETE FROM performance_baselines")
    sample.reset(connect, TINY)
    with connect(tiny.working) as connection, connect(tiny.pristine) as template:
        assert checksums(connection) == checksums(template)


def test_reset_names_who_is_in_the_way_and_ends_them_only_by_force(connect, tiny):
    with connect(tiny.working) as connection:
        connection.execute("SET application_name = 'a notebook'")
        with pytest.raises(
            Busy, match=rf"{tiny.working} is in use by a notebook \(pid {connection.info.backend_pid}\)"
        ):
            sample.reset(connect, TINY)
        assert one(connection, "SELECT 1") == 1
        sample.reset(connect, TINY, force=True)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_the_template_can_be_read_and_not_written(connect, tiny):
    with connect(tiny.pristine) as connection:
        assert one(connection, "SELECT count(*) FROM proposals") > 0
        with pytest.raises(e.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM proposals")


def test_a_template_whose_making_was_killed_is_made_anew(connect, server):
    working, pristine_name = sample.names(0.0011)
    code = """
import os, signal, sys, psycopg
from playbook.target import sample
connect = lambda dbname: psycopg.connect(sys.argv[1], dbname=dbname, autocommit=True)
sample.provision(connect, 0.0011, lambda step, share: os.kill(os.getpid(), signal.SIGKILL))
"""
    conninfo = psycopg.conninfo.make_conninfo(**server.conninfo("postgres"))
    killed = subprocess.run([sys.executable, "-c", code, conninfo], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert databases(connect, f"{working}%") == {f"{working}_building"}
    made = sample.provision(connect, 0.0011)
    assert databases(connect, f"{working}%") == {working, pristine_name}
    with connect(made.working) as connection:
        assert one(connection, "SELECT count(*) FROM audit_logs") == 1_100
    drop_all(connect, (working, pristine_name))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_a_making_that_is_interrupted_leaves_nothing_behind(connect, failure):
    def interrupt(step: str, share: float) -> None:
        raise failure

    with pytest.raises(failure):
        sample.provision(connect, 0.0012, interrupt)
    assert databases(connect, "proposals_0_0012%") == set()


def test_a_working_copy_whose_drop_was_interrupted_is_made_anew(connect, tiny):
    with connect("postgres") as connection:
        connection.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", [tiny.working])
    sample.provision(connect, TINY)
    with connect(tiny.working) as connection:
        assert one(connection, "SELECT count(*) FROM users") == 20


def test_changed_sql_files_renew_template_and_working_copy(connect, tiny, source):
    with (source / "schema.sql").open("a") as schema:
        schema.write("ALTER TABLE users ADD COLUMN nickname text;\n")
    renewed = sample.provision(connect, TINY)
    assert renewed.current
    assert renewed.origin != tiny.origin
    for database in (renewed.working, renewed.pristine):
        with connect(database) as connection:
            assert connection.execute("SELECT nickname FROM users").fetchone() == (None,)


def test_a_working_copy_with_steps_applied_outlives_changed_sql_files(connect, tiny, source):
    with connect(tiny.working) as connection:
        connection.execute("CREATE SCHEMA playbook")
    with (source / "generate.sql").open("a") as rows:
        rows.write("-- changed\n")
    told = []
    kept = sample.provision(connect, TINY, lambda step, share: told.append(step))
    assert not kept.current
    assert [step for step in told if "is kept for the steps applied to it" in step]
    with connect(tiny.working) as connection:
        assert one(connection, "SELECT to_regnamespace('playbook') IS NOT NULL")


def test_two_at_once_make_it_once(connect):
    told: list[list[str]] = [[], []]
    made: list[sample.Sample] = []

    def work(mine: list[str]) -> None:
        made.append(sample.provision(connect, 0.0013, lambda step, share: mine.append(step)))

    threads = [threading.Thread(target=work, args=[mine]) for mine in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    builders = [mine for mine in told if "rows and indexes of users" in mine]
    waiters = [mine for mine in told if mine[0].startswith("waiting for another process")]
    assert (len(builders), len(waiters)) == (1, 1)
    assert made[0] == made[1]
    drop_all(connect, (made[0].working, made[0].pristine))


def test_a_disk_that_is_too_small_is_told_before_anything_is_made(connect, monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(EmbeddedError, match=r"0\.10 GB free.* scale 0\.5 needs 1\.\d\d GB.*PLAYBOOK_HOME"):
        sample.provision(connect, 0.5, data_dir=tmp_path)
    assert databases(connect, "proposals_0_5%") == set()


@pytest.mark.parametrize("scale", [0, -1, 10.01, float("nan"), float("inf"), True, "0.2", None, 1e-40])
def test_a_scale_that_is_none_is_refused(connect, scale):
    with pytest.raises(UsageError, match="scale"):
        sample.provision(connect, scale)


def test_each_scale_has_databases_of_its_own():
    assert sample.names(0.2) == ("proposals_0_2", "proposals_0_2_pristine")
    assert sample.names(1) == sample.names(1.0) == ("proposals_1", "proposals_1_pristine")
    assert len({sample.names(scale) for scale in (0.02, 0.2, 2, 0.1, 1, 10, 1e-5, 0.12)}) == 8


def test_a_scratch_copy_comes_and_goes(connect, tiny):
    assert sample.copy(connect, TINY, "sample_scratch") == "sample_scratch"
    with connect("sample_scratch") as connection, connect(tiny.pristine) as template:
        assert checksums(connection) == checksums(template)
        connection.execute("DROP TABLE audit_logs")
    sample.copy(connect, TINY, "sample_scratch")
    with connect("sample_scratch") as inside:
        assert one(inside, "SELECT count(*) FROM audit_logs") == 1_000
        sample.drop(connect, "sample_scratch")
    sample.drop(connect, "sample_scratch")
    assert databases(connect, "sample_scratch") == set()


@pytest.mark.parametrize(
    "name", ["postgres", "template1", "proposals_0_001", "proposals_0_001_pristine", "sample_others"]
)
def test_nothing_but_scratch_copies_can_be_dropped_or_overwritten(connect, tiny, name):
    with connect("postgres") as connection:
        connection.execute("CREATE DATABASE sample_others")
    try:
        for refused in (lambda: sample.drop(connect, name), lambda: sample.copy(connect, TINY, name)):
            with pytest.raises(UsageError, match=f"{name} is not a scratch copy"):
                refused()
    finally:
        drop_all(connect, ("sample_others",))


def test_without_a_template_a_copy_says_what_to_do(connect):
    with pytest.raises(EmbeddedError, match=r"provision the sample of scale 0\.0019 first"):
        sample.copy(connect, 0.0019, "sample_scratch")
