"""Copying a table in use into its partitions: nothing is lost whatever writers do, and undo loses nothing either."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import psycopg
import pytest
from tests import fix_ledger, fix_shop
from tests.fix_conversion import (
    COPY,
    COPY_PLAN,
    QUICK,
    REPLAY,
    STEP,
    SWAP,
    VERIFY,
    a_half_fails,
    change_plan,
    described,
    killed,
    kind,
    loaded,
    meanwhile,
    rows,
    statements,
    struck_between_chunks,
    undone,
)
from tests.fix_faults import POINTS as STRIKES
from tests.fix_faults import Proxy, strike, strike_everywhere
from tests.fix_shop import reason, statuses
from tests.killing import POINTS
from tests.test_cli import playbook

from playbook import finishing, undoing
from playbook.changes.partitioning import pages
from playbook.errors import Interrupted
from playbook.evidence.live import under_load
from playbook.journal import StatementRecord
from playbook.phase import Playbook
from playbook.settings import DEFAULT_PLAN
from playbook.target import repeating

TOO_LONG = pytest.mark.exhaustive


def test_writers_lose_nothing_while_rows_are_copied_and_while_that_is_undone(copied, snapshot, monkeypatch):
    """Two pages at a time: what a chunk leaves out or copies, its rows may be on other pages by the next."""
    monkeypatch.setattr(pages, "PAGES", 2)
    as_found = snapshot(copied.target)
    phase = copied.playbook().phase("1")
    with loaded(copied) as timeline:
        applied = phase.apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert {write.what for write in timeline.writes} == {"insert", "upsert", "move", "empty", "delete"}
    assert kind(copied) == "p"
    with loaded(copied) as timeline:
        assert statuses(phase.undo()) == {STEP: "undone"}
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(copied.target) == as_found


def test_everything_that_the_table_has_stands_on_its_successor(copied):
    copied.execute("TRUNCATE heard")
    before, written = described(copied), rows(copied)
    copied.playbook().phase("1").apply()
    after = described(copied)
    assert [line for line in before if line not in after] == [
        "ALTER TABLE public.entries ADD CONSTRAINT entries_number_key UNIQUE (number)",
        "ALTER TABLE public.entries ADD CONSTRAINT entries_pkey PRIMARY KEY (id)",
        "ALTER TABLE public.entries REPLICA IDENTITY USING INDEX entries_number_key",
    ]
    new, *follows = [line for line in after if line not in before]
    assert new == "ALTER TABLE public.entries ADD CONSTRAINT entries_pkey PRIMARY KEY (id, at)"
    assert all("entries_changes_since" in line for line in follows)
    assert rows(copied) == written
    assert copied.execute("SELECT min(tableoid::regclass::text), count(DISTINCT tableoid) FROM entries") == [
        ("entries_2026_01", 6)
    ]
    assert copied.execute("SELECT * FROM heard") == []


def test_what_the_application_does_between_any_two_statements_is_in_both_tables(copied, snapshot):
    """Rows that move between months, change their key, or leave a unique number to another; and replicated writes."""
    as_found = snapshot(copied.target)
    said = iter(range(10_000, 99_999))

    def write():
        with copied.target.connect() as connection, connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            number, new = next(said), next(said)
            connection.execute("UPDATE entries SET at = at + interval '45 days' WHERE id % 35 = 0")
            connection.execute(
                "UPDATE entries SET id = id + 1000000 + %s WHERE id = (SELECT min(id) FROM entries)", [new]
            )
            connection.execute("DELETE FROM entries WHERE id = (SELECT max(id) FROM entries WHERE id < 1000000)")
            connection.execute(
                "UPDATE entries SET number = %s WHERE number = (SELECT min(number) FROM entries)", [number]
            )
            connection.execute(
                "INSERT INTO entries (id, number, at) SELECT %s, n.least, e.at FROM (SELECT min(at) at FROM entries) e, "
                "(SELECT min(number) - 1 least FROM entries) n", [new],
            )  # fmt: skip
            connection.execute("UPDATE entries SET person = NULL, note = NULL WHERE id % 55 = 0")
        return True

    with meanwhile(*((each.sql, write) for each in statements(copied))):
        applied = copied.playbook().phase("1").apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
    write()
    written = rows(copied)
    assert written[-1][0] > 1_000_000
    undone(copied)
    assert rows(copied) == written
    assert snapshot(copied.target) == as_found


@pytest.mark.parametrize("when", [COPY, *(pytest.param(text, marks=TOO_LONG) for text in (REPLAY, VERIFY, SWAP))])
def test_a_table_that_is_emptied_or_written_anew_meanwhile(copied, when):
    anew = "TRUNCATE entries; INSERT INTO entries (note, at) VALUES ('first', '2026-03-01'), ('second', now())"
    with meanwhile((when, lambda: copied.execute(anew))):
        applied = copied.playbook().phase("1").apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert [row[6] for row in rows(copied)] == ["first", "second"]
    copied.execute("TRUNCATE entries")
    copied.execute("INSERT INTO entries (note, at) VALUES ('third', '2026-03-31 23:59:59.999999+00')")
    written = rows(copied)
    undone(copied)
    assert rows(copied) == written


@pytest.mark.parametrize(("duty_pct", "at_once"), [(100, 2), (50, 1)])
def test_indexes_are_built_beside_each_other_unless_others_are_to_be_spared(copied, monkeypatch, duty_pct, at_once):
    change_plan(copied, COPY_PLAN, f"{COPY_PLAN}\n        duty_pct: {duty_pct}")
    intent, done, meeting = StatementRecord.intent, StatementRecord.done, threading.Barrier(2)
    at_work, most = set(), []

    def begun(record, *arguments):
        intent(record, *arguments)
        at_work.add(record.position)
        if at_once == 2 and record.statement.purpose.startswith(("what entries_at ", "what entries_person_at ")):
            meeting.wait(30)
        most.append(len(at_work))

    def ended(record, *arguments):
        done(record, *arguments)
        at_work.discard(record.position)

    monkeypatch.setattr(StatementRecord, "intent", begun)
    monkeypatch.setattr(StatementRecord, "done", ended)
    written = rows(copied)
    applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert max(most) == at_once
    undone(copied)
    assert rows(copied) == written


def test_ctrl_c_ends_all_that_is_at_work_and_the_next_run_goes_on(copied):
    """Two indexes wait for somebody who writes to the copy; nobody but the main thread hears of Ctrl-C."""
    with copied.target.connect() as writer, pytest.MonkeyPatch.context() as patch:
        intent, ours = StatementRecord.intent, []

        def begun(record, *arguments):
            if record.statement.beside == "indexes":
                ours.append(record.position)
                if len(ours) == 1:
                    writer.execute("BEGIN; LOCK TABLE entries_partitioned IN ROW EXCLUSIVE MODE")
                else:
                    os.kill(os.getpid(), signal.SIGINT)
            intent(record, *arguments)

        patch.setattr(StatementRecord, "intent", begun)
        with pytest.raises(KeyboardInterrupt):
            copied.playbook().phase("1").apply()
        assert len(ours) == 2
        assert copied.execute("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]
    written = rows(copied)
    applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert rows(copied) == written


def halves(shop):
    """The next page of each, and where each ends."""
    return shop.execute("SELECT page, pages FROM entries_copying ORDER BY half")


def test_a_copy_goes_on_from_the_chunk_at_which_it_was_interrupted(copied):
    """Its halves one after the other, since others are to be spared."""
    change_plan(copied, COPY_PLAN, f"{COPY_PLAN}\n        duty_pct: 99")

    def interrupt():
        copied.execute("UPDATE entries SET at = at - interval '100 days', amount = NULL WHERE id % 45 = 0")
        raise Interrupted("the connection failed")

    with struck_between_chunks(interrupt) as begun:
        applied = copied.playbook().phase("1").apply()
    assert (statuses(applied), len(begun)) == ({STEP: "failed"}, 4)
    (page, half), (begins, end) = halves(copied)
    assert (page, begins, end > 15) == (6, half, True)  # one round begins the copy, and two have copied
    written = rows(copied)
    with struck_between_chunks() as begun:
        applied = copied.playbook().phase("1").apply()
    rounds = -(-(half - 6) // 3) + -(-(end - half) // 3)
    assert (statuses(applied), len(begun)) == ({STEP: "applied"}, rounds), reason(applied)
    assert rows(copied) == written


def test_a_row_that_was_copied_and_then_changes_its_page_is_not_copied_again(copied):
    """Its new version finds room on a page that is yet to be copied, where it would be a twin of the first."""
    change_plan(copied, COPY_PLAN, f"{COPY_PLAN}\n        duty_pct: 99")
    copied.execute("DELETE FROM entries WHERE id > 6000")
    copied.execute("VACUUM entries")
    moved = []

    def change():
        before = f"ctid < '({halves(copied)[0][0]},0)'"
        ids = [row for (row,) in copied.execute(f"SELECT id FROM entries WHERE {before} ORDER BY id LIMIT 90")]
        copied.execute("UPDATE entries SET note = repeat('y', 400) WHERE id = ANY(%s)", ids)
        moved.extend(copied.execute(f"SELECT id FROM entries WHERE id = ANY(%s) AND NOT {before}", ids))

    with struck_between_chunks(change):
        applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert len(moved) > 10
    assert copied.execute("SELECT count(*) FROM entries WHERE note LIKE 'yyy%'") == [(90,)]


@pytest.mark.parametrize("at", [3, 7, pytest.param(8, marks=TOO_LONG), pytest.param(9, marks=TOO_LONG)])
def test_halves_that_are_copied_at_once_go_on_where_each_was_interrupted(copied, at):
    def interrupt():
        raise Interrupted("the connection failed")

    with struck_between_chunks(interrupt, at):
        applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "failed"}
    copied.execute("UPDATE entries SET at = at - interval '100 days', amount = NULL WHERE id % 45 = 0")
    written = rows(copied)
    with struck_between_chunks():
        applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert rows(copied) == written


def test_a_half_that_fails_ends_the_other_and_what_was_made_is_taken_back(copied, snapshot):
    as_found, written = snapshot(copied.target), rows(copied)
    with a_half_fails(copied):
        applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "failed"}
    assert "could not extend file" in reason(applied)
    assert (rows(copied), snapshot(copied.target)) == (written, as_found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("point", STRIKES)
def test_a_server_that_dies_while_two_statements_are_at_work_is_told_of_as_ever(
    own_ledger, own_server, snapshot, point
):
    change_plan(own_ledger, "every: month", COPY_PLAN)
    as_found, written = snapshot(own_ledger.target), rows(own_ledger)
    position = next(at for at, each in enumerate(statements(own_ledger)) if each.beside)
    touch = "UPDATE entries SET note = note WHERE id = 5"
    strike(own_ledger, own_server, own_server.kill, touch, ("apply", STEP, position), point)
    applied = own_ledger.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    undone(own_ledger)
    assert (snapshot(own_ledger.target), rows(own_ledger)) == (as_found, written)


@pytest.mark.parametrize("duty_pct", [100, 99])
@pytest.mark.parametrize(
    ("sql", "at"),
    [
        ("VACUUM FULL entries", 4),
        ("VACUUM FULL entries", 8),
        *(pytest.param("CLUSTER entries USING entries_at", at, marks=TOO_LONG) for at in range(2, 12)),
    ],
)
def test_a_table_that_gets_another_file_between_two_chunks_is_copied_anew(copied, sql, at, duty_pct):
    """Whichever half is at work then, and whether the other has come to its end or not."""
    change_plan(copied, COPY_PLAN, f"{COPY_PLAN}\n        duty_pct: {duty_pct}")
    copied.execute("DELETE FROM entries WHERE id % 10 = 0")
    written = rows(copied)
    with struck_between_chunks(lambda: copied.execute(sql), at):
        applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert rows(copied) == written


def test_the_application_deletes_what_rows_refer_to_while_they_are_copied(copied):
    """Neither the copy before the swap nor the old table after it holds on to a row of another table."""
    copied.execute("ALTER TABLE entries DROP CONSTRAINT entries_person_fkey")
    copied.execute("ALTER TABLE entries ADD CONSTRAINT entries_person_fkey FOREIGN KEY (person) REFERENCES people")

    def leave(person):
        copied.execute("DELETE FROM entries WHERE person = %s", person)
        copied.execute("DELETE FROM people WHERE id = %s", person)

    with meanwhile((REPLAY, lambda: leave(1)), (SWAP, lambda: leave(2)), ("VALIDATE", lambda: leave(3))):
        applied = copied.playbook().phase("1").apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
    leave(4)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        copied.execute("DELETE FROM people WHERE id = 5")
    undone(copied)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        copied.execute("DELETE FROM people WHERE id = 5")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("ALTER TABLE entries DROP CONSTRAINT entries_pkey", "has no primary key, by which a changed row could be told"),
        ("CREATE PUBLICATION everything FOR ALL TABLES", "publication everything carries whatever is made"),
        ("DELETE FROM pg_statistic WHERE starelid = 'entries'::regclass", "do not say how old the rows of public.entries are"),
        ("ALTER TABLE entries ALTER at DROP NOT NULL; INSERT INTO entries (at) VALUES (NULL)", "1 row: at is NULL"),
    ],
)  # fmt: skip
def test_what_cannot_be_copied_is_blocked_before_anything_is_made(copied, snapshot, sql, said):
    copied.execute(sql)
    as_found = snapshot(copied.target)
    applied = copied.playbook(journal=copied.folder / "journal.sqlite").phase("1").apply()
    assert (statuses(applied), said in reason(applied)) == ({STEP: "blocked"}, True), reason(applied)
    assert snapshot(copied.target) == as_found


def test_the_route_is_chosen_by_what_writers_do_and_the_plan_has_the_last_word(ledger):
    def chosen():
        return reason(ledger.playbook(apply=False).phase("1").check())

    assert "the server has counted too few writes" in chosen()
    with ledger.target.connect() as connection:
        connection.execute("UPDATE entries SET note = 'changed' WHERE id % 15 = 0")
        connection.execute("INSERT INTO entries (note, at) SELECT 'new', now() FROM generate_series(1, 400)")
        connection.execute("SELECT pg_stat_force_next_flush()")
    assert "rows are copied into their partitions beside their writers" in chosen()
    assert "of its writes change rows that stand" in chosen()
    change_plan(ledger, "every: month", "every: month\n        route: attach")
    assert "no row is copied, and pruning helps from the cutoff on (the plan says attach)" in chosen()


def test_rows_that_differ_end_it_and_what_was_made_is_taken_back(copied, snapshot):
    as_found, written = snapshot(copied.target), rows(copied)
    with meanwhile(
        (
            VERIFY,
            lambda: copied.execute("DELETE FROM entries_2026_02 WHERE id = (SELECT min(id) FROM entries_2026_02)"),
        )
    ):
        applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "failed"}
    assert "public.entries and its copy differ, 2026-02-01: 233 rows and 232" in reason(applied)
    assert (snapshot(copied.target), rows(copied)) == (as_found, written)


@pytest.mark.parametrize(("point", "position"), [("before_done", 4), pytest.param("after_intent", 14, marks=TOO_LONG)])
def test_killed_on_its_way_it_is_resumed_and_then_undone(copied, snapshot, point, position):
    as_found, written = snapshot(copied.target), rows(copied)
    killed(copied, point, position)
    assert rows(copied) == written
    applied = copied.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert rows(copied) == written
    undone(copied)
    assert (snapshot(copied.target), rows(copied)) == (as_found, written)


@pytest.mark.exhaustive
def test_killed_at_every_statement_and_resumed_and_undone(copied, snapshot):
    as_found, written = snapshot(copied.target), rows(copied)
    covered, number = 0, len(statements(copied))
    for position in range(number):
        for point in POINTS:
            for resumed in (True, False):
                killed(copied, point, position)
                copied.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
                written = rows(copied)
                if resumed:
                    applied = copied.playbook().phase("1").apply()
                    assert statuses(applied) == {STEP: "applied"}, (position, point, reason(applied))
                    assert rows(copied) == written
                assert {one.error for one in undoing.undo(copied.context())} <= {""}, (position, point)
                assert rows(copied) == written, (position, point, resumed)
                assert snapshot(copied.target) == as_found, (position, point, resumed)
                covered += 1
    print(f"killed at {covered} points of {number} statements")
    assert covered == 2 * len(POINTS) * number


@pytest.mark.exhaustive
def test_killed_at_every_statement_of_its_undo(copied, snapshot):
    as_found = snapshot(copied.target)
    copied.playbook().phase("1").apply()
    number, covered = len(copied.playbook().phase("1").preview_undo().statements), 0
    for position in range(number):
        for point in POINTS:
            applied = copied.playbook().phase("1").apply()
            assert statuses(applied) == {STEP: "applied"}, (position, point, reason(applied))
            copied.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
            written = rows(copied)
            if copied.killed(STEP, point, position, "undo") == -9:
                covered += 1
            undone(copied) if snapshot(copied.target) != as_found else undoing.undo(copied.context())
            assert (snapshot(copied.target), rows(copied)) == (as_found, written), (position, point)
    print(f"undo killed at {covered} points of {number} statements")
    assert covered >= 5 * len(POINTS)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kill", ["kill_backend", "kill", "shut_down"])
def test_a_backend_or_server_that_dies_at_any_statement_leaves_every_row(own_ledger, own_server, snapshot, kill):
    change_plan(own_ledger, "every: month", COPY_PLAN)

    def state(target):
        return snapshot(target), rows(own_ledger)

    touch = "UPDATE entries SET note = note WHERE id = 5"
    covered, places = strike_everywhere(own_ledger, own_server, getattr(own_server, kill), touch, state)
    print(f"{kill}: struck at {covered} points of {len(places)} statements")
    assert covered >= 2 * len(places)


@pytest.mark.exhaustive
def test_it_goes_the_same_way_on_postgresql_15(ledger15):
    change_plan(ledger15, "every: month", COPY_PLAN)
    before = described(ledger15)
    with loaded(ledger15) as timeline:
        applied = ledger15.playbook().phase("1").apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert (timeline.difference, timeline.failed) == (0, [])
    with loaded(ledger15) as timeline:
        undone(ledger15)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert described(ledger15) == before


@pytest.mark.exhaustive
def test_it_rests_while_a_standby_is_behind(ledger15, standby15, monkeypatch):
    monkeypatch.setattr(pages, "PAGES", 3)
    change_plan(ledger15, "every: month", f"{COPY_PLAN}\n        max_lag_s: 1")
    with standby15.connect() as standby:
        standby.execute("SELECT pg_wal_replay_pause()")
    ledger15.execute("UPDATE entries SET note = note WHERE id = 5")
    while ledger15.execute("SELECT max(replay_lag) > '2s' FROM pg_stat_replication") != [(True,)]:
        time.sleep(0.1)
    said = []

    def heard(text):
        said.append(text)
        if "it may catch up first" in text:
            with standby15.connect() as standby:
                standby.execute("SELECT pg_wal_replay_resume()")

    context = ledger15.context()
    context.progress = heard
    assert statuses(Playbook(context).phase("1").apply()) == {STEP: "applied"}
    assert any("a standby is" in text for text in said), said


def test_it_works_as_much_of_the_time_and_writes_as_much_as_the_plan_allows(copied, monkeypatch):
    monkeypatch.setattr(pages, "PAGES", 8)
    rested, sleep = [], time.sleep
    monkeypatch.setattr(repeating.time, "sleep", lambda seconds: (rested.append(seconds), sleep(min(seconds, 0.05))))
    change_plan(copied, "route: copy", "route: copy\n        duty_pct: 25\n        max_wal_mb_s: 0.05")
    said = []
    context = copied.context()
    context.progress = said.append
    assert statuses(Playbook(context).phase("1").apply()) == {STEP: "applied"}
    # Eight pages are some 60 kB and so more than a second's share; working a quarter of the time is resting thrice that.
    assert max(rested) > 1
    assert any(re.search(r"copy the rows.*: 8 of \d+ pages copied, \d+/s, \d+ s left", text) for text in said), said


def test_a_prisma_database_is_copied_under_its_own_names_by_its_owner(prisma, snapshot):
    plan = prisma.folder / "copied.yaml"
    plan.write_text(DEFAULT_PLAN.read_text().replace("key: timestamp\n", "key: timestamp\n        route: copy\n"))
    (prisma.folder / "workload.sql").write_text(DEFAULT_PLAN.with_name("workload.sql").read_text())
    as_found = snapshot(prisma.admin)
    context = prisma.context(plan=plan)
    table, key = context.names.relation("audit_logs"), context.names.column("audit_logs", "timestamp")
    phase = prisma.playbook(plan=plan).phase("4.2")
    with under_load(prisma.target.connect, prisma.target.conninfo, table, key.name) as timeline:
        applied = phase.apply()
        assert list(statuses(applied).values()) == ["applied"], reason(applied)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert kind(prisma, '"AuditTrail"') == "p"
    prisma.execute("""INSERT INTO "AuditTrail" SELECT 'far', "userId", action, entity, "entityId", changes, "ipAddress",
                      "userAgent", success, '2099-01-01' FROM "AuditTrail" LIMIT 1""")
    written = prisma.execute('SELECT * FROM "AuditTrail" ORDER BY id')
    assert [one.error for one in undoing.undo(prisma.context(plan=plan))] == [""]
    assert prisma.execute('SELECT * FROM "AuditTrail" ORDER BY id') == written
    assert snapshot(prisma.admin) == as_found


def test_an_owner_with_a_journal_in_a_file_on_a_server_in_new_york_over_the_change_of_clocks(
    copied, snapshot, monkeypatch
):
    for sql in (
        f"ALTER DATABASE {copied.target.conninfo['dbname']} SET timezone TO 'America/New_York'",
        "DROP PUBLICATION ledger_feed; DROP VIEW recent; DROP FUNCTION entry_count; DROP STATISTICS entries_kind_person",
        "ALTER TABLE entries OWNER TO ledger_owner; GRANT CREATE ON SCHEMA public TO ledger_owner",
        "GRANT SELECT, REFERENCES ON people TO ledger_owner; ALTER SEQUENCE entry_numbers OWNER TO ledger_owner",
        "INSERT INTO entries (note, at) SELECT 'edge', edge + n * interval '1 microsecond' FROM generate_series(-1, 1) n, "
        "unnest(ARRAY['2026-03-01 00:00:00+00', '2026-03-08 07:00:00+00', '2026-04-01 00:00:00+00', "
        "'2026-11-01 05:30:00+00', '2026-11-01 06:30:00+00']::timestamptz[]) edge",
    ):
        copied.execute(sql)
    c, journal = copied.target.conninfo, copied.folder / "journal.sqlite"
    monkeypatch.setenv(
        "SHOP_URL", f"postgresql://ledger_owner:ledger_owner@/{c['dbname']}?host={c['host']}&port={c['port']}"
    )
    as_found, written = snapshot(copied.target), rows(copied)
    applied = copied.playbook(journal=journal).phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert rows(copied) == written
    wrong = copied.execute(
        "SELECT count(*) FROM entries WHERE tableoid::regclass::text <> to_char(at AT TIME ZONE 'UTC', '\"entries_\"YYYY_MM')"
    )
    assert wrong == [(0,)]
    assert [one.error for one in undoing.undo(copied.context(journal=journal))] == [""]
    assert (snapshot(copied.target), rows(copied)) == (as_found, written)


@pytest.mark.parametrize(
    ("marker", "delivered", "journal"),
    [
        (SWAP, True, "target"),
        pytest.param(COPY, False, "target", marks=TOO_LONG),
        pytest.param(COPY, True, "file", marks=TOO_LONG),
        pytest.param(SWAP, False, "file", marks=TOO_LONG),
        pytest.param(SWAP, True, "file", marks=TOO_LONG),
    ],
)
def test_a_connection_lost_at_a_commit(copied, snapshot, monkeypatch, marker, delivered, journal):
    as_found, written = snapshot(copied.target), rows(copied)
    kept = {"journal": copied.folder / "journal.sqlite"} if journal == "file" else {}
    proxy = Proxy(copied.target, marker.encode(), delivered=delivered)
    try:
        monkeypatch.setenv("SHOP_URL", proxy.url)
        applied = copied.playbook(**kept).phase("1").apply()
        assert proxy.cut == 1
        if statuses(applied) == {STEP: "failed"}:
            assert "run again to resume" in reason(applied)
            applied = copied.playbook(**kept).phase("1").apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
    finally:
        proxy.close()
    monkeypatch.setenv("SHOP_URL", copied.url())
    assert rows(copied) == written
    assert [one.error for one in undoing.undo(copied.context(**kept))] == [""]
    assert (snapshot(copied.target), rows(copied)) == (as_found, written)


@TOO_LONG
def test_a_transaction_that_it_meets_crosswise_goes_on(copied):
    """It holds what the swap needs second, and asks for what the swap holds."""
    context = copied.context()
    context.policy = QUICK
    with fix_ledger.crosswise(copied.target):
        applied = Playbook(context).phase("1").apply()
        assert statuses(applied) == {STEP: "applied"}, reason(applied)
        assert [one.error for one in undoing.undo(context)] == [""]


def test_finished_it_gives_the_old_table_up_and_says_that_it_cannot_be_undone(copied):
    copied.playbook().phase("1").apply()
    written, options = rows(copied), ("--target", "env:SHOP_URL", "--plan", copied.plan)
    (shown,) = finishing.finish(copied.context(), apply=False)
    assert shown.statements[-1].sql == "DROP TABLE public.entries_unpartitioned"
    assert kind(copied, "entries_unpartitioned") == "r"
    finished = playbook("finish", STEP, "--apply", *options)
    assert finished.stdout == f"{STEP}: finished; it cannot be undone any more\n"
    assert copied.execute("SELECT relname FROM pg_class WHERE relname ~ 'unpartitioned|changes|copying'") == []
    assert copied.execute("SELECT count(*) FROM pg_trigger WHERE tgname ~ 'changes'") == [(0,)]
    assert statuses(copied.playbook().phase("1").apply()) == {STEP: "applied"}
    (undone,) = undoing.undo(copied.context())
    assert "the table that it was made from is gone; it stays partitioned" in undone.error
    assert (kind(copied), rows(copied)) == ("p", written)
    assert finishing.finish(copied.context(), apply=False) == []


LONG_NAMED = "a" * 62 + "b"
LONG_PLAN = f"""\
name: long
title: A log by month
workload: workload.sql
phases:
  - id: "1"
    title: Partitions
    week: 1
    priority: nice_to_have
    notebook: partitions
    steps:
      - {{name: long, kind: partition, table: {LONG_NAMED}, key: at, every: month, route: copy, keep: always,
         accept: per-partition uniqueness of id}}
"""


def test_a_name_of_63_bytes_is_copied_and_taken_back(empty, tmp_path, monkeypatch, snapshot):
    rows_made = (
        f"CREATE TABLE {LONG_NAMED} (id int PRIMARY KEY, at date NOT NULL, what text);"
        f"CREATE INDEX {'c' * 63} ON {LONG_NAMED} (what);"
        f"INSERT INTO {LONG_NAMED} SELECT n, date '2026-01-01' + n, 'what ' || n FROM generate_series(1, 90) n"
    )
    shop = fix_shop.lay_out(
        empty, tmp_path, monkeypatch, plan=LONG_PLAN, workload="-- name: one\nSELECT 1;\n", rows=rows_made
    )
    as_found = snapshot(shop.target)
    assert statuses(shop.playbook().phase("1").apply()) == {"1/long": "applied"}
    partitions = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass"
    with shop.target.connect() as connection:
        names = [name for (name,) in connection.execute(partitions, [LONG_NAMED])]
        held = connection.execute(f"SELECT count(*) FROM {LONG_NAMED} WHERE at < '2026-02-01'".encode()).fetchall()
    assert max(map(len, names)) == 63
    assert len(names) == len(set(names)) >= 5
    assert held == [(30,)]
    assert [one.error for one in undoing.undo(shop.context())] == [""]
    assert snapshot(shop.target) == as_found
