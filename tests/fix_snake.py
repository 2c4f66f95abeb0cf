"""The plan's own domain on a foreign database that has the plan's own names: the sample, at its smallest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fix_shop import Shop

from playbook.settings import DEFAULT_PLAN
from playbook.target import embedded, sample
from playbook.target.connect import Target, identify

SCALE = 0.001
_numbers = itertools.count(1)


@pytest.fixture
def snake(server: embedded.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A copy of its own for each test; nothing of the playbook in it yet."""
    name = f"snake_{next(_numbers)}"

    def connect(dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    made = sample.provision(connect, SCALE)
    with connect("postgres") as maintenance:
        maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {made.pristine}")
        try:
            target = identify(Target(spec="env:SNAKE_URL", conninfo=server.conninfo(name)))
            snake = Shop(target, DEFAULT_PLAN, tmp_path, variable="SNAKE_URL")
            monkeypatch.setenv(snake.variable, snake.url())
            yield snake
        finally:
            maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")
