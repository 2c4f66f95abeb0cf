"""How a table and its successor change places, and back: with the last changes replayed while nobody may write."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from playbook.changes.conditions import is_kind, is_valid
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Constraint, Publication
from playbook.changes.partitioning.change_log import BATCH, BOUND, ROW_BY_ROW, ChangeLog
from playbook.changes.partitioning.conversion import CONCURRENT, EXCLUSIVE, new_name, not_valid, script
from playbook.changes.partitioning.successor import Successor
from playbook.target.sql import Statement, quote


@dataclass(frozen=True)
class Exchange(Successor):
    """Of two tables that a log each lets follow the other."""

    @property
    @abstractmethod
    def log(self) -> ChangeLog:
        """What writers change while the rows are copied."""

    @property
    @abstractmethod
    def later(self) -> ChangeLog:
        """What they change after the swap."""

    @property
    def swapped(self) -> tuple[str, str]:
        """The quoted names under which the successor and what it succeeded stand after the swap."""
        return self.name, self.kept

    @property
    def is_back(self) -> str:
        """The condition that the swap was not made yet, or is undone."""
        return is_kind(self.name, "r")

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

    def _swap_back(self) -> Statement:
        a = self.table
        commands = self._meet(self.later, *self.swapped)
        commands += self._stop(self.later, *self.swapped)
        commands += [f"ALTER PUBLICATION {quote(each.name)} DROP TABLE {self.name}" for each in self._publications()]
        commands += self._take_sequences_back()
        commands += self._renames(forward=False)
        commands += recreate.triggers(a, self.name)
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

    def _verify_own(self, each: Constraint) -> Statement:
        return Statement(
            f"ALTER TABLE {self.name}\n  VALIDATE CONSTRAINT {quote(each.name)}",
            "verify what it refers to again",
            CONCURRENT,
            self.name,
            long=True,
            unless=is_valid(each.name, self.name),
        )
