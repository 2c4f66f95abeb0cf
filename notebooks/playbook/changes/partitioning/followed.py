"""A table that stands by follows what is written to the one in its place, and takes that place back on undo."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from playbook.changes.conditions import is_kind, is_valid
from playbook.changes.partitioning import recreate, verification
from playbook.changes.partitioning.attributes import Constraint, Publication
from playbook.changes.partitioning.change_log import BATCH, BOUND, ROW_BY_ROW, ChangeLog
from playbook.changes.partitioning.conversion import CONCURRENT, EXCLUSIVE, Conversion, new_name, not_valid, script
from playbook.changes.partitioning.periods import Period
from playbook.target.sql import Statement, quote


@dataclass(frozen=True)
class Followed(Conversion):
    """Where `kept` is a table by itself, which a log lets follow."""

    @property
    @abstractmethod
    def later(self) -> ChangeLog:
        """What writers change while it stands by."""

    @property
    @abstractmethod
    def span(self) -> tuple[Period, Period]:
        """The first and the last of the periods whose rows are compared each by itself."""

    @property
    def swapped(self) -> tuple[str, str]:
        """The quoted names under which the successor and what it succeeded stand after the swap."""
        return self.name, self.kept

    @property
    def is_back(self) -> str:
        """The condition that the swap was not made yet, or is undone."""
        return is_kind(self.name, "r")

    def _follow(self) -> Statement:
        return Statement(
            self.later.replay(*self.swapped),
            f"replay into {self.kept_name} what was written since the swap",
            "ACCESS SHARE",
            self.swapped[0],
            long=True,
            repeats=True,
            unless=self.is_back,
        )

    def _verify_back(self) -> Statement:
        return self._same_rows(self.later, *self.swapped, unless=self.is_back)

    def _same_rows(self, log: ChangeLog, source: str, destination: str, unless: str = "") -> Statement:
        return Statement(
            verification.verify(self.table, self.key, self.span, log, source, destination),
            f"the same rows by number and checksum in each {self.span[0].every}, in one snapshot",
            "ACCESS SHARE",
            source,
            long=True,
            unless=unless,
            first=log.replay(source, destination),
        )

    def _swap_back(self) -> Statement:
        a = self.table
        commands = self._meet(self.later, *self.swapped)
        commands += self._stop(self.later, *self.swapped)
        commands.append(self._has_its_columns(self.name))
        commands += [f"ALTER PUBLICATION {quote(each.name)} DROP TABLE {self.name}" for each in self._publications()]
        commands += self._take_sequences_back()
        commands += self._renames(forward=False)
        commands += self._given_back()
        for each in a.foreign_keys:
            commands.append(self._add(each, a.name))
            commands += recreate.comment(f"CONSTRAINT {quote(each.name)} ON {self.name}", each.comment)
        commands += self._repointed()
        commands += [
            f"ALTER TABLE {each.table} ADD CONSTRAINT {quote(each.name)} {not_valid(each.definition)}"
            for each in self.dependents.references
        ]
        commands += [self._published(each.name, each.rows, each.columns) for each in self._publications()]
        return Statement(
            script(commands),
            "the swap back, with the last changes replayed in it: the old table has its name again",
            EXCLUSIVE,
            " and ".join(dict.fromkeys([self.name, *self._others_locked()])),
            unless=self.is_back,
            first=self.later.replay(*self.swapped),
        )

    def _given_back(self) -> list[str]:
        """What the table has only while it bears its name."""
        return recreate.triggers(self.table, self.name)

    def _meet(self, log: ChangeLog, source: str, destination: str) -> list[str]:
        """Brings the destination up to the present while writers go on; nobody can empty the source any more."""
        return [
            f"LOCK TABLE {source} IN SHARE UPDATE EXCLUSIVE MODE",
            *ROW_BY_ROW,
            log.holds_at_most(BATCH),
            log.catch_up(source, destination),
        ]

    def _stop(self, log: ChangeLog, source: str, destination: str) -> list[str]:
        """From here on nobody writes; what came in the last milliseconds is replayed."""
        return [
            f"LOCK TABLE {source} IN ACCESS EXCLUSIVE MODE",
            log.holds_at_most(BOUND),
            log.catch_up(source, destination),
            "SET CONSTRAINTS ALL IMMEDIATE",
        ]

    def _publications(self) -> list[Publication]:
        return [each for each in self.table.publications if each.named]

    def _add(self, each: Constraint, partition: str) -> str:
        """Enforced from here on, and verified later."""
        place = quote(self.table.schema, partition)
        return f"ALTER TABLE {place} ADD CONSTRAINT {quote(each.name)} {not_valid(each.definition)}"

    def _key_renames(self) -> list[tuple[str, str, str]]:
        primary = self.table.primary_key
        if primary is None or not self.widened:
            return []
        return [("INDEX", primary.name, self.old_name(primary.name)), ("INDEX", new_name(primary.name), primary.name)]

    def _verify_own(self, each: Constraint) -> Statement:
        return Statement(
            f"ALTER TABLE {self.name}\n  VALIDATE CONSTRAINT {quote(each.name)}",
            "verify what it refers to again",
            CONCURRENT,
            self.name,
            long=True,
            unless=is_valid(each.name, self.name),
        )
