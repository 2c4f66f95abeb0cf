"""Database URLs in every form that people have them in, and none of them shown."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.errors import UsageError
from playbook.target.connect import parse, scrub
from playbook.target.url import holds_secret, read

CANARY = "c4nary"


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgres://me@db/shop", {"user": "me", "host": "db", "dbname": "shop"}),
        ("postgresql://m%40e:p%2F%3Aw@db:6543/sh%20op", {"user": "m@e", "password": "p/:w", "host": "db", "port": "6543", "dbname": "sh op"}),
        ("postgresql://me@[2001:db8::1]:5433/shop", {"user": "me", "host": "2001:db8::1", "port": "5433", "dbname": "shop"}),
        (
            "postgresql://me@a:5432,b:5433/shop?target_session_attrs=read-write",
            {"user": "me", "host": "a,b", "port": "5432,5433", "dbname": "shop", "target_session_attrs": "read-write"},
        ),
        ("postgresql://me@%2Fvar%2Frun%2Fpostgresql/shop", {"user": "me", "host": "/var/run/postgresql", "dbname": "shop"}),
        ("postgresql:///shop?host=/var/run/postgresql&port=5433", {"host": "/var/run/postgresql", "port": "5433", "dbname": "shop"}),
        ("postgresql://db/shop?user=me&password=a+b%20c", {"user": "me", "password": "a+b c", "host": "db", "dbname": "shop"}),
        # SQLAlchemy
        ("postgresql+psycopg2://me:pw@/shop?host=a:5432&host=b:5433", {"user": "me", "password": "pw", "host": "a,b", "port": "5432,5433", "dbname": "shop"}),
        ("postgresql+asyncpg://me@db/shop?ssl=require&prepared_statement_cache_size=0", {"user": "me", "host": "db", "dbname": "shop", "sslmode": "require"}),
        # Prisma
        ("postgresql://me@db/shop?connection_limit=5&pgbouncer=true&socket_timeout=3", {"user": "me", "host": "db", "dbname": "shop"}),
        (
            "postgresql://me@db/shop?sslmode=require&sslaccept=strict&sslcert=/ca.pem",
            {"user": "me", "host": "db", "dbname": "shop", "sslmode": "verify-full", "sslrootcert": "/ca.pem"},
        ),
        # JDBC
        (
            "jdbc:postgresql://db:5433/shop?user=me&ssl=true&prepareThreshold=0&loginTimeout=3",
            {"user": "me", "host": "db", "port": "5433", "dbname": "shop", "sslmode": "verify-full", "sslrootcert": "system", "connect_timeout": "3"},
        ),
        # what secures the connection reaches libpq as it is
        (
            "postgresql://me@db/shop?sslmode=verify-ca&sslrootcert=/ca&sslcert=/c&sslkey=/k&channel_binding=require",
            {
                "user": "me", "host": "db", "dbname": "shop", "sslmode": "verify-ca", "sslrootcert": "/ca", "sslcert": "/c",
                "sslkey": "/k", "channel_binding": "require",
            },
        ),
    ],
)  # fmt: skip
def test_a_url_is_read_as_its_author_meant_it(url, wanted, monkeypatch):
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    assert parse("env:DB", {"DB": url}).conninfo == wanted


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("schema=app", "app"),
        ("schema=My%20App", '"My App"'),
        ('currentSchema=App,"Other",public', 'app, "Other", public'),
        ("", None),
    ],
)
def test_the_schema_of_a_url_is_the_search_path(query, path):
    assert read("env:DB", f"postgresql://me@db/shop?{query}")[1] == path


def test_quotes_that_a_loader_left_around_a_url_are_no_part_of_it():
    assert parse("env:DB", {"DB": "'postgresql://me@db/shop'\n"}).conninfo["dbname"] == "shop"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{CANARY}@db/shop?sslmod=verify-full",  # a slip that would have left the connection open
        f"postgresql://me:{CANARY}@db/shop?nonsense=1",
        f"postgresql://me:{CANARY}@[::1/shop",
        f"postgresql://me:{CANARY}?x@db/shop",
        f"postgresql://me:x&{CANARY}=@db/shop?{CANARY}=1",
        f"postgresql://me:{CANARY}@db/shop?sslidentity=/x",
        f"mysql://me:{CANARY}@db/shop",
        f"host=db password={CANARY}",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_showing_any_of_it(url):
    with pytest.raises(UsageError) as caught:
        parse("env:DB", {"DB": url})
    assert CANARY not in str(caught.value)
    assert "env:DB" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("postgresql://u:p@h/d", True),
        ("postgresql://u:p?w@h/d", True),
        ("postgresql://u:p@[h/d", True),
        ("postgresql://u@h/d?password=p", True),
        ("postgresql://u@h/d?pass%77ord=p", True),
        ("postgresql://u@h/d?sslpassword=p", True),
        ("jdbc:postgresql://h/d?user=u&password=p", True),
        ("postgresql://u@h:5432/d", False),
        ("postgresql://u@[::1]:5432/d", False),
        ("env:DB", False),
        ("embedded", False),
    ],
)
def test_a_url_with_a_password_is_told_from_one_without(text, holds):
    assert holds_secret(text) is holds


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for url in (text, f"postgresql://{text}", f"postgresql://u:{text}@h/d", f"postgresql://h/d?{text}"):
        holds_secret(url)
        with suppress(UsageError):
            parse("env:DB", {"DB": url})


@given(st.text(min_size=6).filter(lambda text: "\0" not in text and not set(text) <= set("*")))
def test_no_password_survives_scrubbing(password):
    conninfo = {"password": password}
    assert scrub(f"x {password} y", conninfo) == "x ******** y"
    assert password not in scrub(repr(password), conninfo) or password in "********"
