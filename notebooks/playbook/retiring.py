"""Retention of partitioned tables: old partitions are detached, and dropped after a grace period without a change."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from playbook.changes.partition import Partition
from playbook.changes.partitioning import retention
from playbook.changes.partitioning.retention import Content, Part, Parts
from playbook.context import Context
from playbook.detachments import Detachment, Detachments
from playbook.errors import Drifted, StepError, one_line
from playbook.target.execute import UNRECORDED, execute


@dataclass(frozen=True)
class Retired:
    """What was done with one partition, or would be in a dry run, or why it was left alone (`failed`)."""

    partition: str
    said: str
    failed: bool = False


_LEFT_ALONE = "is left alone whatever its age: it is the table as it was, which undo returns"
_NO_BEGINNING = "is left alone: it has no beginning, and so nothing says how old its rows are"
_FOLLOWED = "is left alone with its partitions until `playbook finish` has given up {follows}, which undo returns"

_UNDOING = (
    "is left alone with its partitions, whose rows go into {rebuilt}: `playbook undo` was begun, and is to be ended"
)


class Retention:
    """The retention of one table. Nothing is dropped that the record does not hold as detached by the playbook."""

    def __init__(self, context: Context, change: Partition, now: datetime, export: Path | None) -> None:
        self._context = context
        self._change = change
        self._now = now
        self._export = export
        self._table = change.table.qualified
        self._record = Detachments(context.journal.store)

    def carry_out(self) -> list[Retired]:
        """Drops what has waited for its grace period, then detaches what has become too old."""
        done = [self._each(self._drop, one) for one in self._detached()]
        done += [self._each(self._detach, part) for part in self._due()]
        return [*(one for one in done if one), *self._left_alone()]

    def planned(self) -> list[Retired]:
        """What `carry_out` would do now; changes nothing."""
        found = []
        attached = {part.oid for part in self._parts().ranges}
        for one in self._detached():
            if one.state == "detaching":
                if one.oid not in attached:
                    found.append(Retired(one.relation, "was detached by a run that was interrupted; its grace begins"))
                continue
            due = self._due_on(one)
            said = f"would be dropped ({one.rows:,} rows)" if due <= self._now.date() else f"is detached until {due}"
            found.append(Retired(one.relation, said))
        found += [Retired(part.name, f"would be detached: all of it is before {part.high}") for part in self._due()]
        return [*found, *self._left_alone()]

    def _detached(self) -> list[Detachment]:
        return [one for one in self._record.of(self._table) if one.state != "dropped"]

    def _due_on(self, one: Detachment) -> date:
        """The day from which on it may be dropped: the first on which the whole grace period lies behind."""
        since = datetime.fromisoformat(one.detached_at).date()
        day = since
        while self._change.spec.grace.before(day) < since:
            day = date.fromordinal(day.toordinal() + 1)
        return day

    def _parts(self) -> Parts:
        with self._context.connect() as connection:
            return retention.read(connection, self._table)

    def _due(self) -> list[Part]:
        """What undo might have to return stays whole: a history that was split, a table copied or being rebuilt."""
        limit = self._change.spec.retention
        assert limit is not None
        if self._unpartitioned or self._rebuilt:
            return []
        expired = self._parts().expired(limit.before(self._now.date()))
        return [part for part in expired if part.within is None or not self._history]

    def _left_alone(self) -> list[Retired]:
        if self._unpartitioned:
            return [Retired(self._table, _FOLLOWED.format(follows=self._unpartitioned))]
        if self._rebuilt:
            return [Retired(self._table, _UNDOING.format(rebuilt=self._rebuilt))]
        history = self._history
        parts = self._parts().ranges
        found = [Retired(part.name, _LEFT_ALONE if part.name == history else _NO_BEGINNING)
                 for part in parts if part.low is None and part.within is None]  # fmt: skip
        if not history:
            return [*found, *(Retired(part.name, _NO_BEGINNING) for part in parts if part.low is None and part.within)]
        within = {part.within: None for part in parts if part.within}
        return [*found, *(Retired(name, _FOLLOWED.format(follows=history)) for name in within)]

    @cached_property
    def _history(self) -> str | None:
        """The quoted name of the history while it stands, as a partition or beside what it was split into."""
        with self._context.connect() as connection:
            return self._change.history(connection)

    @cached_property
    def _unpartitioned(self) -> str | None:
        """The quoted name of the table that was copied, while it stands and follows its successor."""
        with self._context.connect() as connection:
            return self._change.unpartitioned(connection)

    @cached_property
    def _rebuilt(self) -> str | None:
        """The quoted name of the table that an undo is building anew."""
        with self._context.connect() as connection:
            return self._change.rebuilt(connection)

    def _each(self, work: Any, subject: Any) -> Retired | None:
        name = subject.name if isinstance(subject, Part) else subject.relation
        try:
            return work(subject)
        except (StepError, OSError) as error:
            return Retired(name, one_line(error), failed=True)

    def _detach(self, part: Part) -> Retired:
        assert part.low is not None
        record = Detachment(part.oid, part.name, self._table, f"{part.low}", f"{part.high}", "detaching")
        self._record.write(record)
        parts = self._parts()
        statement = retention.detach(self._table, part, default=parts.default, server_version=parts.server_version)
        self._context.ensure_held()
        self._context.progress(statement.purpose)
        execute(
            self._context.connect, statement, UNRECORDED, policy=self._context.policy, progress=self._context.progress
        )
        return self._note(record)

    def _note(self, record: Detachment) -> Retired:
        """What it holds is noted once nothing goes into it through the table: from then on it may not change."""
        content = self._content(record)
        if content is None:
            raise StepError(f"{record.relation} is gone since it was detached")
        noted = replace(
            record,
            state="detached",
            detached_at=self._now.isoformat(timespec="milliseconds"),
            **{"rows": content.rows, "digest": content.digest, "definition": content.definition},
        )
        self._record.write(noted)
        return Retired(
            record.relation, f"detached with {content.rows:,} rows, to be dropped from {self._due_on(noted)} on"
        )

    def _content(self, one: Detachment) -> Content | None:
        low, high = date.fromisoformat(one.low), date.fromisoformat(one.high)
        with self._context.connect() as connection, connection.transaction():
            return retention.content(connection, one.relation, self._change.key, low, high)

    def _drop(self, one: Detachment) -> Retired | None:
        if one.oid in {part.oid for part in self._parts().ranges}:  # killed before it was detached, or attached again
            return None
        if one.state == "detaching":
            return self._note(one)
        if self._due_on(one) > self._now.date():
            return Retired(one.relation, f"is detached until {self._due_on(one)}")
        if self._is_gone(one):
            self._record.write(replace(one, state="dropped", dropped_at=_moment()))
            return Retired(one.relation, "was dropped" if one.state == "dropping" else "was dropped by others")
        self._record.write(replace(one, state="dropping"))
        exported: list[str] = []

        def unchanged(connection: psycopg.Connection[Any]) -> None:
            connection.execute(f"LOCK TABLE {one.relation} IN ACCESS EXCLUSIVE MODE".encode())
            self._refuse_change(connection, one)
            if self._export:
                connection.execute("SET LOCAL idle_in_transaction_session_timeout = '10min'")
                exported.append(_export(connection, one, self._export))

        statement = retention.drop(one.relation, date.fromisoformat(one.high))
        self._context.ensure_held()
        self._context.progress(statement.purpose)
        try:
            execute(
                self._context.connect,
                statement,
                UNRECORDED,
                policy=self._context.policy,
                progress=self._context.progress,
                guard=unchanged,
            )
        except Drifted:
            self._record.write(one)
            raise
        file = exported[-1] if exported else ""
        self._record.write(replace(one, state="dropped", dropped_at=_moment(), exported=file))
        return Retired(one.relation, f"dropped, {one.rows:,} rows" + (f"; they are in {file}" if file else ""))

    def _is_gone(self, one: Detachment) -> bool:
        with self._context.connect() as connection:
            row = connection.execute("SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = %s::oid)", [one.oid])
            return row.fetchone() == (False,)

    def _refuse_change(self, connection: psycopg.Connection[Any], one: Detachment) -> None:
        """Raises Drifted unless it is the very table that was detached, holding what it held."""
        row = connection.execute("SELECT to_regclass(%s)::oid::text", [one.relation]).fetchone()
        if row != (one.oid,):
            raise Drifted(f"{one.relation} is not the table that was detached; it is left alone")
        low, high = date.fromisoformat(one.low), date.fromisoformat(one.high)
        now = retention.content(connection, one.relation, self._change.key, low, high)
        then = Content(one.rows, one.digest, one.definition)
        if now != then:
            assert now is not None
            what = f"held {then.rows:,} rows and holds {now.rows:,}" if now.rows != then.rows else "holds other rows"
            what = what if now.digest != then.digest else "is defined otherwise"
            raise Drifted(f"{one.relation} was changed since it was detached ({what}), so it is not dropped")


def _export(connection: psycopg.Connection[Any], one: Detachment, folder: Path) -> str:
    """Its rows as CSV with a header, compressed; whole on the disk, or the table is not dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{one.relation.replace('/', '_')}.{one.oid}.csv.gz"
    part = path.with_suffix(".part")
    with part.open("wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb") as packed, connection.cursor() as cursor:
            command = f"COPY (SELECT * FROM ONLY {one.relation}) TO STDOUT (FORMAT csv, HEADER true)"
            with cursor.copy(command.encode()) as copy:
                for data in copy:
                    packed.write(data)
            rows = cursor.rowcount
        raw.flush()
        os.fsync(raw.fileno())
    if rows != one.rows:
        raise StepError(f"{part} holds {rows:,} rows, and {one.relation} {one.rows:,}; it is not dropped")
    part.replace(path)
    return str(path)


def _moment() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
