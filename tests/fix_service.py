"""The reference service: as found and optimized, each a process of its own on a copy of the sample of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from playbook.context import open_context
from playbook.phase import Playbook
from playbook.service import process
from playbook.service.process import Running
from playbook.service.switches import Switches
from playbook.settings import Settings
from playbook.target import embedded, sample
from playbook.target.connect import Target, identify


@dataclass(frozen=True)
class Served:
    """A running service with the database it runs on, and a client that keeps its connection."""

    service: Running
    target: Target
    client: httpx.Client

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def statements(self, path: str) -> int:
        return int(self.get(path).headers["x-statements"])


def _served(server: embedded.Server, name: str, switches: Switches) -> Iterator[Served]:
    def connect(dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    sample.provision(connect, 0.02)
    sample.copy(connect, 0.02, name)
    target = identify(Target(spec="env:DATABASE_URL", conninfo=server.conninfo(name)))
    with process.start(target.conninfo, switches) as running, httpx.Client(base_url=running.url, timeout=60) as client:
        yield Served(running, target, client)
    sample.drop(connect, name)


@pytest.fixture(scope="session")
def as_found(server: embedded.Server) -> Iterator[Served]:
    """The service as the plan found it."""
    yield from _served(server, "proposals_scratch_as_found", Switches())


@pytest.fixture(scope="session")
def optimized(server: embedded.Server) -> Iterator[Served]:
    """The service with `eager_load` on."""
    yield from _served(server, "proposals_scratch_optimized", Switches.of(["eager_load"]))


@pytest.fixture(scope="module")
def of_sample(server: embedded.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Playbook]]:
    """Opens the plan on the sample, as it was found for the first of a module, each time as a new process would."""

    def connect(dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    sample.provision(connect, 0.02)
    sample.reset(connect, 0.02, force=True)
    folder = tmp_path_factory.mktemp("sample")
    opened: list[Playbook] = []

    def open_sample(**given: Any) -> Playbook:
        opened.append(Playbook(open_context(Settings(scale=0.02, budget_s=1, out=folder, **given))))
        return opened[-1]

    yield open_sample
    for each in opened:
        each.context.close()
