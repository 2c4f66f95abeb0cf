"""Faults while a table is partitioned, and while that is undone: no row is lost, doubled or changed by any of them."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import papermill
import pytest
from tests import fix_ledger
from tests.fix_conversion import COPY, QUICK, SWAP, meanwhile
from tests.fix_faults import (
    POINTS,
    Proxy,
    killed_everywhere,
    reasons,
    resume,
    small_disk,
    strike,
    strike_everywhere,
    undo,
)
from tests.fix_routes import between_statements, by_route, on_prisma
from tests.fix_shop import statuses

from people import rerun_as_root
from playbook import cli, finishing
from playbook.errors import Busy, Unreachable
from playbook.evidence.live import under_load
from playbook.journal import Journal
from playbook.target import embedded
from playbook.target.execute import LockPolicy

STEP = "1/entries_partitioned"
EXHAUSTIVE = pytest.mark.exhaustive
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TOUCH = "UPDATE entries SET note = note WHERE id = 5"
MOVES = {"apply": "ATTACH", "undo": "DETACH"}
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


@pytest.mark.parametrize(("kill", "direction"), [("kill", "apply"), ("kill_backend", "undo")])
def test_a_backend_or_server_that_dies_in_the_swap_leaves_every_row(own_ledger, own_server, state, kill, direction):
    as_found = state(own_ledger.target)
    phase = own_ledger.playbook().phase("1")
    if direction == "undo":
        phase.apply()
    run = phase.preview().steps[0][1] if direction == "apply" else phase.preview_undo().statements
    (swap,) = (at for at, each in enumerate(run) if f"{MOVES[direction]} PARTITION public.entries_history" in each.sql)
    strike(own_ledger, own_server, getattr(own_server, kill), TOUCH, (direction, STEP, swap), "before_done")
    if direction == "apply":
        resume(own_ledger)
    undo(own_ledger)
    assert state(own_ledger.target) == as_found


def test_a_server_that_is_gone_before_the_swap_of_a_history_is_one_clear_line_and_the_next_finish_goes_on(
    own_ledger, own_server, monkeypatch, capsys
):
    resume(own_ledger)
    (planned,) = finishing.finish(own_ledger.context(), apply=False)
    own = len(own_ledger.context().journal.entry(STEP).statements)
    swap = next(at for at, each in enumerate(planned.statements, own) if SWAP in each.sql)
    sent = Journal.sent

    def gone(journal, step, direction, position):
        if position == swap:
            own_server.shut_down()
            while embedded.status(own_server.home).running:
                time.sleep(0.05)
        return sent(journal, step, direction, position)

    options = ("--target", "env:SHOP_URL", "--plan", str(own_ledger.plan))
    monkeypatch.setattr("sys.argv", ["playbook", "finish", "--apply", *options])
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "sent", gone)
        with pytest.raises(SystemExit) as end:
            cli.main()
    own_server.recover(own_ledger.target)
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (Unreachable.exit_code, "")
    assert said.err.splitlines()[-1].startswith("error: cannot connect to env:SHOP_URL")
    (finished,) = finishing.finish(own_ledger.context(), apply=True)
    assert finished.said == finishing.SPLIT, finished.error


@EXHAUSTIVE
@pytest.mark.parametrize("kill", ["kill_backend", "kill", "shut_down"])
def test_every_statement_struck(own_ledger, own_server, state, kill):
    covered, places = strike_everywhere(own_ledger, own_server, getattr(own_server, kill), TOUCH, state)
    print(f"{kill}: struck at {covered} points of {len(places)} statements")
    directions = [place[0] for place in places]
    assert covered == len(POINTS) * (2 * directions.count("apply") + directions.count("undo"))
    assert directions.count("apply") == len(own_ledger.playbook().phase("1").preview().steps[0][1])
    assert directions.count("undo") >= 2


@EXHAUSTIVE
@pytest.mark.parametrize("database", ["ledger", "ledger15"])
def test_a_client_killed_at_every_statement(request, state, database):
    shop = request.getfixturevalue(database)
    covered, places = killed_everywhere(shop, TOUCH, state)
    print(f"client killed at {covered} points of {len(places)} statements")
    assert covered >= 100


@pytest.mark.parametrize("role", [pytest.param("origin", marks=EXHAUSTIVE), "replica"])
@by_route("ledger attach", "prisma copy")
def test_what_is_written_between_any_two_statements_stays(route, role):
    """Upserts, moved keys, NULLs, a TRUNCATE, sessions in replica mode; the twin has no trigger, so the table has none."""
    route.execute(f"ALTER DATABASE {route.admin.conninfo['dbname']} SET timezone TO 'America/New_York'")
    route.make_twin()
    numbers = itertools.count(1)
    written = set()

    def write(direction, position):
        with route.admin.connect() as session:
            session.execute(f"SET session_replication_role = {role}; SET TimeZone = 'Europe/Berlin'")
            if (direction, position) == ("apply", 5) and (direction, position) not in written:
                session.execute(f"TRUNCATE {route.words.table}; TRUNCATE twin")
            for sql in route.writes(next(numbers)):
                for table in (route.words.table, "twin"):
                    session.execute(sql.format(t=table))
        written.add((direction, position))

    with between_statements(write):
        route.applied()
        assert route.difference() == []
        route.undone()
    assert {direction for direction, _ in written} == {"apply", "undo"}
    assert route.difference() == []
    assert len(route.rows()) > 20


@by_route("ledger attach", "prisma copy")
def test_a_second_playbook_is_told_who_is_at_work_and_changes_nothing(route):
    with route.shop.context().hold("apply"):
        with pytest.raises(Busy, match=r"is held by playbook .*; wait for it or stop it"):
            route.apply()
        assert route.kind() == "r"
        assert route.execute("SELECT to_regnamespace('playbook')") == [(None,)]


@by_route()
def test_of_two_playbooks_that_start_together_one_converts_the_table(route, snapshot):
    as_found = snapshot(route.admin), route.rows()
    came = []

    def apply():
        try:
            came.append(route.apply()[0])
        except Busy:
            came.append("busy")

    both = [threading.Thread(target=apply) for _ in range(2)]
    for each_of_them in both:
        each_of_them.start()
    for each_of_them in both:
        each_of_them.join()
    assert "applied" in came
    assert set(came) <= {"applied", "busy"}
    route.undone()
    assert (snapshot(route.admin), route.rows()) == as_found


@pytest.mark.parametrize(
    ("delivered", "journal"),
    [(True, "target"), pytest.param(False, "target", marks=EXHAUSTIVE), pytest.param(False, "file", marks=EXHAUSTIVE)],
)
@by_route("ledger attach", of=("ledger attach", "prisma attach", "prisma copy"))
def test_a_connection_lost_at_the_commit_of_the_swap(route, snapshot, monkeypatch, delivered, journal):
    as_found = snapshot(route.admin), route.rows()
    kept = {"journal": route.shop.folder / "journal.sqlite"} if journal == "file" else {}
    marker = b"ATTACH PARTITION" if "attach" in route.name else SWAP.encode()
    proxy = Proxy(route.shop.target, marker, delivered=delivered)
    try:
        monkeypatch.setenv(route.shop.variable, proxy.url)
        status, why = route.apply(**kept)
        assert proxy.cut == 1
        if not delivered:
            assert (status, "run again to resume" in why) == ("failed", True), why
            status, why = route.apply(**kept)
        assert status == "applied", why
    finally:
        proxy.close()
    monkeypatch.setenv(route.shop.variable, route.shop.url())
    route.undone(**kept)
    assert (snapshot(route.admin), route.rows()) == as_found


@pytest.mark.parametrize("seconds", [2.0, pytest.param(30.0, marks=EXHAUSTIVE)])
@by_route("ledger copy")
def test_a_reader_that_holds_the_table_is_waited_for_and_writers_go_on(route, seconds):
    """A writer that queued behind us would wait as long as the reader stays."""
    context = route.shop.context()
    context.policy = LockPolicy(limit_s=90, backoff_s=(0.05, 0.5))
    refused = []
    with route.shop.target.connect() as reader, route.loaded() as timeline:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {route.words.table}")

        def hear(said):
            if "the table is locked" in said:
                refused.append(time.monotonic())
                if len(refused) > 1 and refused[-1] - refused[0] > seconds:
                    reader.rollback()

        context.progress = hear
        route.applied(context)
    assert len(refused) > 1
    assert (timeline.difference, timeline.failed) == (0, [])
    assert timeline.worst_ms < 1000 * seconds / 2


@by_route("ledger copy")
def test_a_reader_that_stays_ends_it_with_the_table_as_it_was_and_the_next_run_goes_on(route):
    context = route.shop.context()
    context.policy = LockPolicy(limit_s=0.5, backoff_s=(0.05, 0.1))
    written = route.rows()
    with route.shop.target.connect() as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {route.words.table}")
        status, why = route.apply(context)
        assert (status, route.kind(), route.rows()) == ("failed", "r", written)
        assert "nothing was changed; end the transactions that hold the table" in why
        route.execute(next(route.writes(1)).format(t=route.words.table))
        reader.rollback()
    written = route.rows()
    route.applied()
    assert route.rows() == written
    route.undone()
    assert route.rows() == written


@by_route("ledger attach", of=("ledger attach", "prisma attach", "prisma copy"))
def test_a_transaction_that_it_meets_crosswise_goes_on(route):
    """It holds what the swap needs second, and asks for what the swap holds."""
    context = route.shop.context()
    context.policy = QUICK
    with fix_ledger.crosswise(route.admin, route.words.touch_other, route.words.touch):
        route.applied(context)
        route.undone(context)


@pytest.mark.skipif(os.geteuid() == 0, reason="runs below, without a detour")
def test_a_full_disk_again_as_root():
    rerun_as_root("full_disk_as_root", Path(__file__))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which takes root")
@pytest.mark.parametrize(
    ("route", "after", "until", "size"),
    [
        pytest.param("ledger attach", "", "", "64k", marks=EXHAUSTIVE),
        pytest.param("prisma attach", "", "", "64k", marks=EXHAUSTIVE),
        ("ledger copy", "PARTITION BY RANGE", "CREATE TRIGGER", "160k"),
        pytest.param("prisma copy", "PARTITION BY RANGE", "CREATE TRIGGER", "320k", marks=EXHAUSTIVE),
        pytest.param("ledger copy", COPY, "", "64k", marks=EXHAUSTIVE),
        pytest.param("prisma copy", COPY, "", "64k", marks=EXHAUSTIVE),
    ],
    indirect=["route"],
)
def test_a_full_disk_as_root_ends_it_beside_writers_who_go_on(route, snapshot, after, until, size):
    """What is made after the one statement, until the other, lies on a disk that has no room for it."""
    as_found = snapshot(route.admin)
    kept = {"journal": route.shop.folder / "journal.sqlite"}
    with small_disk(route.admin, size, route.shop.target.conninfo["user"]) as disk:
        happens = [(text, what) for text, what in ((after, disk.choose), (until, disk.leave)) if text]
        with route.loaded() as timeline, meanwhile(*happens):
            if not after:
                disk.choose()
            status, why = route.apply(**kept)
            disk.leave()
        assert (status, "No space left on device" in why) == ("failed", True), why
        assert "what the step had made was taken back" in why
        assert (timeline.difference, timeline.failed) == (0, [])
        assert snapshot(route.admin) == as_found
        written = route.rows()
        route.applied(**kept)
        assert route.rows() == written
        route.undone(**kept)
        assert (snapshot(route.admin), route.rows()) == (as_found, written)


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
def test_three_thousand_of_a_prisma_database_under_load(roomy15, prisma15, snapshot):
    route = on_prisma(prisma15, "attach")
    plan = route.shop.plan.read_text()
    assert plan.count("every: month") == 1
    route.shop.plan.write_text(plan.replace("every: month", "every: day\n        ahead: 3000"))
    as_found = snapshot(route.admin)
    with route.loaded() as timeline:
        route.applied()
    assert (timeline.difference, timeline.failed) == (0, [])
    written = route.rows()
    route.undone()  # alone: each UPDATE of the load would hold all partitions for longer than a lock is asked for
    assert (snapshot(route.admin), route.rows()) == (as_found, written)


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


@by_route(of=("prisma attach", "prisma copy"))
def test_its_notebook_converts_a_prisma_database_beside_its_writers(route, snapshot, monkeypatch):
    """Headlessly; the notebook itself writes nothing there, so the application does."""
    monkeypatch.setenv("PLAYBOOK_MAP", json.dumps(dict(route.shop.map)))
    as_found = snapshot(route.admin)
    given = {"target": f"env:{route.shop.variable}", "apply": True, "plan": str(route.shop.plan)}
    ran = route.shop.folder / "ran.ipynb"
    with route.loaded() as timeline:
        papermill.execute_notebook(
            NOTEBOOKS / "04_2_partitioning.ipynb", ran, given | {"out": str(route.shop.folder / "out")},
            cwd=NOTEBOOKS, progress_bar=False,
        )  # fmt: skip
    assert (timeline.difference, timeline.failed) == (0, [])
    assert route.kind() == "p"
    kept = '"AuditTrail_unpartitioned"' if "copy" in route.name else '"AuditTrail_history"'
    assert route.execute(f"SELECT to_regclass('{kept}') IS NOT NULL") == [(True,)]
    written = route.rows()
    route.undone()
    assert (snapshot(route.admin), route.rows()) == (as_found, written)


@by_route("prisma copy", of=("prisma attach", "prisma copy"))
def test_a_name_of_63_bytes_is_no_fault(route, snapshot):
    """Whatever is made of it is cut and kept apart, while writers go on."""
    name = "AuditTrail" + "ä" * 26 + "x"
    assert len(name.encode()) == 63
    route.execute(f'ALTER TABLE "AuditTrail" RENAME TO "{name}"')
    words = replace(route.words, table=f'"{name}"')
    route = replace(route, shop=replace(route.shop, map={**route.shop.map, "audit_logs": name}), words=words)
    as_found = snapshot(route.admin)
    with route.loaded() as timeline:
        route.applied()
    assert (timeline.difference, timeline.failed) == (0, [])
    written = route.rows()
    route.undone()  # alone: each UPDATE of the load would hold all partitions for longer than a lock is asked for
    assert (snapshot(route.admin), route.rows()) == (as_found, written)


@EXHAUSTIVE
@pytest.mark.parametrize("kill", ["kill_backend", "kill", "shut_down"])
@by_route(of=("own_prisma attach", "own_prisma copy"))
def test_every_statement_on_a_prisma_database_struck(route, own_server, snapshot, kill):
    def take(_):
        return snapshot(route.admin), route.rows()

    strike = getattr(own_server, kill)
    points = ("before_done",)
    covered, places = strike_everywhere(route.shop, own_server, strike, route.words.touch, take, points)
    print(f"{route.name}, {kill}: struck at {covered} points of {len(places)} statements")
    assert covered > len(places) > 8


@by_route("prisma copy", of=("prisma attach", "prisma copy"))
def test_a_client_killed_in_the_swap_of_a_prisma_database(route, snapshot):
    (swap,) = (position for position, each in enumerate(route.statements()) if each.guarded)
    as_found = snapshot(route.admin), route.rows()
    assert route.shop.killed(route.step, "before_done", swap) == -9
    assert (route.kind(), route.rows()) == ("r", as_found[1])
    route.applied()
    assert route.rows() == as_found[1]
    route.undone()
    assert (snapshot(route.admin), route.rows()) == as_found


@by_route(of=("prisma attach", "prisma copy"))
def test_a_client_killed_at_every_statement_on_a_prisma_database(route, snapshot):
    as_found = snapshot(route.admin), route.rows()
    number = len(route.statements())
    for position in range(number):
        for point in ("before_intent", "after_intent", "before_done", "after_done"):
            for resumed in (True, False):
                assert route.shop.killed(route.step, point, position) == -9, (position, point)
                if resumed:
                    route.applied()
                undo(route.shop)
                assert (snapshot(route.admin), route.rows()) == as_found, (position, point, resumed)
    print(f"{route.name}: client killed at {8 * number} points of {number} statements")
