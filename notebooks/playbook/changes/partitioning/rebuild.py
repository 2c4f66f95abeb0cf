"""Undo of the attach route once many rows lie past the cutoff: the table is built anew beside its writers.

The history cannot take such rows while it is a partition, and a moment without writers is enough for some thousand.
So with more all rows are copied into a table of their own, which then follows what is written, as `change_log` says,
until it changes places with the partitioned one in a short swap. That takes as much room on disk as the table has, and
reads all its rows, but nobody waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from playbook.changes.conditions import is_gone, is_kind, is_there
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Index
from playbook.changes.partitioning.change_log import BOUND, ChangeLog
from playbook.changes.partitioning.conversion import new_name, script
from playbook.changes.partitioning.followed import Followed
from playbook.changes.partitioning.pages import Pages
from playbook.changes.partitioning.periods import Period, bound
from playbook.target.sql import Statement, literal, quote

BACK = "_changes_back"
"""How the names of the log end by which the table that is built anew follows the partitioned one."""

_TAKES = "the table that was built anew takes the place of the partitioned one"


@dataclass(frozen=True)
class Rebuild(Followed):
    """The way back of a table whose rows before `cutoff` are in the partition of the quoted name `history`."""

    kept_suffix = "_rebuilt"

    cutoff: Period
    history: str

    @property
    def is_possible(self) -> bool:
        """Whether rows can be told from each other, are all seen by their owner, and go to no subscriber unasked."""
        a = self.table
        return bool(a.primary_key) and not a.force_row_security and all(each.named for each in a.publications)

    @property
    def later(self) -> ChangeLog:
        """What writers change while the rows are copied."""
        return ChangeLog(self.table, self.key, self.name, BACK, by_pair=True)

    @property
    def span(self) -> tuple[Period, Period]:
        """What is before the cutoff, in the first period after it, and later: each is compared by itself."""
        return self.cutoff, self.cutoff

    @property
    def pages(self) -> Pages:
        """The rows of the history, and how far their copy has come."""
        return Pages(replace(self.table, name=self.kept_name), self.kept, self.later, self.history)

    @property
    def is_back(self) -> str:
        """The condition that it was not begun, or that it has come to its end."""
        return f"({is_kind(self.name, 'r')} OR {is_gone(self.later.name)})"

    @property
    def _is_begun_or_needless(self) -> str:
        key, at_most = quote(self.key), f"LIMIT {BOUND + 1}"
        late = f"SELECT FROM {self.name} WHERE {key} >= {self._bound} {at_most}"
        return (
            f"CASE WHEN {is_kind(self.name, 'p')} AND {is_gone(self.later.name)}\n"
            f"  THEN (SELECT count(*) FROM ({late}) late) <= {BOUND} ELSE true END"
        )

    @property
    def _bound(self) -> str:
        return bound(self.cutoff.start, self.table.column(self.key).type)

    def statements(self) -> tuple[Statement, ...]:
        """Until the table has its place again; nothing blocks writers but the triggers and the swap, for a moment.

        Each does nothing where no more rows lie past the cutoff than a swap by itself can move.
        """
        if not self.is_possible:
            return ()
        found = (
            self._logs(),
            self._build(),
            self._listen(),
            *(replace(each, unless=self._unless(self._primary_name)) for each in self.pages.copy()),
            self._late_rows(),
            *(self._one_index(each) for each in self._indexes()),
            self._analyze_kept(),
            replace(self._follow(), purpose="replay what was changed meanwhile, until little is left"),
            replace(self._verify_back(), purpose="the same rows by number and checksum, in one snapshot"),
            replace(self._swap_back(), purpose=f"the swap back, with the last changes replayed in it: {_TAKES}"),
        )
        when = (
            f"only with more than {BOUND:,} rows past {self.cutoff.start}: the table is built anew beside its writers"
        )
        return tuple(replace(each, when=when) for each in found)

    def end(self) -> tuple[Statement, ...]:
        """What is left to do once the partitioned table is gone."""
        if not self.is_possible:
            return ()
        made = (self.later.name, self.pages.state)
        drop = Statement(
            script([*self.later.drop(), self.pages.drop()]),
            "the log has served",
            unless=" AND ".join(map(is_gone, made)),
        )
        return (drop, *(self._verify_own(each) for each in self.table.foreign_keys))

    def undo(self) -> tuple[Statement, ...]:
        """All of it, one after the other."""
        return (*self.statements(), *self.end())

    def _unless(self, name: str) -> str:
        """That it is over, or the relation of that bare name there."""
        return f"{self.is_back} OR {is_there(quote(self.table.schema, name))}"

    def _logs(self) -> Statement:
        return Statement(
            script([*self.later.create(), *self.pages.create(*self.span)]),
            "a log for the keys of rows that are changed while the table is built anew",
            relation=self.later.name,
            unless=self._is_begun_or_needless,
        )

    def _build(self) -> Statement:
        a, place = self.table, self.kept
        plain = replace(a, sequences=a.serial)  # the identity stays with who has the name
        options = f" WITH ({', '.join(a.options)})" if a.options else ""
        commands = [*_in(a.tablespace), recreate.create_table(plain, place, self.old_name, tail=options, not_null=())]
        commands += recreate.owner(a, place, self.user)
        commands += recreate.column_settings(a, place)
        commands += recreate.statistics(a, place, self.old_name, self.user)
        commands += recreate.comments(a, place)
        commands += recreate.grants(a, place)
        return Statement(
            script(commands), "the table as it was, without rows", relation=place, unless=self._unless(self.kept_name)
        )

    def _listen(self) -> Statement:
        return Statement(
            script(self.later.listen()),
            "from here on writers note which rows they change, those of a replication as well",
            "SHARE ROW EXCLUSIVE",
            f"{self.name} and its partitions",
            unless=f"{self.is_back} OR {self.later.listens}",
        )

    @property
    def _primary_name(self) -> str:
        assert self.table.primary_key
        return self.old_name(self.table.primary_key.name)

    def _late_rows(self) -> Statement:
        """The key with them: its index tells whether they were copied."""
        columns, primary = ", ".join(recreate.column_list(self.table)), self.table.primary_key
        assert primary
        commands = [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET LOCAL row_security = off",
            f"INSERT INTO {self.kept} ({columns}){recreate.overriding(self.table)}\n"
            f"  SELECT {columns} FROM {self.name} r WHERE {quote(self.key)} >= {self._bound}\n"
            f"    AND NOT {self.later.pending('r')}",
            *self._index(primary),
        ]
        return Statement(
            script(commands),
            f"the rows past {self.cutoff.start}, and the primary key of all",
            "ACCESS SHARE",
            self.name,
            long=True,
            unless=self._unless(self._primary_name),
        )

    def _indexes(self) -> list[Index]:
        return [each for each in self.table.indexes if each.valid and each is not self.table.primary_key]

    def _one_index(self, index: Index) -> Statement:
        return Statement(
            script(self._index(index)),
            f"what {index.name} was to the table, after the rows",
            "SHARE",
            self.kept,
            long=True,
            unless=self._unless(self.old_name(index.name)),
        )

    def _index(self, index: Index) -> list[str]:
        name = quote(self.old_name(index.name))
        clustered = [f"ALTER TABLE {self.kept} CLUSTER ON {name}"] if index.clustered else []
        return [*_in(index.tablespace), *recreate.index(self.table, index, self.kept, self.old_name), *clustered]

    def _analyze_kept(self) -> Statement:
        return replace(self._analyze(self.kept), purpose="its statistics", unless=self.is_back)

    def _given_back(self) -> list[str]:
        a, place = self.table, self.name
        return [
            *super()._given_back(),
            *recreate.row_security(a, place),
            *recreate.policies(a, place),
            *recreate.replica_identity(a, place, {quote(each.name) for each in a.indexes}),
        ]

    def _renames(self, *, forward: bool) -> list[str]:
        """An index that could not be the whole table's has kept its name in the history, which gives it up here."""
        own = [
            f"ALTER INDEX {quote(self.table.schema, name)} RENAME TO {quote(to)}"
            for index in self._indexes()
            if self.is_local(index)
            for name, to in ((index.name, new_name(index.name)), (self.old_name(index.name), index.name))
        ]
        return [*own, *super()._renames(forward=forward)]

    def new_names(self) -> list[str]:
        """The quoted names that have to be free."""
        a = self.table
        if not self.is_possible:
            return []
        names = [self.kept_name, *(self.old_name(each.name) for each in (*a.indexes, *a.identity))]
        names += [new_name(each.name) for each in self._indexes() if self.is_local(each)]
        quoted = [quote(a.schema, name) for name in dict.fromkeys(names)]
        return [*quoted, self.later.name, self.pages.state]

    def makes(self) -> tuple[str, ...]:
        """Nothing that stands beside what the attach route makes."""
        return ()

    def limit(self) -> tuple[date, str, bool]:
        """The cutoff; rows may be past it."""
        return self.cutoff.start, self._bound, True


def _in(tablespace: str | None) -> list[str]:
    """Where what is made next is to lie: where it lay before, whatever is the default for others."""
    return [f"SET LOCAL default_tablespace = {quote(tablespace) if tablespace else literal('')}"]
