"""What a commit lets go, seen from a small application of somebody else's that uses the cache as README says."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.orm import Session, sessionmaker
from tests.fix_library import Book, Publisher, Tag
from tests.waiting import until

from playbook.service.cache import Cache, Listener, watch
from playbook.settings import ROOT

README = (ROOT / "README.md").read_text()
TABLES = ("book", "book_tag", "tag", "publisher", "author")


@pytest.fixture
def cache(cache_url):
    cache = Cache(cache_url, namespace="library", timeout_s=5, early=0)
    yield cache
    cache.close()


@pytest.fixture
def let_go(cache):
    """Tells which tables were bumped since it was last asked."""
    calls = {}

    def kept(table):
        return cache.get_or_load("probe", table, lambda: calls.__setitem__(table, True), tables=(table,))

    def found():
        calls.clear()
        for table in TABLES:
            kept(table)
        return set(calls)

    found()
    return found


@pytest.fixture
def sessions(library, cache):
    made = sessionmaker(library)
    made.watching = watch(made, cache)
    return made


WRITES = {
    "a changed object": (lambda s: setattr(s.get(Book, 1), "title", "new"), {"book"}),
    "a new object": (lambda s: s.add(Tag(name="new")), {"tag"}),
    "a changed collection": (lambda s: (book := s.get(Book, 2)).tags.clear() or book, {"book", "book_tag"}),
    "a bulk update": (lambda s: s.execute(update(Publisher).values(name="p")), {"publisher"}),
    "a bulk insert": (lambda s: s.execute(insert(Tag), [{"name": "a"}, {"name": "b"}]), {"tag"}),
    "a bulk delete": (lambda s: s.execute(delete(Tag).where(Tag.id > 900)), {"tag"}),
    "text that writes": (lambda s: s.execute(text("UPDATE author SET name = name")), set(TABLES)),
    "a table that is named": (lambda s: s.touched("author"), {"author"}),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_commit_lets_go_what_was_read_from_the_tables_it_wrote(sessions, let_go, what):
    write, tables = WRITES[what]
    with sessions() as session:
        session.touched = lambda *names: sessions.watching.touch(session, *names)
        write(session)
        session.flush()
        assert let_go() == set(), "nothing before the commit"
        session.commit()
    assert let_go() == tables


def test_a_rollback_and_a_read_let_nothing_go(sessions, let_go):
    with sessions() as session:
        session.get(Book, 1).title = "never"
        session.flush()
        session.rollback()
        session.execute(text("SELECT 1"))
        session.commit()
    assert let_go() == set()


def test_savepoints_are_no_commits_and_what_they_wrote_goes_with_the_whole(sessions, let_go):
    with sessions() as session:
        with session.begin_nested():
            session.get(Book, 3).title = "kept"
        assert let_go() == set()
        inner = session.begin_nested()
        session.add(Tag(name="undone"))
        session.flush()
        inner.rollback()
        session.commit()
    assert "book" in let_go()


def test_what_other_programs_notify_is_let_go(library, cache, let_go):
    connect = library.raw_connection().driver_connection.info
    parameters = {**connect.get_parameters(), "password": connect.password}
    listener = Listener(cache, lambda: psycopg.connect(**parameters), retry_s=0.05)
    try:
        until(listener.listening.is_set)
        assert let_go() == set(TABLES), "what was notified before it listened is not known"
        with psycopg.connect(**parameters, autocommit=True) as other:
            other.execute("NOTIFY playbook_cache, 'book,tag'")
            found = set()
            until(lambda: found.update(let_go()) or found == {"book", "tag"})
            listener.listening.clear()
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            until(listener.listening.is_set)
        assert let_go() == set(TABLES), "nor what was while it was away"
    finally:
        listener.close()


def test_a_session_notifies_within_its_transaction(library, cache, cache_url, let_go):
    elsewhere = Cache(cache_url, namespace="elsewhere", timeout_s=5)
    sessions = sessionmaker(library)
    watch(sessions, elsewhere, channel="library")
    with library.connect() as connection, sessions() as session:
        heard = connection.connection.driver_connection
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("LISTEN library"))
        session.get(Book, 1).title = "told"
        session.commit()
        assert [each.payload for each in heard.notifies(timeout=5, stop_after=1)] == ["book"]
    elsewhere.close()


def test_a_small_application_uses_it_as_readme_says(empty, cache_url):
    section = README.partition("### A result cache in your own")[2].partition("\n#")[0]
    application = section.split("```python\n")[1].split("```")[0]
    with empty.connect() as connection:
        connection.execute("CREATE TABLE product (name text, category text, price numeric)")
        connection.execute("INSERT INTO product VALUES ('pen', 'desk', 1.50)")
    url = psycopg.conninfo.conninfo_to_dict(psycopg.conninfo.make_conninfo(**empty.conninfo))
    ending = """
assert prices("desk") == prices("desk") == {"pen": Decimal("1.50")}
with sessions.begin() as session:
    session.execute(text("UPDATE product SET price = 2"))
assert prices("desk") == {"pen": Decimal("2")}
assert (cache.counts.hits, cache.counts.loads) == (1, 2)
assert not {"IPython", "pandas"} & set(sys.modules)
"""
    code = f"import sys\nfrom decimal import Decimal\n{application}\n{ending}"
    database = (
        f"postgresql+psycopg://{url['user']}:{url['password']}@/{url['dbname']}?host={url['host']}&port={url['port']}"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"DATABASE_URL": database, "REDIS_URL": cache_url, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_one_session_class_can_be_watched_as_well(library, cache, let_go):
    class Own(Session):
        pass

    watch(Own, cache)
    with Own(library) as session:
        session.add(Tag(name="own"))
        session.commit()
    assert let_go() == {"tag"}
