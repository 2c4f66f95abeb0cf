"""The copy route: rows are copied into the partitions beside their writers, and what these write meanwhile is replayed.

`change_log` says why no row is lost. The table itself stands by, unchanged, until the swap; from then on a log of what
is written to its successor lets it follow, so that undo returns it with every row, until the step is finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

from playbook.changes.partitioning import recreate, verification
from playbook.changes.partitioning.attributes import Attributes, Constraint, Index, Publication
from playbook.changes.partitioning.change_log import (
    BATCH,
    BOUND,
    ROW_BY_ROW,
    ChangeLog,
    dollar_quoted,
)
from playbook.changes.partitioning.conversion import (
    CONCURRENT,
    EXCLUSIVE,
    Conversion,
    is_gone,
    is_kind,
    is_there,
    is_valid,
    new_name,
    not_valid,
    script,
)
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, bound
from playbook.target.sql import Statement, literal, quote

PAGES = 4096
"""Pages of the table that are copied in one transaction: 32 MB, some tenths of a second's work."""
SHARE_SAMPLED = 10
"""One row in so many is read for a partition's statistics, and no more than they ask for: many small ones add up."""
ROWS_PER_TARGET = 300
"""Rows that ANALYZE reads for each unit of the statistics target (the manual, default_statistics_target)."""
FEWEST = 10
"""The least statistics target that comes of it; values and bounds of this number are kept of each column."""
LATER = "_changes_since"
"""How the names of the log end by which the old table follows its successor."""
STATE = "_copying"
"""How the name ends of the table that says how far a copy has come."""
COPIED = "copied by the playbook"
"""The comment of the state's table once every page was copied."""


@dataclass(frozen=True)
class Copy(Conversion):
    """One table on its way; `first` and `last` are the periods that the oldest and the newest partition are for."""

    kept_suffix = "_unpartitioned"

    first: Period
    last: Period

    @property
    def log(self) -> ChangeLog:
        """What writers change while the rows are copied."""
        return ChangeLog(self.table, self.key, self.name, "_changes")

    @property
    def later(self) -> ChangeLog:
        """What they change after the swap."""
        return ChangeLog(self.table, self.key, self.parent, LATER, by_pair=True)

    @property
    def state_name(self) -> str:
        """The name of the table that says how far the copy has come."""
        return state_name(self.table.name)

    @property
    def state(self) -> str:
        """The same, quoted."""
        return quote(self.table.schema, self.state_name)

    def limit(self) -> tuple[date, str, bool]:
        """The end of the last period."""
        return self.last.end, bound(self.last.end, self.table.column(self.key).type), self.default

    def is_followed(self, found: Attributes) -> bool:
        """Whether both triggers stand and fire always."""
        firing = {each.name for each in found.triggers if each.enabled == "A"}
        return firing >= {self.log.trigger, self.log.truncate_trigger}

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

    def statements(self) -> tuple[Statement, ...]:
        """In order; nothing blocks writers but the triggers, the swap and the foreign keys, each for a moment."""
        if self.table.primary_key is None:
            return ()
        return (
            self._logs(),
            self._build(),
            self._partitions(),
            self._listen(),
            self._copy(),
            *self._indexes(),
            self._analyze_sparsely(),
            self._listen_later(),
            self._replay(),
            self._verify(),
            self._swap(),
            self._tidy(),
            *self._foreign_keys(),
        )

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

    def _logs(self) -> Statement:
        commands = [*self.log.create(), *self.later.create()]
        days = f"{literal(str(self.first.start))}, {literal(str(self.last.start))}"
        commands += [
            f"CREATE TABLE {self.state} (first date, last date, filenode oid, page bigint, pages bigint)",
            f"INSERT INTO {self.state} VALUES ({days}, NULL, 0, 0)",
        ]
        return Statement(
            script(commands),
            "logs for the keys of rows that are changed before the swap and after it, and how far the copy has come",
            relation=self.log.name,
            unless=is_there(self.state),
        )

    def _listen(self) -> Statement:
        return Statement(
            script(self.log.listen()),
            "from here on writers note which rows they change, those of a replication as well",
            "SHARE ROW EXCLUSIVE",
            self.name,
            unless=self.log.listens,
        )

    def _copy(self) -> Statement:
        columns = ", ".join(recreate.column_list(self.table))
        table = literal(self.name)
        began = (
            "\nBEGIN  -- with the first page, and anew where the table has got another file\n"
            f"  IF (SELECT filenode FROM {self.state}) IS DISTINCT FROM pg_catalog.pg_relation_filenode({table}) THEN\n"
            f"    {self.log.clear()};\n"
            f"    TRUNCATE {self.parent};\n"
            f"    UPDATE {self.state} SET filenode = pg_catalog.pg_relation_filenode({table}), page = 0,\n"
            f"      pages = pg_catalog.pg_relation_size({table}) / current_setting('block_size')::int;\n"
            "  END IF;\n"
            "END "
        )
        page = "(SELECT format('(%s,0)', {})::tid FROM {})"
        ended = (
            f"\nBEGIN\n  IF (SELECT page >= pages FROM {self.state}) THEN\n"
            f"    COMMENT ON TABLE {self.state} IS {literal(COPIED)};\n  END IF;\nEND "
        )
        commands = [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            f"LOCK TABLE {self.name} IN ACCESS SHARE MODE",
            "SET LOCAL row_security = off",
            "SET LOCAL jit = off",
            f"DO {dollar_quoted(began)}",
            f"INSERT INTO {self.parent} ({columns}){recreate.overriding(self.table)}\n"
            f"  SELECT {columns} FROM {self.name}\n"
            f"  WHERE ctid >= {page.format('page', self.state)}\n"
            f"    AND ctid < {page.format(f'least(page + {self._pages}, pages)', self.state)}",
            f"UPDATE {self.state} SET page = least(page + {self._pages}, pages)",
            f"DO {dollar_quoted(ended)}",
            f"SELECT page >= pages, page, pages, 'pages copied' FROM {self.state}",
        ]
        return Statement(
            script(commands),
            f"copy the rows, {self._pages:,} pages at a time",
            "ACCESS SHARE",
            self.name,
            long=True,
            repeats=True,
            unless=f"obj_description(to_regclass({literal(self.state)}), 'pg_class') "
            f"IS NOT DISTINCT FROM {literal(COPIED)}",
        )

    @property
    def _pages(self) -> int:
        """Before PostgreSQL 14 a range of pages is found by reading them all: there it is copied in one go."""
        return PAGES if self.table.server_version >= 140000 else 2**32

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
        )

    def _analyze_sparsely(self) -> Statement:
        """The whole as ever; its partitions with a lower target where that would have most of their rows read.

        Together they still tell more than the table did by itself. Before PostgreSQL 18 neither goes without the other.
        """
        whole = self._analyze(self.parent)
        if self.table.server_version < 180000:
            return whole
        target = "current_setting('default_statistics_target')::int"
        sample = SHARE_SAMPLED * ROWS_PER_TARGET * self.made
        share = f"coalesce(nullif(reltuples, -1) / {sample}, {target})::int"
        lower = f"least({target}, greatest({share}, {FEWEST}))"
        commands = [
            f"SELECT set_config('default_statistics_target', {lower}::text, true)\n"
            f"  FROM pg_catalog.pg_class WHERE oid = to_regclass({literal(self.name)})",
            whole.sql,
            "SET LOCAL default_statistics_target TO DEFAULT",
            f"ANALYZE ONLY {self.parent}",
        ]
        return replace(whole, sql=script(commands))

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
        return Statement(
            verification.verify(self.table, self.key, (self.first, self.last), self.log, self.name, self.parent),
            f"the same rows by number and checksum in each {self.first.every}, in one snapshot",
            "ACCESS SHARE",
            self.name,
            long=True,
            first=self.log.replay(self.name, self.parent),
        )

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

    def _tidy(self) -> Statement:
        return Statement(
            script([*self.log.drop(), f"DROP TABLE IF EXISTS {self.state}"]),
            "the first log has served",
            unless=is_gone(self.state),
        )

    def _publications(self) -> list[Publication]:
        return [each for each in self.table.publications if each.named]

    def _add(self, each: Constraint, partition: str) -> str:
        """Enforced from here on, and verified later."""
        place = quote(self.table.schema, partition)
        return f"ALTER TABLE {place} ADD CONSTRAINT {quote(each.name)} {not_valid(each.definition)}"

    def _foreign_keys(self) -> list[Statement]:
        return [statement for each in self.table.foreign_keys for statement in self._foreign_key(each)]

    def _foreign_key(self, each: Constraint) -> tuple[Statement, Statement]:
        last = quote(self.table.schema, self._partition_names()[-1])
        verified = [
            f"ALTER TABLE {quote(self.table.schema, name)} VALIDATE CONSTRAINT {quote(each.name)}"
            for name in self._partition_names()
        ]
        whole = [
            f"ALTER TABLE {self.name} ADD CONSTRAINT {quote(each.name)} {each.definition}",
            *recreate.comment(f"CONSTRAINT {quote(each.name)} ON {self.name}", each.comment),
        ]
        return (
            Statement(
                script(verified),
                f"verify {each.name}, which each partition keeps already",
                CONCURRENT,
                self.name,
                long=True,
                unless=is_valid(each.name, last),
            ),
            Statement(
                script(whole),
                f"{each.name} as one of the whole table",
                "SHARE ROW EXCLUSIVE",
                " and ".join([self.name, each.references or ""]),
                unless=is_valid(each.name, self.name),
            ),
        )

    def new_names(self) -> list[str]:
        """The quoted names that have to be free: of the parent, what is kept, the partitions, the logs and indexes."""
        a = self.table
        names = [self.building, self.kept_name, *self._partition_names()]
        names += [rename(each.name) for each in (*self.shared, *a.identity) for rename in (new_name, self.old_name)]
        names += [rename(a.primary_key.name) for rename in (new_name, self.old_name)] if a.primary_key else []
        quoted = [quote(a.schema, name) for name in dict.fromkeys(names)]
        return [*quoted, self.log.name, self.later.name, self.state]

    def makes(self) -> tuple[str, ...]:
        """The parent under both its names, and the first thing that is made and the last that goes."""
        return (self.name, self.parent, self.state)

    def _key_renames(self) -> list[tuple[str, str, str]]:
        primary = self.table.primary_key
        if primary is None or not self.widened:
            return []
        return [("INDEX", primary.name, self.old_name(primary.name)), ("INDEX", new_name(primary.name), primary.name)]

    def undo(self) -> tuple[Statement, ...]:
        """From wherever it came to: each statement finds out whether it is still needed."""
        if self.table.primary_key is None:
            return ()
        return (
            self._follow(),
            self._verify_back(),
            self._swap_back(),
            self._silence(),
            self._drop_parent(),
            self._drop_logs(),
            *(self._verify_own(each) for each in self.table.foreign_keys),
            *(self._verify_reference(at) for at, each in enumerate(self.dependents.references) if each.validated),
        )

    def _follow(self) -> Statement:
        return Statement(
            self.later.replay(self.name, self.kept),
            f"replay into {self.kept_name} what was written since the swap",
            "ACCESS SHARE",
            self.name,
            long=True,
            repeats=True,
            unless=is_kind(self.name, "r"),
        )

    def _verify_back(self) -> Statement:
        return Statement(
            verification.verify(self.table, self.key, (self.first, self.last), self.later, self.name, self.kept),
            f"the same rows by number and checksum in each {self.first.every}, in one snapshot",
            "ACCESS SHARE",
            self.name,
            long=True,
            unless=is_kind(self.name, "r"),
            first=self.later.replay(self.name, self.kept),
        )

    def _swap_back(self) -> Statement:
        a = self.table
        commands = self._meet(self.later, self.name, self.kept)
        commands += self._stop(self.later, self.name, self.kept)
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
            unless=is_kind(self.name, "r"),
            first=self.later.replay(self.name, self.kept),
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
        made = (self.log.name, self.later.name, self.state)
        return Statement(
            script([*self.log.drop(), *self.later.drop(), f"DROP TABLE IF EXISTS {self.state}"]),
            "the logs have served",
            unless=" AND ".join(map(is_gone, made)),
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


def finish(parent: Attributes, key: str) -> tuple[Statement, ...]:
    """What ends the log by which the old table follows its successor, and gives that table up."""
    later = ChangeLog(parent, key, parent.qualified, LATER, by_pair=True)
    kept = quote(parent.schema, fit(parent.name, Copy.kept_suffix))
    return (
        Statement(
            script(later.silence()),
            "writers note nothing any more, so that the old table no longer follows",
            EXCLUSIVE,
            f"{parent.qualified} and its partitions",
            unless=later.is_deaf,
        ),
        Statement(script(later.drop()), "the log has served", unless=is_gone(later.name)),
        Statement(
            f"DROP TABLE {kept}",
            "the table as it was",
            EXCLUSIVE,
            kept,
            unless=is_gone(kept),
        ),
    )


def state_name(table: str) -> str:
    """The name of the table that says how far the copy of another has come."""
    return fit(table, STATE)
