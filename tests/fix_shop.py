"""A small foreign database with a plan of its own: two indexes on `orders`, and the full snapshot of its catalog."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from playbook.context import Context, open_context
from playbook.phase import Playbook
from playbook.settings import Settings
from playbook.target import embedded
from playbook.target.binaries import wheel_binaries
from playbook.target.connect import Target
from playbook.target.sql import quote

PLAN = """\
name: shop
title: Two indexes for a shop
workload: workload.sql
controls: [customers_by_city]
phases:
  - id: "1"
    title: Indexes
    week: 1
    priority: critical
    notebook: indexes
    steps:
      - name: orders_customer_created
        kind: index
        table: orders
        columns: [customer_id, created_at DESC]
        claims: [latest_orders]
      - name: orders_open
        kind: index
        table: orders
        columns: [created_at]
        where: status = 'open'
        claims: [open_orders]
priorities:
  - {priority: critical, week: 1, item: Index the orders, phases: ["1"]}
"""

WORKLOAD = """\
-- name: latest_orders
-- about: the latest orders of one customer
-- bind customer_id: sampled from orders
SELECT id, created_at, total FROM orders WHERE customer_id = :customer_id ORDER BY created_at DESC, id LIMIT 10;

-- name: open_orders
-- about: the oldest open orders
SELECT id, created_at FROM orders WHERE status = 'open' ORDER BY created_at, id LIMIT 10;

-- name: customers_by_city
-- about: control
SELECT city, count(*) AS customers FROM customers GROUP BY city ORDER BY city;
"""

ROWS = """
CREATE TABLE customers (id int PRIMARY KEY, city text NOT NULL);
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id int NOT NULL REFERENCES customers,
  status text NOT NULL,
  created_at timestamptz NOT NULL,
  total numeric(10, 2)
);
INSERT INTO customers SELECT n, 'city ' || n % 7 FROM generate_series(1, 500) n;
INSERT INTO orders (customer_id, status, created_at, total)
SELECT 1 + (n * n) % 500, CASE WHEN n % 50 = 0 THEN 'open' ELSE 'done' END,
       timestamptz '2026-01-01 00:00:00+00' + n * interval '1 minute', n % 1000
FROM generate_series(1, 40000) n;
"""


@dataclass
class Shop:
    """The database, its plan, and how to open the one on the other; `phase` is the one that faults are tried on."""

    target: Target
    plan: Path
    folder: Path
    map: Mapping[str, str] = field(default_factory=dict)
    variable: str = "SHOP_URL"
    phase: str = "1"

    def context(self, *, apply: bool = True, **settings: Any) -> Context:
        """A new opening, as a new process would have it."""
        defaults: dict[str, Any] = {"budget_s": 8.0, "plan": self.plan, "out": self.folder / "out", "map": self.map}
        return open_context(Settings(**{"target": f"env:{self.variable}", "apply": apply, **defaults, **settings}))

    def playbook(self, *, apply: bool = True, **settings: Any) -> Playbook:
        """The plan opened on the shop."""
        return Playbook(self.context(apply=apply, **settings))

    def execute(self, sql: str, *values: Any) -> list[Any]:
        """Rows of one statement in a session of its own."""
        with self.target.connect() as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def by_hand(self, sql: str) -> subprocess.CompletedProcess[str]:
        """Runs a script as a person without the playbook would."""
        psql = [str(wheel_binaries().program("psql")), "-X", "-q", "-d", self.url()]
        return subprocess.run(psql, input=sql, capture_output=True, text=True, check=False)

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Sessions that begin meanwhile cannot write: an attempt is an error, though it were to be rolled back."""
        setting = f"ALTER DATABASE {quote(self.target.server.database)} {{}} default_transaction_read_only"
        self.execute(setting.format("SET") + " = on")
        try:
            yield
        finally:
            self.execute(f"BEGIN READ WRITE; {setting.format('RESET')}; COMMIT")

    @contextmanager
    def opened_as(self, role: str, *given: str) -> Iterator[None]:
        """Meanwhile openings are those of a role made for it, which was `given` this by the superuser.

        The superuser gets back what the role owns.
        """
        self.execute(f"DROP ROLE IF EXISTS {role}")
        self.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
        try:
            for statement in given:
                self.execute(statement)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(self.variable, self.url(role))
                yield
        finally:
            self.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role} CASCADE; DROP ROLE {role}")

    def killed(self, step: str, point: str, position: int = 0, direction: str = "apply", touch: str = "") -> int:
        """Applies the step's phase, or undoes, in a process that dies at `point` of a statement; see killed_apply.py."""
        script = Path(__file__).with_name("killed_apply.py")
        done = subprocess.run(
            [sys.executable, script, self.plan, step, point, str(position), direction, touch],
            env={**os.environ, "PLAYBOOK_TARGET": f"env:{self.variable}", "PLAYBOOK_MAP": json.dumps(dict(self.map))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {0, -9}, done.stderr
        return done.returncode

    def url(self, role: str = "") -> str:
        """The URL with its password, as an environment variable would hold it; a role's password is its name."""
        c = self.target.conninfo
        user, password = (role, role) if role else (c["user"], c["password"])
        return f"postgresql://{user}:{password}@/{c['dbname']}?host={c['host']}&port={c['port']}"


def lay_out(
    target: Target,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    plan: str = PLAN,
    workload: str = WORKLOAD,
    rows: str = ROWS,
) -> Shop:
    """`rows` on an empty database, analysed, and the plan with its workload in `folder`."""
    (folder / "plan.yaml").write_text(plan)
    (folder / "workload.sql").write_text(workload)
    with target.connect() as connection:
        connection.execute(rows)
        connection.execute("VACUUM (ANALYZE)")
    shop = Shop(target, folder / "plan.yaml", folder)
    monkeypatch.setenv("SHOP_URL", shop.url())
    return shop


def statuses(answer: Any) -> dict[str, str]:
    """What became of each step, by what a verb answered."""
    return {step: state.status for step, state, *_ in answer.steps}


def reason(answer: Any, step: str = "") -> str:
    """Why that became of a step; where none is named, of the first."""
    return next(state.reason for name, state, *_ in answer.steps if step in {"", name})


@pytest.fixture
def shop(empty: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop with its rows; nothing of the playbook in it yet."""
    return lay_out(empty, tmp_path, monkeypatch)


@pytest.fixture
def snapshot(server: embedded.Server) -> Callable[[Target], str]:
    """Everything that pg_dump knows of a database but its rows, schema `playbook` aside, and which indexes are valid.

    pg_dump is PostgreSQL's own account of a catalog, and none of this project's.
    """

    def take(target: Target) -> str:
        c = target.conninfo
        dump = subprocess.run(
            [
                *(str(wheel_binaries().program("pg_dump")), "--schema-only", "--exclude-schema=playbook"),
                *("--restrict-key=x", f"--host={c['host']}", f"--port={c['port']}", f"--username={c['user']}"),
                str(c["dbname"]),
            ],
            env={"PGPASSWORD": str(c["password"])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        with target.connect() as connection:
            indexes = connection.execute(
                "SELECT indexrelid::regclass::text, indisvalid, indisready, pg_get_indexdef(indexrelid) FROM pg_index "
                "JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace::regnamespace::text NOT IN "
                "('pg_catalog', 'pg_toast', 'playbook', 'information_schema') ORDER BY 1"
            ).fetchall()
        return dump + "\n".join(map(str, indexes))

    return take
