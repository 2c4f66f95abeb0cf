"""Undo of an attached table with many rows past the cutoff: it is built anew beside its writers, as it was before."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.fix_conversion import STEP, SWAP, change_plan, kind, loaded, rows, undone
from tests.fix_faults import POINTS as FAULTS
from tests.fix_faults import points_of_undo, resume, small_disk, strike_alone, undo
from tests.fix_routes import between_statements, by_route
from tests.fix_shop import reason, statuses
from tests.killing import POINTS
from tests.test_retention import maintain

from people import rerun_as_root
from playbook import finishing, undoing
from playbook.changes.partitioning.change_log import BOUND
from playbook.target.execute import LockPolicy

TOO_LONG = pytest.mark.exhaustive
ATTACH = "every: month\n        route: attach"
TOUCH = "UPDATE entries SET note = note WHERE id = 5"
LATE = {
    "entries": "INSERT INTO {t} (id, number, person, note, at) SELECT -n, -n, 1 + n % 50, 'late', "
    "date_trunc('year', now()) + '14 months' + n * interval '1 hour' FROM generate_series(1001, {to}) n",
    '"AuditTrail"': 'INSERT INTO {t} ("id", "action", "entity", "entityId", "timestamp") '
    "SELECT 'late ' || n, 'late', 'e', n, date_trunc('year', now()) + '14 months' + n * interval '1 hour' FROM generate_series(1001, {to}) n",
}


def write_late(shop, number=BOUND + 1, table="entries"):
    """So many rows that lie past the cutoff."""
    shop.execute(LATE["entries"].format(t=table, to=1000 + number))


def convert(shop):
    if "route:" not in shop.plan.read_text():
        change_plan(shop, "every: month", ATTACH)
    applied = shop.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)


def heap(shop, table="entries"):
    """Which table it is, whatever it is called."""
    return shop.execute(f"SELECT '{table}'::regclass::oid")


def preview(shop):
    """What undo would run."""
    return shop.playbook().phase("1").preview_undo().statements


def shown(shop):
    """The same as SQL."""
    return [str(each) for each in preview(shop)]


@by_route("ledger attach", "prisma attach", of=("ledger attach", "prisma attach"))
def test_writers_lose_nothing_and_everything_is_as_it_was(route, snapshot):
    as_found = snapshot(route.admin)
    route.applied()
    table = route.words.table
    route.execute(LATE[table].format(t=table, to=6000))
    with route.loaded() as timeline:
        route.undone()
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(route.admin) == as_found


@TOO_LONG
def test_so_on_postgresql_15(ledger15, snapshot):
    as_found = snapshot(ledger15.target)
    convert(ledger15)
    write_late(ledger15)
    with loaded(ledger15) as timeline:
        undone(ledger15)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(ledger15.target) == as_found


def test_with_few_the_old_table_itself_takes_them_in(ledger):
    before = heap(ledger)
    for number, same in ((BOUND, True), (BOUND + 1, False)):
        convert(ledger)
        write_late(ledger, number)
        written = rows(ledger)
        undone(ledger)
        assert (heap(ledger) == before, rows(ledger) == written) == (same, True)
        ledger.execute("DELETE FROM entries WHERE id < 0")


def test_what_a_copy_of_it_might_lose_stands_as_it_was(ledger, snapshot):
    """What CREATE TABLE does not say: tablespaces, the index it was clustered by, a number that nobody may choose."""
    with ledger.target.connect() as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute("CREATE TABLESPACE elsewhere LOCATION ''")
    try:
        for sql in (
            "ALTER INDEX entries_at SET TABLESPACE elsewhere",
            "ALTER TABLE entries CLUSTER ON entries_number_key",
            "ALTER TABLE entries ALTER id SET GENERATED ALWAYS",
            "ALTER TABLE entries ADD CONSTRAINT two UNIQUE (at, kind) DEFERRABLE INITIALLY DEFERRED",
            "COMMENT ON INDEX entries_pkey IS 'its index'",
        ):
            ledger.execute(sql)
        as_found, numbered = snapshot(ledger.target), ledger.execute("SELECT max(id) FROM entries")[0][0]
        convert(ledger)
        ledger.execute(LATE["entries"].format(t="entries", to=3000).replace("SELECT", "OVERRIDING SYSTEM VALUE SELECT"))
        undone(ledger)
        assert snapshot(ledger.target) == as_found
        assert ledger.execute("INSERT INTO entries (note) VALUES ('next') RETURNING id") == [(numbered + 5,)]
    finally:
        ledger.execute("ALTER INDEX entries_at SET TABLESPACE pg_default")
        ledger.execute("DROP TABLESPACE elsewhere")


@pytest.mark.parametrize("emptied", [False, pytest.param(True, marks=TOO_LONG)])
@by_route("ledger attach", of=("ledger attach", "prisma attach"))
def test_what_is_written_between_any_two_statements_stays(route, emptied):
    """Upserts, moved keys, rows that go over the cutoff and back, NULLs, sessions in replica mode."""
    route.make_twin()
    route.applied()
    w = route.words
    there_and_back = [
        f"UPDATE {{t}} SET {w.key} = {w.key} + interval '20 years' WHERE {w.picked.format(45)} AND {w.key} < '2040-01-01'",
        f"UPDATE {{t}} SET {w.key} = {w.key} - interval '20 years' WHERE {w.picked.format(25)} AND {w.key} > '2040-01-01'",
    ]
    with route.admin.connect() as session:
        for table in (w.table, "twin"):
            session.execute(LATE[w.table].format(t=table, to=3000))
    heard = []

    def write(direction, position):
        heard.append(position)
        with route.admin.connect() as session:
            session.execute("SET session_replication_role = replica")
            if emptied and len(heard) == 7:
                session.execute(f"TRUNCATE {w.table}; TRUNCATE twin")
            for sql in (*route.writes(len(heard)), *there_and_back):
                for table in (w.table, "twin"):
                    session.execute(sql.format(t=table))

    with between_statements(write):
        route.undone()
    assert len(set(heard)) > 12
    assert route.difference() == []
    assert len(route.rows()) > (20 if emptied else 1000)


def test_numbers_that_came_twice_are_told_and_once_they_are_mended_undo_goes_on(attached, snapshot):
    """Nothing keeps one unique in the whole of a partitioned table: the plan had accepted that."""
    write_late(attached)
    attached.execute("INSERT INTO entries (id, number, at) SELECT id, -1, '2060-01-01' FROM entries WHERE id = 5")
    (told,) = undoing.undo(attached.context())
    assert "could not create unique index" in told.error
    assert kind(attached) == "p"
    attached.execute("DELETE FROM entries WHERE number = -1")
    written = rows(attached)
    undone(attached)
    assert (kind(attached), rows(attached)) == ("r", written)


@TOO_LONG
def test_where_it_cannot_be_built_anew_undo_says_so_and_loses_nothing(ledger):
    """Its owner does not see all rows: so many stop writers for longer than they may be, unless nobody waits."""
    ledger.execute("ALTER TABLE entries FORCE ROW LEVEL SECURITY")
    convert(ledger)
    assert not any("entries_rebuilt" in each for each in shown(ledger))
    assert any("stop them where there are more" in each.purpose for each in preview(ledger))
    ledger.execute(LATE["entries"].format(t="entries", to=60_000))
    context = ledger.context()
    context.policy = LockPolicy(limit_s=1.0, backoff_s=(0.1, 0.2))
    with loaded(ledger):
        (refused,) = undoing.undo(context)
    assert "run it again while nobody uses public.entries" in refused.error
    assert kind(ledger) == "p"
    written = rows(ledger)
    undone(ledger)
    assert (kind(ledger), rows(ledger)) == ("r", written)


@pytest.mark.parametrize("number", [0, BOUND + 1])
def test_a_column_that_others_add_while_it_is_undone_is_not_lost(attached, number):
    write_late(attached, number)

    def add(direction, position):
        if SWAP in preview(attached)[position].sql and attached.execute(has) == [(False,)]:
            attached.execute("ALTER TABLE entries ADD COLUMN meanwhile int DEFAULT 7")

    has = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'entries'::regclass AND attname = 'meanwhile')"
    with between_statements(add):
        (told,) = undoing.undo(attached.context())
    assert "public.entries has other columns by now: put them back, then undo again" in told.error
    assert attached.execute("SELECT min(meanwhile), max(meanwhile) FROM entries") == [(7, 7)]
    attached.execute("ALTER TABLE entries DROP COLUMN meanwhile")
    written = rows(attached)
    undone(attached)
    assert (kind(attached), rows(attached)) == ("r", written)


def test_what_others_change_after_an_undo_that_came_to_nothing_is_left_alone(attached):
    """Only what an undo has done itself is no drift."""
    context = attached.context()
    context.policy = LockPolicy(limit_s=0.3, backoff_s=(0.05, 0.1))
    with attached.target.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM entries")
        (refused,) = undoing.undo(context)
        reader.rollback()
    assert "end the transactions that hold the table" in refused.error
    attached.execute("GRANT TRUNCATE ON entries TO ledger_auditor")
    (refused,) = undoing.undo(attached.context())
    assert "was changed since run" in refused.error
    attached.execute("REVOKE TRUNCATE ON entries FROM ledger_auditor")
    undone(attached)


def test_nothing_is_retired_while_it_is_built(ledger):
    change_plan(ledger, "every: month", f"{ATTACH}\n        retention: 24 months")
    convert(ledger)
    write_late(ledger)
    listening = next(at for at, each in enumerate(shown(ledger)) if "CREATE TRIGGER" in each)
    assert ledger.killed(STEP, "after_done", listening, "undo") == -9
    said = maintain(ledger, datetime.now(UTC) + timedelta(days=1000))["entries"]
    assert "whose rows go into public.entries_rebuilt: `playbook undo` was begun" in said
    undone(ledger)


def test_a_history_that_was_split_goes_back_the_same_way(attached):
    (one,) = finishing.finish(attached.context(), (STEP,), apply=True)
    assert one.said == finishing.SPLIT
    write_late(attached)
    with loaded(attached) as timeline:
        undone(attached)
    assert (timeline.difference, timeline.failed) == (0, [])


def test_killed_in_the_swap_back_the_next_undo_goes_on(ledger, snapshot):
    as_found = snapshot(ledger.target)
    convert(ledger)
    write_late(ledger)
    swap = next(at for at, each in enumerate(shown(ledger)) if "entries_rebuilt RENAME TO entries" in each)
    assert ledger.killed(STEP, "before_done", swap, "undo", TOUCH) == -9
    ledger.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
    written = rows(ledger)
    undone(ledger)
    assert rows(ledger) == written
    assert snapshot(ledger.target) == as_found


@TOO_LONG
@pytest.mark.parametrize("database", ["ledger", "ledger15"])
def test_killed_at_every_statement(request, snapshot, database):
    shop = request.getfixturevalue(database)
    as_found = snapshot(shop.target)
    convert(shop)
    write_late(shop)
    places = points_of_undo(shop)
    for _, step, position in places:
        for point in POINTS:
            shop.execute("DELETE FROM entries WHERE id < 0")
            convert(shop)
            write_late(shop)
            assert shop.killed(step, point, position, "undo", TOUCH) == -9, (position, point)
            shop.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
            shop.execute("UPDATE entries SET at = at - interval '1 year' WHERE id % 75 = 0 AND id < 0")
            written = rows(shop)
            undone(shop)
            assert rows(shop) == written, (position, point)
            assert snapshot(shop.target) == as_found, (position, point)
            shop.execute("UPDATE entries SET at = at - interval '10 years' WHERE at > now()")
    print(f"killed at {len(places) * len(POINTS)} points of {len(places)} statements")
    assert len(places) >= 14


@TOO_LONG
@pytest.mark.parametrize("kill", ["kill_backend", "kill", "shut_down"])
def test_a_backend_or_server_that_dies_at_any_statement_leaves_every_row(own_ledger, own_server, snapshot, kill):
    change_plan(own_ledger, "every: month", ATTACH)
    as_found = snapshot(own_ledger.target)
    resume(own_ledger)
    write_late(own_ledger)
    places, covered = points_of_undo(own_ledger), 0
    for place in places:
        for point in FAULTS:
            own_ledger.execute("DELETE FROM entries WHERE id < 0")
            resume(own_ledger)
            write_late(own_ledger)
            written = rows(own_ledger)
            strike_alone(own_ledger, own_server, getattr(own_server, kill), TOUCH, place, point)
            undo(own_ledger)
            assert (rows(own_ledger), snapshot(own_ledger.target)) == (written, as_found), (place, point)
            covered += 1
    print(f"{kill}: struck at {covered} points of {len(places)} statements")


@pytest.mark.skipif(os.geteuid() == 0, reason="runs below, without a detour")
def test_a_full_disk_again_as_root():
    rerun_as_root("full_disk_as_root", Path(__file__))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which takes root")
def test_a_full_disk_as_root_ends_it_and_with_room_it_goes_on(ledger, snapshot):
    """One on which the table has an index, and no room for a second."""
    with small_disk(ledger.target, "200k", ledger.target.conninfo["user"]) as disk:
        ledger.execute(f"ALTER INDEX entries_at SET TABLESPACE {disk.name}")
        as_found = snapshot(ledger.target)
        convert(ledger)
        write_late(ledger, 9000)
        (told,) = undoing.undo(ledger.context())
        assert "No space left on device" in told.error
        assert kind(ledger) == "p"
        disk.grow()
        with loaded(ledger) as timeline:
            undone(ledger)
        assert (timeline.difference, timeline.failed) == (0, [])
        assert snapshot(ledger.target) == as_found
        ledger.execute("ALTER INDEX entries_at SET TABLESPACE pg_default")
