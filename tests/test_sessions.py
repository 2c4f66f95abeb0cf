"""Sessions that are used again: as good as new each time, and none stays behind."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests import fix_faults

from playbook.errors import Interrupted
from playbook.target.sessions import Sessions

BACKEND = "SELECT pg_backend_pid()"
OPEN = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'playbook kept'"


@pytest.fixture
def sessions(empty):
    return Sessions(empty, "playbook kept")


def backend(sessions):
    with sessions.connect() as connection:
        return connection.execute(BACKEND).fetchone()


def test_one_that_was_closed_serves_the_next_and_nothing_is_left_of_what_was_set(sessions):
    with sessions.kept():
        with sessions.connect() as connection:
            first = connection.execute(BACKEND).fetchone()
            connection.execute("SET lock_timeout = '1ms'; SET TimeZone = 'Asia/Tokyo'; CREATE TEMP TABLE left_over ()")
            connection.execute("SELECT pg_advisory_lock(7)")
        with sessions.connect() as again, sessions.connect() as other:
            assert again.execute(BACKEND).fetchone() == first != other.execute(BACKEND).fetchone()
            assert again.execute("SHOW lock_timeout").fetchone() == ("0",)
            assert again.execute("SHOW TimeZone").fetchone() == ("UTC",)
            assert again.execute("SELECT to_regclass('left_over')").fetchone() == (None,)
            assert other.execute("SELECT pg_try_advisory_lock(7)").fetchone() == (True,)


def test_one_that_the_server_has_ended_or_a_transaction_has_left_open_is_not_handed_out(sessions, empty):
    with sessions.kept():
        ended = backend(sessions)
        with empty.connect() as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", ended)
        connection = sessions.connect()
        connection.execute("BEGIN")
        begun = connection.execute(BACKEND).fetchone()
        connection.close()
        assert connection.closed
        assert backend(sessions) not in (ended, begun)


def test_none_outlives_the_work_that_they_were_kept_for(sessions, empty):
    with sessions.kept(), sessions.kept():
        backend(sessions)
    connection = sessions.connect()
    connection.close()
    assert connection.closed
    with empty.connect() as other:
        while other.execute(OPEN).fetchone() != (0,):  # a backend is gone a moment after its client
            other.execute("SELECT pg_sleep(0.01)")


def test_a_query_that_fails_leaves_its_session_fit_for_the_next(sessions):
    with sessions.kept():
        first = backend(sessions)
        with pytest.raises(psycopg.errors.DivisionByZero), sessions.connect() as connection, connection.transaction():
            connection.execute("SELECT 1 / 0")
        assert backend(sessions) == first


def test_those_of_a_server_that_is_gone_can_be_stopped(own_server):
    with fix_faults.database(own_server) as target:
        sessions = Sessions(target, "playbook kept")
        with sessions.kept(), ThreadPoolExecutor(1) as thread:
            connection = sessions.connect()
            sleeping = thread.submit(connection.execute, "SELECT pg_sleep(60)")
            while connection.info.transaction_status != TransactionStatus.ACTIVE:
                time.sleep(0.01)
            own_server.kill()
            sessions.stop()
            with pytest.raises(Interrupted):
                sessions.connect()
            with pytest.raises(psycopg.OperationalError):
                sleeping.result()
