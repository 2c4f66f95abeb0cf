"""Converting the ledger: what a step came to, what the table is and holds, and what happens to it meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
import pytest
from tests.fix_shop import Shop

from playbook import undoing
from playbook.changes.partitioning import attributes, pages, recreate
from playbook.evidence.live import Timeline, under_load
from playbook.journal import StatementRecord
from playbook.target.execute import LockPolicy
from playbook.target.sessions import Sessions
from playbook.target.sql import Statement

STEP = "1/entries_partitioned"
COPY_PLAN = "every: month\n        route: copy"
COPY, REPLAY, VERIFY, SWAP = "ctid >=", "INTO batch", "width_bucket", "IN ACCESS EXCLUSIVE MODE"
"""What the statements of the copy route are told by."""
QUICK = LockPolicy(limit_s=60, backoff_s=(0.05, 0.2))


def statements(shop: Shop) -> tuple[Statement, ...]:
    """What apply would run."""
    return shop.playbook().phase("1").preview().steps[0][1]


def change_plan(shop: Shop, old: str, new: str) -> None:
    """Writes the plan with other words."""
    text = shop.plan.read_text()
    assert old in text
    shop.plan.write_text(text.replace(old, new))


def loaded(shop: Shop, **settings: Any) -> AbstractContextManager[Timeline]:
    """Beside the load that tells the table from its twin."""
    context = shop.context()
    return under_load(shop.target.connect, shop.target.conninfo, context.names.relation("entries"), "at", **settings)


def rows(shop: Shop, table: str = "entries") -> list[Any]:
    """All of them, in order."""
    return shop.execute(f"SELECT * FROM {table} ORDER BY id, at")


def kind(shop: Shop, table: str = "entries") -> str | None:
    """r, p for a partitioned table, None where there is none."""
    return shop.execute(f"SELECT (SELECT relkind FROM pg_class WHERE oid = to_regclass('{table}'))")[0][0]


def described(shop: Shop) -> list[str]:
    """Everything that the table has, in words that are the same before and after where they mean the same."""
    with shop.target.connect() as connection:
        found = attributes.read(connection, "public.entries")
    return [line.partition(" PARTITION BY")[0] for line in recreate.description(found)]


@pytest.fixture
def copied(ledger: Shop) -> Shop:
    """The ledger with a plan that says `route: copy`."""
    change_plan(ledger, "every: month", COPY_PLAN)
    return ledger


def killed(shop: Shop, point: str, position: int) -> None:
    """Applies in another process that dies at that point of that statement."""
    assert shop.killed(STEP, point, position) == -9


def undone(shop: Shop) -> None:
    """Takes it back."""
    assert [one.error for one in undoing.undo(shop.context())] == [""]


@contextmanager
def meanwhile(*happens: tuple[str, Callable[[], Any]]) -> Iterator[None]:
    """`happens` are pairs: once, before the first statement is sent that holds the text, the function is called.

    Of statements that run beside each other one waits for what happens before the other.
    """
    intent, happening = StatementRecord.intent, threading.Lock()
    waiting = list(happens)

    def striking(record: StatementRecord, *arguments: Any) -> None:
        with happening:
            for pair in [pair for pair in waiting if record.direction == "apply" and pair[0] in record.statement.sql]:
                waiting.remove(pair)
                pair[1]()
        intent(record, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatementRecord, "intent", striking)
        yield
    assert waiting == []


@contextmanager
def struck_between_chunks(strike: Callable[[], Any] = lambda: None, at: int = 4) -> Iterator[list[StatementRecord]]:
    """Rows are copied three pages at a time; before the round of that number it strikes. Those that were begun."""
    intent, rounds = StatementRecord.intent, itertools.count(1)
    begun: list[StatementRecord] = []

    def counting(record: StatementRecord, *arguments: Any) -> None:
        if COPY in record.statement.sql:
            begun.append(record)
            if next(rounds) == at:
                strike()
        intent(record, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGES", 3)
        patch.setattr(StatementRecord, "intent", counting)
        yield begun


@contextmanager
def a_half_fails(shop: Shop) -> Iterator[None]:
    """The disk is full for it; the other waits for somebody who keeps it from a partition, and would do so for an hour."""
    go_on = Sessions.go_on
    with shop.target.connect() as blocker, pytest.MonkeyPatch.context() as patch:

        def fail() -> None:
            blocker.execute("BEGIN; LOCK TABLE entries_2026_01, entries_2026_05 IN SHARE MODE")
            raise psycopg.errors.DiskFull("could not extend file")

        patch.setattr(Sessions, "go_on", lambda sessions: (blocker.rollback(), go_on(sessions)))
        with struck_between_chunks(fail):
            yield
