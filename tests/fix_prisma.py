"""The plan's own domain on a foreign database in Prisma's manner (prisma.sql), for the unchanged data/proposals/plan.yaml."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from tests.fix_faults import OwnServer
from tests.fix_shop import Shop

from playbook.settings import DEFAULT_PLAN
from playbook.target.connect import Target, identify
from playbook.target.sql import literal

OWNER, READER = "prisma_owner", "prisma_reader"
PASSWORDS = {OWNER: "c4nary-of-the-owner", READER: "c4nary-of-the-reader"}
CANARY = "canary"
"""What every text in the rows holds, in this case or with a capital."""
MOMENT = ".737"
"""What every moment in the rows ends with."""
MAP = {
    "audit_logs": "AuditTrail",
    "approval_executions": "ApprovalExecution",
    "proposal_products": "ProposalProduct",
    "product_relationships": "ProductRelationship",
    "customer_contacts": "CustomerContact",
    "hypothesis_validation_events.component": "componentId",
}
"""What the names alone do not tell. `performance_baselines` is nowhere."""
TEMPLATE = "prisma_template"
_numbers = itertools.count(1)


class AnyServer(Protocol):
    """A server that the tests may make databases on, as superuser; the embedded one, or another."""

    def conninfo(self, dbname: str) -> Mapping[str, Any]:
        """How to reach that database of it."""


@dataclass
class Prisma(Shop):
    """The database as its owner sees it, who is no superuser; `admin` is one, and `reader` may only read."""

    admin: Target | None = None
    variable: str = "PRISMA_URL"

    def role(self, name: str) -> Target:
        """The database as another role sees it."""
        return _as_role(self.target, name)

    def url_of(self, name: str) -> str:
        """The URL of a role, with its password."""
        return replace(self, target=self.role(name)).url()


@pytest.fixture
def prisma(server: AnyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prisma]:
    """A copy of its own for each test, with rows and statistics; nothing of the playbook in it yet."""
    with copied(server, tmp_path, monkeypatch) as prisma:
        yield prisma


@pytest.fixture
def prisma15(postgres15: AnyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prisma]:
    """The same on PostgreSQL 15."""
    with copied(postgres15, tmp_path, monkeypatch) as prisma:
        yield prisma


@pytest.fixture
def own_prisma(own_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prisma]:
    """The same on a server that may be killed."""
    with copied(own_server.lease.server, tmp_path, monkeypatch) as prisma:
        yield prisma
        own_server.recover(prisma.target)


@contextmanager
def copied(server: AnyServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Prisma]:
    """A copy on `server`, and its URL in the environment."""
    name = f"prisma_{next(_numbers)}"

    def connect(dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    with connect("postgres") as maintenance:
        make_template(maintenance, connect)
        maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {OWNER}")
    try:
        admin = Target(spec="env:PRISMA_URL", conninfo=server.conninfo(name))
        made = Prisma(identify(_as_role(admin, OWNER)), DEFAULT_PLAN, folder, map=MAP, admin=identify(admin))
        monkeypatch.setenv(made.variable, made.url())
        yield made
    finally:
        with connect("postgres") as maintenance:
            maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")


def make_template(server: psycopg.Connection[Any], connect: Callable[[str], psycopg.Connection[Any]]) -> None:
    """Makes the database that the others are copied from, once a server."""
    with server.transaction():
        server.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [TEMPLATE])
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]).fetchone():
            return
        with connect("postgres") as other:
            for role, password in PASSWORDS.items():
                other.execute(f"CREATE ROLE {role} LOGIN PASSWORD {literal(password)}")
            other.execute(f"CREATE DATABASE {TEMPLATE}_new OWNER {OWNER}")
        with connect(f"{TEMPLATE}_new") as database:
            database.execute(f"SET ROLE {OWNER}")
            database.execute(Path(__file__).with_name("prisma.sql").read_text())
            database.execute(f"GRANT USAGE ON SCHEMA public, archive TO {READER}")
            database.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public, archive TO {READER}")
            database.execute("RESET ROLE")
            database.execute("VACUUM (ANALYZE)")
        with connect("postgres") as other:
            other.execute(f"ALTER DATABASE {TEMPLATE}_new RENAME TO {TEMPLATE}")


def _as_role(target: Target, name: str) -> Target:
    return replace(target, conninfo={**target.conninfo, "user": name, "password": PASSWORDS[name]})
