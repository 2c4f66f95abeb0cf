"""The attach route: the old table becomes the first partition of a new parent, and no row is copied.

History stays one partition up to a cutoff that lies at least a week ahead; from there on each period has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date, datetime

from playbook.changes.conditions import is_constrained, is_gone, is_kind, is_there
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.checks import Check
from playbook.changes.partitioning.conversion import (
    CONCURRENT,
    EXCLUSIVE,
    Conversion,
    deferral,
    new_name,
    not_valid,
    script,
)
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, bound, following
from playbook.changes.partitioning.rebuild import Rebuild
from playbook.target.sql import Statement, quote

_STOP_WRITERS = "; beside writers only as many as take 40 ms, so stop them where there are more"


@dataclass(frozen=True)
class Attach(Conversion):
    """One table on its way; `cutoff` is the first period with a partition of its own."""

    kept_suffix = "_history"

    cutoff: Period

    @property
    def check(self) -> str:
        """The name of the CHECK that says in advance what the partition's bound will."""
        return check_name(self.table.name, self.cutoff.start)

    @property
    def bound(self) -> str:
        """The cutoff as a literal of the key's type."""
        return bound(self.cutoff.start, self.table.column(self.key).type)

    def limit(self) -> tuple[date, str, bool]:
        """The cutoff: until the swap later rows are refused."""
        return self.cutoff.start, self.bound, False

    @property
    def wide_index(self) -> str:
        """The unique index on primary key and partition key."""
        assert self.table.primary_key
        return self.old_name(self.table.primary_key.name)

    @property
    def narrow_index(self) -> str:
        """The unique index that goes on keeping the old primary key unique within the history."""
        return fit(self.kept_name, "_pkey_alone")

    def statements(self) -> tuple[Statement, ...]:
        """In order; nothing blocks writers but the CHECK, the foreign keys and the swap, each for a moment."""
        keys = self._keys() if self.widened else ()
        references = (self._foreign_keys(),) if self.table.foreign_keys else ()
        return (
            *keys,
            *self._checked(),
            self._build(),
            self._partitions(),
            *references,
            self._swap(),
            self._analyze(self.name),
        )

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
        key = quote(self.key)
        check = Check(self.name, self.check, f"{key} IS NOT NULL AND {key} < {self.bound}")
        return (
            check.add(f"rows of the history lie before {self.cutoff.start}; until the swap, later ones are refused"),
            check.verify("verify that beside readers and writers, so that the swap need not"),
        )

    def _build(self) -> Statement:
        a, place = self.table, self.parent
        commands = self._table()
        commands += [command for each in self.shared if each is not a.primary_key for command in self._index(each)]
        commands += self._primary_key()
        commands += recreate.statistics(a, place, new_name, self.user)
        commands += recreate.triggers(a, place)
        commands += recreate.row_security(a, place)
        commands += recreate.comments(a, place)
        commands += recreate.grants(a, place)
        commands += recreate.replica_identity(a, place, {quote(new_name(each.name)) for each in self.shared})
        return Statement(
            script(commands),
            "the partitioned parent, with everything that the table has",
            relation=place,
            unless=is_there(place),
        )

    def _partitions(self) -> Statement:
        periods = list(following(self.cutoff, self.ahead))
        commands = [command for period in periods for command in self.partition(period, self.parent)]
        last = self.partition_name(periods[-1])
        if self.default:
            last = fit(self.table.name, "_default")
            commands += self._partition(last, "DEFAULT", self.parent)
        rest = ", and one for what fits into none" if self.default else ""
        return Statement(
            script(commands),
            f"a partition each for {periods[0].label} to {periods[-1].label}{rest}",
            relation=self.parent,
            unless=is_there(quote(self.table.schema, last)),
        )

    def _foreign_keys(self) -> Statement:
        commands = recreate.foreign_keys(self.table, self.parent)
        last = self.table.foreign_keys[-1]
        return Statement(
            script(commands),
            "what it refers to, verified at once since it is empty",
            "SHARE ROW EXCLUSIVE",
            self._referenced(),
            unless=is_constrained(last.name, self.parent),
        )

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
            f"ALTER TABLE {self.name} ATTACH PARTITION {self.kept} FOR VALUES FROM (MINVALUE) TO ({self.bound})",
            f"ALTER TABLE {self.kept} DROP CONSTRAINT {quote(self.check)}",
        ]
        commands += [f"ALTER SEQUENCE {each.qualified} OWNED BY {self.name}.{quote(each.column)}" for each in a.serial]
        commands += recreate.policies(a, self.name)
        commands += self._repointed()
        commands += [self._published(each.name, each.rows, each.columns) for each in a.publications if each.named]
        return Statement(
            script(commands),
            f"the swap: {self.kept_name} becomes a partition of what now is called {a.name}",
            EXCLUSIVE,
            " and ".join(dict.fromkeys([self.name, *self._others_locked()])),
            unless=is_kind(self.name, "p"),
            guarded=True,
        )

    def _key_renames(self) -> list[tuple[str, str, str]]:
        """The history's own was replaced by one of another name."""
        primary = self.table.primary_key
        return [("INDEX", new_name(primary.name), primary.name)] if primary and self.widened else []

    def _narrow_to_wide(self) -> list[str]:
        primary = self.table.primary_key
        if primary is None or not self.widened:
            return []
        wide = quote(self.wide_index)
        return [
            f"ALTER TABLE {self.name} DROP CONSTRAINT {quote(primary.name)}, "
            f"ADD CONSTRAINT {wide} PRIMARY KEY USING INDEX {wide}{deferral(primary)}"
        ]

    def new_names(self) -> list[str]:
        """The quoted names that have to be free: of the parent, the history, the partitions and their indexes."""
        a = self.table
        names = [self.building, self.kept_name, *map(self.partition_name, following(self.cutoff, self.ahead))]
        names += [fit(a.name, "_default")] if self.default else []
        names += [self.narrow_index] if self.widened else []
        names += [rename(index.name) for index in self.shared for rename in (new_name, self.old_name)]
        names += [rename(each.name) for each in a.identity for rename in (new_name, self.old_name)]
        return [*(quote(a.schema, name) for name in dict.fromkeys(names)), *self.rebuild.new_names()]

    def makes(self) -> tuple[str, ...]:
        """The quoted names of what stands after some statement, of which undo would take back something."""
        indexes = (self.wide_index, self.narrow_index) if self.widened else ()
        check = f"{quote(self.check)} ON {self.name}"
        return (self.name, self.parent, check, *(quote(self.table.schema, each) for each in indexes))

    @property
    def rebuild(self) -> Rebuild:
        """The way back with many rows past the cutoff."""
        common = {each.name: getattr(self, each.name) for each in fields(Conversion)}
        return Rebuild(**common, cutoff=self.cutoff, history=self.kept)

    def undo(self) -> tuple[Statement, ...]:
        """From wherever it came to: each statement finds out whether it is still needed."""
        statements = [*self.rebuild.statements(), self._swap_back(), self._drop_parent(), *self.rebuild.end()]
        statements.append(self._drop_check())
        if self.widened:
            statements += [self._drop_index(self.wide_index), self._drop_index(self.narrow_index)]
        statements += [self._verify_reference(position) for position, each in enumerate(self.dependents.references)
                       if each.validated]  # fmt: skip
        return tuple(statements)

    def _swap_back(self) -> Statement:
        a = self.table
        rows, system = ", ".join(recreate.column_list(a)), recreate.overriding(a)
        forced = [self.name, self.kept] if a.force_row_security else []
        commands = [f"LOCK TABLE {self.name} IN ACCESS EXCLUSIVE MODE", self._has_its_columns(self.name)]
        commands += ["SET LOCAL row_security = off", f"ALTER TABLE {self.name} DETACH PARTITION {self.kept}"]
        commands += [f"ALTER TABLE {each} NO FORCE ROW LEVEL SECURITY" for each in forced]
        commands += [f"INSERT INTO {self.kept} ({rows}){system} SELECT {rows} FROM {self.name}"]
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
            f"ALTER TABLE {each.table} ADD CONSTRAINT {quote(each.name)} {not_valid(each.definition)}"
            for each in self.dependents.references
        ]
        which, also = ("few", "") if self.rebuild.is_possible else ("the", _STOP_WRITERS)
        return Statement(
            script(commands),
            f"the swap back, with {which} rows past {self.cutoff.start}: the old table takes them in, and has its name"
            f" again{also}",
            EXCLUSIVE,
            " and ".join(dict.fromkeys([self.name, *self._others_locked()])),
            unless=is_kind(self.name, "r"),
        )

    def _wide_to_narrow(self) -> list[str]:
        primary = self.table.primary_key
        if primary is None or not self.widened:
            return []
        name, narrow = quote(primary.name), quote(self.narrow_index)
        return [
            f"ALTER TABLE {self.name} DROP CONSTRAINT {quote(self.wide_index)}, "
            f"ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {narrow}{deferral(primary)}",
            *recreate.comment(f"INDEX {quote(self.table.schema, primary.name)}", primary.comment),
            *recreate.comment(f"CONSTRAINT {name} ON {self.name}", primary.constraint_comment),
        ]

    def _drop_check(self) -> Statement:
        return Statement(
            f"ALTER TABLE {self.name}\n  DROP CONSTRAINT IF EXISTS {quote(self.check)}",
            "the CHECK of an interrupted run",
            EXCLUSIVE,
            self.name,
            unless=f"NOT {is_constrained(self.check, self.name)}",
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
            unless=is_gone(qualified),
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
