"""The history that an attached table became is split into periods: copied into a partitioned table, which replaces it.

That table is one partition, like the history, and has the periods as partitions of its own: a single ATTACH takes a
millisecond however many there are. As partitions of the table itself they would take 25 ms for 24 of them, and 250 ms
for 120, while nobody may read or write. Pruning leaves out what a query cannot need on both levels.

Until then writers go on with the history, and `change_log` says why nothing of that is lost; afterwards the history
stands by and follows. The swap reads no row: a CHECK says of the new partition, and of the default partition, what
PostgreSQL would look for. A foreign key would be looked at as well, or, verified beforehand, have a row of the copy
hold on to what its original has let go: it becomes one of each partition in the swap, and again one of the whole when
each is verified.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from playbook.changes.conditions import is_gone, is_part, is_valid
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attach import check_name
from playbook.changes.partitioning.attributes import Attributes, Constraint
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.checks import Check
from playbook.changes.partitioning.conversion import EXCLUSIVE, held, new_name, not_valid, script
from playbook.changes.partitioning.copy import Copy
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, bound
from playbook.target.sql import Statement, literal, quote

SHARED_IDENTITY = 170000
"""From PostgreSQL 17 on partitions have the table's identity, those below a partition too; ATTACH forgets these."""


@dataclass(frozen=True)
class Split(Copy):
    """A history on its way: `table` is that partition of `whole`, with the foreign keys of that among its constraints.

    `others` are the quoted names of the other partitions, `rest` that of the default one among them.
    """

    kept_suffix = ""

    whole: Attributes
    others: tuple[str, ...]
    rest: str | None

    def partition_name(self, period: Period) -> str:
        """As one of the whole table."""
        return fit(self.whole.name, f"_{period.label}")

    @property
    def older(self) -> str:
        """The name of the partition for what is older than the first period."""
        return fit(self.whole.name, f"_before_{self.first.label}")

    @property
    def bound(self) -> str:
        """The end of the history as a literal of the key's type."""
        return bound(self.last.end, self.table.column(self.key).type)

    def statements(self) -> tuple[Statement, ...]:
        """In order; nothing blocks writers but the CHECK, the triggers, the swap and the foreign keys, for a moment."""
        return (*self._checked(self._of_rest()), *super().statements()) if self.table.primary_key else ()

    def _of_history(self, place: str) -> Check:
        """Says in advance what the bound will."""
        key = quote(self.key)
        return Check(place, check_name(self.table.name, self.last.end), f"{key} IS NOT NULL AND {key} < {self.bound}")

    def _of_rest(self) -> list[Check]:
        """The same of the default partition, in which ATTACH would look for rows of the new one."""
        key = quote(self.key)
        name = fit(self.table.name, f"_from_{self.last.end:%Y_%m_%d}")
        return [Check(self.rest, name, f"{key} IS NOT NULL AND {key} >= {self.bound}")] if self.rest else []

    def _checked(self, checks: list[Check], unless: str = "false") -> list[Statement]:
        """Verified beside readers and writers; none refuses a row that the bounds would let in."""
        why = "what the bounds say of {} already, so that the swap reads none of its rows"
        return [
            *(each.add(why.format(each.place), unless) for each in checks),
            *(each.verify("verify that beside readers and writers", unless) for each in checks),
        ]

    def _build(self) -> Statement:
        made, check = super()._build(), self._of_history(self.parent)
        commands = [made.sql, f"ALTER TABLE {check.place} ADD CONSTRAINT {quote(check.name)} CHECK ({check.condition})"]
        commands += recreate.row_security(self.table, self.parent)
        return replace(made, sql=script(commands), purpose="the partitioned table that will take the history's place")

    def _swap(self) -> Statement:
        whole, references = self.whole.qualified, self.table.foreign_keys
        taken, given = self._identity()
        commands = self._meet(self.log, self.name, self.parent)
        commands += [f"TRUNCATE {self.later.name}"]
        commands += [self._add(each, name) for each in references for name in self._partition_names()]
        commands += self._stop_whole(self.log, self.name, self.parent)
        commands += self.log.silence()
        commands += self._one_by_one()
        commands += [f"ALTER TABLE {whole} DETACH PARTITION {self.name}"]
        commands += [f"ALTER PUBLICATION {quote(each.name)} DROP TABLE {self.name}" for each in self._publications()]
        commands += taken
        commands += [f"ALTER TABLE {whole} ATTACH PARTITION {self.parent} FOR VALUES FROM (MINVALUE) TO ({self.bound})"]
        commands += given
        return Statement(
            script(commands),
            f"the swap, with the last changes replayed in it: {self.kept_name} is kept, and follows",
            EXCLUSIVE,
            self._locked(),
            unless=self._swapped,
            guarded=True,
            first=self.log.replay(self.name, self.parent),
        )

    def _stop_whole(self, log: ChangeLog, source: str, destination: str) -> list[str]:
        """Whoever writes goes through the whole table; locked with it are its partitions."""
        first, *rest = self._stop(log, source, destination)
        return [first.replace(source, self.whole.qualified), *rest]

    def _one_by_one(self) -> list[str]:
        """The foreign keys of the whole become those of each other partition, enforced as ever, verified later."""
        commands = []
        for each in self.table.foreign_keys:
            commands.append(f"ALTER TABLE {self.whole.qualified} DROP CONSTRAINT {quote(each.name)}")
            commands += [_enforced(each, place) for place in self.others]
        return commands

    def _identity(self) -> tuple[list[str], list[str]]:
        """What is done before ATTACH and after it where the periods have to share in the identity.

        Else no DETACH of what they are in would be possible: they lack what it takes from them.
        """
        taken: list[str] = []
        given: list[str] = []
        if self.whole.server_version < SHARED_IDENTITY:
            return taken, given
        for each in self.whole.identity:
            name, column = each.qualified, self.whole.column(each.column)
            alter = f"ALTER TABLE {self.whole.qualified} ALTER COLUMN {quote(each.column)}"
            taken += [
                held(name, each.options),
                "SELECT set_config('playbook.drawn', last_value::text, true), "
                f"set_config('playbook.called', is_called::text, true) FROM {name}",
                f"{alter} DROP IDENTITY",
            ]
            given += [
                f"{alter} ADD {recreate.identity(column, each, name)}",
                f"SELECT pg_catalog.setval({literal(name)}, current_setting('playbook.drawn')::bigint, "
                "current_setting('playbook.called')::boolean)",
                *recreate.sequence(each, name),
            ]
        return taken, given

    def _locked(self) -> str:
        referenced = [each.references or "" for each in self.table.foreign_keys]
        return " and ".join(dict.fromkeys([f"{self.whole.qualified} with its partitions", *referenced]))

    def _tidy(self) -> Statement:
        checks = [self._of_history(self.parent), *self._of_rest()]
        tidied = super()._tidy()
        return replace(
            tidied,
            sql=script([*(each.drop() for each in checks), tidied.sql]),
            purpose="the first log and the CHECKs have served",
            lock=EXCLUSIVE,
            relation=" and ".join(each.place for each in checks),
        )

    def _foreign_key(self, each: Constraint) -> tuple[Statement, Statement]:
        places = [*(quote(self.table.schema, name) for name in self._partition_names()), *self.others]
        return self._again_of_whole(each, places, self.is_back)

    def _again_of_whole(self, each: Constraint, places: list[str], unless: str) -> tuple[Statement, Statement]:
        whole = self.whole.qualified
        stands = f"{unless} OR {is_valid(each.name, whole)}"
        return self._of_whole(each, whole, places, stands, stands)

    @property
    def swapped(self) -> tuple[str, str]:
        """The periods have the history's place, not its name."""
        return self.parent, self.name

    @property
    def is_back(self) -> str:
        """The condition that the periods are not in the history's place."""
        return f"NOT {self._swapped}"

    @property
    def _swapped(self) -> str:
        """The condition that the periods are in the history's place."""
        return is_part(self.parent, self.whole.qualified)

    def new_names(self) -> list[str]:
        """The quoted names that have to be free: of the new partition and its indexes, the periods and the logs."""
        names = [self.building, *self._partition_names(), *(new_name(each.name) for each in self.shared)]
        quoted = [quote(self.table.schema, name) for name in dict.fromkeys(names)]
        return [*quoted, self.log.name, self.later.name, self.pages.state]

    def undo(self) -> tuple[Statement, ...]:
        """From wherever it came to: each statement finds out whether it is still needed."""
        if self.table.primary_key is None:
            return ()
        return (
            *self._foreign_keys(),
            *self._checked([self._of_history(self.name), *self._of_rest()], self.is_back),
            *self._way_back(),
            self._drop_checks(),
            *(self._again(each)[at] for each in self.table.foreign_keys for at in (0, 1)),
        )

    def _again(self, each: Constraint) -> tuple[Statement, Statement]:
        """Nothing of that name is left once the step itself was taken back."""
        return self._again_of_whole(each, [self.name, *self.others], is_gone(self.name))

    def _swap_back(self) -> Statement:
        whole = self.whole.qualified
        commands = self._meet(self.later, *self.swapped)
        commands += [_enforced(each, self.name) for each in self.table.foreign_keys]
        commands += self._stop_whole(self.later, *self.swapped)
        commands.append(self._has_its_columns(self.whole.qualified))
        commands += self._one_by_one()
        commands += [
            f"ALTER TABLE {whole} DETACH PARTITION {self.parent}",
            f"ALTER TABLE {whole} ATTACH PARTITION {self.name} FOR VALUES FROM (MINVALUE) TO ({self.bound})",
        ]
        for each in self.table.foreign_keys:
            commands += recreate.comment(f"CONSTRAINT {quote(each.name)} ON {self.name}", each.comment)
        commands += [self._published(each.name, each.rows, each.columns) for each in self._publications()]
        return Statement(
            script(commands),
            "the swap back, with the last changes replayed in it: the history is one partition again",
            EXCLUSIVE,
            self._locked(),
            unless=self.is_back,
            first=self.later.replay(*self.swapped),
        )

    def _drop_checks(self) -> Statement:
        checks = [self._of_history(self.name), *self._of_rest()]
        return Statement(
            script([each.drop() for each in checks]),
            "the CHECKs have served",
            EXCLUSIVE,
            " and ".join(each.place for each in checks),
            unless=" AND ".join(f"NOT {each.stands}" for each in checks),
        )


def _enforced(each: Constraint, place: str) -> str:
    return f"ALTER TABLE {place} ADD CONSTRAINT {quote(each.name)} {not_valid(each.definition)}"
