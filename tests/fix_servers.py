"""Real servers: the embedded one of the test session, empty databases on it, and copies of the sample."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from tests.servers import Postgres

from playbook.target import embedded
from playbook.target.connect import Target, identify

Connect = Callable[[], psycopg.Connection[Any]]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.Server]:
    """The embedded server, in the home that the whole test session shares."""
    with embedded.acquire() as lease:
        yield lease.server


@pytest.fixture(scope="session")
def any_server(request: pytest.FixtureRequest) -> embedded.Server | Postgres:
    """The embedded server, or the one of the version that `--postgres` names."""
    version = request.config.getoption("--postgres")
    return request.getfixturevalue("server" if version == "18" else f"postgres{version}")


@pytest.fixture
def empty(any_server: embedded.Server | Postgres) -> Iterator[Target]:
    """An empty database as a target that is not the sample: it counts as foreign."""
    name = f"empty_{next(_numbers)}"
    with psycopg.connect(**any_server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield identify(Target(spec="env:DATABASE_URL", conninfo=any_server.conninfo(name)))
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def scratch(empty: Target) -> Iterator[Connect]:
    """Opens autocommit sessions, as superuser, on an empty database; those left open are closed after the test."""
    with ExitStack() as opened:

        def connect() -> psycopg.Connection[Any]:
            connection = empty.connect()
            opened.callback(connection.close)
            return connection

        yield connect
