"""The partitioned table that a copy is made into: its parent, a partition a period, and its indexes after the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

from playbook.changes.conditions import is_there
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Index
from playbook.changes.partitioning.conversion import CONCURRENT, Conversion, new_name, script
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, bound
from playbook.target.sql import Statement, literal, quote

SHARE_SAMPLED = 10
"""One row in so many is read for a partition's statistics, and no more than they ask for: many small ones add up."""
ROWS_PER_TARGET = 300
"""Rows that ANALYZE reads for each unit of the statistics target (the manual, default_statistics_target)."""
FEWEST = 10
"""The least statistics target that comes of it; values and bounds of this number are kept of each column."""


@dataclass(frozen=True)
class Successor(Conversion):
    """`first` and `last` are the periods that the oldest and the newest partition are for."""

    first: Period
    last: Period

    def limit(self) -> tuple[date, str, bool]:
        """The end of the last period."""
        return self.last.end, bound(self.last.end, self.table.column(self.key).type), self.default

    @property
    def older(self) -> str:
        """The name of the partition for what is older than the first period."""
        return fit(self.table.name, f"_before_{self.first.label}")

    @property
    def newer(self) -> str:
        """The name of the default partition."""
        return fit(self.table.name, "_default")

    def periods(self) -> Iterator[Period]:
        """Those that get a partition each."""
        period = self.first
        while period <= self.last:
            yield period
            period = period.next()

    @property
    def made(self) -> int:
        """Those of the past as well."""
        return sum(1 for _ in self.periods())

    def _partition_names(self) -> list[str]:
        return [self.older, *map(self.partition_name, self.periods()), *([self.newer] if self.default else [])]

    def _build(self) -> Statement:
        a, place = self.table, self.parent
        commands = self._table()
        commands += recreate.statistics(a, place, new_name, self.user)
        commands += recreate.comments(a, place)
        commands += recreate.grants(a, place)
        return Statement(script(commands), "the partitioned parent", relation=place, unless=is_there(place))

    def _partitions(self) -> Statement:
        column_type = self.table.column(self.key).type
        start = bound(self.first.start, column_type)
        commands = self._partition(self.older, f"FOR VALUES FROM (MINVALUE) TO ({start})", self.parent)
        commands += [command for period in self.periods() for command in self.partition(period, self.parent)]
        commands += self._partition(self.newer, "DEFAULT", self.parent) if self.default else []
        rest = ", and one for what fits into none" if self.default else ""
        return Statement(
            script(commands),
            f"a partition each for {self.first.label} to {self.last.label}, one for what is older{rest}",
            relation=self.parent,
            unless=is_there(quote(self.table.schema, self._partition_names()[-1])),
        )

    def _partition(self, name: str, values: str, parent: str) -> list[str]:
        """Indexes come after the rows."""
        return recreate.partition(self.table, name, values, parent, local=(), user=self.user)

    def _indexes(self) -> list[Statement]:
        shared = [
            self._one_index(each, self._index(each)) for each in self.shared if each is not self.table.primary_key
        ]
        primary = self.table.primary_key
        assert primary
        return [self._one_index(primary, self._primary_key()), *shared, *map(self._local, self._locals())]

    def _one_index(self, index: Index, commands: list[str]) -> Statement:
        return Statement(
            script(commands),
            f"what {index.name} is to the table, after the rows",
            "SHARE",
            self.parent,
            long=True,
            unless=is_there(quote(self.table.schema, new_name(index.name))),
            beside="" if index is self.table.primary_key or index.constraint else "indexes",
        )

    def _locals(self) -> list[Index]:
        return [each for each in self.table.indexes if each.valid and self.is_local(each)]

    def _local(self, index: Index) -> Statement:
        names = self._partition_names()
        commands = [command for name in names for command in recreate.local_index(self.table, index, name)]
        return Statement(
            script(commands),
            f"what {index.name} keeps unique stays so within each partition",
            "SHARE",
            self.parent,
            long=True,
            unless=is_there(quote(self.table.schema, recreate.local_name(index, names[-1]))),
            beside="" if index.replica_identity else "indexes",
        )

    def _analyze_sparsely(self) -> tuple[Statement, ...]:
        """The whole as ever; its partitions with a lower target where that would have most of their rows read.

        Together they still tell more than the table did by itself. Before PostgreSQL 18 neither goes without the other.
        """
        if self.table.server_version < 180000:
            return (self._analyze(self.parent),)
        target = "current_setting('default_statistics_target')::int"
        sample = SHARE_SAMPLED * ROWS_PER_TARGET * self.made
        share = f"coalesce(nullif(reltuples, -1) / {sample}, {target})::int"
        lower = f"least({target}, greatest({share}, {FEWEST}))"
        commands = [
            f"SELECT set_config('default_statistics_target', {lower}::text, true)\n"
            f"  FROM pg_catalog.pg_class WHERE oid = to_regclass({literal(self.name)})",
            f"ANALYZE {', '.join(quote(self.table.schema, name) for name in self._partition_names())}",
        ]
        partitions = Statement(
            script(commands), "statistics of each partition", CONCURRENT, self.parent, long=True, beside="statistics"
        )
        return (replace(self._analyze(f"ONLY {self.parent}"), relation=self.parent, beside="statistics"), partitions)
