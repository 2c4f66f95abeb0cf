"""Targets: how they are named, what a server says of itself, and that no password shows anywhere."""

from __future__ import annotations

import re
from urllib.parse import quote as percent

import pytest

from playbook.errors import PlaybookError, Unreachable, Unsupported, UsageError
from playbook.target.connect import Target, identify, parse, scrub

CANARY = "c4nary:p@ss/w'or%d"


def url_of(target, scheme="postgresql", password=None, **more):
    c = target.conninfo
    query = "&".join(f"{key}={value}" for key, value in {"host": c["host"], "port": c["port"], **more}.items())
    return f"{scheme}://{c['user']}:{percent(password or c['password'], safe='')}@/{c['dbname']}?{query}"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgres+asyncpg"])
def test_an_environment_variable_names_the_database(empty, scheme):
    target = identify(parse("env:DB", {"DB": url_of(empty, scheme)}))
    assert target.server.database == empty.conninfo["dbname"]
    with target.connect() as connection:
        assert target.server.major == connection.info.server_version // 10000
    assert target.server.tested
    assert not target.server.standby
    assert not target.server.pooled


def test_what_an_orm_adds_to_a_url_is_understood(empty):
    with empty.connect() as connection:
        connection.execute("CREATE SCHEMA app")
    url = url_of(empty, schema="app", connection_limit="5", pgbouncer="true", pool_timeout="0")
    with parse("env:DB", {"DB": url}).connect() as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("app",)


def test_sessions_think_in_utc_and_never_prepare(empty):
    with empty.connect() as connection:
        assert connection.execute("SHOW TimeZone").fetchone() == ("UTC",)
        assert connection.prepare_threshold is None
        assert connection.autocommit


def test_a_service_file_names_the_database(empty, tmp_path, monkeypatch):
    c = empty.conninfo
    lines = [f"{key}={c[key]}" for key in ("host", "port", "user", "password", "dbname")]
    (tmp_path / "services").write_text("\n".join(["[shop]", *lines]) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    target = identify(parse("service:shop"))
    assert target.server.database == c["dbname"]
    assert target.label == "service shop"


@pytest.mark.parametrize(
    ("spec", "environ", "said"),
    [
        ("env:MISSING", {}, "the environment variable MISSING is not set"),
        ("env:DB", {"DB": "mysql://u@h/d"}, "not a PostgreSQL URL"),
        ("env:DB", {"DB": "host=x dbname=y"}, "not a PostgreSQL URL"),
        ("env:DB", {"DB": f"postgresql://u:{CANARY}@h/d"}, "percent-encode"),
        ("somewhere", {}, "the target is none of: embedded"),
        (f"postgresql://u:{percent(CANARY, safe='')}@h/d", {}, "holds a password"),
        (f"postgresql://u@h/d?password={percent(CANARY, safe='')}", {}, "holds a password"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_without_showing_it(spec, environ, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse(spec, environ)
    assert "c4nary" not in str(caught.value)


def test_a_url_with_a_password_as_parameter_says_what_to_do_now():
    with pytest.raises(UsageError, match=r"delete that file, change the password, .* pass target=env:NAME"):
        parse("postgresql://app:secret@db/shop")


def test_a_wrong_password_is_one_line_without_it(empty):
    with pytest.raises(Unreachable) as caught:
        identify(parse("env:DB", {"DB": url_of(empty, password=CANARY)}))
    message = str(caught.value)
    assert "password authentication failed" in message
    assert "check user and password" in message
    assert "\n" not in message
    assert "c4nary" not in message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u@127.0.0.1:1/d", "check host and port"),
        ("postgresql://u@/d?host=/nowhere", "check host and port"),
        ("postgresql://u@no-such-host.invalid/d", "check host and port"),
    ],
)
def test_a_server_that_is_not_there_names_the_remedy(url, said):
    with pytest.raises(Unreachable, match=said):
        identify(parse("env:DB", {"DB": url}))


def test_a_database_that_is_not_there_names_the_remedy(empty):
    target = Target(spec="env:DB", conninfo={**empty.conninfo, "dbname": "nowhere"})
    with pytest.raises(Unreachable, match=r'database "nowhere" does not exist; check the database name'):
        identify(target)


class TestTls:
    def test_a_certificate_that_the_client_trusts_is_checked(self, tls):
        target = identify(parse("env:DB", {"DB": tls.url(sslmode="verify-full", sslrootcert=str(tls.root))}))
        with target.connect() as connection:
            assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)

    def test_one_that_nobody_vouches_for_is_refused(self, tls):
        for more in ({"sslmode": "verify-full", "sslrootcert": "system"}, {"sslaccept": "strict"}):
            with pytest.raises(
                Unreachable, match=r"certificate verify failed; .* nobody in sslrootcert vouches for it"
            ):
                identify(parse("env:DB", {"DB": tls.url(**more)}))

    def test_one_that_has_expired_is_refused_and_named(self, tls):
        url = tls.url(sslmode="verify-full", sslrootcert=str(tls.root))
        with tls.expired(), pytest.raises(Unreachable) as caught:
            identify(parse("env:DB", {"DB": url}))
        assert "the server's certificate has expired, or" in str(caught.value)
        assert tls.server.password not in str(caught.value)

    def test_encryption_without_a_check_is_what_sslmode_require_means(self, tls):
        assert identify(parse("env:DB", {"DB": tls.url(sslmode="require")})).server.tested


def test_of_several_hosts_the_one_that_answers_is_taken(empty):
    c = empty.conninfo
    hosts = f"host=127.0.0.1:1&host={c['host']}"
    url = f"postgresql://{c['user']}:{percent(c['password'], safe='')}@/{c['dbname']}?{hosts}&port=1,{c['port']}"
    assert identify(parse("env:DB", {"DB": url})).server.database == c["dbname"]


def test_a_password_file_is_as_good_as_a_url(empty, tmp_path, monkeypatch):
    c = empty.conninfo
    (tmp_path / "pgpass").write_text(f"*:*:{c['dbname']}:{c['user']}:{c['password']}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    url = f"postgresql://{c['user']}@/{c['dbname']}?host={c['host']}&port={c['port']}"
    target = identify(parse(url))
    assert target.server.database == c["dbname"]
    assert target.spec == f"{c['user']}@{c['host']}:{c['port']}/{c['dbname']}"


def test_a_server_of_another_version_is_refused(empty, monkeypatch):
    ours = empty.server.major
    monkeypatch.setattr("playbook.target.connect.SUPPORTED", range(13, ours))
    with pytest.raises(Unsupported, match=rf"runs PostgreSQL {ours}\.\d+ .*; supported is PostgreSQL 13 to {ours - 1}"):
        identify(Target(spec="env:DB", conninfo=empty.conninfo))


def test_what_is_no_database_is_told_from_one(pooled):
    """PgBouncer's console speaks the protocol, and no SQL."""
    console = Target(spec="env:DB", conninfo={**pooled.conninfo, "dbname": "pgbouncer"})
    with pytest.raises(Unsupported, match="does not answer as PostgreSQL does"):
        identify(console)


def test_nothing_that_shows_a_target_shows_its_password(empty):
    password = empty.conninfo["password"]
    assert password
    assert password not in f"{empty!r} {empty} {empty.label}"


def test_scrubbing_takes_every_form_of_a_password_out():
    forms = [CANARY, percent(CANARY, safe=""), f"postgresql://u:{percent(CANARY, safe='')}@h/d"]
    for form in forms:
        assert "c4nary" not in scrub(f"before {form} after", {"password": CANARY})
    assert scrub("nothing secret here", {}) == "nothing secret here"


def test_every_error_of_the_tree_has_an_exit_code_of_the_contract():
    tree = [PlaybookError]
    for error in tree:
        tree.extend(error.__subclasses__())
    assert {error.exit_code for error in tree} == {1, 2}
    assert re.match(r"1|2", str(Unsupported.exit_code))
