"""How a table and its successor change places: with the last changes replayed while nobody may write."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from playbook.changes.conditions import is_kind, is_valid
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Constraint
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.conversion import CONCURRENT, EXCLUSIVE, script
from playbook.changes.partitioning.followed import Followed
from playbook.changes.partitioning.periods import Period
from playbook.changes.partitioning.successor import Successor
from playbook.target.sql import Statement, quote


@dataclass(frozen=True)
class Exchange(Successor, Followed):
    """Of two tables that a log each lets follow the other."""

    @property
    @abstractmethod
    def log(self) -> ChangeLog:
        """What writers change while the rows are copied."""

    @property
    def span(self) -> tuple[Period, Period]:
        """Those with a partition each."""
        return self.first, self.last

    def _swap(self) -> Statement:
        a = self.table
        commands = self._meet(self.log, self.name, self.parent)
        commands += [f"TRUNCATE {self.later.name}"]
        commands += [self._add(each, name) for each in a.foreign_keys for name in self._partition_names()]
        commands += self._stop(self.log, self.name, self.parent)
        commands += self.log.silence()
        commands += [f"DROP TRIGGER {quote(each.name)} ON {self.name}" for each in a.triggers]
        commands += [f"ALTER TABLE {self.name} DROP CONSTRAINT {quote(each.name)}" for each in a.foreign_keys]
        commands += [
            f"ALTER TABLE {each.table} DROP CONSTRAINT {quote(each.name)}" for each in self.dependents.references
        ]
        commands += [f"ALTER PUBLICATION {quote(each.name)} DROP TABLE {self.name}" for each in self._publications()]
        commands += self._hand_sequences_over()
        commands += self._renames(forward=True)
        commands += [f"ALTER SEQUENCE {each.qualified} OWNED BY {self.name}.{quote(each.column)}" for each in a.serial]
        commands += recreate.row_security(a, self.name)
        commands += recreate.policies(a, self.name)
        commands += recreate.triggers(a, self.name)
        commands += recreate.replica_identity(a, self.name, {quote(each.name) for each in self.shared})
        commands += self._repointed()
        commands += [self._published(each.name, each.rows, each.columns) for each in self._publications()]
        return Statement(
            script(commands),
            f"the swap, with the last changes replayed in it: the table is kept as {self.kept_name}",
            EXCLUSIVE,
            " and ".join(dict.fromkeys([self.name, *self._others_locked()])),
            unless=is_kind(self.name, "p"),
            guarded=True,
            first=self.log.replay(self.name, self.parent),
        )

    def _foreign_keys(self) -> list[Statement]:
        return [statement for each in self.table.foreign_keys for statement in self._foreign_key(each)]

    def _foreign_key(self, each: Constraint) -> tuple[Statement, Statement]:
        places = [quote(self.table.schema, name) for name in self._partition_names()]
        return self._of_whole(each, self.name, places, is_valid(each.name, places[-1]), is_valid(each.name, self.name))

    def _of_whole(
        self, each: Constraint, whole: str, places: list[str], verified: str, stands: str
    ) -> tuple[Statement, Statement]:
        """Of a foreign key that each of the places has by itself, one of the whole; the two conditions end the work."""
        name = quote(each.name)
        commands = [
            f"ALTER TABLE {whole} ADD CONSTRAINT {name} {each.definition}",
            *recreate.comment(f"CONSTRAINT {name} ON {whole}", each.comment),
        ]
        return (
            Statement(
                script([f"ALTER TABLE {place} VALIDATE CONSTRAINT {name}" for place in places]),
                f"verify {each.name}, which each partition keeps already",
                CONCURRENT,
                whole,
                long=True,
                unless=verified,
            ),
            Statement(
                script(commands),
                f"{each.name} as one of the whole table",
                "SHARE ROW EXCLUSIVE",
                " and ".join([whole, each.references or ""]),
                unless=stands,
            ),
        )
