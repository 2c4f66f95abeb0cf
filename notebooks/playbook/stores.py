"""Where a journal may stand: what every such place offers, and the tables that it holds."""

from __future__ import annotations

from typing import Any, Protocol

from playbook.changes.change import Finding
from playbook.target.sql import Statement

_STEP = """
CREATE TABLE {prefix}step (
  plan text NOT NULL,
  step text NOT NULL,
  position bigint NOT NULL,
  kind text NOT NULL,
  status text NOT NULL,
  reason text NOT NULL,
  run_id text NOT NULL,
  changed_at text NOT NULL,
  seconds double precision NOT NULL,
  statements text NOT NULL,
  undo text NOT NULL,
  objects text NOT NULL,
  evidence text NOT NULL,
  PRIMARY KEY (plan, step)
)"""
_STATEMENT = """
CREATE TABLE {prefix}statement (
  plan text NOT NULL,
  step text NOT NULL,
  direction text NOT NULL,
  position bigint NOT NULL,
  sql text NOT NULL,
  state text NOT NULL,
  backend_pid bigint NOT NULL,
  backend_start text NOT NULL,
  changed_at text NOT NULL,
  PRIMARY KEY (plan, step, direction, position)
)"""
DEFINITIONS = (_STEP, _STATEMENT)
"""How its two tables are made, with the `prefix` of the store."""


class Store(Protocol):
    """Where a journal stands: two tables reached with SQL that PostgreSQL and SQLite share (`?` for values)."""

    prefix: str
    place: str
    announcement: str

    def statements(self) -> tuple[Statement, ...]:
        """What creating the store runs on the target, for `preview`; empty when it stands."""

    def exists(self) -> bool:
        """Whether the tables stand."""

    def has(self, table: str) -> bool:
        """Whether the journal stands and a further table of that name beside it."""

    def create(self) -> None:
        """Makes the tables."""

    def drop(self) -> str:
        """Removes the tables and what holds them; says what was removed."""

    def obstacles(self) -> list[Finding]:
        """What speaks against writing the journal there."""

    def session(self) -> Any:
        """A context manager that yields `execute(sql, values) -> rows` and commits at its end."""

    def reading(self) -> Any:
        """The same for what is only read; it yields None where the tables do not stand."""
