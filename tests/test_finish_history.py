"""Splitting an attached history into months: nothing is lost beside writers, and undo returns the table as before."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext

import psycopg
import pytest
from tests import fix_ledger
from tests.fix_conversion import (
    QUICK,
    STEP,
    SWAP,
    a_half_fails,
    change_plan,
    described,
    kind,
    loaded,
    meanwhile,
    rows,
    struck_between_chunks,
    undone,
)
from tests.fix_faults import points_of_undo
from tests.fix_shop import reason, statuses
from tests.killing import POINTS
from tests.test_cli import playbook

from playbook import finishing, undoing
from playbook.changes.partition import Partition
from playbook.changes.partitioning import attributes
from playbook.errors import Interrupted
from playbook.evidence.live import under_load
from playbook.journal import StatementRecord

TOO_LONG = pytest.mark.exhaustive
PARTS = "entries_history_partitioned"
_WORK = ("verifying table", "validating foreign key", "rewriting table", "building index")
"""How PostgreSQL's messages begin, at their most talkative, of what reads a table."""


def attach(shop):
    """By a plan that says so, whatever its writers do."""
    if "route:" not in shop.plan.read_text():
        change_plan(shop, "every: month", "every: month\n        route: attach")
    if kind(shop) == "r":
        shop.execute(
            "UPDATE entries SET at = timestamptz '2026-01-01Z' + id * interval '35 minutes' WHERE at > now() + '9 days'"
        )
    applied = shop.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    return shop


def planned(shop):
    """What finish shows."""
    (one,) = finishing.finish(shop.context(), (STEP,), apply=False)
    return one


def finish(shop):
    """What finish says."""
    (one,) = finishing.finish(shop.context(), (STEP,), apply=True)
    return one.error or one.said


def read(shop, name):
    with shop.target.connect() as connection:
        return attributes.read(connection, name)


@pytest.mark.parametrize("database", ["ledger", pytest.param("ledger15", marks=TOO_LONG)])
def test_writers_lose_nothing_while_the_history_is_split_and_while_that_is_undone(request, snapshot, database):
    shop = request.getfixturevalue(database)
    as_found = snapshot(shop.target)
    attach(shop)
    with loaded(shop) as timeline:
        assert finish(shop) == finishing.SPLIT
    assert (timeline.difference, timeline.failed) == (0, [])
    assert kind(shop, PARTS) == "p"
    with loaded(shop) as timeline:
        undone(shop)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(shop.target) == as_found


def test_everything_stands_as_before_and_each_month_has_what_later_ones_have(attached):
    before, later = described(attached), read(attached, "public.entries_default")
    number = attached.execute("SELECT nextval(pg_get_serial_sequence('entries', 'id'))")[0][0]
    assert finish(attached) == finishing.SPLIT
    assert [line for line in described(attached) if "entries_history_changes_since" not in line] == before
    month = read(attached, "public.entries_2026_03")

    def about(a):
        indexes = sorted((each.body, each.unique, each.replica_identity, each.constraint) for each in a.indexes)
        triggers = {(each.name, each.tail, each.enabled) for each in a.triggers if "changes" not in each.name}
        columns = [replace_name(each) for each in a.columns]
        return (columns, indexes, triggers, a.grants, a.row_security, a.options, a.owner, a.replica_identity)

    def replace_name(column):
        return (
            column.name,
            column.type,
            column.not_null,
            column.identity,
            column.default,
            column.storage,
            column.statistics,
        )

    assert about(month) == about(later)
    assert read(attached, f"public.{PARTS}").grants == read(attached, "public.entries").grants
    assert attached.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    alone = attached.execute(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indrelid = 'entries_2026_03'::regclass AND NOT relispartition ORDER BY 1"
    )
    assert alone == [("entries_2026_03_id_key",), ("entries_2026_03_number_key",)]
    assert (
        attached.execute("SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND NOT convalidated")
        == []
    )
    assert attached.execute(
        "INSERT INTO entries (at) VALUES ('2026-02-03') RETURNING id, tableoid::regclass::text"
    ) == [(number + 5, "entries_2026_02")]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        attached.execute("INSERT INTO entries (person, at) VALUES (999, '2026-02-03')")
    published = "SELECT tablename::text FROM pg_publication_tables"
    assert attached.execute(published) == [("entries",)]


def test_a_query_of_one_month_reads_that_month(attached):
    query = "EXPLAIN SELECT count(*) FROM entries WHERE at >= '2026-02-01Z' AND at < '2026-03-01Z'"

    def read_tables():
        return {
            word for (line,) in attached.execute(query) for word in line.split() if word.startswith("entries_2026_")
        }

    assert read_tables() == set()
    finish(attached)
    assert read_tables() == {"entries_2026_02"}


def test_the_swap_reads_no_row_of_any_partition(attached):
    """What PostgreSQL says of it at its most talkative, once for the swap and once for the swap back."""
    heard = []

    def rehearse(sql):
        with attached.target.connect() as connection:
            connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
            connection.execute("SET client_min_messages = debug1")
            with connection.transaction(force_rollback=True):
                connection.execute(sql.encode())

    shown = planned(attached)
    (swap,) = [each.sql for each in shown.statements if SWAP in each.sql]
    with meanwhile((SWAP, lambda: rehearse(swap))):
        finish(attached)
    (back,) = [each.sql for each in shown.undo if SWAP in each.sql]
    intent = StatementRecord.intent

    def before_the_swap_back(record, *arguments):
        if record.statement.sql == back:
            rehearse(back)
        intent(record, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatementRecord, "intent", before_the_swap_back)
        undone(attached)
    implied = [said for said in heard if "implied by existing constraints" in said]
    assert {said.split('"')[1] for said in implied} == {PARTS, "entries_history", "entries_default"}
    emptied = "entries_history_changes_since"
    assert [said for said in heard if said.startswith(_WORK) and emptied not in said] == []


def test_what_the_application_does_between_any_two_statements_is_in_both(attached):
    """Rows that move between history and later months, change their key, come late; and replicated writes."""
    said = iter(range(10_000, 99_999))

    def write():
        with attached.target.connect() as connection, connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            for sql in (
                "UPDATE entries SET at = at + interval '45 days' WHERE id % 35 = 0",
                "UPDATE entries SET at = at + interval '20 years' WHERE id % 85 = 0 AND at < '2030-01-01'",
                "UPDATE entries SET at = at - interval '20 years' WHERE id % 95 = 0 AND at > '2040-01-01'",
                f"UPDATE entries SET id = 1000000 + {next(said)} WHERE id = (SELECT min(id) FROM entries)",
                "DELETE FROM entries WHERE id = (SELECT max(id) FROM entries WHERE id < 1000000)",
                f"INSERT INTO entries (id, number, at) VALUES (-{next(said)}, -{next(said)}, '2019-05-01')",
                f"INSERT INTO entries (id, number, at) VALUES (-{next(said)}, -{next(said)}, '2026-01-31 23:59:59.999999Z')",
                "UPDATE entries SET person = NULL, note = NULL WHERE id % 55 = 0",
            ):
                connection.execute(sql.encode())

    with meanwhile(*((each.sql, write) for each in planned(attached).statements)):
        assert finish(attached) == finishing.SPLIT
    write()
    written = rows(attached)
    assert {row[0] > 1_000_000 for row in written} == {True, False}
    wrong = attached.execute(
        "SELECT count(*) FROM entries WHERE at BETWEEN '2026-01-01Z' AND '2026-11-01Z' "
        "AND tableoid::regclass::text <> to_char(at AT TIME ZONE 'UTC', '\"entries_\"YYYY_MM')"
    )
    assert wrong == [(0,)]
    undone(attached)
    assert rows(attached) == written


@pytest.mark.parametrize("when", [SWAP, *(pytest.param(text, marks=TOO_LONG) for text in ("ctid >=", "INTO batch"))])
def test_a_table_that_is_emptied_meanwhile_and_again_afterwards(attached, when):
    anew = "TRUNCATE entries; INSERT INTO entries (note, at) VALUES ('first', '2026-03-01'), ('later', '2060-01-01')"
    with meanwhile((when, lambda: attached.execute(anew))):
        assert finish(attached) == finishing.SPLIT
    assert [row[6] for row in rows(attached)] == ["first", "later"]
    attached.execute("TRUNCATE entries; INSERT INTO entries (note, at) VALUES ('third', '2026-03-31 23:59:59.999999Z')")
    written = rows(attached)
    undone(attached)
    assert rows(attached) == written


def test_the_next_finish_gives_the_history_up_and_then_nothing_is_left_to_do(attached):
    options = ("--target", "env:SHOP_URL", "--plan", attached.plan)
    shown = playbook("finish", STEP, *options).stdout
    assert "(ACCESS EXCLUSIVE on public.entries with its partitions and public.people)" in shown
    assert f"-- undo of {STEP}: the swap back" in shown
    assert shown.endswith("nothing was changed; --apply runs this, and undo returns the table after it\n")
    assert finish(attached) == finishing.SPLIT
    written = rows(attached)
    assert planned(attached).statements[-1].sql == "DROP TABLE public.entries_history"
    assert playbook("finish", "--apply", *options).stdout == f"{STEP}: {finishing.ENDED}\n"
    left = "SELECT relname FROM pg_class WHERE relname ~ 'changes|copying' OR relname = 'entries_history'"
    assert attached.execute(left) == []
    assert finishing.finish(attached.context(), apply=False) == []
    assert statuses(attached.playbook().phase("1").check()) == {STEP: "applied"}
    (undone,) = undoing.undo(attached.context())
    assert "the table that it was made from is gone" in undone.error
    assert (kind(attached), rows(attached)) == ("p", written)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM entries; VACUUM entries; ANALYZE entries", "its history is empty"),
        ("DELETE FROM entries; INSERT INTO entries (at) SELECT current_date - n % 3 FROM generate_series(1, 50) n", "its history is one"),
    ],
)  # fmt: skip
def test_of_an_empty_history_or_one_month_there_is_nothing_to_split(ledger, snapshot, sql, said):
    if "one" in said:
        change_plan(ledger, "every: month", "every: year\n        route: attach")
    for each in sql.split("; "):
        ledger.execute(each)
    attach(ledger)
    as_found = snapshot(ledger.target)
    assert planned(ledger).said.startswith(said)
    assert finish(ledger).startswith(said)
    assert snapshot(ledger.target) == as_found


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("CREATE PUBLICATION everything FOR ALL TABLES", "publication everything carries whatever is made"),
        ("CREATE TABLE refers (id bigint, at timestamptz, CONSTRAINT refers_entry FOREIGN KEY (id, at) REFERENCES entries)",
         "foreign key refers_entry of public.refers refers to public.entries"),
        ("CREATE TRIGGER own AFTER DELETE ON entries_history FOR EACH ROW EXECUTE FUNCTION hear()", "trigger own is on"),
        ("CREATE VIEW old AS SELECT id FROM entries_history", "view public.old is bound to public.entries_history itself"),
        ("DELETE FROM pg_statistic WHERE starelid = 'entries_history'::regclass", "ANALYZE public.entries_history"),
        ("CREATE TABLE entries_2026_02 ()", "public.entries_2026_02 stands already"),
        ("GRANT TRUNCATE ON entries TO ledger_auditor", "was changed since run"),
        ("ALTER TABLE entries ADD CHECK (amount < 5000) NOT VALID", "VALIDATE CONSTRAINT entries_amount_check"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_said_before_anything_is_made(attached, snapshot, sql, said):
    attached.execute(sql)
    as_found = snapshot(attached.target)
    assert said in finish(attached)
    assert snapshot(attached.target) == as_found


def test_a_split_that_finds_other_rows_is_taken_back_and_the_step_stands(attached, snapshot):
    as_found, written = snapshot(attached.target), rows(attached)
    stray = "DELETE FROM entries_2026_02 WHERE id = (SELECT min(id) FROM entries_2026_02)"
    with meanwhile(("width_bucket", lambda: attached.execute(stray))):
        told = finish(attached)
    assert "public.entries_history and its copy differ, 2026-02-01: 233 rows and 232" in told
    assert told.endswith("what the split had made was taken back")
    assert (snapshot(attached.target), rows(attached)) == (as_found, written)


def test_what_others_change_meanwhile_ends_it(attached, snapshot):
    with meanwhile((SWAP, lambda: attached.execute("ALTER TABLE entries ADD COLUMN meanwhile int"))):
        told = finish(attached)
    assert "was changed by others while its history was being split; finish again" in told
    assert kind(attached, PARTS) is None
    assert "was changed since run" in finish(attached)


def test_its_halves_are_copied_and_its_indexes_built_beside_each_other(attached, monkeypatch):
    """Two of each wait for one another."""
    shown, intent = planned(attached).statements, StatementRecord.intent
    pairs = [[each.sql for each in shown if each.beside == work][:2] for work in ("pages", "indexes")]
    meetings = {sql: meeting for pair in pairs for meeting in [threading.Barrier(2)] for sql in pair}
    assert len(meetings) == 4

    def begun(record, *arguments):
        intent(record, *arguments)
        if meeting := meetings.pop(record.statement.sql, None):
            meeting.wait(30)

    monkeypatch.setattr(StatementRecord, "intent", begun)
    written = rows(attached)
    assert finish(attached) == finishing.SPLIT
    assert (meetings, rows(attached)) == ({}, written)


def test_a_half_that_fails_ends_the_other_and_what_the_split_had_made_is_taken_back(attached, snapshot):
    as_found, written = snapshot(attached.target), rows(attached)
    with a_half_fails(attached):
        told = finish(attached)
    assert "could not extend file" in told
    assert told.endswith("what the split had made was taken back")
    assert (rows(attached), snapshot(attached.target)) == (written, as_found)


@pytest.mark.parametrize("reading", ["outcome", "proof"])
def test_a_session_that_ends_between_two_statements_or_after_the_last_interrupts_it_and_the_next_goes_on(
    attached, monkeypatch, reading
):
    """While the catalog is asked whether the swap is done, and for what the journal keeps in the end."""
    read = getattr(Partition, reading)

    def ended(change, connection, *statement):
        if not statement or SWAP in statement[0].sql:
            attached.execute("SELECT pg_terminate_backend(%s, 5000)", connection.info.backend_pid)
        return read(change, connection, *statement)

    written = rows(attached)
    with monkeypatch.context() as patch:
        patch.setattr(Partition, reading, ended)
        assert finish(attached).endswith("run again to resume")
    assert finish(attached) == finishing.SPLIT
    undone(attached)
    assert rows(attached) == written


def test_the_copy_goes_on_from_the_page_at_which_it_was_interrupted(attached):
    """Its halves one after the other, since others are to be spared."""
    change_plan(attached, "every: month", "every: month\n        duty_pct: 99")

    def interrupt():
        raise Interrupted("the connection failed")

    with struck_between_chunks(interrupt, 3):
        assert finish(attached) == "the connection failed"
    # The first round begins the copy, the second has copied.
    assert attached.execute("SELECT page FROM entries_history_copying WHERE half = 1") == [(3,)]
    written = rows(attached)
    with struck_between_chunks() as begun:
        assert finish(attached) == finishing.SPLIT
    pages = attached.execute("SELECT pg_relation_size('entries_history') / 8192")[0][0]
    assert len(begun) == -(-(pages // 2 - 3) // 3) + -(-(pages - pages // 2) // 3)
    assert rows(attached) == written


def killed(shop, point, position, direction="finish"):
    first = len(shop.playbook().phase("1").context.journal.entry(STEP).statements) if direction == "finish" else 0
    return shop.killed(STEP, point, first + position, direction)


@pytest.mark.parametrize("point", ["before_done", pytest.param("after_done", marks=TOO_LONG)])
def test_killed_in_the_swap_it_is_resumed_and_then_undone(ledger, snapshot, point):
    as_found = snapshot(ledger.target)
    attach(ledger)
    swap = next(at for at, each in enumerate(planned(ledger).statements) if SWAP in each.sql)
    assert killed(ledger, point, swap) == -9
    ledger.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
    written = rows(ledger)
    assert finish(ledger) == finishing.SPLIT
    assert rows(ledger) == written
    undone(ledger)
    assert (snapshot(ledger.target), rows(ledger)) == (as_found, written)


@TOO_LONG
@pytest.mark.parametrize("database", ["ledger", "ledger15"])
def test_killed_at_every_statement_and_resumed_and_undone(request, snapshot, database):
    shop = request.getfixturevalue(database)
    as_found, covered = snapshot(shop.target), 0
    attach(shop)
    number = len(planned(shop).statements)
    for position in range(number):
        for point in POINTS:
            for resumed in (True, False):
                where = (position, point, resumed)
                attach(shop)
                assert killed(shop, point, position) == -9, where
                shop.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
                shop.execute("UPDATE entries SET at = at + interval '1 year' WHERE id % 75 = 0 AND at < '2040-01-01'")
                written = rows(shop)
                if resumed:
                    assert finish(shop) == finishing.SPLIT, where
                    assert rows(shop) == written, where
                undone(shop)
                assert rows(shop) == written, where
                assert snapshot(shop.target) == as_found, where
                covered += 1
    print(f"killed at {covered} points of {number} statements")
    assert covered == 2 * len(POINTS) * number


def test_killed_in_its_undo_while_the_foreign_key_is_gone_the_next_goes_on(ledger, snapshot):
    """What the undo itself has done to the table is nobody else's change."""
    as_found = snapshot(ledger.target)
    attach(ledger)
    assert finish(ledger) == finishing.SPLIT
    undo = ledger.playbook().phase("1").context.journal.entry(STEP).undo
    swap = next(at for at, each in enumerate(undo) if SWAP in each.sql)
    assert ledger.killed(STEP, "after_done", swap, "undo") == -9
    written = rows(ledger)
    undone(ledger)
    assert (snapshot(ledger.target), rows(ledger)) == (as_found, written)


@TOO_LONG
@pytest.mark.parametrize("database", ["ledger", "ledger15"])
def test_killed_at_every_statement_of_its_undo(request, snapshot, database):
    shop = request.getfixturevalue(database)
    as_found, covered = snapshot(shop.target), 0
    attach(shop)
    assert finish(shop) == finishing.SPLIT
    places = points_of_undo(shop)
    for _, step, position in places:
        for point in POINTS:
            attach(shop)
            assert finish(shop) == finishing.SPLIT, (position, point)
            shop.execute("UPDATE entries SET at = at + interval '40 days' WHERE id % 65 = 0")
            written = rows(shop)
            assert shop.killed(step, point, position, "undo") == -9, (position, point)
            covered += 1
            undone(shop)
            assert (snapshot(shop.target), rows(shop)) == (as_found, written), (position, point)
    print(f"undo killed at {covered} points of {len(places)} statements")
    assert len(places) >= 8


@TOO_LONG
def test_a_transaction_that_it_meets_crosswise_goes_on(attached):
    context = attached.context()
    context.policy = QUICK
    with fix_ledger.crosswise(attached.target):
        (one,) = finishing.finish(context, (STEP,), apply=True)
        assert (one.error, one.said) == ("", finishing.SPLIT)
        assert [one.error for one in undoing.undo(context)] == [""]


def split_a_prisma_history(prisma, snapshot, meanwhile):
    as_found, step = snapshot(prisma.admin), "4.2/audit_logs_partitioned"
    assert list(statuses(prisma.playbook().phase("4.2").apply()).values()) == ["applied"]
    with meanwhile:
        (one,) = finishing.finish(prisma.context(), (step,), apply=True)
        assert (one.error, one.said) == ("", finishing.SPLIT)
    assert prisma.execute('SELECT count(DISTINCT tableoid) > 20 FROM "AuditTrail"') == [(True,)]
    written = prisma.execute('SELECT * FROM "AuditTrail" ORDER BY id')
    assert [one.error for one in undoing.undo(prisma.context())] == [""]
    assert prisma.execute('SELECT * FROM "AuditTrail" ORDER BY id') == written
    assert snapshot(prisma.admin) == as_found


def test_the_history_of_a_prisma_database_is_split_by_its_owner(prisma, snapshot):
    split_a_prisma_history(prisma, snapshot, nullcontext())


@TOO_LONG
@pytest.mark.parametrize("database", ["prisma", "prisma15"])
def test_the_writers_of_a_prisma_database_lose_nothing_meanwhile(request, snapshot, database):
    prisma = request.getfixturevalue(database)
    context = prisma.context()
    table, key = context.names.relation("audit_logs"), context.names.column("audit_logs", "timestamp")

    @contextmanager
    def written():
        with under_load(prisma.target.connect, prisma.target.conninfo, table, key.name) as timeline:
            yield
        assert (timeline.difference, timeline.failed) == (0, [])

    split_a_prisma_history(prisma, snapshot, written())
