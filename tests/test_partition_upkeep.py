"""Partitions made ahead: by pg_cron inside the server where it stands, and by `playbook maintain` elsewhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.fix_conversion import STEP, change_plan
from tests.servers import DEBIAN_SHARE_15, required

from playbook import maintaining, undoing
from playbook.changes.cron_job import Cron
from playbook.changes.partitioning import attributes, recreate, scheduled
from playbook.changes.partitioning.periods import Period, containing


def jobs(shop):
    return shop.execute("SELECT schedule, active FROM cron.job ORDER BY jobid")


def partitions(shop):
    rows = shop.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass('entries') ORDER BY 1"
    )
    return [name for (name,) in rows]


def described(shop, name):
    with shop.target.connect() as connection:
        found = attributes.read(connection, f"public.{name}")
    return [line.replace(name, "NAME") for line in recreate.description(found)]


def test_the_job_of_pg_cron_is_made_listed_changed_and_removed_and_does_what_maintain_does(ledger_with_cron, snapshot):
    shop = ledger_with_cron
    as_found = snapshot(shop.target)
    ((_, state, _),) = shop.playbook().phase("1").apply().steps
    assert (state.status, "pg_cron makes the next ones" in state.reason) == ("applied", True), state.reason
    assert jobs(shop) == [("10 * * * *", True)]
    (one,) = maintaining.maintain(shop.context(), dry_run=True)
    assert (one.made, one.job) == ((), "10 * * * *")

    ((command,),) = shop.execute("SELECT command FROM cron.job")
    *_, one_before, last = sorted(name for name in partitions(shop) if name.startswith("entries_2"))
    like = described(shop, one_before)
    shop.execute(f"DROP TABLE {one_before}, {last}")
    shop.execute(f"SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; {command}")
    assert described(shop, one_before) == like
    shop.execute(command)  # the last one is made too, or was more than the plan asks for
    whole = partitions(shop)
    with shop.target.connect() as reader:
        reader.execute("BEGIN; LOCK TABLE entries IN ACCESS SHARE MODE")
        shop.execute(command)
    assert partitions(shop) == whole, "where nothing is missing no lock is asked for"

    change_plan(shop, "every: month", "every: month\n        ahead: 5")
    (one,) = maintaining.maintain(shop.context())
    assert (one.job, len(one.made) >= 2) == ("10 * * * *, changed", True)
    assert "+ 5 * interval '1 month'" in shop.execute("SELECT command FROM cron.job")[0][0]
    assert maintaining.maintain(shop.context())[0].job == "10 * * * *"

    assert [one.error for one in undoing.undo(shop.context())] == [""]
    assert jobs(shop) == []
    assert snapshot(shop.target) == as_found


@pytest.mark.parametrize("every", ["day", "week", "month", "quarter", "year"])
def test_the_server_names_and_bounds_partitions_as_the_playbook_does(empty, every):
    with empty.connect() as connection:
        connection.execute("CREATE TABLE entries (id bigint, number bigint UNIQUE, at timestamptz NOT NULL)")
        found = attributes.read(connection, "public.entries")
        job = scheduled.job(
            Cron("1.6", "GMT", None, "here", "postgres", usable=True), found, "at", every, 2, "postgres"
        )
        assert job is not None
        connection.execute("DROP TABLE entries")
        connection.execute(
            "CREATE TABLE entries (id bigint, number bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at)"
        )
        connection.execute("SET TimeZone = 'UTC'")
        now = connection.execute("SELECT now()::date").fetchone()[0]
        first = containing(now, every)
        connection.execute(f"CREATE TABLE first PARTITION OF entries FOR VALUES FROM (MINVALUE) TO ('{first.start}')")
        for _ in range(4):
            connection.execute("SET TimeZone = 'America/New_York'; SET DateStyle = 'German'")
            connection.execute(job.command)
        connection.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'")
        rows = connection.execute("SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition "
                                  "AND relkind = 'r' AND relname <> 'first' ORDER BY 1").fetchall()  # fmt: skip
    wanted = [first, first.next(), first.next().next()]
    assert rows == [(f"entries_{each.label}", _bounds(each)) for each in wanted]


def _bounds(period: Period) -> str:
    return f"FOR VALUES FROM ('{period.start} 00:00:00+00') TO ('{period.end} 00:00:00+00')"


def test_no_job_is_made_for_names_that_sql_would_cut_otherwise(empty):
    cron = Cron("1.6", "GMT", None, "here", "postgres", usable=True)
    with empty.connect() as connection:
        connection.execute("CREATE TABLE entries (number bigint UNIQUE, at timestamptz NOT NULL)")
        found = attributes.read(connection, "public.entries")
    assert scheduled.job(cron, found, "at", "month", 3, "postgres") is not None
    assert scheduled.job(cron, replace(found, name="e" * 50), "at", "month", 3, "postgres") is None  # its unique index
    assert scheduled.job(cron, replace(found, name="e" * 60), "at", "month", 3, "postgres") is None


def test_a_brin_index_beside_the_btree_is_offered_with_both_sizes_and_made_where_the_plan_chooses_it(ledger, snapshot):
    as_found = snapshot(ledger.target)
    offered = ledger.playbook().phase("1").check().steps[0][1].notes
    assert any(
        note.startswith("a BRIN index on at takes about 24 kB, btree entries_at takes")
        and note.endswith("`brin: true` at the step makes one, for rows that come by time")
        for note in offered
    ), offered
    change_plan(ledger, "every: month", "every: month\n        brin: true")
    assert "about 24 kB, btree entries_at takes" in str(ledger.playbook().phase("1").check().steps[0][1].notes)
    ((_, state, _),) = ledger.playbook().phase("1").apply().steps
    assert state.status == "applied", state.reason
    made = ledger.execute("SELECT indrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index "
                          "WHERE pg_get_indexdef(indexrelid) LIKE '%% USING brin (at)'")  # fmt: skip
    sizes = dict(made)
    assert sizes.pop("entries") == 0
    assert set(sizes) == set(partitions(ledger))
    assert sizes["entries_history"] == 24 * 1024
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert snapshot(ledger.target) == as_found


def test_pg_partman_is_not_told_unasked_and_takes_over_by_the_sql_that_is_shown(ledger15, snapshot):
    if not (DEBIAN_SHARE_15 / "pg_partman.control").exists():
        required("pg_partman", "apt-get install postgresql-15-partman")
    shop = ledger15
    as_found = snapshot(shop.target)
    shop.execute("CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman")
    ((_, state, _),) = shop.playbook().phase("1").apply().steps
    assert state.status == "applied", state.reason
    (told,) = [finding for finding in state.findings if "pg_partman" in finding.detail]
    assert "is not told of the table" in told.detail
    assert shop.execute("SELECT count(*) FROM partman.part_config") == [(0,)]

    shop.execute(f"SET TimeZone = 'UTC'; {told.remedy.partition(': ')[2]}")
    before = len(partitions(shop))
    shop.execute("INSERT INTO entries (at) SELECT max(high) - interval '1 day' FROM (SELECT (regexp_match("
                 "pg_get_expr(relpartbound, oid), 'TO \\(''(.*)''\\)'))[1]::timestamptz AS high FROM pg_class "
                 "WHERE relispartition AND relname ~ '^entries_p') AS bounds")  # fmt: skip
    shop.execute("SELECT partman.run_maintenance('public.entries')")
    assert len(partitions(shop)) > before
    assert shop.playbook().phase("1").check().steps[0][1].status == "applied"
    (one,) = maintaining.maintain(shop.context())
    assert (one.made, one.error) == ((), "")
    assert [one.error for one in undoing.undo(shop.context())] == [""]
    shop.execute("DROP EXTENSION pg_partman; DROP SCHEMA partman CASCADE")
    shop.execute("DROP TABLE IF EXISTS partman_entries")
    assert snapshot(shop.target) == as_found


def test_the_command_says_what_it_would_do_and_does_it(ledger):
    """As cron would call it: a process of its own, plain lines, an exit code."""
    ((_, state, _),) = ledger.playbook().phase("1").apply().steps
    assert state.status == "applied"
    command = [
        Path(sys.executable).with_name("playbook"),
        "maintain",
        "--target",
        "env:SHOP_URL",
        "--plan",
        ledger.plan,
    ]
    before = partitions(ledger)
    change_plan(ledger, "every: month", "every: month\n        ahead: 6\n        retention: 1 year")
    for option, wanted in (("--dry-run", "to make: a partition for"), ("--export=old", "a partition for")):
        done = subprocess.run([*command, option], capture_output=True, text=True, check=True, cwd=ledger.folder)
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"{STEP}: {wanted}"), lines
        assert lines[1].startswith(f"{STEP}: public.entries_history is left alone"), lines
    assert set(partitions(ledger)) > set(before)
