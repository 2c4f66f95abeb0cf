"""Quoting, held against what the server itself does."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbook.target import sql
from playbook.target.sql import Statement, literal, quote

against_a_server = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NAMES = TEXT.filter(lambda name: 0 < len(name.encode()) <= 63) | st.from_regex(
    r"[a-z_][a-zA-Z0-9_$]{0,20}", fullmatch=True
)
HOSTILE_TEXTS = ["'", "\\", "\\'", "'' OR 1=1 --", "a\\nb", "\\\\", "$$", "E'", "%s %% :x {}", "línea\n", ";"]


@pytest.fixture
def connection(scratch):
    return scratch()


def echoed(connection, literal_sql):
    return connection.execute(b"SELECT " + literal_sql.encode()).fetchone()[0]


@against_a_server
@given(name=NAMES)
def test_a_name_is_quoted_as_quote_ident_does(connection, name):
    assert quote(name) == connection.execute("SELECT quote_ident(%s)", [name]).fetchone()[0]


@against_a_server
@given(name=NAMES)
def test_a_quoted_name_is_that_name(connection, name):
    cursor = connection.execute(f"SELECT 1 AS {quote(name)}".encode())
    assert cursor.description[0].name == name


def keywords(connection, categories):
    asked = "SELECT word FROM pg_get_keywords() WHERE catcode = ANY(%s)"
    return {word for (word,) in connection.execute(asked, [list(categories)])}


def test_every_keyword_of_the_server_is_quoted_but_the_unreserved(connection):
    assert {word for word in keywords(connection, "CRT") if quote(word) == word} == set()


def test_the_keywords_are_those_of_the_newest_server(connection):
    if connection.info.server_version < 180000:
        pytest.skip("the list is that of PostgreSQL 18; an older server's is a part of it")
    if connection.info.server_version >= 190000:
        pytest.fail("add the keywords of this version to playbook.target.sql")
    assert keywords(connection, "CRT") == sql._KEYWORDS
    assert {word for word in keywords(connection, "U") if quote(word) != word} == set()


def test_parts_are_quoted_each_and_joined():
    assert quote("public", "userId") == 'public."userId"'
    assert quote("a.b", 'say "hi"') == '"a.b"."say ""hi"""'
    assert quote("select") == '"select"'


@pytest.mark.parametrize("parts", [(), ("",), ("public", ""), ("a\0b",)])
def test_what_postgresql_cannot_store_as_a_name_is_refused(parts):
    with pytest.raises(ValueError, match="not an identifier"):
        quote(*parts)


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_hostile_texts_come_back_from_the_server(connection, conforming):
    connection.execute(f"SET standard_conforming_strings = {conforming}; SET escape_string_warning = off")
    assert [echoed(connection, literal(text)) for text in HOSTILE_TEXTS] == HOSTILE_TEXTS


@pytest.mark.parametrize("conforming", ["on", "off"])
@against_a_server
@given(text=TEXT)
def test_a_literal_comes_back_from_the_server(connection, conforming, text):
    connection.execute(f"SET standard_conforming_strings = {conforming}; SET escape_string_warning = off")
    assert echoed(connection, literal(text)) == text


def test_a_nul_is_refused():
    with pytest.raises(ValueError, match="NUL"):
        literal("a\0b")


@pytest.mark.parametrize("written", ["DROP TABLE t", "DROP TABLE t;", "DROP TABLE t;\n"])
def test_a_statement_prints_with_one_semicolon(written):
    assert str(Statement(written, "drop it")) == "DROP TABLE t;"
