"""Partitioned tables: when their partitions run out, and whether rows lie in a default partition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args

from playbook import figures
from playbook.assess.check import Answer, counted, judged, not_checked, warn
from playbook.assess.session import Session
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Every, Period, containing
from playbook.target.catalog import Catalog, Table
from playbook.target.sql import literal, quote

_KEY = re.compile(r'RANGE \((?P<column>[^\s",()]+|"(?:[^"]|"")+")\)')
_BOUNDS = re.compile(r"FOR VALUES FROM \((?P<start>MINVALUE|'[^']+')\) TO \((?P<end>MAXVALUE|'[^']+')\)")
_TABLE = ("table partitioned by time", "tables partitioned by time")
_DEFAULT = ("default partition", "default partitions")
_ROW = ("row", "rows")
_SIZES = """
SELECT n.nspname::text AS schema, c.relname::text AS name, pg_relation_size(c.oid) AS bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relispartition AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
"""


@dataclass(frozen=True)
class Ranges:
    """The range of a table's last partition; `end` is None where that is MAXVALUE, or none could be read."""

    table: Table
    start: datetime | None
    end: datetime | None
    default: Table | None

    @property
    def length(self) -> timedelta | None:
        """How long the last partition is."""
        return self.end - self.start if self.start and self.end else None


def partitions_ahead(session: Session) -> Iterator[Answer]:
    """Tables whose last partition ends soon, so that rows will go into the default partition or be refused."""
    all_ = _by_time(session.catalog)
    now = session.since.now.astimezone(UTC)
    found = []
    for each in sorted(all_, key=lambda each: each.end or datetime.max.replace(tzinfo=UTC)):
        if each.end is None or each.end - now >= max(each.length or timedelta(0), timedelta.resolution):
            continue
        ran_out = each.end <= now
        said = "ended on" if ran_out else "ends on"
        goes = f"into the default partition {each.default.qualified}" if each.default else "nowhere: they are refused"
        found.append(
            warn(
                f"{each.table.qualified}: its last partition {said} {each.end:%Y-%m-%d}; later rows go {goes}",
                _make_next(each),
            )
        )
    yield from judged(found, len(all_), _TABLE, "each has partitions for at least one more period")


def default_partitions(session: Session) -> Iterator[Answer]:
    """Default partitions that hold rows: a partition for them cannot be made any more until they are moved."""
    sizes = {(row.schema, row.name): row.bytes for row in session.rows(_SIZES)}
    live = {(each.schema, each.name): each.live for each in session.tables}
    known = [(each, each.default) for each in _by_time(session.catalog) if each.default and each.default.kind == "r"]
    found, unknown = [], []
    for each, default in known:
        place = (default.schema, default.name)
        if not sizes.get(place):
            continue
        rows = live.get(place, 0)
        if not rows and not session.measures:
            unknown.append(default)
        elif rows or session.row(f"SELECT EXISTS (SELECT FROM {default.qualified}) AS any").any:
            told = f"about {counted(rows, _ROW)}" if rows else "rows"
            found.append(
                warn(
                    f"{default.qualified} holds {told} of {each.table.qualified} ({figures.size(sizes[place])}): they "
                    "fit into no other partition, and none can be made for their time while they are there",
                    _move(each, default),
                )
            )
    if unknown:
        yield not_checked(
            f"{counted(len(unknown), _DEFAULT)} may hold rows, and a dry run reads none",
            "-- playbook run --measure, or\n" + "\n".join(f"SELECT count(*) FROM {t.qualified};" for t in unknown),
        )
    if found or not unknown:
        yield from judged(found, len(known), _DEFAULT, "none holds a row")


def _by_time(catalog: Catalog) -> list[Ranges]:
    """Every table that is partitioned by range of a date or timestamp column, and is no part of such a one by the same.

    That one has the next partition.
    """
    found = []
    parts: dict[tuple[str, str], list[Table]] = {}
    for table in catalog.tables:
        if table.partition_bound and table.parent:
            parts.setdefault(table.parent, []).append(table)
    for table in catalog.tables:
        above = catalog.table(*table.parent) if table.parent else None
        if above and above.partition_key == table.partition_key:
            continue
        match = _KEY.fullmatch(table.partition_key or "")
        column = match and table.column(match["column"].strip('"').replace('""', '"'))
        if column and column.type.startswith(("date", "timestamp")):
            found.append(_ranges(table, parts.get((table.schema, table.name), [])))
    return found


def _ranges(table: Table, parts: list[Table]) -> Ranges:
    default = next((part for part in parts if part.partition_bound == "DEFAULT"), None)
    bounds = [match for part in parts if (match := _BOUNDS.fullmatch(part.partition_bound or ""))]
    if any(match["end"] == "MAXVALUE" for match in bounds):
        return Ranges(table, None, None, default)
    ends = [(end, _moment(match["start"])) for match in bounds if (end := _moment(match["end"]))]
    end, start = max(ends, key=lambda pair: pair[0], default=(None, None))
    return Ranges(table, start, end, default)


def _moment(text: str) -> datetime | None:
    """A bound; the catalog has it in UTC. None for MINVALUE, infinity, and what Python's calendar does not hold."""
    try:
        moment = datetime.fromisoformat(text.strip("'"))
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _make_next(ranges: Ranges) -> str:
    """The next partition, as long as the last one; whoever makes them should make some more."""
    table = ranges.table
    if ranges.start is None or ranges.end is None or ranges.length is None:
        return "-- make its next partitions, by hand or with pg_partman"
    period = _period(ranges.start, ranges.end)
    end = period.next().end if period else (ranges.end + ranges.length)
    name = fit(table.name, f"_{period.next().label}" if period else f"_{ranges.end:%Y_%m_%d_%H%M}")
    zone = "" if (ranges.end.hour, ranges.end.minute, ranges.end.second) == (0, 0, 0) else " %H:%M:%S"
    low, high = (literal(f"{moment:%Y-%m-%d{zone}}") for moment in (ranges.end, end))
    return (
        "-- a table partitioned by a step of the playbook gets them from `playbook maintain`\n"
        "SET TimeZone = 'UTC';\n"
        f"CREATE TABLE {quote(table.schema, name)} PARTITION OF {table.qualified}\n"
        f"  FOR VALUES FROM ({low}) TO ({high});"
    )


def _period(start: datetime, end: datetime) -> Period | None:
    """The calendar period from `start` to `end`, if it is one."""
    for every in get_args(Every):
        period = containing(start.date(), every)
        if (period.start, period.end) == (start.date(), end.date()) and start.time() == end.time() == start.min.time():
            return period
    return None


def _move(ranges: Ranges, default: Table) -> str:
    key = (_KEY.fullmatch(ranges.table.partition_key or "") or {"column": "the key"})["column"]
    return (
        "-- which times are they of? A partition for them: take the default one off, make it, put the rows in, and\n"
        "-- attach the default again, in one transaction, in which nobody may write\n"
        f"SELECT min({key}), max({key}), count(*) FROM {default.qualified};\n"
        + "-- "
        + " ".join(f"ALTER TABLE {ranges.table.qualified} DETACH PARTITION {default.qualified};".splitlines())
    )
