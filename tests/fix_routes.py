"""Tables on which faults are tried, by either route: the ledger's entries, and the audit trail of a Prisma database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.fix_conversion import COPY_PLAN, STEP, change_plan
from tests.fix_shop import Shop, reason, statuses

from playbook import undoing
from playbook.context import Context
from playbook.evidence.live import Timeline, under_load
from playbook.journal import StatementRecord
from playbook.phase import Playbook
from playbook.settings import DEFAULT_PLAN
from playbook.target.connect import Target
from playbook.target.sql import Statement

# Times at the edges: of months in UTC and in other zones, of the hour that a clock in Berlin shows twice, of New York's
# lost hour, and near the end of what a partition holds.
EDGES = (
    "timestamptz '2026-10-25 02:30:00 Europe/Berlin'",
    "timestamptz '2026-10-25 01:30:00+01'",
    "timestamptz '2026-03-08 02:30:00 America/New_York'",
    "timestamptz '2026-02-01 00:00:00+00'",
    "timestamptz '2026-01-31 23:59:59.999999+00'",
    "timestamptz '2026-02-28 23:30:00-05'",
)


@dataclass(frozen=True)
class Words:
    """How applications write a table: its name and columns as SQL. `prepare` is what is done to it first, so that it has
    generated and dropped columns and a twin without triggers has all that it has."""

    table: str
    row_key: str
    key: str
    mark: str
    note: str
    columns: str
    needed: str
    edge: str
    picked: str
    prepare: str
    touch: str
    touch_other: str


ENTRIES = Words(
    table="entries",
    row_key="id",
    key="at",
    mark="kind",
    note="note",
    columns="id, number, person, kind, amount, doubled, note, body, at",
    needed="id, number, {mark}, at",
    edge="INSERT INTO {{t}} (id, number, kind, at) VALUES (-{n}, -{n}, 'edge', {at})",
    picked="id % {} = 0",
    prepare="DROP TRIGGER trims ON entries; DROP TRIGGER counts ON entries; DROP TRIGGER hears ON entries",
    touch="UPDATE entries SET note = 'x' WHERE id = 5",
    touch_other="UPDATE people SET name = name || '.' WHERE id = 1",
)
TRAIL = Words(
    table='"AuditTrail"',
    row_key='"id"',
    key='"timestamp"',
    mark='"action"',
    note='"userAgent"',
    columns='"id", "userId", "action", "entity", "entityId", changes, "ipAddress", "userAgent", success, "timestamp", "long"',
    needed='"id", "entity", "entityId", {mark}, "timestamp"',
    edge='INSERT INTO {{t}} ("id", "action", "entity", "entityId", "timestamp") '
    "VALUES ('edge {n}', 'edge', 'e', '{n}', {at})",
    picked='hashtext("id") % {} = 0',
    prepare='ALTER TABLE "AuditTrail" ADD COLUMN gone int, '
    'ADD COLUMN "long" int GENERATED ALWAYS AS (length("entityId")) STORED; ALTER TABLE "AuditTrail" DROP COLUMN gone',
    touch="""UPDATE "AuditTrail" SET "userAgent" = 'x' WHERE "id" = 'canary-a5'""",
    touch_other="""UPDATE "users" SET "name" = "name" || '.' WHERE "id" = 'canary-u1'""",
)


@dataclass(frozen=True)
class Route:
    """One table on its way by one route. `admin` is a superuser's target."""

    name: str
    shop: Shop
    admin: Target
    step: str
    words: Words

    def execute(self, sql: str) -> list[Any]:
        """As a superuser."""
        with self.admin.connect() as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> list[Any]:
        return self.execute(f"SELECT * FROM {self.words.table} ORDER BY {self.words.row_key}, {self.words.key}")

    def kind(self) -> str:
        return self.execute(f"SELECT relkind FROM pg_class WHERE oid = '{self.words.table}'::regclass")[0][0]

    def statements(self) -> tuple[Statement, ...]:
        """What apply would run."""
        return self.shop.playbook().phase(self.shop.phase).preview().steps[0][1]

    def apply(self, context: Context | None = None, **settings: Any) -> tuple[str, str]:
        """What became of the step, and why."""
        applied = Playbook(context or self.shop.context(**settings)).phase(self.shop.phase).apply()
        return statuses(applied)[self.step], reason(applied)

    def applied(self, context: Context | None = None, **settings: Any) -> None:
        status, why = self.apply(context, **settings)
        assert status == "applied", why
        assert self.kind() == "p"

    def undone(self, context: Context | None = None, **settings: Any) -> None:
        assert [one.error for one in undoing.undo(context or self.shop.context(**settings))] == [""]
        assert self.kind() == "r"

    def loaded(self) -> AbstractContextManager[Timeline]:
        """Beside the load that tells the table from its twin."""
        names = self.shop.context().names
        table = names.relation(self.words.table.strip('"'))
        return under_load(self.shop.target.connect, self.shop.target.conninfo, table, self.words.key.strip('"'))

    def writes(self, number: int) -> Iterator[str]:
        """What applications write, for the table and its twin alike; `{t}` is the one or the other."""
        w = self.words
        unique = f"{w.row_key}, {w.key}" if self.kind() == "p" else w.row_key
        for n, at in enumerate(EDGES):
            yield w.edge.format(n=10 * number + n, at=at)
        yield (
            f"UPDATE {{t}} SET {w.key} = {w.key} + interval '1 month' WHERE {w.mark} = 'edge' AND {w.key} < '2026-03-01'"
        )
        yield f"UPDATE {{t}} SET {w.note} = NULL WHERE {w.picked.format(35)}"
        yield f"DELETE FROM {{t}} WHERE {w.picked.format(55)}"
        taken = w.needed.format(mark="'again'")
        yield (
            f"INSERT INTO {{t}} ({w.needed.format(mark=w.mark)}) SELECT {taken} FROM {{t}} WHERE {w.picked.format(65)} "
            f"ON CONFLICT ({unique}) DO UPDATE SET {w.mark} = EXCLUDED.{w.mark}, {w.note} = 'upserted'"
        )

    def make_twin(self) -> None:
        """A table of the same rows that stays as it is; both keys of an upsert are unique in it."""
        w = self.words
        self.execute(w.prepare)
        given = ", ".join(each for each in w.columns.split(", ") if each not in {"doubled", '"long"'})
        self.execute(f"CREATE TABLE twin (LIKE {w.table} INCLUDING ALL EXCLUDING INDEXES)")
        self.execute(f"INSERT INTO twin ({given}) SELECT {given} FROM {w.table}")
        self.execute(f"ALTER TABLE twin ADD PRIMARY KEY ({w.row_key}), ADD UNIQUE ({w.row_key}, {w.key})")

    def difference(self) -> list[Any]:
        """The rows that only one of the two has."""
        both = [f"SELECT {self.words.columns} FROM {table}" for table in (self.words.table, "twin")]
        return self.execute(f"({both[0]} EXCEPT ALL {both[1]}) UNION ALL ({both[1]} EXCEPT ALL {both[0]})")


def on_prisma(prisma: Any, how: str) -> Route:
    """The plan's own step, unchanged but for the route; the plan is the only one to be read, as a user would write it."""
    plan = prisma.folder / "plan.yaml"
    text = DEFAULT_PLAN.read_text()
    assert text.count("key: timestamp\n") == 1
    plan.write_text(text.replace("key: timestamp\n", f"key: timestamp\n        route: {how}\n"))
    (prisma.folder / "workload.sql").write_text(DEFAULT_PLAN.with_name("workload.sql").read_text())
    return Route(
        f"prisma {how}", replace(prisma, plan=plan, phase="4.2"), prisma.admin, "4.2/audit_logs_partitioned", TRAIL
    )


@pytest.fixture
def route(request: pytest.FixtureRequest) -> Route:
    """Of the four, the one that the test is parametrized with: `ledger attach`, `prisma copy` …

    `own_prisma …` is on a server that may be killed.
    """
    table, how = request.param.split()
    if table.endswith("prisma"):
        return on_prisma(request.getfixturevalue(table), how)
    ledger = request.getfixturevalue("ledger")
    if how == "copy":
        change_plan(ledger, "every: month", COPY_PLAN)
    return Route(f"ledger {how}", ledger, ledger.target, STEP, ENTRIES)


ALL = ("ledger attach", "ledger copy", "prisma attach", "prisma copy")


@contextmanager
def between_statements(write: Callable[[str, int], object]) -> Iterator[None]:
    """Calls `write(direction, position)` before each statement is sent."""
    intent = StatementRecord.intent

    def writing(record: StatementRecord, *arguments: Any) -> None:
        write(record.direction, record.position)
        intent(record, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatementRecord, "intent", writing)
        yield


def by_route(*in_ci: str, of: tuple[str, ...] = ALL) -> pytest.MarkDecorator:
    """Parametrizes a test with the routes; those not named are too long for CI."""
    marks = [pytest.param(name, marks=() if name in in_ci else pytest.mark.exhaustive) for name in of]
    return pytest.mark.parametrize("route", marks, indirect=True)
