"""The N+1 detector: it misses no pattern that is one, and none that is none is told."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import bindparam, func, insert, select, text, tuple_, update
from sqlalchemy.orm import (
    Session,
    contains_eager,
    joinedload,
    load_only,
    raiseload,
    selectinload,
    subqueryload,
    undefer,
)
from tests.fix_library import AUTHORS, Author, Book, Publisher, Shelf, Tag, book_tag

from playbook.service import n_plus_one, reads
from playbook.service.filters import (
    ApprovalFilters,
    ContentFilters,
    DashboardFilters,
    IssueFilters,
    ProposalFilters,
    ResultFilters,
)
from playbook.service.fingerprint import fingerprint, values
from playbook.service.switches import Switches
from playbook.settings import ROOT

README = (ROOT / "README.md").read_text()


class GUILTY:
    """Each sends a statement a row; the first word of its docstring is what it is told as."""

    def to_one_in_a_loop(session):
        """Author.agent"""
        for author in session.scalars(select(Author)).all():
            str(author.agent.name)

    def to_many_in_a_loop(session):
        """Author.books"""
        return {author.id: len(author.books) for author in session.scalars(select(Author))}

    def to_many_to_many_in_a_loop(session):
        """Book.tags"""
        return [[tag.name for tag in book.tags] for book in session.scalars(select(Book))]

    def two_levels(session):
        """Book.tags"""
        return [book.tags for author in session.scalars(select(Author)).all() for book in author.books]

    def below_an_eager_load(session):
        """Book.tags"""
        return [b.tags for a in session.scalars(select(Author).options(selectinload(Author.books))) for b in a.books]

    def in_a_generator(session):
        """Author.books"""
        return sum(len(author.books) for author in session.scalars(select(Author)))

    def in_a_sort_key(session):
        """Author.agent"""
        return sorted(session.scalars(select(Author)), key=lambda author: author.agent.name)

    def behind_a_property(session):
        """Author.agent"""
        return [author.agent_name for author in session.scalars(select(Author))]

    def behind_an_association_proxy(session):
        """Book.tags"""
        return [list(book.tag_names) for book in session.scalars(select(Book))]

    def by_a_serializer(session):
        """Author.books"""

        class BookOut(BaseModel):
            model_config = ConfigDict(from_attributes=True)
            title: str

        class AuthorOut(BaseModel):
            model_config = ConfigDict(from_attributes=True)
            name: str
            books: list[BookOut]

        return [AuthorOut.model_validate(author) for author in session.scalars(select(Author))]

    def down_a_tree(session):
        """Shelf.children"""

        def depth(shelf):
            return 1 + max(map(depth, shelf.children), default=0)

        assert depth(session.get(Shelf, 1)) == 6

    def up_a_tree(session):
        """Shelf.parent"""
        shelf = session.get(Shelf, 63)
        while shelf.parent:
            shelf = shelf.parent

    def up_a_tree_by_recursion(session):
        """Shelf.parent"""

        def depth(shelf):
            return 1 + (depth(shelf.parent) if shelf.parent else 0)

        assert depth(session.get(Shelf, 32)) == 6

    def deferred_columns(session):
        """Author"""
        return [author.biography for author in session.scalars(select(Author))]

    def columns_expired_by_a_commit(session):
        """Author"""
        authors = session.scalars(select(Author)).all()
        session.commit()
        return [author.name for author in authors]

    def refreshed_row_by_row(session):
        """Author"""
        for author in session.scalars(select(Author)).all():
            session.refresh(author)

    def got_by_key(session):
        """select publisher.id"""
        for author in session.scalars(select(Author)).all():
            session.get(Publisher, author.agent_id)

    def selected_by_key(session):
        """select publisher.name"""
        for author in session.scalars(select(Author)).all():
            session.scalar(select(Publisher.name).where(Publisher.id == author.agent_id))

    def counted_row_by_row(session):
        """select count(*)"""
        for author in session.scalars(select(Author)).all():
            session.scalar(select(func.count()).select_from(Book).where(Book.author_id == author.id))

    def the_latest_of_each(session):
        """select book.title"""
        for author in session.scalars(select(Author)).all():
            session.scalar(select(Book.title).where(Book.author_id == author.id).order_by(Book.id.desc()).limit(1))

    def a_page_of_each(session):
        """select title"""
        for key in range(1, AUTHORS):
            session.execute(
                text("SELECT title FROM book WHERE author_id = :key ORDER BY id LIMIT 3"), {"key": key}
            ).all()

    def a_write_only_collection(session):
        """select book.id"""
        for author in session.scalars(select(Author)).all():
            session.scalars(author.archive.select().limit(2)).all()

    def a_window_of_time_each(session):
        """select count(*)"""
        day = session.scalar(select(func.min(Book.lent_at)))
        for _ in range(9):
            session.scalar(select(func.count()).where(Book.lent_at >= day, Book.lent_at < day + timedelta(days=1)))
            day += timedelta(days=1)

    def values_written_into_the_statement(session):
        """select name"""
        for key in range(1, 8):
            session.connection().exec_driver_sql(f"SELECT name FROM author WHERE id = {key} AND name <> 'x{key}'").all()

    def a_list_of_one(session):
        """select name"""
        for key in range(1, 8):
            session.connection().exec_driver_sql("SELECT name FROM tag WHERE id IN (%s) OR 1 = 2", (key % 3,)).all()

    def a_fixed_list_and_a_key(session):
        """select title"""
        for key in range(1, 8):
            query = "SELECT title FROM book WHERE title IN ('book 1', 'book 2') AND author_id = %(key)s"
            session.connection().exec_driver_sql(query, {"key": key}).all()

    def a_session_for_each(session):
        """select publisher.id"""
        for key in range(1, 8):
            with Session(session.bind) as own:
                own.get(Publisher, key)

    def a_connection_for_each(session):
        """select name"""
        for key in range(1, 8):
            with session.bind.connect() as connection:
                connection.execute(text("SELECT name FROM author WHERE id = :id"), {"id": key}).all()

    def the_same_again_and_again(session):
        """select name"""
        for _ in range(6):
            session.execute(text("SELECT name FROM publisher ORDER BY id")).all()


class INNOCENT:
    """None sends a statement a row."""

    def joined(session):
        return [a.agent.name for a in session.scalars(select(Author).options(joinedload(Author.agent)))]

    def selected_in(session):
        return [a.books for a in session.scalars(select(Author).options(selectinload(Author.books)))]

    def selected_in_two_levels(session):
        loads = selectinload(Author.books).selectinload(Book.tags)
        return [b.tags for a in session.scalars(select(Author).options(loads)) for b in a.books]

    def selected_in_by_portions(session):
        query = select(Author).options(selectinload(Author.books)).execution_options(yield_per=2)
        return [a.books for a in session.scalars(query)]

    def by_subquery(session):
        return [a.books for a in session.scalars(select(Author).options(subqueryload(Author.books)))]

    def by_a_join_of_ones_own(session):
        query = select(Author).join(Author.books).options(contains_eager(Author.books))
        return [a.books for a in session.scalars(query).unique()]

    def undeferred(session):
        return [a.biography for a in session.scalars(select(Author).options(undefer(Author.biography)))]

    def guarded(session):
        query = select(Author).options(load_only(Author.name), raiseload("*"))
        return [a.name for a in session.scalars(query)]

    def one_row(session):
        author = session.get(Author, 3)
        return author.agent.name, author.publisher.name, author.books, author.biography

    def all_have_the_same(session):
        return [author.publisher.name for author in session.scalars(select(Author))]

    def nothing_to_load(session):
        return [author.books for author in session.scalars(select(Author).where(Author.id < 0))]

    def the_same_from_two_places(session):
        first = session.scalar(select(Publisher.name).where(Publisher.id == 1))
        second = session.scalar(select(Publisher.name).where(Publisher.id == 2))
        return first, second

    def pages_by_offset(session):
        for page in range(6):
            session.scalars(select(Book).order_by(Book.id).limit(5).offset(5 * page)).all()

    def pages_by_key(session):
        last = 0
        while page := session.scalars(select(Book.id).where(Book.id > last).order_by(Book.id).limit(5)).all():
            last = page[-1]

    def pages_by_two_keys_of_one_author(session):
        last = (0, 0)
        for _ in range(6):
            key = tuple_(Book.author_id, Book.id)
            query = select(Book.author_id, Book.id).where(Book.title != "x", key > last)
            last = tuple(session.execute(query.order_by(Book.author_id, Book.id).limit(3)).all()[-1])

    def portions_by_in(session):
        for start in range(1, 36, 6):
            session.scalars(select(Book).where(Book.id.in_(range(start, start + 6)))).all()

    def portions_by_any(session):
        for start in range(1, 36, 6):
            query = "SELECT title FROM book WHERE id = ANY(%s)"
            session.connection().exec_driver_sql(query, (list(range(start, start + 6)),)).all()

    def inserted_one_by_one(session):
        for number in range(100, 108):
            session.add(Tag(id=number, name="new"))
            session.flush()

    def inserted_together(session):
        session.add_all(Tag(name="new") for _ in range(30))
        session.flush()

    def inserted_as_many(session):
        session.execute(insert(Tag), [{"id": number, "name": "new"} for number in range(200, 230)])

    def updated_one_by_one(session):
        for number in range(1, 10):
            session.execute(update(Book).where(Book.id == number).values(title="other"))

    def updated_as_many(session):
        statement = update(Book.__table__).where(Book.__table__.c.id == bindparam("key")).values(title="other")
        session.connection().execute(statement, [{"key": number} for number in range(1, 10)])

    def numbers_from_a_sequence(session):
        return [session.scalar(text("SELECT nextval('ticket')")) for _ in range(8)]

    def settings_of_each_transaction(session):
        for user in range(8):
            session.execute(text("SELECT set_config('app.user', :user, true)"), {"user": str(user)})
            session.commit()

    def work_off_a_queue(session):
        for _ in range(8):
            session.execute(text("SELECT id FROM book ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")).all()

    def one_statement_read_in_portions(session):
        for portion in session.scalars(select(Book)).partitions(4):
            [book.title for book in portion]

    def one_statement_with_all(session):
        tags = func.array_agg(book_tag.c.tag_id)
        return session.execute(select(Book.id, tags).join(book_tag).group_by(Book.id)).all()


def patterns(owner):
    return [value for name, value in vars(owner).items() if not name.startswith("__")]


def named(function):
    return function.__name__


@pytest.mark.parametrize("pattern", patterns(GUILTY), ids=named)
def test_none_is_missed(library, pattern):
    with Session(library) as session, n_plus_one.detect() as found:
        pattern(session)
    told = [each for each in found.failing if each.subject.startswith(pattern.__doc__)]
    assert told, found
    assert __file__ in [site.file for site in (told[0].site, *told[0].callers)]
    with pytest.raises(n_plus_one.NPlusOneError, match=re.escape(pattern.__doc__)):
        found.assert_none()


@pytest.mark.parametrize("pattern", patterns(INNOCENT), ids=named)
def test_none_is_told_that_is_none(library, pattern, recwarn):
    with Session(library) as session, n_plus_one.detect() as found:
        pattern(session)
    assert found.statements > 0
    assert str(found) == "no N+1 queries"
    found.assert_none()


def test_there_are_twenty_of_each():
    assert min(len(patterns(GUILTY)), len(patterns(INNOCENT))) >= 20


def test_a_pattern_names_model_attribute_file_and_line_and_what_it_cost(library):
    with Session(library) as session, n_plus_one.detect() as found:
        for author in session.scalars(select(Author)).all():
            str(author.agent.name)
    (pattern,) = found.patterns
    assert (pattern.model, pattern.attribute) == ("Author", "agent")
    assert (pattern.statements, pattern.rows, found.statements) == (AUTHORS, AUTHORS, AUTHORS + 1)
    line = Path(__file__).read_text().splitlines()[pattern.site.line - 1]
    assert "author.agent.name" in line
    assert 0 < pattern.wasted_s < pattern.seconds
    assert pattern.remedy == "joinedload(Author.agent)"
    assert re.search(r"tests/test_n_plus_one\.py:\d+ in test_a_pattern_names", str(found))


def test_two_are_flagged_and_five_fail(library):
    def load(rows):
        with Session(library) as session, n_plus_one.detect() as found:
            [author.books for author in session.scalars(select(Author).limit(rows)).all()]
        return found

    assert load(1).patterns == ()
    with pytest.warns(n_plus_one.NPlusOneWarning, match=r"Author\.books \(lazy load\): 2 statements"):
        load(2).assert_none()
    assert [each.failing for each in load(4).patterns] == [False]
    with pytest.raises(n_plus_one.NPlusOneError):
        load(5).assert_none()


def test_no_value_of_a_row_is_told(library):
    with Session(library) as session, n_plus_one.detect() as found:
        for name in ("c4nary 1", "c4nary 2", "c4nary 3"):
            session.execute(text("SELECT id FROM author WHERE name = :name"), {"name": name}).all()
            session.connection().exec_driver_sql(f"SELECT id FROM author WHERE name = '{name}' OR id = 1").all()
    assert len(found.patterns) == 2
    assert "c4nary" not in str(found)


def test_blocks_do_not_see_each_other(library):
    with Session(library) as session, n_plus_one.detect() as outer:
        with n_plus_one.detect() as inner:
            [author.books for author in session.scalars(select(Author))]
        session.get(Publisher, 1)
    assert (inner.statements, outer.statements) == (AUTHORS + 1, 1)


READS = [
    (reads.PROPOSALS, ProposalFilters(limit=100), ""),
    (reads.PROPOSAL, None, "p0000010"),
    (reads.DASHBOARD, DashboardFilters(days=90), ""),
    (reads.CONTENT, ContentFilters(limit=100), ""),
    (reads.APPROVALS, ApprovalFilters(limit=100), ""),
    (reads.ISSUES, IssueFilters(limit=100), ""),
    (reads.ISSUES, IssueFilters(entity_type="CUSTOMER", status="RESOLVED", limit=100), ""),
    (reads.RESULTS, ResultFilters(users=50), "H7"),
]


@pytest.fixture(scope="module")
def session_of_service(as_found):
    from playbook.service.engine import make_engine

    engine = make_engine(as_found.target.conninfo, Switches())
    yield lambda: Session(engine)
    engine.dispose()


@pytest.mark.parametrize(("endpoint", "filters", "key"), READS, ids=lambda value: getattr(value, "name", ""))
def test_every_endpoint_is_told_as_found_and_none_when_optimized(session_of_service, endpoint, filters, key):
    told = []
    for switches in (Switches(), Switches.of(["eager_load"])):
        with session_of_service() as session, n_plus_one.detect() as found:
            endpoint.read(session, switches, filters, key)
        told.append(found)
    assert told[0].failing
    assert str(told[1]) == "no N+1 queries"


def test_a_detector_imported_elsewhere_loads_neither_ipython_nor_pandas():
    code = "import sys, playbook.service.n_plus_one; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"IPython", "pandas", "matplotlib", "fastapi", "psycopg"} & set(loaded)


FOREIGN = """
import logging, os
import psycopg
from fastapi import FastAPI
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship

class Base(DeclarativeBase): ...

class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship()

engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(os.environ["LIBRARY"]))
app = FastAPI()

def render(session, options=()):
    return [book.author.name for book in session.scalars(select(Book).options(*options))]

@app.get("/orders")
def slow():
    with Session(engine) as session:
        return render(session)

@app.get("/fast")
def fast():
    with Session(engine) as session:
        return render(session, [joinedload(Book.author)])
"""
FOREIGN_TESTS = """
import logging
import pytest
from fastapi.testclient import TestClient
from app import app

@pytest.fixture
def client():
    return TestClient(app)

def test_fast(assert_no_n_plus_one, client):
    with assert_no_n_plus_one():
        assert len(client.get("/fast").json()) == 36

def test_a_test_client_hands_on_what_it_finds(client, caplog):
    with caplog.at_level(logging.WARNING):
        answer = client.get("/orders")
    assert answer.headers["x-n-plus-one"] == "1"
    assert "GET /orders: Book.author (lazy load): 12 statements" in caplog.text
    assert "x-n-plus-one" not in client.get("/fast").headers
"""


def test_a_foreign_application_uses_it_as_the_readme_says(library, server, tmp_path):
    section = README.partition("### N+1 queries")[2].partition("\n#")[0]
    block, middleware, fixture = re.findall(r"```python\n(.*?)```", section, re.S)
    (tmp_path / "app.py").write_text(FOREIGN)
    (tmp_path / "block.py").write_text(f"from app import *\nsession = Session(engine)\n{block}")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["playbook.service.pytest_plugin"]\n')
    assert (tmp_path / "conftest.py").read_text().strip() in fixture
    told = fixture.partition("\n\n")[2]
    (tmp_path / "test_slow.py").write_text(f"{FOREIGN_TESTS}\n{told}")
    (tmp_path / "test_app.py").write_text(f"from app import app\n{middleware}\n{FOREIGN_TESTS}")
    c = server.conninfo("library")
    environ = {"LIBRARY": f"host={c['host']} port={c['port']} user={c['user']} password={c['password']} dbname=library"}

    def run(*command):
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )

    done = run("block.py")
    assert done.returncode == 1
    assert "Book.author (lazy load): 12 statements, 12 rows" in done.stdout
    assert "NPlusOneError: N+1 queries:\n  Book.author (lazy load): 12 statements" in done.stderr
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py")
    assert done.returncode == 0, done.stdout
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_slow.py", "-k", "orders")
    assert done.returncode == 1
    assert "NPlusOneError: N+1 queries:" in done.stdout


@pytest.mark.parametrize(
    ("sql", "same"),
    [
        ("SELECT a FROM t WHERE id = 1", "select a from t where id = ?"),
        ("select a from t where id=%(id_1)s::INTEGER -- why", "select a from t where id = ?::integer"),
        ("SELECT a FROM t WHERE id IN (%s, %s,%s)", "select a from t where id in(?)"),
        ("SELECT 'it''s' , E'\\'', $x$ y $x$, 1.5e3, $1", "select ?"),
        ('SELECT "A"."b" FROM "A" /* 7 */ WHERE x1 = t2.c', 'select "A"."b" from "A" where x1 = t2.c'),
    ],
)
def test_a_fingerprint_holds_no_value(sql, same):
    assert fingerprint(sql) == same


def test_the_place_of_a_value_is_told():
    found = values(
        "SELECT 1 FROM t WHERE a = %(a)s AND b BETWEEN 2 AND 3 AND c IN (4, 5) LIMIT %(n)s", {"a": 7, "n": 9}
    )
    assert [(each.role, each.parts) for each in found] == [
        ("key", ("1",)),
        ("key", ("7",)),
        ("range", ("2",)),
        ("range", ("3",)),
        ("list", ("4", "5")),
        ("page", ("9",)),
    ]
