"""Faults: the client, a backend or the server dies, a lock or the disk is not to be had; then resume, then undo.

The index kind is struck at every statement: on a plain table, and on a partitioned one of which two parts are adopted.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from tests.fix_faults import (
    Proxy,
    killed_everywhere,
    reasons,
    resume,
    small_disk,
    strike,
    strike_everywhere,
    undo,
)
from tests.fix_shop import statuses

from people import rerun_as_root
from playbook import undoing
from playbook.changes.index import IndexChange
from playbook.errors import Interrupted
from playbook.journal import StatementRecord
from playbook.phase import Playbook
from playbook.target.execute import LockPolicy

SHOP_TOUCH = "UPDATE orders SET total = total WHERE id = 1"
LEDGER_TOUCH = "UPDATE entries SET amount = amount WHERE amount IN (1, 400, 401, 402, 800)"
QUICK = LockPolicy(timeout_ms=40, limit_s=0.5, backoff_s=(0.05, 0.1))


@pytest.mark.exhaustive
@pytest.mark.parametrize("kill", ["kill_backend", "kill", "shut_down"])
class TestEveryStatementOfTheIndexKindStruck:
    def test_on_a_plain_table(self, own_shop, own_server, snapshot, kill):
        covered, places = strike_everywhere(own_shop, own_server, getattr(own_server, kill), SHOP_TOUCH, snapshot)
        print(f"{kill}: struck at {covered} points of {len(places)} statements")
        assert (covered, len(places)) == (18, 4)

    def test_on_a_partitioned_table(self, own_accounts, own_server, snapshot, kill):
        covered, places = strike_everywhere(own_accounts, own_server, getattr(own_server, kill), LEDGER_TOUCH, snapshot)
        print(f"{kill}: struck at {covered} points of {len(places)} statements")
        assert (covered, len(places)) == (63, 16)


@pytest.mark.parametrize(
    ("kill", "place", "point"),
    [
        ("kill_backend", ("apply", "1/orders_open", 0), "during"),
        ("kill", ("apply", "1/orders_customer_created", 0), "before_done"),
        ("shut_down", ("undo", "1/orders_open", 0), "during"),
    ],
)
def test_a_backend_or_server_that_dies_leaves_what_can_be_resumed_and_undone(
    own_shop, own_server, snapshot, kill, place, point
):
    as_found = snapshot(own_shop.target)
    strike(own_shop, own_server, getattr(own_server, kill), SHOP_TOUCH, place, point)
    if place[0] == "apply":
        resume(own_shop)
    undo(own_shop)
    assert snapshot(own_shop.target) == as_found


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("database", "touch", "expected"), [("shop", SHOP_TOUCH, (30, 4)), ("accounts", LEDGER_TOUCH, (115, 13))]
)
def test_a_client_killed_at_every_statement(request, snapshot, database, touch, expected):
    shop = request.getfixturevalue(database)
    if database == "accounts":
        shop.execute("CREATE INDEX mine ON entries_2026 (account, at DESC)")
    covered, places = killed_everywhere(shop, touch, snapshot)
    print(f"client killed at {covered} points of {len(places)} statements")
    assert (covered, len(places)) == expected


class TestALockThatAnotherSessionHolds:
    def test_before_the_build_is_waited_for(self, shop):
        with shop.target.connect() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE orders IN SHARE MODE")
            threading.Timer(0.5, other.rollback).start()
            resume(shop)

    def test_while_the_parts_are_attached_is_asked_for_briefly_and_again(self, accounts, monkeypatch):
        """A reader's open transaction holds each index of the partition that it has read."""
        said = []
        context = accounts.context()
        context.policy, context.progress = LockPolicy(backoff_s=(0.05, 0.1)), said.append
        intent = StatementRecord.intent
        with accounts.target.connect() as reader:

            def read_first(record, *arguments):
                if "ATTACH" in record.statement.sql and not said_of_reader:
                    said_of_reader.append(1)
                    reader.execute("BEGIN")
                    reader.execute("SELECT count(*) FROM entries")
                    threading.Timer(0.5, reader.rollback).start()
                intent(record, *arguments)

            said_of_reader: list[int] = []
            monkeypatch.setattr(StatementRecord, "intent", read_first)
            applied = Playbook(context).phase("1").apply()
        assert set(statuses(applied).values()) == {"applied"}, reasons(applied)
        assert any("attach the part" in text and "the table is locked" in text for text in said), said

    def test_on_one_partition_keeps_undo_from_dropping_the_whole_and_nothing_is_changed(self, accounts, snapshot):
        as_found = snapshot(accounts.target)
        resume(accounts)
        applied = snapshot(accounts.target)
        context = accounts.context()
        context.policy = QUICK
        with accounts.target.connect() as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries_2026")
            (one,) = undoing.undo(context)
            assert "no ACCESS EXCLUSIVE on public.entries and its partitions in" in one.error
            assert snapshot(accounts.target) == applied
        assert statuses(accounts.playbook().phase("1").check()) == {"1/entries_account": "applied"}
        undo(accounts)
        assert snapshot(accounts.target) == as_found


def test_a_build_that_the_watchdog_cancels_is_cleared_away_and_tried_again(shop, monkeypatch):
    """Our build waits for an old transaction, somebody's ALTER TABLE waits for our build, a writer for the ALTER."""
    said: list[str] = []
    context = shop.context()
    intent = StatementRecord.intent
    waiting: list[threading.Thread] = []

    def with_others(record, *arguments):
        intent(record, *arguments)
        if not waiting:
            waiting.append(threading.Thread(target=alter, daemon=True))
            waiting[0].start()

    def alter():
        building = "SELECT 1 FROM pg_stat_progress_create_index WHERE lockers_total > 0"
        while not shop.execute(building):
            time.sleep(0.01)
        shop.execute("ALTER TABLE orders ADD COLUMN note text")

    monkeypatch.setattr(StatementRecord, "intent", with_others)
    with shop.target.connect() as old:

        def say(text):
            said.append(text)
            if "drop the unfinished" in text:
                old.rollback()

        old.execute("BEGIN")
        old.execute("INSERT INTO orders (customer_id, status, created_at) VALUES (1, 'open', now())")
        context.policy, context.progress = LockPolicy(backoff_s=(0.3, 0.4)), say
        applied = Playbook(context).phase("1").apply()
        waiting[0].join(30)
    assert set(statuses(applied).values()) == {"applied"}, reasons(applied)
    assert any("cancelled, since it blocked backend" in text for text in said), said
    assert any("drop the unfinished" in text for text in said), said
    assert shop.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def test_a_unique_build_that_fails_on_one_partition_leaves_nothing_invalid_but_the_whole(accounts, snapshot):
    accounts.plan.write_text(accounts.plan.read_text().replace('"at DESC"]', "at, region], unique: true"))
    accounts.execute("INSERT INTO entries SELECT 1, '2026-05-05', 'north', 0 FROM generate_series(1, 2)")
    as_found = snapshot(accounts.target)
    failed = accounts.playbook().phase("1").apply()
    assert statuses(failed) == {"1/entries_account": "failed"}
    assert "could not create unique index" in reasons(failed)
    invalid = accounts.execute(
        "SELECT relkind FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid"
    )
    assert {kind for (kind,) in invalid} == {"I"}
    undo(accounts)
    assert snapshot(accounts.target) == as_found


class TestAConnectionLostAtCommit:
    @pytest.fixture
    def through_proxy(self, accounts, monkeypatch):
        proxies = []

        def through(marker, *, delivered):
            proxies.append(Proxy(accounts.target, marker, delivered=delivered))
            monkeypatch.setenv("SHOP_URL", proxies[0].url)
            return proxies[0]

        yield through
        for proxy in proxies:
            proxy.close()

    @pytest.mark.parametrize("marker", [b"ON ONLY public.entries ", b"ATTACH PARTITION"])
    def test_that_reached_the_server_is_done(self, accounts, through_proxy, marker):
        proxy = through_proxy(marker, delivered=True)
        resume(accounts)
        assert proxy.cut == 1

    @pytest.mark.parametrize("journal", ["target", "file"])
    def test_that_did_not_reach_it_is_sent_again_by_the_next_run(self, accounts, through_proxy, snapshot, journal):
        as_found = snapshot(accounts.target)
        kept = {"journal": accounts.folder / "journal.sqlite"} if journal == "file" else {}
        proxy = through_proxy(b"ATTACH PARTITION", delivered=False)
        failed = accounts.playbook(**kept).phase("1").apply()
        assert statuses(failed) == {"1/entries_account": "failed"}
        assert "the connection failed" in reasons(failed)
        assert "run again to resume" in reasons(failed)
        assert proxy.cut == 1
        again = accounts.playbook(**kept).phase("1").apply()
        assert statuses(again) == {"1/entries_account": "applied"}, reasons(again)
        assert {one.error for one in undoing.undo(accounts.context(**kept))} == {""}
        assert snapshot(accounts.target) == as_found


def test_a_run_that_lost_the_lock_which_keeps_others_away_stops(shop):
    """The server ends the session that holds it, as a restart would."""
    context = shop.context()
    with context.hold("apply"):
        shop.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with pytest.raises(Interrupted, match="the lock that keeps other runs away was lost"):
            context.ensure_held()


@pytest.mark.skipif(os.geteuid() == 0, reason="runs below, without a detour")
def test_a_full_disk_again_as_root():
    rerun_as_root("full_disk_as_root", Path(__file__))


def test_a_session_that_ends_after_the_last_statement_interrupts_the_step_and_the_next_run_goes_on(
    shop, snapshot, monkeypatch
):
    as_found, objects = snapshot(shop.target), IndexChange.objects

    def ended(change, connection):
        shop.execute("SELECT pg_terminate_backend(%s, 5000)", connection.info.backend_pid)
        return objects(change, connection)

    with monkeypatch.context() as patch:
        patch.setattr(IndexChange, "objects", ended)
        interrupted = shop.playbook().phase("1").apply()
    assert "run again to resume" in reasons(interrupted)
    resume(shop)
    undo(shop)
    assert snapshot(shop.target) == as_found


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which takes root")
@pytest.mark.parametrize(("database", "size"), [("shop", "256k"), ("accounts", "64k"), ("ledger", "64k")])
def test_a_full_disk_as_root_leaves_no_remains(request, snapshot, database, size):
    """What this database makes lies on a small disk."""
    target = request.getfixturevalue(database)
    as_found = snapshot(target.target)
    with small_disk(target.target, size, target.target.conninfo["user"]) as disk:
        disk.choose()
        failed = target.playbook(journal=target.folder / "journal").phase("1").apply()
        assert "failed" in statuses(failed).values()
        assert "No space left on device" in reasons(failed)
        remains = "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE NOT indisvalid"
        assert target.execute(f"{remains} AND relkind = 'i'") == [(0,)]
        disk.leave()
        kept = {"journal": target.folder / "journal"}
        again = target.playbook(**kept).phase("1").apply()
        assert set(statuses(again).values()) == {"applied"}, reasons(again)
        assert {one.error for one in undoing.undo(target.context(**kept))} == {""}
        assert snapshot(target.target) == as_found
