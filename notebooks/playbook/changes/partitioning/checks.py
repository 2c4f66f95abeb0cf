"""A CHECK that says in advance what a partition's bound will: PostgreSQL then need not read the rows in the swap."""

from __future__ import annotations

from dataclasses import dataclass

from playbook.changes.conditions import is_constrained, is_valid
from playbook.changes.partitioning.conversion import CONCURRENT, EXCLUSIVE
from playbook.target.sql import Statement, quote


@dataclass(frozen=True)
class Check:
    """One of the bare `name` on the table of the quoted name `place`."""

    place: str
    name: str
    condition: str

    @property
    def stands(self) -> str:
        """The condition that it is there, verified or not."""
        return is_constrained(self.name, self.place)

    def add(self, purpose: str, unless: str = "") -> Statement:
        """For rows to come; not where it stands, or `unless` holds."""
        return Statement(
            f"ALTER TABLE {self.place}\n  ADD CONSTRAINT {quote(self.name)} CHECK ({self.condition}) NOT VALID",
            purpose,
            EXCLUSIVE,
            self.place,
            unless=_either(unless, self.stands),
        )

    def verify(self, purpose: str, unless: str = "") -> Statement:
        """For those that are there, beside readers and writers."""
        return Statement(
            f"ALTER TABLE {self.place}\n  VALIDATE CONSTRAINT {quote(self.name)}",
            purpose,
            CONCURRENT,
            self.place,
            long=True,
            unless=_either(unless, is_valid(self.name, self.place)),
        )

    def drop(self) -> str:
        """The command that drops it where it stands."""
        return f"ALTER TABLE {self.place} DROP CONSTRAINT IF EXISTS {quote(self.name)}"


def _either(*conditions: str) -> str:
    return " OR ".join(filter(None, conditions))
