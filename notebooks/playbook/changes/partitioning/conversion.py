"""What both routes of a conversion share: the parent that is built, the swap's parts, and the way back.

The parent is built beside the table, under a name of its own, with everything that the table has. In the swap the two
change places in one short transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import ClassVar

from playbook.changes.conditions import is_gone, is_valid
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.dependents import Dependents
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, bound
from playbook.target.sql import Statement, dollar_quoted, literal, quote

EXCLUSIVE = "ACCESS EXCLUSIVE"
CONCURRENT = "SHARE UPDATE EXCLUSIVE"


@dataclass(frozen=True)
class Conversion(ABC):
    """One table on its way. `user` is the role at work, `building` the name under which the parent is built.

    `ahead` is the number of periods that get a partition before they begin, `default` asks for a default partition.
    """

    kept_suffix: ClassVar[str]
    """How the names of the old table and its indexes end once the parent bears theirs."""

    table: Attributes
    dependents: Dependents
    key: str
    building: str
    user: str
    ahead: int
    default: bool

    @property
    def name(self) -> str:
        """The table's quoted name, and afterwards the partitioned parent's."""
        return self.table.qualified

    @property
    def kept_name(self) -> str:
        """What the old table is called after the swap."""
        return self.old_name(self.table.name)

    @property
    def kept(self) -> str:
        """The same, quoted."""
        return quote(self.table.schema, self.kept_name)

    @classmethod
    def old_name(cls, name: str) -> str:
        """What the old table, or an index, statistics object or sequence of it, of that name is called from then on."""
        return fit(name, cls.kept_suffix)

    @property
    def parent(self) -> str:
        """The quoted name of the parent while it is built."""
        return quote(self.table.schema, self.building)

    @cached_property
    def widened(self) -> bool:
        """Whether the primary key has yet to take the partition key in."""
        primary = self.table.primary_key
        return primary is not None and self.key not in primary.columns

    @property
    def shared(self) -> tuple[Index, ...]:
        """The indexes that the parent can have: all but the unique ones without the key, and invalid ones."""
        return tuple(each for each in self.table.indexes if each.valid and not self.is_local(each))

    def is_local(self, index: Index) -> bool:
        """Whether the index can only be unique within each partition."""
        return index.unique and self.key not in index.columns

    @abstractmethod
    def statements(self) -> tuple[Statement, ...]:
        """What apply runs, in order."""

    @abstractmethod
    def undo(self) -> tuple[Statement, ...]:
        """What takes it back from wherever it came to."""

    @abstractmethod
    def new_names(self) -> list[str]:
        """The quoted names that have to be free."""

    @abstractmethod
    def makes(self) -> tuple[str, ...]:
        """The quoted names of what stands after some statement, of which undo would take back something."""

    @property
    def made(self) -> int:
        """How many periods get a partition at once."""
        return self.ahead

    @abstractmethod
    def limit(self) -> tuple[date, str, bool]:
        """The day from which rows have no partition of their own, as a literal too, and whether they may be there."""

    def is_followed(self, found: Attributes) -> bool:
        """Whether what writers do to the table as it is found will be heard of, where that is needed."""
        return True

    @abstractmethod
    def _key_renames(self) -> list[tuple[str, str, str]]:
        """The renames, forward, that a widened primary key takes: what, from, to."""

    def _table(self) -> list[str]:
        """The parent with its columns and CHECKs."""
        a, place = self.table, self.parent
        primary = a.primary_key
        not_null = {self.key, *(primary.columns if primary else ())}
        tail = f" PARTITION BY RANGE ({quote(self.key)})"
        commands = [recreate.create_table(a, place, new_name, tail=tail, not_null=not_null)]
        commands += recreate.owner(a, place, self.user)
        return commands + recreate.column_settings(a, place)

    def _index(self, index: Index) -> list[str]:
        return recreate.index(self.table, index, self.parent, new_name)

    def _primary_key(self) -> list[str]:
        primary = self.table.primary_key
        if primary is None:
            return []
        if not self.widened:
            return self._index(primary)
        columns = ", ".join(map(quote, (*primary.columns, self.key)))
        name = new_name(primary.name)
        return [
            f"ALTER TABLE {self.parent} ADD CONSTRAINT {quote(name)} PRIMARY KEY ({columns}){deferral(primary)}",
            *recreate.comment(f"INDEX {quote(self.table.schema, name)}", primary.comment),
            *recreate.comment(f"CONSTRAINT {quote(name)} ON {self.parent}", primary.constraint_comment),
        ]

    def partition_name(self, period: Period) -> str:
        """`audit_logs_2024_01`."""
        return fit(self.table.name, f"_{period.label}")

    def partition(self, period: Period, parent: str) -> list[str]:
        """The commands that make one period's partition."""
        column_type = self.table.column(self.key).type
        low, high = bound(period.start, column_type), bound(period.end, column_type)
        return self._partition(self.partition_name(period), f"FOR VALUES FROM ({low}) TO ({high})", parent)

    def _partition(self, name: str, values: str, parent: str) -> list[str]:
        local = [index for index in self.table.indexes if index.valid and self.is_local(index)]
        return recreate.partition(self.table, name, values, parent, local=local, user=self.user)

    def _referenced(self) -> str:
        return " and ".join(dict.fromkeys(each.references or "" for each in self.table.foreign_keys))

    def _has_its_columns(self, place: str) -> str:
        """The command that fails where the table at `place` has other columns by now: the way back would lose them."""
        columns = ", ".join(literal(each.name) for each in self.table.columns)
        there = f"attrelid = to_regclass({literal(place)}) AND attnum > 0 AND NOT attisdropped"
        body = (
            "\nBEGIN\n"
            f"  IF ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE {there} ORDER BY 1)\n"
            f"    <> ARRAY(SELECT unnest(ARRAY[{columns}]) ORDER BY 1) THEN\n"
            f"    RAISE EXCEPTION '% has other columns by now: put them back, then undo again', {literal(place)}\n"
            "      USING ERRCODE = '55000';\n"
            "  END IF;\nEND "
        )
        return f"DO {dollar_quoted(body)}"

    def _others_locked(self) -> list[str]:
        views = [each.name for each in self.dependents.views]
        referring = [each.table for each in self.dependents.references]
        return [*(each.references or "" for each in self.table.foreign_keys), *referring, *views]

    def _renames(self, *, forward: bool) -> list[str]:
        """The parent takes the table's name and its indexes' names, or gives them back."""
        a = self.table
        there = [("TABLE", a.name, self.kept_name), ("TABLE", self.building, a.name)]
        for index in self.shared:
            there += [("INDEX", index.name, self.old_name(index.name)), ("INDEX", new_name(index.name), index.name)]
        there += self._key_renames()
        for each in a.statistics:
            old, new = self.old_name(each.name), new_name(each.name)
            there += [("STATISTICS", each.name, old), ("STATISTICS", new, each.name)]
        schemas = {("STATISTICS", name): each.schema for each in a.statistics
                   for name in (each.name, self.old_name(each.name), new_name(each.name))}  # fmt: skip
        pairs = there if forward else [(what, to, name) for what, name, to in reversed(there)]
        return [
            f"ALTER {what} {quote(schemas.get((what, name), a.schema), name)} RENAME TO {quote(to)}"
            for what, name, to in pairs
        ]

    def _hand_sequences_over(self) -> list[str]:
        """The identity goes to the parent, which has a sequence of its own by now, and with it the next number."""
        commands = []
        for each in self.table.identity:
            new = quote(each.schema, new_name(each.name))
            commands += [
                held(each.qualified, each.options),
                f"SELECT pg_catalog.setval({literal(new)}, last_value, is_called) FROM {each.qualified}",
                f"ALTER TABLE {self.name} ALTER COLUMN {quote(each.column)} DROP IDENTITY",
                f"ALTER SEQUENCE {new} RENAME TO {quote(each.name)}",
                *recreate.sequence(each, each.qualified),
            ]
        return commands

    def _take_sequences_back(self) -> list[str]:
        commands = [
            f"ALTER SEQUENCE {each.qualified} OWNED BY {self.kept}.{quote(each.column)}" for each in self.table.serial
        ]
        for each in self.table.identity:
            old, column = quote(each.schema, self.old_name(each.name)), self.table.column(each.column)
            commands += [
                held(each.qualified, each.options),
                f"ALTER TABLE {self.kept} ALTER COLUMN {quote(each.column)} ADD {recreate.identity(column, each, old)}",
                f"SELECT pg_catalog.setval({literal(old)}, last_value, is_called) FROM {each.qualified}",
                f"ALTER TABLE {self.name} ALTER COLUMN {quote(each.column)} DROP IDENTITY",
                f"ALTER SEQUENCE {old} RENAME TO {quote(each.name)}",
                *recreate.sequence(each, each.qualified),
            ]
        return commands

    def _repointed(self) -> list[str]:
        views = [each.command() for each in self.dependents.views]
        return views + [each.command.rstrip() for each in self.dependents.functions]

    def _published(self, name: str, rows: str | None, columns: tuple[str, ...]) -> str:
        only = f" ({', '.join(map(quote, columns))})" if columns else ""
        where = f" WHERE ({rows})" if rows else ""
        return f"ALTER PUBLICATION {quote(name)} ADD TABLE {self.name}{only}{where}"

    def _analyze(self, place: str) -> Statement:
        return Statement(
            f"ANALYZE {place}",
            "statistics of the whole, which nobody else gathers for a partitioned table",
            CONCURRENT,
            place,
            long=True,
        )

    def _drop_parent(self) -> Statement:
        return Statement(
            f"DROP TABLE IF EXISTS {self.parent}",
            "the parent, and the partitions that it still has: their rows are in the table",
            EXCLUSIVE,
            " and ".join(filter(None, (self.parent, self._referenced()))),
            unless=is_gone(self.parent),
        )

    def _verify_reference(self, position: int) -> Statement:
        each = self.dependents.references[position]
        return Statement(
            f"ALTER TABLE {each.table}\n  VALIDATE CONSTRAINT {quote(each.name)}",
            f"verify what refers to {self.table.name} again",
            "ROW SHARE",
            self.name,
            long=True,
            unless=is_valid(each.name, each.table),
        )


def new_name(name: str) -> str:
    """What the parent's index or sequence is called until the swap."""
    return fit(name, "_partitioned")


def script(commands: list[str]) -> str:
    """Several commands that go as one."""
    return ";\n".join(commands)


def held(sequence: str, options: str) -> str:
    """An ALTER that changes nothing and locks the sequence: no number is drawn between reading it and handing it on."""
    cache = options.partition(" CACHE ")[2].split(" ")[0]
    return f"ALTER SEQUENCE {sequence} CACHE {cache}"


def deferral(index: Index) -> str:
    """Whether and how a key is deferrable, as its constraint says it."""
    definition = index.constraint_definition or ""
    return definition[definition.index(" DEFERRABLE") :] if " DEFERRABLE" in definition else ""


def not_valid(definition: str) -> str:
    """A foreign key that is to be verified later."""
    return definition if definition.endswith(" NOT VALID") else f"{definition} NOT VALID"
