"""The attach route: the old table becomes the first partition of a new parent, and no row is copied.

History stays one partition up to a cutoff that lies at least a week ahead; from there on each period has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property

from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.dependents import Dependents
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, bound, following
from playbook.target.sql import Statement, literal, quote

EXCLUSIVE = "ACCESS EXCLUSIVE"
CONCURRENT = "SHARE UPDATE EXCLUSIVE"


@dataclass(frozen=True)
class Attach:
    """One table on its way. `user` is the role at work, `building` the name under which the parent is built.

    `dropped` names the foreign keys of other tables that the plan gives up, `default` asks for a default partition.
    """

    table: Attributes
    dependents: Dependents
    key: str
    cutoff: Period
    building: str
    user: str
    ahead: int
    default: bool

    @property
    def name(self) -> str:
        """The table's quoted name, and afterwards the partitioned parent's."""
        return self.table.qualified

    @property
    def history_name(self) -> str:
        """What the old table is called as a partition."""
        return fit(self.table.name, "_history")

    @property
    def history(self) -> str:
        """The same, quoted."""
        return quote(self.table.schema, self.history_name)

    @property
    def parent(self) -> str:
        """The quoted name of the parent while it is built."""
        return quote(self.table.schema, self.building)

    @property
    def check(self) -> str:
        """The name of the CHECK that says in advance what the partition's bound will."""
        return check_name(self.table.name, self.cutoff.start)

    @property
    def bound(self) -> str:
        """The cutoff as a literal of the key's type."""
        return bound(self.cutoff.start, self.table.column(self.key).type)

    @cached_property
    def widened(self) -> bool:
        """Whether the primary key has yet to take the partition key in."""
        primary = self.table.primary_key
        return primary is not None and self.key not in primary.columns

    @property
    def wide_index(self) -> str:
        """The unique index on primary key and partition key."""
        assert self.table.primary_key
        return old_name(self.table.primary_key.name)

    @property
    def narrow_index(self) -> str:
        """The unique index that goes on keeping the old primary key unique within the history."""
        return fit(self.history_name, "_pkey_alone")

    @property
    def shared(self) -> tuple[Index, ...]:
        """The indexes that the parent can have: all but the unique ones without the key, and invalid ones."""
        return tuple(each for each in self.table.indexes if each.valid and not self.is_local(each))

    def is_local(self, index: Index) -> bool:
        """Whether the index can only be unique within each partition."""
        return index.unique and self.key not in index.columns

    def statements(self) -> tuple[Statement, ...]:
        """In order; nothing blocks writers but the CHECK, the foreign keys and the swap, each for a moment."""
        keys = self._keys() if self.widened else ()
        references = (self._foreign_keys(),) if self.table.foreign_keys else ()
        return (*keys, *self._checked(), self._build(), self._partitions(), *references, self._swap(), self._analyze())

    def _keys(self) -> tuple[Statement, ...]:
        primary = self.table.primary_key
        assert primary
        own = ", ".join(map(quote, primary.columns))
        wide = f"{own}, {quote(self.key)}"
        return (
            self._concurrently(self.wide_index, wide, f"the key ({wide}), which every partition can keep"),
            self._concurrently(self.narrow_index, own, f"({own}) stays unique within the history"),
        )

    def _concurrently(self, name: str, columns: str, purpose: str) -> Statement:
        qualified = quote(self.table.schema, name)
        return Statement(
            f"CREATE UNIQUE INDEX CONCURRENTLY {quote(name)}\n  ON {self.name} ({columns})",
            purpose,
            CONCURRENT,
            self.name,
            transactional=False,
            long=True,
            builds=qualified,
        )

    def _checked(self) -> tuple[Statement, Statement]:
        key, check = quote(self.key), quote(self.check)
        stands = f"EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE {self._is_check}"
        return (
            Statement(
                f"ALTER TABLE {self.name}\n  ADD CONSTRAINT {check} "
                f"CHECK ({key} IS NOT NULL AND {key} < {self.bound}) NOT VALID",
                f"rows of the history lie before {self.cutoff.start}; until the swap, later ones are refused",
                EXCLUSIVE,
                self.name,
                unless=f"{stands})",
            ),
            Statement(
                f"ALTER TABLE {self.name}\n  VALIDATE CONSTRAINT {check}",
                "verify that beside readers and writers, so that the swap need not",
                CONCURRENT,
                self.name,
                long=True,
                unless=f"{stands} AND convalidated)",
            ),
        )

    @property
    def _is_check(self) -> str:
        return f"conrelid = to_regclass({literal(self.name)}) AND conname = {literal(self.check)}"

    def _build(self) -> Statement:
        a, place = self.table, self.parent
        primary = a.primary_key
        not_null = {self.key, *(primary.columns if primary else ())}
        commands = [
            recreate.create_table(
                a, place, new_name, tail=f" PARTITION BY RANGE ({quote(self.key)})", not_null=not_null
            )
        ]
        commands += recreate.owner(a, place, self.user)
        commands += recreate.column_settings(a, place)
        commands += [command for each in self.shared if each is not primary for command in self._index(each)]
        commands += self._primary_key()
        commands += recreate.statistics(a, place, new_name, self.user)
        commands += recreate.triggers(a, place)
        commands += recreate.row_security(a, place)
        commands += recreate.comments(a, place)
        commands += recreate.grants(a, place)
        commands += recreate.replica_identity(a, place, {quote(new_name(each.name)) for each in self.shared})
        return Statement(
            _script(commands),
            "the partitioned parent, with everything that the table has",
            relation=place,
            unless=_stands(place),
        )

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
            f"ALTER TABLE {self.parent} ADD CONSTRAINT {quote(name)} PRIMARY KEY ({columns}){_deferral(primary)}",
            *recreate.comment(f"INDEX {quote(self.table.schema, name)}", primary.comment),
            *recreate.comment(f"CONSTRAINT {quote(name)} ON {self.parent}", primary.constraint_comment),
        ]

    def _partitions(self) -> Statement:
        periods = list(following(self.cutoff, self.ahead))
        commands = [command for period in periods for command in self.partition(period, self.parent)]
        last = self.partition_name(periods[-1])
        if self.default:
            last = fit(self.table.name, "_default")
            commands += self._partition(last, "DEFAULT", self.parent)
        rest = ", and one for what fits into none" if self.default else ""
        return Statement(
            _script(commands),
            f"a partition each for {periods[0].label} to {periods[-1].label}{rest}",
            relation=self.parent,
            unless=_stands(quote(self.table.schema, last)),
        )

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

    def _foreign_keys(self) -> Statement:
        commands = recreate.foreign_keys(self.table, self.parent)
        last = self.table.foreign_keys[-1]
        return Statement(
            _script(commands),
            "what it refers to, verified at once since it is empty",
            "SHARE ROW EXCLUSIVE",
            self._referenced(),
            unless="EXISTS (SELECT FROM pg_catalog.pg_constraint "
            f"WHERE conrelid = to_regclass({literal(self.parent)}) AND conname = {literal(last.name)})",
        )

    def _referenced(self) -> str:
        return " and ".join(dict.fromkeys(each.references or "" for each in self.table.foreign_keys))

    def _swap(self) -> Statement:
        a = self.table
        commands = [f"LOCK TABLE {self.name} IN ACCESS EXCLUSIVE MODE"]
        commands += [f"DROP TRIGGER {quote(each.name)} ON {self.name}" for each in a.triggers]
        commands += [
            f"ALTER TABLE {each.table} DROP CONSTRAINT {quote(each.name)}" for each in self.dependents.references
        ]
        commands += self._hand_sequences_over()
        if not a.column(self.key).not_null:
            commands.append(f"ALTER TABLE {self.name} ALTER COLUMN {quote(self.key)} SET NOT NULL")
        commands += self._narrow_to_wide()
        commands += self._renames(forward=True)
        commands += [
            f"ALTER TABLE {self.name} ATTACH PARTITION {self.history} FOR VALUES FROM (MINVALUE) TO ({self.bound})",
            f"ALTER TABLE {self.history} DROP CONSTRAINT {quote(self.check)}",
        ]
        commands += [f"ALTER SEQUENCE {each.qualified} OWNED BY {self.name}.{quote(each.column)}" for each in a.serial]
        commands += recreate.policies(a, self.name)
        commands += self._repointed()
        commands += [self._published(each.name, each.rows, each.columns) for each in a.publications if each.named]
        return Statement(
            _script(commands),
            f"the swap: {self.history_name} becomes a partition of what now is called {a.name}",
            EXCLUSIVE,
            " and ".join(dict.fromkeys([self.name, *self._others_locked()])),
            unless=_is_kind(self.name, "p"),
            guarded=True,
        )

    def _others_locked(self) -> list[str]:
        views = [each.name for each in self.dependents.views]
        referring = [each.table for each in self.dependents.references]
        return [*(each.references or "" for each in self.table.foreign_keys), *referring, *views]

    def _narrow_to_wide(self) -> list[str]:
        primary = self.table.primary_key
        if primary is None or not self.widened:
            return []
        wide = quote(self.wide_index)
        return [
            f"ALTER TABLE {self.name} DROP CONSTRAINT {quote(primary.name)}, "
            f"ADD CONSTRAINT {wide} PRIMARY KEY USING INDEX {wide}{_deferral(primary)}"
        ]

    def _renames(self, *, forward: bool) -> list[str]:
        """The parent takes the table's name and its indexes' names, or gives them back."""
        a = self.table
        there = [("TABLE", a.name, self.history_name), ("TABLE", self.building, a.name)]
        for index in self.shared:
            there += [("INDEX", index.name, old_name(index.name)), ("INDEX", new_name(index.name), index.name)]
        if self.widened and a.primary_key:  # the history's own was replaced by one of another name
            there.append(("INDEX", new_name(a.primary_key.name), a.primary_key.name))
        for each in a.statistics:
            there += [("STATISTICS", each.name, old_name(each.name)), ("STATISTICS", new_name(each.name), each.name)]
        schemas = {("STATISTICS", name): each.schema for each in a.statistics
                   for name in (each.name, old_name(each.name), new_name(each.name))}  # fmt: skip
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
                _held(each.qualified, each.options),
                f"SELECT pg_catalog.setval({literal(new)}, last_value, is_called) FROM {each.qualified}",
                f"ALTER TABLE {self.name} ALTER COLUMN {quote(each.column)} DROP IDENTITY",
                f"ALTER SEQUENCE {new} RENAME TO {quote(each.name)}",
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

    def _analyze(self) -> Statement:
        return Statement(
            f"ANALYZE {self.name}",
            "statistics of the whole, which nobody else gathers for a partitioned table",
            CONCURRENT,
            self.name,
            long=True,
        )

    def new_names(self) -> list[str]:
        """The quoted names that have to be free: of the parent, the history, the partitions and their indexes."""
        a = self.table
        names = [self.building, self.history_name, *map(self.partition_name, following(self.cutoff, self.ahead))]
        names += [fit(a.name, "_default")] if self.default else []
        names += [self.narrow_index] if self.widened else []
        names += [rename(index.name) for index in self.shared for rename in (new_name, old_name)]
        names += [rename(each.name) for each in a.identity for rename in (new_name, old_name)]
        return [quote(a.schema, name) for name in dict.fromkeys(names)]

    def makes(self) -> tuple[str, ...]:
        """The quoted names of what stands after some statement, of which undo would take back something."""
        indexes = (self.wide_index, self.narrow_index) if self.widened else ()
        check = f"{quote(self.check)} ON {self.name}"
        return (self.name, self.parent, check, *(quote(self.table.schema, each) for each in indexes))

    def undo(self) -> tuple[Statement, ...]:
        """From wherever it came to: each statement finds out whether it is still needed."""
        statements = [self._swap_back(), self._drop_parent(), self._drop_check()]
        if self.widened:
            statements += [self._drop_index(self.wide_index), self._drop_index(self.narrow_index)]
        statements += [self._verify_reference(position) for position, each in enumerate(self.dependents.references)
                       if each.validated]  # fmt: skip
        return tuple(statements)

    def _swap_back(self) -> Statement:
        a = self.table
        rows = ", ".join(quote(column.name) for column in a.columns if not column.generated)
        system = " OVERRIDING SYSTEM VALUE" if any(column.identity == "a" for column in a.columns) else ""
        forced = [self.name, self.history] if a.force_row_security else []
        commands = [f"LOCK TABLE {self.name} IN ACCESS EXCLUSIVE MODE", "SET LOCAL row_security = off"]
        commands += [f"ALTER TABLE {self.name} DETACH PARTITION {self.history}"]
        commands += [f"ALTER TABLE {each} NO FORCE ROW LEVEL SECURITY" for each in forced]
        commands += [f"INSERT INTO {self.history} ({rows}){system} SELECT {rows} FROM {self.name}"]
        commands += ["SET CONSTRAINTS ALL IMMEDIATE"]
        commands += [f"ALTER TABLE {each} FORCE ROW LEVEL SECURITY" for each in forced]
        commands += self._take_sequences_back()
        commands += self._renames(forward=False)
        commands += self._wide_to_narrow()
        if not a.column(self.key).not_null:
            commands.append(f"ALTER TABLE {self.name} ALTER COLUMN {quote(self.key)} DROP NOT NULL")
        commands += recreate.triggers(a, self.name)
        commands += self._repointed()
        commands += [
            f"ALTER TABLE {each.table} ADD CONSTRAINT {quote(each.name)} {_not_valid(each.definition)}"
            for each in self.dependents.references
        ]
        return Statement(
            _script(commands),
            "the swap back: rows written past the cutoff go into the old table, which has its name again",
            EXCLUSIVE,
            " and ".join(dict.fromkeys([self.name, *self._others_locked()])),
            unless=_is_kind(self.name, "r"),
        )

    def _take_sequences_back(self) -> list[str]:
        commands = [
            f"ALTER SEQUENCE {each.qualified} OWNED BY {self.history}.{quote(each.column)}"
            for each in self.table.serial
        ]
        for each in self.table.identity:
            old, column = quote(each.schema, old_name(each.name)), self.table.column(each.column)
            commands += [
                _held(each.qualified, each.options),
                f"ALTER TABLE {self.history} ALTER COLUMN {quote(each.column)} "
                f"ADD {recreate.identity(column, each, old)}",
                f"SELECT pg_catalog.setval({literal(old)}, last_value, is_called) FROM {each.qualified}",
                f"ALTER TABLE {self.name} ALTER COLUMN {quote(each.column)} DROP IDENTITY",
                f"ALTER SEQUENCE {old} RENAME TO {quote(each.name)}",
                *recreate.sequence(each, each.qualified),
            ]
        return commands

    def _wide_to_narrow(self) -> list[str]:
        primary = self.table.primary_key
        if primary is None or not self.widened:
            return []
        name, narrow = quote(primary.name), quote(self.narrow_index)
        return [
            f"ALTER TABLE {self.name} DROP CONSTRAINT {quote(self.wide_index)}, "
            f"ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {narrow}{_deferral(primary)}",
            *recreate.comment(f"INDEX {quote(self.table.schema, primary.name)}", primary.comment),
            *recreate.comment(f"CONSTRAINT {name} ON {self.name}", primary.constraint_comment),
        ]

    def _drop_parent(self) -> Statement:
        return Statement(
            f"DROP TABLE IF EXISTS {self.parent}",
            "the parent, and the partitions that it still has: their rows are in the table",
            EXCLUSIVE,
            " and ".join(filter(None, (self.parent, self._referenced()))),
            unless=f"to_regclass({literal(self.parent)}) IS NULL",
        )

    def _drop_check(self) -> Statement:
        return Statement(
            f"ALTER TABLE {self.name}\n  DROP CONSTRAINT IF EXISTS {quote(self.check)}",
            "the CHECK of an interrupted run",
            EXCLUSIVE,
            self.name,
            unless=f"NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE {self._is_check})",
        )

    def _drop_index(self, name: str) -> Statement:
        qualified = quote(self.table.schema, name)
        return Statement(
            f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}",
            "the index of an interrupted run",
            CONCURRENT,
            self.name,
            transactional=False,
            long=True,
            unless=f"to_regclass({literal(qualified)}) IS NULL",
        )

    def _verify_reference(self, position: int) -> Statement:
        each = self.dependents.references[position]
        return Statement(
            f"ALTER TABLE {each.table}\n  VALIDATE CONSTRAINT {quote(each.name)}",
            f"verify what refers to {self.table.name} again",
            "ROW SHARE",
            self.name,
            long=True,
            unless="EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE convalidated "
            f"AND conrelid = to_regclass({literal(each.table)}) AND conname = {literal(each.name)})",
        )


def check_name(table: str, cutoff: date) -> str:
    """The CHECK's name, from which `cutoff_of` tells the cutoff again."""
    return fit(table, f"_before_{cutoff:%Y_%m_%d}")


def cutoff_of(table: Attributes) -> date | None:
    """The cutoff of a conversion that was begun on the table, from the CHECK that it left there."""
    for check in table.checks:
        try:
            cutoff = datetime.strptime(check.name[-10:], "%Y_%m_%d").date()
        except ValueError:
            continue
        if check.name == check_name(table.name, cutoff):
            return cutoff
    return None


def new_name(name: str) -> str:
    """What the parent's index or sequence is called until the swap."""
    return fit(name, "_partitioned")


def old_name(name: str) -> str:
    """What the history's index is called from then on."""
    return fit(name, "_history")


def _script(commands: list[str]) -> str:
    return ";\n".join(commands)


def _stands(qualified: str) -> str:
    return f"to_regclass({literal(qualified)}) IS NOT NULL"


def _is_kind(qualified: str, kind: str) -> str:
    which = f"oid = to_regclass({literal(qualified)}) AND relkind = '{kind}'"
    return f"EXISTS (SELECT FROM pg_catalog.pg_class WHERE {which})"


def _held(sequence: str, options: str) -> str:
    """An ALTER that changes nothing and locks the sequence: no number is drawn between reading it and handing it on."""
    cache = options.partition(" CACHE ")[2].split(" ")[0]
    return f"ALTER SEQUENCE {sequence} CACHE {cache}"


def _deferral(index: Index) -> str:
    definition = index.constraint_definition or ""
    return definition[definition.index(" DEFERRABLE") :] if " DEFERRABLE" in definition else ""


def _not_valid(definition: str) -> str:
    return definition if definition.endswith(" NOT VALID") else f"{definition} NOT VALID"
