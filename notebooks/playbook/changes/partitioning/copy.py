"""The copy route: rows are copied into the partitions beside their writers, and what these write meanwhile is replayed.

`change_log` says why no row is lost. The table itself stands by, unchanged, until the swap; from then on a log of what
is written to its successor lets it follow, so that undo returns it with every row, until the step is finished.
"""

from __future__ import annotations

from dataclasses import dataclass

from playbook.changes.conditions import is_gone, is_there
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.conversion import EXCLUSIVE, new_name, script
from playbook.changes.partitioning.exchange import Exchange
from playbook.changes.partitioning.pages import Pages
from playbook.target.sql import Statement, quote

LATER = "_changes_since"
"""How the names of the log end by which the old table follows its successor."""


@dataclass(frozen=True)
class Copy(Exchange):
    """One table on its way."""

    kept_suffix = "_unpartitioned"

    @property
    def log(self) -> ChangeLog:
        """What writers change while the rows are copied."""
        return ChangeLog(self.table, self.key, self.name, "_changes")

    @property
    def later(self) -> ChangeLog:
        """What they change after the swap."""
        return ChangeLog(self.table, self.key, self.parent, LATER, by_pair=True)

    @property
    def pages(self) -> Pages:
        """The rows that are there, and how far their copy has come."""
        return Pages(self.table, self.parent, self.log)

    def is_followed(self, found: Attributes) -> bool:
        """Whether both triggers stand and fire always."""
        firing = {each.name for each in found.triggers if each.enabled == "A"}
        return firing >= {self.log.trigger, self.log.truncate_trigger}

    def statements(self) -> tuple[Statement, ...]:
        """In order; nothing blocks writers but the triggers, the swap and the foreign keys, each for a moment."""
        if self.table.primary_key is None:
            return ()
        return (
            self._logs(),
            self._build(),
            self._partitions(),
            self._listen(),
            *self.pages.copy(),
            *self._indexes(),
            *self._analyze_sparsely(),
            self._listen_later(),
            self._replay(),
            self._verify(),
            self._swap(),
            self._tidy(),
            *self._foreign_keys(),
        )

    def _logs(self) -> Statement:
        return Statement(
            script([*self.log.create(), *self.later.create(), *self.pages.create(self.first, self.last)]),
            "logs for the keys of rows that are changed before the swap and after it, and how far the copy has come",
            relation=self.log.name,
            unless=is_there(self.pages.state),
        )

    def _listen(self) -> Statement:
        return Statement(
            script(self.log.listen()),
            "from here on writers note which rows they change, those of a replication as well",
            "SHARE ROW EXCLUSIVE",
            self.name,
            unless=self.log.listens,
        )

    def _listen_later(self) -> Statement:
        return Statement(
            script(self.later.listen()),
            f"the log by which {self.kept_name} will follow its successor",
            "SHARE ROW EXCLUSIVE",
            self.parent,
            unless=self.later.listens,
        )

    def _replay(self) -> Statement:
        return Statement(
            self.log.replay(self.name, self.parent),
            "replay what was changed meanwhile, until little is left",
            "ACCESS SHARE",
            self.name,
            long=True,
            repeats=True,
        )

    def _verify(self) -> Statement:
        return self._same_rows(self.log, self.name, self.parent)

    def _tidy(self) -> Statement:
        return Statement(
            script([*self.log.drop(), self.pages.drop()]),
            "the first log has served",
            unless=is_gone(self.pages.state),
        )

    def new_names(self) -> list[str]:
        """The quoted names that have to be free: of the parent, what is kept, the partitions, the logs and indexes."""
        a = self.table
        names = [self.building, self.kept_name, *self._partition_names()]
        names += [rename(each.name) for each in (*self.shared, *a.identity) for rename in (new_name, self.old_name)]
        names += [rename(a.primary_key.name) for rename in (new_name, self.old_name)] if a.primary_key else []
        quoted = [quote(a.schema, name) for name in dict.fromkeys(names)]
        return [*quoted, self.log.name, self.later.name, self.pages.state]

    def makes(self) -> tuple[str, ...]:
        """The parent under both its names, and the first thing that is made and the last that goes."""
        return (self.name, self.parent, self.pages.state)

    def undo(self) -> tuple[Statement, ...]:
        """From wherever it came to: each statement finds out whether it is still needed."""
        if self.table.primary_key is None:
            return ()
        return (
            *self._way_back(),
            *(self._verify_own(each) for each in self.table.foreign_keys),
            *(self._verify_reference(at) for at, each in enumerate(self.dependents.references) if each.validated),
        )

    def _way_back(self) -> tuple[Statement, ...]:
        """The swap back, and the end of all that was made."""
        return (
            self._follow(),
            self._verify_back(),
            self._swap_back(),
            self._silence(),
            self._drop_parent(),
            self._drop_logs(),
        )

    def _silence(self) -> Statement:
        return Statement(
            script(self.log.silence()),
            "writers note nothing any more",
            EXCLUSIVE,
            self.name,
            unless=self.log.is_deaf,
        )

    def _drop_logs(self) -> Statement:
        made = (self.log.name, self.later.name, self.pages.state)
        return Statement(
            script([*self.log.drop(), *self.later.drop(), self.pages.drop()]),
            "the logs have served",
            unless=" AND ".join(map(is_gone, made)),
        )
