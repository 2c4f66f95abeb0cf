"""Statements run under the safety contract: bounded locks, retries, the watchdog."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import psycopg
import pytest

from playbook.errors import LockNotGranted, StepError
from playbook.target.execute import LockPolicy, execute
from playbook.target.sql import Statement
from playbook.target.watchdog import Watchdog

QUICK = LockPolicy(timeout_ms=40, limit_s=1.0, backoff_s=(0.05, 0.1))


@dataclass
class Kept:
    """A record that remembers what it was told."""

    told: list[str] = field(default_factory=list)
    stands: bool = False
    joins: bool = True

    def intent(self, backend_pid, backend_start):
        assert backend_pid > 0
        assert backend_start
        self.told.append("intent")

    def done(self, connection):
        self.told.append("done")

    def withdraw(self):
        self.told.append("withdrawn")

    def confirmed(self):
        return self.stands


@pytest.fixture
def table(scratch):
    with scratch() as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
        connection.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 2000) i")
    return "t"


def alter(sql="ALTER TABLE t ADD CONSTRAINT n_positive CHECK (n > 0) NOT VALID"):
    return Statement(sql, "add n_positive", "ACCESS EXCLUSIVE", "t")


def build(sql="CREATE INDEX CONCURRENTLY t_n ON t (n)"):
    return Statement(sql, "build t_n", "SHARE UPDATE EXCLUSIVE", "t", transactional=False, long=True)


def valid(connect, index="t_n"):
    with connect() as connection:
        row = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [index]
        ).fetchone()
        return row and row[0]


def test_intent_comes_before_the_statement_and_done_after_it(scratch, table):
    record = Kept()
    execute(scratch, alter(), record)
    assert record.told == ["intent", "done"]
    with scratch() as connection:
        assert connection.execute("SELECT conname FROM pg_constraint WHERE conname = 'n_positive'").fetchone()


def test_done_is_part_of_a_transactional_statement(scratch, table):
    class Failing(Kept):
        def done(self, connection):
            raise psycopg.errors.RaiseException("the journal cannot be written")

    with pytest.raises(StepError, match="journal cannot be written"):
        execute(scratch, alter(), Failing())
    with scratch() as connection:
        assert not connection.execute("SELECT 1 FROM pg_constraint WHERE conname = 'n_positive'").fetchone()


@pytest.mark.parametrize("joins", [True, False])
def test_a_lock_that_stops_writers_is_not_held_while_the_disk_is_waited_for(scratch, table, joins):
    """Unless the journal's row commits with it, the disk is waited for before anything is told."""
    with scratch() as connection:
        (begun,) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    asked = "SHOW synchronous_commit" if joins else f"SELECT pg_current_wal_flush_lsn() > '{begun}'"

    class Watching(Kept):
        def done(self, connection):
            super().done(connection)
            self.told.append(connection.execute(asked).fetchone()[0])

    record = Watching(joins=joins)
    execute(scratch, alter(), record)
    assert record.told == ["intent", "done", "off" if joins else True]
    asked = "SHOW synchronous_commit"
    record = Watching(joins=True)
    execute(scratch, Statement("UPDATE t SET n = 1 WHERE id = 1", "write"), record)
    assert record.told == ["intent", "done", "local"]


def test_a_lock_held_by_a_reader_is_asked_for_again_until_it_is_free(scratch, table):
    with scratch() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t")
        threading.Timer(0.3, reader.rollback).start()
        record = Kept()
        execute(scratch, alter(), record, policy=QUICK)
    assert record.told.count("intent") > 1
    assert record.told[-1] == "done"


def test_a_lock_never_granted_is_an_error_that_changed_nothing(scratch, table):
    with scratch() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t")
        with pytest.raises(
            LockNotGranted, match=r"no ACCESS EXCLUSIVE on t in \d+ tries of 40 ms.*nothing was changed"
        ):
            execute(scratch, alter(), Kept(), policy=QUICK)
        reader.rollback()
        assert not reader.execute("SELECT 1 FROM pg_constraint WHERE conname = 'n_positive'").fetchone()


def test_writers_behind_a_reader_wait_no_longer_than_the_bound(scratch, table):
    """The reader holds the table, our DDL queues behind it, and a writer queues behind our DDL."""
    slowest = 0.0
    stop = threading.Event()

    def write():
        nonlocal slowest
        with scratch() as writer:
            while not stop.is_set():
                started = time.perf_counter()
                writer.execute("UPDATE t SET n = n + 1 WHERE id = 1")
                slowest = max(slowest, time.perf_counter() - started)
                time.sleep(0.005)

    with scratch() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t")
        writer = threading.Thread(target=write)
        writer.start()
        with pytest.raises(LockNotGranted):
            execute(scratch, alter(), Kept(), policy=QUICK)
        stop.set()
        writer.join()
    assert 0.001 < slowest < 0.120, f"a writer waited {slowest * 1000:.0f} ms"


def test_concurrently_waits_for_an_old_transaction_and_then_ends(scratch, table):
    said = []
    with scratch() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("UPDATE t SET n = 0 WHERE id = 2")
        threading.Timer(1.5, old.rollback).start()
        execute(scratch, build(), Kept(), progress=said.append)
    assert valid(scratch)
    assert any("must end its transaction first" in text for text in said), said


def test_a_build_cancelled_from_outside_is_repaired_and_reported(scratch, table):
    repaired = []

    def cancel():
        with scratch() as connection:
            for _ in range(100):
                pids = connection.execute("SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%'")
                if row := pids.fetchone():
                    time.sleep(0.1)
                    connection.execute("SELECT pg_cancel_backend(%s)", row)
                    return
                time.sleep(0.02)

    with scratch() as old:
        old.execute("BEGIN")
        old.execute("UPDATE t SET n = 0 WHERE id = 2")
        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(StepError, match="canceling statement due to user request"):
            execute(scratch, build(), Kept(), repair=lambda: repaired.append(1))
        thread.join()
        old.rollback()
    assert repaired == [1]


def test_a_statement_the_server_refuses_names_its_purpose_and_the_cause(scratch, table):
    with pytest.raises(StepError, match=r"build t_x: column \"x\" does not exist"):
        execute(scratch, Statement("CREATE INDEX t_x ON t (x)", "build t_x"), Kept())


def test_a_connection_lost_at_commit_is_done_when_the_journal_says_so(scratch, table):
    class Lost(Kept):
        def done(self, connection):
            with scratch() as other:
                other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])

    with pytest.raises(StepError, match=r"the connection failed.*run again to resume"):
        execute(scratch, alter(), Lost())
    execute(scratch, alter(), Lost(stands=True))


def test_the_watchdog_cancels_a_statement_that_blocks_another_session(scratch, table):
    with scratch() as ours, scratch() as other:
        ours.execute("BEGIN")
        ours.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        waiting = threading.Thread(target=other.execute, args=("SELECT count(*) FROM t",))
        waiting.start()
        started = time.monotonic()
        with Watchdog(scratch, ours.info.backend_pid) as watchdog, pytest.raises(psycopg.errors.QueryCanceled):
            ours.execute("SELECT pg_sleep(10)")
        ours.rollback()
        waiting.join()
        assert watchdog.fired == f"it blocked backend {other.info.backend_pid}"
    assert time.monotonic() - started < 2


def test_the_watchdog_sees_those_who_queue_behind_a_waiting_alter(scratch, table):
    """Our build holds SHARE UPDATE EXCLUSIVE; somebody's ALTER waits for it; a reader waits for the ALTER."""
    with scratch() as ours, scratch() as alter_session, scratch() as reader:
        ours.execute("BEGIN")
        ours.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        threads = [
            threading.Thread(target=alter_session.execute, args=("ALTER TABLE t ADD COLUMN x int",)),
            threading.Thread(target=reader.execute, args=("SELECT count(*) FROM t",)),
        ]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        with Watchdog(scratch, ours.info.backend_pid) as watchdog, pytest.raises(psycopg.errors.QueryCanceled):
            ours.execute("SELECT pg_sleep(10)")
        ours.rollback()
        for thread in threads:
            thread.join()
        assert str(reader.info.backend_pid) in watchdog.fired


def test_the_watchdog_leaves_a_statement_alone_that_blocks_nobody(scratch, table):
    with scratch() as ours, scratch() as other, Watchdog(scratch, ours.info.backend_pid) as watchdog:
        ours.execute("SELECT pg_sleep(0.3)")
        other.execute("SELECT count(*) FROM t")
    assert watchdog.fired == ""
    assert watchdog.blind == ""
