"""Debian's PostgreSQL 15, with hypopg and pg_cron where they are installed: a second server version, and databases on it.

Needed are the Debian packages postgresql-15, postgresql-15-hypopg and postgresql-15-cron; `bash .ci/run` installs them.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator

import pytest
from tests.servers import DEBIAN_15, DEBIAN_SHARE_15, Postgres, required, running

from playbook.target.connect import Target

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres15() -> Iterator[Postgres]:
    """The server, with pg_stat_statements and pg_cron preloaded; pg_cron lives in its database `postgres`.

    A test that needs pg_cron elsewhere calls `postgres15.restart(cron__database_name=…)`, and `restart()` afterwards.
    """
    if not (DEBIAN_15 / "postgres").exists():
        required("PostgreSQL 15", "apt-get install postgresql-15")
    preloaded, cron = "pg_stat_statements", {}
    if (DEBIAN_SHARE_15 / "pg_cron.control").exists():
        preloaded += ",pg_cron"
        cron = {"cron.use_background_workers": "on", "cron.log_statement": "off"}
    with running(DEBIAN_15, {"shared_preload_libraries": preloaded, **cron}) as server:
        yield server


@pytest.fixture
def empty15(postgres15: Postgres) -> Iterator[Target]:
    """An empty database on PostgreSQL 15 as a foreign target."""
    with postgres15.database(f"empty_{next(_numbers)}") as target:
        yield target


@pytest.fixture(scope="session")
def dump15() -> Callable[[Target], str]:
    """Everything that pg_dump knows of a database on PostgreSQL 15, its rows and sequences included."""

    def take(target: Target) -> str:
        c = target.conninfo
        place = [f"--host={c['host']}", f"--port={c['port']}", f"--username={c['user']}", str(target.server.database)]
        return subprocess.run(
            [DEBIAN_15 / "pg_dump", "--inserts", "--restrict-key=x", *place],
            env={"PGPASSWORD": str(c["password"])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    return take


@pytest.fixture
def hypopg(empty15: Target) -> Target:
    """An empty database on PostgreSQL 15 in which the extension hypopg stands."""
    if not (DEBIAN_SHARE_15 / "hypopg.control").exists():
        required("hypopg", "apt-get install postgresql-15-hypopg")
    with empty15.connect() as connection:
        connection.execute("CREATE EXTENSION hypopg")
    return empty15


@pytest.fixture
def cron(postgres15: Postgres) -> Iterator[Target]:
    """A database on PostgreSQL 15 in which pg_cron runs; the server is restarted for it."""
    if not (DEBIAN_SHARE_15 / "pg_cron.control").exists():
        required("pg_cron", "apt-get install postgresql-15-cron")
    name = f"cron_{next(_numbers)}"
    try:
        with postgres15.connect() as admin:
            admin.execute(f"CREATE DATABASE {name}")
        postgres15.restart(cron__database_name=name)
        target = Target(spec="env:DATABASE_URL", conninfo=postgres15.conninfo(name))
        with target.connect() as connection:
            connection.execute("CREATE EXTENSION pg_cron")
        yield target
    finally:
        postgres15.restart()
        with postgres15.connect() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
