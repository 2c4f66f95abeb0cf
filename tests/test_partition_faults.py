"""Faults while a table is partitioned, and while that is undone: no row is lost, doubled or changed by any of them."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
from tests.fix_faults import (
    POINTS,
    Proxy,
    killed_everywhere,
    reasons,
    resume,
    statuses,
    strike,
    strike_everywhere,
    undo,
)

from playbook import undoing
from playbook.errors import Busy
from playbook.evidence.live import under_load
from playbook.journal import StatementRecord
from playbook.target.execute import LockPolicy

STEP = "1/entries_partitioned"
EXHAUSTIVE = pytest.mark.exhaustive
TOUCH = "UPDATE entries SET note = note WHERE id = 5"
ROWS = "SELECT * FROM {} ORDER BY id, at"


def kind(shop, table="entries"):
    return shop.execute(f"SELECT relkind FROM pg_class WHERE oid = to_regclass('{table}')")[0][0]


@pytest.fixture
def state(snapshot):
    """The catalog and the rows of a ledger."""

    def take(target):
        with target.connect() as connection:
            return snapshot(target), connection.execute(ROWS.format("entries")).fetchall()

    return take


@pytest.mark.parametrize(
    ("kill", "place", "point"),
    [
        ("kill", ("apply", STEP, 7), "before_done"),
        ("kill_backend", ("undo", STEP, 0), "before_done"),
    ],
)
def test_a_backend_or_server_that_dies_in_the_swap_leaves_every_row(own_ledger, own_server, state, kill, place, point):
    as_found = state(own_ledger.target)
    strike(own_ledger, own_server, getattr(own_server, kill), TOUCH, place, point)
    if place[0] == "apply":
        resume(own_ledger)
    undo(own_ledger)
    assert state(own_ledger.target) == as_found


@EXHAUSTIVE
@pytest.mark.parametrize("kill", ["kill_backend", "kill", "shut_down"])
def test_every_statement_struck(own_ledger, own_server, state, kill):
    covered, places = strike_everywhere(own_ledger, own_server, getattr(own_server, kill), TOUCH, state)
    print(f"{kill}: struck at {covered} points of {len(places)} statements")
    directions = [place[0] for place in places]
    assert covered == len(POINTS) * (2 * directions.count("apply") + directions.count("undo"))
    assert len(places) >= 12


@EXHAUSTIVE
@pytest.mark.parametrize("database", ["ledger", "ledger15"])
def test_a_client_killed_at_every_statement(request, state, database):
    shop = request.getfixturevalue(database)
    covered, places = killed_everywhere(shop, TOUCH, state)
    print(f"client killed at {covered} points of {len(places)} statements")
    assert covered >= 100


@contextmanager
def between_statements(monkeypatch, write):
    """Calls `write(direction, position)` before each statement is sent."""
    intent = StatementRecord.intent

    def writing(record, *arguments):
        write(record.direction, record.position)
        intent(record, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StatementRecord, "intent", writing)
        yield


# Times at the edges: of months in UTC and in other zones, of the hour that a clock in Berlin shows twice, of New York's
# lost hour, and near the end of what a partition holds.
EDGES = (
    "timestamptz '2026-10-25 02:30:00 Europe/Berlin'",
    "timestamptz '2026-10-25 01:30:00+01'",
    "timestamptz '2026-03-08 02:30:00 America/New_York'",
    "timestamptz '2026-02-01 00:00:00+00'",
    "timestamptz '2026-01-31 23:59:59.999999+00'",
    "timestamptz '2026-02-28 23:30:00-05'",
)


def writes(partitioned):
    """What applications write, for the table and its twin alike; `{t}` is the one or the other."""
    key = "id, at" if partitioned else "id"
    for edge in EDGES:
        yield f"INSERT INTO {{t}} (id, number, kind, at) VALUES (-{{n}}, -{{n}}, 'edge', {edge})"
    yield "UPDATE {t} SET at = at + interval '1 month' WHERE kind = 'edge' AND at < '2026-03-01'"
    yield "UPDATE {t} SET note = NULL, amount = NULL, person = NULL WHERE id % 35 = 0"
    yield "DELETE FROM {t} WHERE id % 55 = 0"
    yield (
        f"INSERT INTO {{t}} (id, number, kind, at) SELECT id, number, 'again', at FROM {{t}} WHERE id % 65 = 0 "
        f"ON CONFLICT ({key}) DO UPDATE SET kind = EXCLUDED.kind, note = 'upserted'"
    )


@pytest.mark.parametrize("role", [pytest.param("origin", marks=EXHAUSTIVE), "replica"])
def test_what_is_written_between_any_two_statements_stays(ledger, monkeypatch, role):
    """Upserts, moved keys, NULLs, a TRUNCATE, sessions in replica mode; the twin has no trigger, so the ledger has none."""
    shop = ledger
    shop.execute("DROP TRIGGER trims ON entries; DROP TRIGGER counts ON entries; DROP TRIGGER hears ON entries")
    shop.execute("CREATE TABLE twin (LIKE entries INCLUDING ALL); INSERT INTO twin (id, number, person, kind, amount, "
                 "note, body, at) SELECT id, number, person, kind, amount, note, body, at FROM entries")  # fmt: skip
    shop.execute("ALTER TABLE twin DROP CONSTRAINT twin_number_key, DROP CONSTRAINT twin_pkey, ADD PRIMARY KEY (id), "
                 "ADD UNIQUE (id, at)")  # fmt: skip
    numbers = iter(range(1, 10_000))
    written = []

    def write(direction, position):
        with shop.target.connect() as session:
            session.execute(f"SET session_replication_role = {role}; SET TimeZone = 'Europe/Berlin'")
            if (direction, position) == ("apply", 5):
                session.execute("TRUNCATE entries; TRUNCATE twin")
            for sql in writes(kind(shop) == "p"):
                number = next(numbers)
                for table in ("entries", "twin"):
                    session.execute(sql.format(t=table, n=number))
        written.append((direction, position))

    with between_statements(monkeypatch, write):
        resume(shop)
        undo(shop)
    assert {direction for direction, _ in written} == {"apply", "undo"}
    columns = "id, number, person, kind, amount, doubled, note, body, at"
    both = [f"SELECT {columns} FROM {table}" for table in ("entries", "twin")]
    assert shop.execute(f"({both[0]} EXCEPT ALL {both[1]}) UNION ALL ({both[1]} EXCEPT ALL {both[0]})") == []
    assert shop.execute("SELECT count(*) > 20 FROM entries") == [(True,)]


def test_a_second_playbook_is_told_who_is_at_work_and_changes_nothing(ledger):
    with ledger.context().hold("apply"):
        with pytest.raises(Busy, match=r"is held by playbook .*; wait for it or stop it"):
            ledger.playbook().phase("1").apply()
        assert kind(ledger) == "r"
        assert ledger.execute("SELECT to_regnamespace('playbook')") == [(None,)]


@EXHAUSTIVE
def test_of_two_playbooks_that_start_together_one_converts_the_table(ledger, state):
    as_found = state(ledger.target)
    came = []

    def apply():
        try:
            came.append(statuses(ledger.playbook().phase("1").apply())[STEP])
        except Busy:
            came.append("busy")

    both = [threading.Thread(target=apply) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert "applied" in came
    assert set(came) <= {"applied", "busy"}
    undo(ledger)
    assert state(ledger.target) == as_found


@pytest.mark.parametrize(
    ("delivered", "journal"),
    [(True, "target"), pytest.param(False, "target", marks=EXHAUSTIVE), pytest.param(False, "file", marks=EXHAUSTIVE)],
)
def test_a_connection_lost_at_the_commit_of_the_swap(ledger, state, monkeypatch, delivered, journal):
    as_found = state(ledger.target)
    kept = {"journal": ledger.folder / "journal.sqlite"} if journal == "file" else {}
    proxy = Proxy(ledger.target, b"ATTACH PARTITION", delivered=delivered)
    try:
        monkeypatch.setenv("SHOP_URL", proxy.url)
        first = ledger.playbook(**kept).phase("1").apply()
        assert proxy.cut == 1
        if not delivered:
            assert statuses(first) == {STEP: "failed"}
            assert "run again to resume" in reasons(first)
            first = ledger.playbook(**kept).phase("1").apply()
        assert statuses(first) == {STEP: "applied"}, reasons(first)
    finally:
        proxy.close()
    monkeypatch.setenv("SHOP_URL", ledger.url())
    assert [one.error for one in undoing.undo(ledger.context(**kept))] == [""]
    assert state(ledger.target) == as_found


@EXHAUSTIVE
def test_a_reader_that_holds_the_table_for_half_a_minute_is_waited_for(ledger, state):
    as_found = state(ledger.target)
    with ledger.target.connect() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries")
        threading.Timer(30.0, reader.rollback).start()
        resume(ledger)
    undo(ledger)
    assert state(ledger.target) == as_found


def test_more_partitions_than_the_lock_table_has_room_for_are_refused_before_anything_is_made(ledger, state):
    as_found = state(ledger.target)
    ledger.plan.write_text(ledger.plan.read_text().replace("every: month", "every: day\n        ahead: 3000"))
    applied = ledger.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "blocked"}
    assert "3,000 partitions at once take 24,016 locks, and the server has room for" in reasons(applied)
    assert "set max_locks_per_transaction = " in reasons(applied)
    assert state(ledger.target) == as_found


@pytest.fixture
def roomy15(postgres15):
    """PostgreSQL 15 with room for more locks; listed before the ledger, which goes before the server is restarted."""
    postgres15.restart(max_locks_per_transaction="2000")
    yield
    postgres15.restart()


@EXHAUSTIVE
def test_three_thousand_partitions_are_made_and_taken_back(roomy15, ledger15, state):
    ledger = ledger15
    as_found = state(ledger.target)
    ledger.plan.write_text(ledger.plan.read_text().replace("every: month", "every: day\n        ahead: 3000"))
    resume(ledger)
    assert ledger.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'entries'::regclass") == [(3002,)]
    ledger.execute("INSERT INTO entries (at) SELECT now() + n * interval '1 day' FROM generate_series(1, 2999, 40) n")
    undo(ledger)
    assert ledger.execute("SELECT count(*) FROM entries") == [(len(as_found[1]) + 75,)]
    ledger.execute("DELETE FROM entries WHERE at > now()")
    assert state(ledger.target)[0] == as_found[0]


def test_on_postgresql_15_writers_lose_nothing_while_it_is_converted_and_undone(ledger15, state):
    shop, as_found = ledger15, state(ledger15.target)[0]
    for verb, status in (("apply", "applied"), ("undo", "undone")):
        table = shop.context().names.relation("entries")
        with under_load(shop.target.connect, shop.target.conninfo, table, "at") as timeline:
            assert statuses(getattr(shop.playbook().phase("1"), verb)()) == {STEP: status}
        assert (timeline.difference, timeline.failed) == (0, [])
    assert state(shop.target)[0] == as_found


@EXHAUSTIVE
def test_a_client_killed_at_every_statement_on_a_prisma_database(prisma, snapshot):
    step, rows = "4.2/audit_logs_partitioned", 'SELECT * FROM "AuditTrail" ORDER BY id'
    as_found, written = snapshot(prisma.admin), prisma.execute(rows)
    number = len(prisma.playbook().phase("4.2").preview().steps[0][1])
    for position in range(number):
        for point in ("before_intent", "after_intent", "before_done", "after_done"):
            for resumed in (True, False):
                assert prisma.killed(step, point, position) == -9, (position, point)
                if resumed:
                    assert statuses(prisma.playbook().phase("4.2").apply()) == {step: "applied"}, (position, point)
                undo(prisma)
                assert (snapshot(prisma.admin), prisma.execute(rows)) == (as_found, written), (position, point, resumed)
    print(f"client killed at {8 * number} points of {number} statements")


@EXHAUSTIVE
def test_an_undo_that_would_stop_writers_for_long_is_refused_loses_nothing_and_goes_on_without_them(ledger):
    resume(ledger)
    ledger.execute("INSERT INTO entries (note, at) SELECT 'late', timestamptz '2060-01-01' + n * interval '1 second' "
                   "FROM generate_series(1, 200000) n")  # fmt: skip
    stop = threading.Event()

    def write():
        with ledger.target.connect() as session:
            while not stop.wait(0.005):
                session.execute("INSERT INTO entries (note) VALUES ('meanwhile')")

    context = ledger.context()
    context.policy = LockPolicy(limit_s=1.0, backoff_s=(0.1, 0.2))
    writing = threading.Thread(target=write)
    writing.start()
    try:
        (refused,) = undoing.undo(context)
    finally:
        stop.set()
        writing.join()
    assert "since it blocked backend" in refused.error
    assert kind(ledger) == "p"
    before = ledger.execute("SELECT count(*), sum(hashtext(entries::text)) FROM entries")
    undo(ledger)
    assert kind(ledger) == "r"
    assert ledger.execute("SELECT count(*), sum(hashtext(entries::text)) FROM entries") == before
