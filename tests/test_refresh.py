"""Refreshing what is kept: only after a change, one at a time, recorded, never in a reader's way; by pg_cron where it stands."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from tests.fix_shop import Shop

from playbook import refreshing, undoing
from playbook.changes.refresh_command import lock_key
from playbook.errors import UsageError
from playbook.plan.schedule import cron_line, crontab, every, systemd
from playbook.refreshes import Refreshes

VIEW = "public.daily_sales"


def applied(sales, **settings):
    (_, state, _), *_ = sales.playbook(**settings).phase("1").apply().steps
    assert state.status == "applied", state.reason
    return sales


def refresh(sales, **options):
    """What became of the one summary: the word, and what was said."""
    (one,) = refreshing.refresh(sales.context(), **options)
    return one.word, one.said


def log(sales, **settings):
    return Refreshes(sales.context(**settings).journal.store).of(VIEW)


def written(sales, statement):
    """Executes it in a session that reports its counts at once, and not within a second."""
    with sales.target.connect() as connection:
        connection.execute(statement)
        connection.execute("SELECT pg_stat_force_next_flush()")


def total(sales):
    return sales.execute("SELECT sum(count)::int, sum(total_value) FROM daily_sales")


@pytest.fixture
def kept(sales):
    return applied(sales)


def test_nothing_is_refreshed_while_nothing_has_changed(kept):
    word, said = refresh(kept)
    assert (word, "nothing has changed since" in said) == ("skipped", True)
    assert len(log(kept)) == 1  # the filling when it was made
    assert log(kept)[0].checked_at > log(kept)[0].started_at


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO sales VALUES (10000, 'OPEN', '2026-04-01', NULL, 77)",
        "UPDATE sales SET value = value + 1 WHERE id = 5",
        "DELETE FROM sales WHERE id < 10",
        "TRUNCATE sales",
    ],
)
def test_after_a_change_it_is_refreshed_concurrently_and_recorded(kept, change):
    written(kept, change)
    word, said = refresh(kept)
    assert (word, said.startswith("concurrently in ")) == ("refreshed", True)
    assert total(kept) == kept.execute("SELECT count(*)::int, sum(value) FROM sales HAVING count(*) > 0") or (
        total(kept) == [(None, None)]
    )
    last = log(kept)[0]
    assert (last.manner, last.error, last.rows_changed > 0, last.wal_bytes > 0, last.seconds > 0) == (
        "concurrently",
        "",
        True,
        True,
        True,
    )
    assert last.age_s < 60
    assert refresh(kept)[0] == "skipped"


def test_a_change_in_one_group_rewrites_one_row(kept):
    written(kept, "UPDATE sales SET value = value + 1 WHERE id = 5")
    refresh(kept)
    assert log(kept)[0].rows_changed == 1


def test_the_first_time_it_is_plain(kept):
    kept.execute("REFRESH MATERIALIZED VIEW daily_sales WITH NO DATA")
    assert refresh(kept)[1].startswith("plain in ")
    assert total(kept)[0][0] == 900


def test_a_second_refresh_does_not_queue_behind_the_first(kept):
    written(kept, "DELETE FROM sales WHERE id = 1")
    with kept.target.connect() as other:
        other.execute("BEGIN")
        other.execute(f"SELECT pg_advisory_xact_lock({lock_key(VIEW)})")
        assert refresh(kept) == ("skipped", "another refresh of it is running")
        other.rollback()
    assert refresh(kept)[0] == "refreshed"


def test_killed_in_the_middle_it_leaves_nothing_behind_and_the_next_one_goes_on(kept):
    written(kept, "DELETE FROM sales WHERE id = 1")
    program = Path(sys.executable).with_name("playbook")
    command = [program, "refresh", "--target", "env:SHOP_URL", "--plan", kept.plan]
    with kept.target.connect() as other:
        other.execute("BEGIN; REFRESH MATERIALIZED VIEW CONCURRENTLY daily_sales")  # for which another has to wait
        process = subprocess.Popen(command)
        while not kept.execute("SELECT 1 FROM pg_locks WHERE relation = 'daily_sales'::regclass AND NOT granted"):
            assert process.poll() is None
        process.kill()
        process.wait()
        other.execute("ROLLBACK")
    while kept.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'REFRESH%' AND pid <> pg_backend_pid()"):
        pass  # the backend notices that its client is gone
    assert total(kept)[0][0] == 900
    assert [each.manner for each in log(kept)] == ["plain"]
    assert refresh(kept)[0] == "refreshed"
    assert total(kept)[0][0] == 899


def test_readers_of_it_are_not_in_the_way_and_do_not_wait(kept):
    written(kept, "DELETE FROM sales WHERE id = 1")
    with kept.target.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        before = reader.execute("SELECT sum(count) FROM daily_sales").fetchall()
        assert refresh(kept)[0] == "refreshed"
        reader.execute("SET LOCAL lock_timeout = '1ms'")
        assert reader.execute("SELECT sum(count) FROM daily_sales").fetchall() == before
    assert total(kept)[0][0] == 899


def test_a_failure_is_kept_and_shown_and_the_next_refresh_goes_on(kept):
    kept.execute("ALTER TABLE sales DROP CONSTRAINT sales_pkey")
    kept.execute("DROP INDEX daily_sales_key")
    written(kept, "DELETE FROM sales WHERE id = 1")
    word, said = refresh(kept)
    assert (word, "without a WHERE clause" in said or "concurrently" in said) == ("failed", True), said
    assert "concurrently" in log(kept)[0].error
    kept.execute("CREATE UNIQUE INDEX daily_sales_key ON daily_sales (date DESC, state)")
    assert refresh(kept)[0] == "refreshed"


def test_with_the_journal_in_a_file_its_record_is_there_too(sales):
    path = sales.folder / "journal.sqlite"
    applied(sales, journal=path)
    (one,) = refreshing.refresh(sales.context(journal=path))
    assert one.word == "skipped"
    written(sales, "DELETE FROM sales WHERE id = 1")
    (one,) = refreshing.refresh(sales.context(journal=path))
    assert one.word == "refreshed"
    assert [each.manner for each in log(sales, journal=path)] == ["concurrently", "plain"]
    assert sales.execute("SELECT to_regnamespace('playbook')") == [(None,)]


def test_only_what_stands_can_be_refreshed(sales):
    assert refreshing.refresh(sales.context()) == []
    with pytest.raises(UsageError, match="no summary to refresh: 1/nothing; there is none"):
        refreshing.refresh(sales.context(), ("1/nothing",))


def test_again_and_again_until_it_is_stopped_and_past_a_failure(kept):
    stop, words = threading.Event(), []

    def reopen():
        if len(words) == 1:
            raise UsageError("the plan is being edited")
        return kept.context()

    for outcomes in refreshing.repeat(reopen, (), every("1s"), stop):
        words += [one.word for one in outcomes]
        if len(words) == 3:
            stop.set()
    assert words == ["skipped", "failed", "skipped"]


def test_undone_and_made_again_it_is_refreshed_from_its_new_filling_on(kept):
    undoing.undo(kept.context())
    written(kept, "DELETE FROM sales WHERE id = 1")
    applied(kept)
    assert refresh(kept)[0] == "skipped"
    assert total(kept)[0][0] == 899


class TestSchedules:
    @pytest.mark.parametrize(
        ("interval", "zone", "server_zone", "line"),
        [
            ("1d", "UTC", "UTC", "10 3 * * *"),
            ("1d", "Europe/Berlin", "UTC", "10 2 * * *"),  # winter; in summer that is 04:10 there, never 02:10
            ("1d", "Asia/Tokyo", "UTC", "10 18 * * *"),
            ("1d", "Asia/Kolkata", "America/New_York", "40 17 * * *"),
            ("7d", "UTC", "UTC", "10 3 * * 0"),
            ("15m", "Europe/Berlin", "UTC", "*/15 * * * *"),
            ("1m", "UTC", "UTC", "* * * * *"),
            ("1h", "UTC", "UTC", "10 * * * *"),
            ("6h", "UTC", "UTC", "10 */6 * * *"),
        ],
    )
    def test_cron_has_a_line_for_it_in_its_own_zone(self, interval, zone, server_zone, line):
        assert cron_line(every(interval), "03:10", zone, server_zone) == line

    @pytest.mark.parametrize("interval", ["7m", "90m", "5h", "2d", "30s"])
    def test_cron_has_no_line_for_what_does_not_divide(self, interval):
        with pytest.raises(UsageError, match="cron has no line"):
            cron_line(every(interval), "03:10", "UTC", "UTC")

    def test_intervals_are_a_number_and_a_unit(self):
        assert every("36h").interval == timedelta(hours=36)
        for wrong in ("", "1", "d", "0d", "1w", "1.5h", "-1h", "1 d"):
            with pytest.raises(UsageError, match="is no interval"):
                every(wrong)

    def test_crontab_and_systemd_lines_hold_the_command_and_the_zone(self):
        assert crontab(every("1d"), "03:10", "Europe/Berlin", "playbook refresh --plan 50%.yaml") == (
            "CRON_TZ=Europe/Berlin\n10 3 * * * playbook refresh --plan 50\\%.yaml"
        )
        units = systemd(every("1d"), "03:10", "Europe/Berlin", "/bin/playbook refresh")
        assert "OnCalendar=*-*-* 03:10:00 Europe/Berlin" in units
        assert "ExecStart=/bin/playbook refresh" in units
        assert "OnUnitActiveSec=900s" in systemd(every("15m"), "03:10", "UTC", "x")


class TestJob:
    """pg_cron on PostgreSQL 15; what the job runs is run here, since pg_cron itself wakes once a minute."""

    @pytest.fixture
    def shop(self, cron, open_sales) -> Shop:
        plan = open_sales(cron)
        plan.plan.write_text(plan.plan.read_text().replace("time_zone: UTC", "time_zone: Europe/Berlin"))
        return plan

    @staticmethod
    def jobs(shop):
        return shop.execute("SELECT jobname, schedule, database, username, active FROM cron.job ORDER BY 1")

    def test_it_is_made_listed_changed_and_removed_and_does_what_a_refresh_does(self, shop, snapshot):
        as_found = snapshot(shop.target)
        applied(shop)
        c = shop.target.conninfo
        name, mine = f"playbook {c['dbname']} {VIEW}", (c["dbname"], c["user"], True)
        assert self.jobs(shop) == [(name, "10 2 * * *", *mine)]  # 03:10 in Berlin's winter, as GMT
        (kept,) = refreshing.kept(shop.context())
        assert kept.job == "10 2 * * *"
        assert "pg_cron refreshes it" in shop.playbook().phase("1").check().steps[0][1].reason

        ((command,),) = shop.execute("SELECT command FROM cron.job")
        shop.execute(command)
        assert len(log(shop)) == 1, "nothing had changed"
        written(shop, "DELETE FROM sales WHERE id = 1")
        shop.execute(f"SET TimeZone = 'Asia/Tokyo'; {command}")
        assert total(shop)[0][0] == 899
        assert [(each.manner, each.error) for each in log(shop)] == [("concurrently", ""), ("plain", "")]
        assert refresh(shop)[0] == "skipped", "job and command read the same marker"
        self.fails_and_says_so(shop, command)

        shop.plan.write_text(shop.plan.read_text().replace("refresh_every: 1d", "refresh_every: 15m"))
        phase = shop.playbook().phase("1")
        assert [each.sql.split("(")[0] for each in phase.preview().steps[0][1]] == ["SELECT cron.schedule"]
        applied(shop)
        assert self.jobs(shop) == [(name, "*/15 * * * *", *mine)]
        assert shop.playbook().phase("1").apply().steps[0][1].status == "applied"

        assert [one.error for one in undoing.undo(shop.context())] == [""]
        assert self.jobs(shop) == []
        assert snapshot(shop.target) == as_found

    def test_with_the_journal_in_a_file_pg_cron_tells_when_it_ran(self, shop):
        path = shop.folder / "journal.sqlite"
        phase = shop.playbook(journal=path).phase("1")
        assert "it refreshes each time" in phase.preview().journal
        applied(shop, journal=path)
        ((command,),) = shop.execute("SELECT command FROM cron.job")
        shop.execute(command)  # which neither needs nor makes a record on the target
        assert shop.execute("SELECT to_regnamespace('playbook')") == [(None,)]
        run = (
            "INSERT INTO cron.job_run_details (jobid, runid, status, return_message, start_time, end_time) SELECT jobid"
        )
        shop.execute(f"{run}, 1, 'succeeded', 'DO', now() + '1 s', now() + '3 s' FROM cron.job")
        shop.execute(f"{run}, 2, 'failed', 'ERROR: no', now() + '5 s', now() + '6 s' FROM cron.job")
        (kept,) = refreshing.kept(shop.context(journal=path))
        assert [(each.manner, each.error) for each in kept.history] == [
            ("", "ERROR: no"),
            ("by pg_cron", ""),
            ("plain", ""),
        ]
        assert (kept.last.manner, kept.last.seconds) == ("by pg_cron", 2.0)

    @staticmethod
    def fails_and_says_so(shop, command):
        shop.execute("DROP INDEX daily_sales_key")
        written(shop, "DELETE FROM sales WHERE id = 2")
        shop.execute(command)
        assert "concurrently" in log(shop)[0].error
        shop.execute("CREATE UNIQUE INDEX daily_sales_key ON daily_sales (date DESC, state)")

    @pytest.mark.exhaustive
    def test_pg_cron_runs_it(self, shop):
        shop.plan.write_text(shop.plan.read_text().replace("refresh_every: 1d", "refresh_every: 1m"))
        applied(shop)
        written(shop, "DELETE FROM sales WHERE id = 1")
        with shop.target.connect() as connection:
            for _ in range(1300):
                runs = connection.execute("SELECT status, return_message FROM cron.job_run_details").fetchall()
                if runs and runs[0][0] in {"succeeded", "failed"}:
                    break
                connection.execute("SELECT pg_sleep(0.1)")
        assert runs[0][0] == "succeeded", runs
        assert total(shop)[0][0] == 899
        assert log(shop)[0].manner == "concurrently"


def test_a_role_that_may_not_use_pg_cron_is_told_and_gets_no_job(cron, open_sales):
    shop = open_sales(cron)
    with shop.opened_as(
        "sales_owner",
        "GRANT CREATE ON SCHEMA public TO sales_owner",
        "GRANT CREATE ON DATABASE {} TO sales_owner".format(shop.target.conninfo["dbname"]),
        "ALTER TABLE sales OWNER TO sales_owner",
    ):
        (_, state, _), *_ = shop.playbook().phase("1").apply().steps
    assert state.status == "applied"
    assert any("GRANT USAGE ON SCHEMA cron TO sales_owner;" in each.remedy for each in state.findings)
    assert shop.execute("SELECT count(*) FROM cron.job") == [(0,)]
