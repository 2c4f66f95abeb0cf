"""Kind `partition`: a table in use becomes one partitioned by range, without a lock that its writers would notice."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Literal

import psycopg
from pydantic import Field, field_validator

from playbook.changes import cron_job, preflight
from playbook.changes.change import Change, Finding, Stands
from playbook.changes.cron_job import Cron, Job
from playbook.changes.partitioning import (
    acceptance,
    ahead,
    attributes,
    brin,
    dependents,
    obstacles,
    partman,
    recreate,
    scheduled,
)
from playbook.changes.partitioning.attach import Attach, cutoff_of
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.periods import Every, Period, Span, containing, first_ahead
from playbook.errors import Drifted, NotFound, StepError
from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Table
from playbook.target.sql import Statement, quote


class PartitionSpec(StepSpec):
    """The step's name is the parent's while it is built; it then takes the table's name.

    `key` is a timestamp or date column. `accept` says in so many words which losses the plan accepts; a preflight that
    is blocked by one gives the words. `cutoff` (the first day of a period) overrides where the history ends; `ahead` is
    how many periods get a partition at once; rows past them go into a default partition, or are refused. `brin` adds a
    BRIN index on the key, a thousandth of a btree's size, for rows that come in the order of the key. Without
    `retention` nothing is ever removed; with it `playbook maintain` detaches the partitions that lie wholly before it
    (`24 months`), and drops what it detached once `grace` (`7 days`) has passed and nothing in it has changed.
    """

    name: str = Field(min_length=1, max_length=63)
    table: str
    key: str
    every: Every
    accept: tuple[str, ...] = ()
    cutoff: date | None = None
    ahead: int = Field(default=3, ge=1, le=3000)
    beyond: Literal["default_partition", "refuse"] = "default_partition"
    brin: bool = False
    retention: Span | None = None
    grace: Span = Span(7, "day")

    @field_validator("accept", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) and value else value or ()

    @field_validator("retention", "grace", mode="before")
    @classmethod
    def _a_span(cls, value: object) -> object:
        return Span.parse(value) if isinstance(value, str) else value

    @field_validator("cutoff", mode="before")
    @classmethod
    def _a_date(cls, value: object) -> object:
        return date.fromisoformat(value) if isinstance(value, str) else value


class Partition(Change):
    """One table of the target, partitioned by range of its key."""

    kind = "partition"
    Spec = PartitionSpec
    by_plan = True
    without = ("enable_partition_pruning",)
    made_as_one = True
    gives_up_on = (
        *(psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError, psycopg.InternalError),
        *(psycopg.NotSupportedError, psycopg.errors.DiskFull, Drifted),
    )
    spec: PartitionSpec

    def __init__(self, spec: PartitionSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.table: Table = names.relation(spec.table, "rp")
        self.key = names.column(spec.table, spec.key).name
        self._attach: Attach | None = None
        self._found: Attributes | None = None
        self._cron: Cron | None = None
        self.job: Job | None = None
        self.by_partman = False
        self._brin: Index | None = None
        self._as_found: Attributes | None = None

    def ask(self, connection: psycopg.Connection[Any]) -> None:
        """Reads everything that hangs on the table, and what depends on it."""
        self._found = attributes.read(connection, self.table.qualified)
        if self._found is None:
            raise NotFound(f"{self.table.qualified} is gone since the catalog was read")
        if self._found.kind == "r":
            self._attach = self._planned(connection, self._found)
        self.by_partman = bool(partman.managed(connection, self.table.schema, self.table.name))
        self._cron = Cron.ask(connection)
        if self._cron.usable:
            self.job = self._scheduled(connection, self._cron, self._found)

    def _scheduled(self, connection: psycopg.Connection[Any], cron: Cron, found: Attributes) -> Job | None:
        """The job that makes partitions ahead: of a table to be partitioned, or of one that is by now."""
        if self._attach:
            model = self._attach.table
        else:
            try:
                model = ahead.alike(connection, found)
            except StepError:  # made by others, in a way in which nobody could tell the next partition
                return None
        user = preflight.current_user(connection)
        return scheduled.job(cron, model, self.key, self.spec.every, self.spec.ahead, user)

    @property
    def _wanted_key(self) -> str:
        return f"RANGE ({quote(self.key)})"

    def _planned(self, connection: psycopg.Connection[Any], found: Attributes) -> Attach:
        """The conversion of the table as it was before a run that was interrupted, if one was."""
        user = preflight.current_user(connection)
        begun = cutoff_of(found)
        start = begun or self.spec.cutoff or first_ahead(datetime.now(UTC), self.spec.every).start
        cutoff = Period(containing(start, self.spec.every).start, self.spec.every)
        depends = dependents.read(connection, found.oid)
        attach = Attach(
            table=found,
            dependents=depends,
            key=self.key,
            cutoff=cutoff,
            building=self.spec.name,
            user=user,
            ahead=self.spec.ahead,
            default=self.spec.beyond == "default_partition",
        )
        primary = found.primary_key
        ours = {attach.wide_index, attach.narrow_index} if primary and attach.widened else set()
        wanted = brin.index(found, self.key)
        self._brin = wanted if self.spec.brin and not _serves_already(found, wanted) else None
        ours |= {wanted.name} if self._brin else set()
        self._as_found = replace(
            found,
            indexes=tuple(each for each in found.indexes if each.name not in ours),
            constraints=tuple(each for each in found.constraints if each.name != attach.check),
        )
        indexes = (*self._as_found.indexes, self._brin) if self._brin else self._as_found.indexes
        return replace(attach, table=replace(self._as_found, indexes=indexes))

    @property
    def tables(self) -> tuple[str, ...]:
        """The table."""
        return (self.table.qualified,)

    def statements(self) -> tuple[Statement, ...]:
        """By the attach route; nothing where the table is partitioned."""
        if self._attach is None:
            return ()
        made = (brin.build(self._attach.table, self._brin),) if self._brin else ()
        return (*made, *self._attach.statements(), *((self.job.make(),) if self.job else ()))

    def undo(self) -> tuple[Statement, ...]:
        """The swap back and the end of what was made for it."""
        if self._attach is None:
            return ()
        dropped = (brin.drop(self._attach.table, self._brin),) if self._brin else ()
        return (*((self.job.remove(),) if self.job else ()), *self._attach.undo(), *dropped)

    def undo_after(self, earlier: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """Its undo serves from wherever an interrupted run came to."""
        return self.undo() or earlier

    def stands(self) -> Stands:
        """By what the table is now."""
        if self._attach is None:
            if self._found and self._found.partition_key == self._wanted_key:
                by = ", and pg_partman makes its partitions" if self.by_partman else ""
                return Stands("exists", f"{self.table.qualified} is partitioned by {self._wanted_key} already{by}")
            return Stands("other", f"{self.table.qualified} is partitioned by {self.table.partition_key} already")
        if self._left_over():
            return Stands("unfinished", f"{self.table.qualified} bears the traces of a conversion")
        return Stands("absent")

    def _left_over(self) -> bool:
        """Whether an interrupted run left something: what the found table has more than the planned one has."""
        assert self._found
        assert self._attach
        parent = self.catalog.table(self.table.schema, self._attach.building)
        return self._found != self._as_found or (parent is not None and parent.kind == "p")

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Standby, ownership, what cannot be carried over, what is lost, NULL keys and keys past the cutoff."""
        if self._attach is None:
            return preflight.standby(connection)
        attach, found = self._attach, self._attach.table
        blocked = [
            *preflight.standby(connection),
            *preflight.ownership(connection, self.table),
            *obstacles.of_table(found, attach.dependents, self.key),
        ]
        if blocked:
            return blocked
        upserts, told = obstacles.upserts(connection, attach)
        losses = [*obstacles.losses(attach), *upserts]
        return [
            *obstacles.privileges(connection, attach),
            *self._names_taken(connection),
            *acceptance.unaccepted(losses, self.spec.accept),
            *obstacles.of_rows(connection, self.table, self.key, attach.cutoff.start, attach.bound, execute=execute),
            *self._period(),
            *obstacles.lock_table(connection, attach),
            *told,
            *obstacles.swap_waits(connection),
            *preflight.replication_lag(connection),
            *preflight.disk(self._expected_bytes()),
            *brin.sizes(self.table, self.key, chosen=self._brin is not None),
            *partman.findings(connection, found.schema, found.name, self.key, attach.cutoff, self.spec.ahead),
            *(self._cron.findings("`playbook maintain`, run once a day, does it") if self._cron else ()),
        ]

    def _period(self) -> list[Finding]:
        assert self._attach
        wanted = self.spec.cutoff
        if wanted and wanted != self._attach.cutoff.start:
            detail = f"cutoff {wanted} is not the first day of a {self.spec.every}"
            return [Finding("blocked", detail, f"name {self._attach.cutoff.start} or {self._attach.cutoff.end}")]
        if wanted and wanted <= datetime.now(UTC).date():
            return [Finding("blocked", f"cutoff {wanted} has passed: new rows would be refused", "name a later one")]
        return []

    def _names_taken(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        """A run that was interrupted has taken its own names."""
        return (
            []
            if self._left_over()
            else obstacles.names_taken(connection, self._attach.new_names() if self._attach else [])
        )

    def _expected_bytes(self) -> int | None:
        """The wide and the narrow index, as large as the primary key's, the one by eight bytes a row more."""
        assert self._attach
        primary = self._attach.table.primary_key
        size = next((each.size_bytes for each in self.table.indexes if primary and each.name == primary.name), None)
        if not self._attach.widened or size is None:
            return 0 if primary is None or not self._attach.widened else None
        return int(2 * size + 8 * max(self.table.estimated_rows, 0))

    def guard(self, connection: psycopg.Connection[Any], statement: Statement) -> None:
        """The swap: what the statements were made from must be what stands now. No DDL can come in between any more."""
        assert self._attach
        connection.execute(f"LOCK TABLE {self._attach.name} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        found = attributes.read(connection, self._attach.name)
        now = self._planned(connection, found) if found and found.kind == "r" else None
        if now is None or now.statements() != self._attach.statements():
            raise Drifted(f"{self._attach.name} was changed by others while it was being converted; apply again")

    def repair(self, statement: Statement) -> Statement | None:
        """Drops what a build left INVALID."""
        return statement.remains()

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """An index as its row in the catalog says, all else as the statement itself does."""
        if statement.builds:
            row = connection.execute(_INDEX.encode(), [statement.builds]).fetchone()
            return "absent" if row is None else "done" if row[0] else "broken"
        if not statement.unless:
            return "absent"
        row = connection.execute(f"SELECT {statement.unless}".encode()).fetchone()
        return "done" if row and row[0] else "absent"

    def makes(self) -> tuple[str, ...]:
        """The parent under both its names, the CHECK and the indexes that stand before it."""
        assert self._attach
        index = (quote(self.table.schema, self._brin.name),) if self._brin else ()
        return (*self._attach.makes(), *index, *((self.job.object_name,) if self.job else ()))

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """The partitioned table, once it is one, and the job that makes partitions ahead."""
        definition = self.definition(connection, self.table.qualified)
        if definition is None:
            return {}
        job = self.job and self.definition(connection, self.job.object_name)
        return {self.table.qualified: definition} | ({self.job.object_name: job} if self.job and job else {})

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """All that a partitioned table has but its partitions; of an index or CHECK on the way, that it stands.

        Of a job, schedule and command.
        """
        if name.startswith(cron_job.PREFIX):
            return cron_job.definition(connection, name)
        if " ON " in name:
            row = connection.execute(_CHECK.encode(), [name]).fetchone()
            return row[0] if row else None
        found = attributes.read(connection, name)
        if found is not None and found.kind == "p":
            return "\n".join(recreate.description(found))
        return "an index" if found is not None and found.kind == "i" else None

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """The indexes that the history has besides its old ones, and all other partitions."""
        row = connection.execute(_ADDED.encode(), {"table": self.table.qualified}).fetchone()
        return row[0] if row else None

    def remark(self) -> str:
        """Where pruning begins to help, and who makes the next partitions."""
        by = "pg_cron" if self.job else "`playbook maintain`"
        return f"history is one partition, so pruning helps from the cutoff on; {by} makes the next ones"

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """How many partitions there are."""
        row = connection.execute(
            "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = to_regclass(%s)", [self.table.qualified]
        ).fetchone()
        return f"{row[0]} partitions" if row else ""


def _serves_already(found: Attributes, wanted: Index) -> bool:
    """Whether the table has such an index of its own."""
    return any(each.body == wanted.body and each.name != wanted.name and each.valid for each in found.indexes)


_INDEX = """
SELECT indisvalid AND indisready AND indislive FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(%s)
"""

_CHECK = """
SELECT pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE quote_ident(k.conname) || ' ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) = %s
"""

# Of the history, which is the partition from MINVALUE, the index that the swap replaced was as large as the narrow one.
_ADDED = """
SELECT coalesce(sum(pg_total_relation_size(h.inhrelid)) FILTER (WHERE NOT first), 0)::bigint
     + coalesce(sum((SELECT sum(pg_relation_size(i.indexrelid)) FROM pg_index i WHERE i.indrelid = h.inhrelid
                     AND i.indisprimary)) FILTER (WHERE first), 0)::bigint
FROM (SELECT inhrelid, pg_get_expr(c.relpartbound, c.oid) LIKE '%%(MINVALUE)%%' AS first
      FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = to_regclass(%(table)s)) h
"""
