"""Kind `partition`: a table in use becomes one partitioned by range, without a lock that its writers would notice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from playbook.changes import cron_job, preflight
from playbook.changes.change import Change, Finding, Stands
from playbook.changes.cron_job import Cron, Job
from playbook.changes.partition_spec import PartitionSpec
from playbook.changes.partitioning import (
    acceptance,
    ahead,
    attributes,
    brin,
    finish,
    obstacles,
    partman,
    recreate,
    routes,
    scheduled,
)
from playbook.changes.partitioning.attach import Attach
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.conversion import Conversion, new_name
from playbook.changes.partitioning.copy import Copy
from playbook.changes.partitioning.finish import Finish
from playbook.changes.partitioning.pages import STATE, state_name
from playbook.changes.partitioning.rebuild import Rebuild
from playbook.changes.partitioning.routes import Chosen, Wish
from playbook.errors import Drifted, NotFound, StepError
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Table
from playbook.target.repeating import Throttle
from playbook.target.sql import Statement, quote


class Partition(Change):
    """One table of the target, partitioned by range of its key."""

    kind = "partition"
    Spec = PartitionSpec
    by_plan = True
    without = ("enable_partition_pruning",)
    made_as_one = True
    undone_in_stages = True
    gives_up_on = (
        *(psycopg.IntegrityError, psycopg.ProgrammingError, psycopg.DataError, psycopg.InternalError),
        *(psycopg.NotSupportedError, psycopg.errors.DiskFull, Drifted),
    )
    spec: PartitionSpec

    def __init__(self, spec: PartitionSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.table: Table = names.relation(spec.table, "rp")
        self.key = names.column(spec.table, spec.key).name
        self._chosen: Chosen | None = None
        self._found: Attributes | None = None
        self._cron: Cron | None = None
        self.job: Job | None = None
        self.by_partman = False
        self._finish: Finish | None = None

    def ask(self, connection: psycopg.Connection[Any]) -> None:
        """Reads everything that hangs on the table, and what depends on it."""
        self._found = attributes.read(connection, self.table.qualified)
        if self._found is None:
            raise NotFound(f"{self.table.qualified} is gone since the catalog was read")
        if self._found.kind == "r":
            self._chosen = self._planned(connection, self._found)
        self.by_partman = bool(partman.managed(connection, self.table.schema, self.table.name))
        self._cron = Cron.ask(connection)
        if self._cron.usable:
            self.job = self._scheduled(connection, self._cron, self._found)

    def _scheduled(self, connection: psycopg.Connection[Any], cron: Cron, found: Attributes) -> Job | None:
        """The job that makes partitions ahead: of a table to be partitioned, or of one that is by now."""
        if self._chosen:
            model = self._chosen.conversion.table
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

    def _planned(self, connection: psycopg.Connection[Any], found: Attributes) -> Chosen:
        """The conversion of the table as it was before a run that was interrupted, if one was."""
        spec = self.spec
        default = spec.beyond == "default_partition"
        wish = Wish(spec.every, spec.name, spec.ahead, default, spec.route, spec.cutoff, spec.brin)
        return routes.choose(connection, found, self.key, wish, preflight.current_user(connection))

    @property
    def _conversion(self) -> Conversion | None:
        """None where the table is partitioned."""
        return self._chosen.conversion if self._chosen else None

    @property
    def tables(self) -> tuple[str, ...]:
        """The table."""
        return (self.table.qualified,)

    def statements(self) -> tuple[Statement, ...]:
        """By the route that was chosen; nothing where the table is partitioned."""
        if self._chosen is None:
            return ()
        conversion, wanted = self._chosen.conversion, self._chosen.brin
        made = (brin.build(conversion.table, wanted),) if wanted else ()
        return (*made, *conversion.statements(), *((self.job.make(),) if self.job else ()))

    def undo(self) -> tuple[Statement, ...]:
        """The swap back and the end of what was made for it."""
        if self._chosen is None:
            return ()
        conversion, wanted = self._chosen.conversion, self._chosen.brin
        dropped = (brin.drop(conversion.table, wanted),) if wanted else ()
        return (*((self.job.remove(),) if self.job else ()), *conversion.undo(), *dropped)

    def finish(self, connection: psycopg.Connection[Any]) -> Finish | None:
        """What splits an attached history, or gives up what is kept for undo; None where nothing is left to do."""
        found = attributes.read(connection, self.table.qualified)
        if found is None or found.kind != "p":
            return None
        user = preflight.current_user(connection)
        self._finish = finish.read(connection, found, self.key, self.spec.every, user)
        return self._finish

    def history(self, connection: psycopg.Connection[Any]) -> str | None:
        """The quoted name of the table that it was made from by attaching, while it stands."""
        return self._kept(connection, Attach)

    def unpartitioned(self, connection: psycopg.Connection[Any]) -> str | None:
        """The quoted name of the table whose rows it was made from by copying, while it stands."""
        return self._kept(connection, Copy)

    def rebuilt(self, connection: psycopg.Connection[Any]) -> str | None:
        """The quoted name of the table that an undo is building anew, until it has its place."""
        return self._kept(connection, Rebuild)

    def _kept(self, connection: psycopg.Connection[Any], route: type[Conversion]) -> str | None:
        name = quote(self.table.schema, route.old_name(self.table.name))
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone()
        return name if row and row[0] else None

    def undo_after(self, earlier: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """Its undo serves from wherever an interrupted run came to."""
        return self.undo() or earlier

    def stands(self) -> Stands:
        """By what the table is now."""
        if self._chosen is None:
            if self._found and self._found.partition_key == self._wanted_key:
                by = ", and pg_partman makes its partitions" if self.by_partman else ""
                return Stands("exists", f"{self.table.qualified} is partitioned by {self._wanted_key} already{by}")
            return Stands("other", f"{self.table.qualified} is partitioned by {self.table.partition_key} already")
        if self._left_over():
            return Stands("unfinished", f"{self.table.qualified} bears the traces of a conversion")
        return Stands("absent", f"{_ROUTES[type(self._chosen.conversion)]} ({self._chosen.why})")

    def _left_over(self) -> bool:
        """Whether an interrupted run left something: what the found table has more than the planned one has."""
        assert self._found
        assert self._chosen
        schema, conversion = self.table.schema, self._chosen.conversion
        if isinstance(conversion, Copy) and self.catalog.table(schema, state_name(self.table.name)):
            return True
        parent = self.catalog.table(schema, conversion.building)
        return self._found != self._chosen.as_found or (parent is not None and parent.kind == "p")

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Standby, ownership, what cannot be carried over, what is lost, NULL keys and keys past the partitions."""
        if self._chosen is None:
            return preflight.standby(connection)
        conversion, found = self._chosen.conversion, self._chosen.conversion.table
        blocked = [
            *preflight.standby(connection),
            *preflight.ownership(connection, self.table),
            *obstacles.of_table(found, conversion.dependents, self.key),
        ]
        if isinstance(conversion, Copy) and not blocked:
            blocked = [*routes.copy_obstacles(found), *routes.period_obstacles(self._chosen)]
        if blocked:
            return blocked
        upserts, told = obstacles.upserts(connection, conversion)
        losses = [*obstacles.losses(conversion), *upserts]
        return [
            *obstacles.privileges(connection, conversion),
            *self._names_taken(connection),
            *acceptance.unaccepted(losses, self.spec.accept),
            *obstacles.of_rows(connection, self.table, conversion, execute=execute),
            *self._period(),
            *obstacles.lock_table(connection, conversion),
            *told,
            *obstacles.swap_waits(connection),
            *preflight.replication_lag(connection),
            *preflight.disk(self._expected_bytes()),
            *brin.sizes(self.table, self.key, chosen=self._chosen.brin is not None),
            *self._partman(connection),
            *(self._cron.findings("`playbook maintain`, run once a day, does it") if self._cron else ()),
        ]

    def _partman(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        """How pg_partman could take over the partitions from the cutoff on."""
        if not isinstance(self._conversion, Attach):
            return []
        table, cutoff = self._conversion.table, self._conversion.cutoff
        return partman.findings(connection, table.schema, table.name, self.key, cutoff, self.spec.ahead)

    def _period(self) -> list[Finding]:
        wanted = self.spec.cutoff
        if not wanted or not isinstance(self._conversion, Attach):
            return []
        cutoff = self._conversion.cutoff
        if wanted != cutoff.start:
            detail = f"cutoff {wanted} is not the first day of a {self.spec.every}"
            return [Finding("blocked", detail, f"name {cutoff.start} or {cutoff.end}")]
        if wanted <= datetime.now(UTC).date():
            return [Finding("blocked", f"cutoff {wanted} has passed: new rows would be refused", "name a later one")]
        return []

    def _names_taken(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        """A run that was interrupted has taken its own names."""
        assert self._conversion
        return [] if self._left_over() else obstacles.names_taken(connection, self._conversion.new_names())

    def _expected_bytes(self) -> int | None:
        """Of a copy as much again as the table has; else the wide and the narrow index, as large as the primary key's,
        the one by eight bytes a row more."""
        assert self._conversion
        if isinstance(self._conversion, Copy):
            sizes = [self.table.size_bytes, *(each.size_bytes for each in self.table.indexes)]
            return sum(size or 0 for size in sizes)
        primary = self._conversion.table.primary_key
        size = next((each.size_bytes for each in self.table.indexes if primary and each.name == primary.name), None)
        if not self._conversion.widened or size is None:
            return 0 if primary is None or not self._conversion.widened else None
        return int(2 * size + 8 * max(self.table.estimated_rows, 0))

    def throttle(self) -> Throttle:
        """As the plan has it."""
        return Throttle(self.spec.max_lag_s, self.spec.max_wal_mb_s, self.spec.duty_pct)

    def guard(self, connection: psycopg.Connection[Any], statement: Statement) -> None:
        """The swap: what the statements were made from must be what stands now. No DDL can come in between any more."""
        if self._finish is not None:
            self._guard_split(connection, self._finish)
            return
        assert self._conversion
        name = self._conversion.name
        connection.execute(f"LOCK TABLE {name} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        found = attributes.read(connection, name)
        now = self._planned(connection, found).conversion if found and found.kind == "r" else None
        if found is None or now is None or now.statements() != self._conversion.statements():
            raise Drifted(f"{name} was changed by others while it was being converted; apply again")
        if not now.is_followed(found):
            raise Drifted(f"{name} was changed by others while it was being converted; apply again")

    def _guard_split(self, connection: psycopg.Connection[Any], planned: Finish) -> None:
        name = self.table.qualified
        connection.execute(f"LOCK TABLE {name} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        found = attributes.read(connection, name)
        user = preflight.current_user(connection)
        now = finish.read(connection, found, self.key, self.spec.every, user) if found else None
        history = attributes.read(connection, planned.split.name) if planned.split else None
        same = now is not None and now.statements == planned.statements and planned.split is not None
        if not (same and history and planned.split and planned.split.is_followed(history)):
            raise Drifted(f"{name} was changed by others while its history was being split; finish again")

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
        """The parent under both its names, and what stands before it."""
        assert self._chosen
        wanted = self._chosen.brin
        index = (quote(self.table.schema, wanted.name),) if wanted else ()
        return (*self._chosen.conversion.makes(), *index, *((self.job.object_name,) if self.job else ()))

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
        if found is not None and found.kind == "r" and found.name.endswith(STATE):
            return "how far a copy has come"
        return "an index" if found is not None and found.kind == "i" else None

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """The indexes that the history has besides its old ones, and all other partitions."""
        history = quote(self.table.schema, Attach.old_name(self.table.name))
        row = connection.execute(_ADDED.encode(), {"table": self.table.qualified, "history": history}).fetchone()
        return row[0] if row else None

    def remark(self) -> str:
        """Where pruning begins to help, or what is kept of the old table, and who makes the next partitions."""
        by = f"{'pg_cron' if self.job else '`playbook maintain`'} makes the next ones"
        history, kept = (route.old_name(self.table.name) for route in (Attach, Copy))
        if self.catalog.table(self.table.schema, kept):
            return f"the table that it was is kept as {kept}, and follows what is written; {by}"
        split = self.catalog.table(self.table.schema, new_name(history))
        if split and split.parent == (self.table.schema, self.table.name):
            kept = f"; {history}, the table that it was, is kept, and follows what is written"
            follows = kept if self.catalog.table(self.table.schema, history) else ""
            return f"history has a partition for each {self.spec.every} as well{follows}; {by}"
        if self.catalog.table(self.table.schema, history):
            return f"history is one partition, so pruning helps from the cutoff on (`playbook finish` splits it); {by}"
        return by

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """How many partitions there are."""
        row = connection.execute(
            "SELECT count(*) FROM pg_catalog.pg_partition_tree(to_regclass(%s)) WHERE isleaf", [self.table.qualified]
        ).fetchone()
        return f"{row[0]} partitions" if row else ""


_ROUTES = {
    Attach: "the table itself becomes the first partition, no row is copied, and pruning helps from the cutoff on",
    Copy: "rows are copied into their partitions beside their writers, so that pruning helps at once",
}

_INDEX = """
SELECT indisvalid AND indisready AND indislive FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(%s)
"""

_CHECK = """
SELECT pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE quote_ident(k.conname) || ' ON ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname) = %s
"""

# Of the history, which the attach route made of the table itself, the index that the swap replaced was as large as the
# narrow one.
_ADDED = """
SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(to_regclass(%(table)s))
                 WHERE isleaf AND relid IS DISTINCT FROM to_regclass(%(history)s)), 0)::bigint
     + coalesce((SELECT sum(pg_relation_size(indexrelid)) FROM pg_index
                 WHERE indrelid = to_regclass(%(history)s) AND indisprimary), 0)::bigint
"""
