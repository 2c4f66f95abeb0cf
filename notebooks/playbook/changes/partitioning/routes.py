"""Which way a table goes: attached as it is, or copied into its periods; and how far its history reaches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

import psycopg

from playbook.changes.change import Finding
from playbook.changes.partitioning import brin, dependents
from playbook.changes.partitioning.attach import Attach, cutoff_of
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.conversion import Conversion
from playbook.changes.partitioning.copy import Copy
from playbook.changes.partitioning.obstacles import KEY_TYPES
from playbook.changes.partitioning.pages import state_name
from playbook.changes.partitioning.periods import Every, Period, containing, first_ahead
from playbook.target.sql import quote

Route = Literal["attach", "copy"]

APPEND_MOSTLY_PCT = 10.0
"""Up to this share of updates and deletes among its writes a table counts as append-mostly: its history rests."""
TELLING_PCT = 10.0
"""Of fewer writes than this share of its rows, the server's counters say nothing about a table's habits."""
MOST_PERIODS = 3000
"""As many partitions as PostgreSQL's planner is known to manage (its documentation speaks of a few thousand)."""


@dataclass(frozen=True)
class Wish:
    """What the plan's step says of the way and of the periods."""

    every: Every
    building: str
    ahead: int
    default: bool
    route: Route | None
    cutoff: date | None
    brin: bool


@dataclass(frozen=True)
class Chosen:
    """The conversion of one table and why it goes that way; `known` says whether the age of its rows is known.

    `as_found` is the table as it was before the first run, `brin` the index that it is to have besides.
    """

    conversion: Conversion
    why: str
    as_found: Attributes
    brin: Index | None
    known: bool = True


def choose(
    connection: psycopg.Connection[Any], found: Attributes, key: str, wish: Wish, user: str, now: datetime | None = None
) -> Chosen:
    """By the plan, by what an interrupted run began, or by the habits of the table's writers."""
    now = now or datetime.now(UTC)
    common: dict[str, Any] = {
        "table": found,
        "dependents": dependents.read(connection, found.oid),
        "key": key,
        "building": wish.building,
        "user": user,
        "ahead": wish.ahead,
        "default": wish.default,
    }
    begun = begun_for(connection, found)
    route, why = ("copy", "it was begun") if begun else _route(connection, found, wish)
    if route == "attach":
        start = cutoff_of(found) or wish.cutoff or first_ahead(now, wish.every).start
        attach = Attach(**common, cutoff=Period(containing(start, wish.every).start, wish.every))
        ours = {attach.wide_index, attach.narrow_index} if found.primary_key and attach.widened else set()
        return _chosen(attach, why, found, key, wish, ours | {attach.check})
    oldest = None if begun else oldest_day(connection, found, key)
    last = containing(now.date(), wish.every)
    for _ in range(wish.ahead):
        last = last.next()
    first = containing(min(oldest or last.start, now.date()), wish.every)
    if begun:
        first, last = (containing(day, wish.every) for day in begun)
    copy = Copy(**common, first=first, last=last)
    ours = {copy.log.trigger, copy.log.truncate_trigger}
    return replace(_chosen(copy, why, found, key, wish, ours), known=bool(begun or oldest))


def _chosen(conversion: Conversion, why: str, found: Attributes, key: str, wish: Wish, ours: set[str]) -> Chosen:
    """`ours` are the names of what an interrupted run has made on the table by now."""
    wanted = brin.index(found, key) if wish.brin else None
    if wanted and any(each.body == wanted.body and each.name != wanted.name and each.valid for each in found.indexes):
        wanted = None  # the table has one of its own
    ours = ours | {wanted.name} if wanted else ours
    as_found = replace(
        found,
        indexes=tuple(each for each in found.indexes if each.name not in ours),
        constraints=tuple(each for each in found.constraints if each.name not in ours),
        triggers=tuple(each for each in found.triggers if each.name not in ours),
    )
    indexes = (*as_found.indexes, wanted) if wanted else as_found.indexes
    return Chosen(replace(conversion, table=replace(as_found, indexes=indexes)), why, as_found, wanted)


def begun_for(connection: psycopg.Connection[Any], found: Attributes) -> tuple[date, date] | None:
    """First and last period of a copy that was begun."""
    state = quote(found.schema, state_name(found.name))
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [state]).fetchone()
    if not (row and row[0]):
        return None
    kept = connection.execute(f"SELECT first, last FROM {state}".encode()).fetchone()
    return (kept[0], kept[1]) if kept else None


def _route(connection: psycopg.Connection[Any], found: Attributes, wish: Wish) -> tuple[Route, str]:
    if wish.route or wish.cutoff:
        return wish.route or "attach", f"the plan says {wish.route}" if wish.route else "the plan names a cutoff"
    if cutoff_of(found) or _has_wide_index(found):
        return "attach", "it was begun"
    return _by_habits(connection, found, wish)


def _by_habits(connection: psycopg.Connection[Any], found: Attributes, wish: Wish) -> tuple[Route, str]:
    inserts, changes, rows = connection.execute(_HABITS.encode(), [found.oid]).fetchall()[0]
    writes = inserts + changes
    if not writes or writes * 100 < TELLING_PCT * max(rows, 0):
        return (
            "attach",
            "the server has counted too few writes to tell a table that is changed from one that only grows",
        )
    share = 100 * changes / writes
    told = f"{share:.0f} % of its writes change rows that stand"
    if share <= APPEND_MOSTLY_PCT:
        return "attach", f"{told}: history rests, and nothing need be copied"
    if obstacles := copy_obstacles(found):
        return "attach", f"{told}, but it cannot be copied: {obstacles[0].detail}"
    return "copy", f"{told}: history is in use, and copied into its {wish.every}s it can be pruned at once"


def _has_wide_index(found: Attributes) -> bool:
    """Whether the first statement of an attach left its index there."""
    primary = found.primary_key
    return primary is not None and Attach.old_name(primary.name) in {each.name for each in found.indexes}


def oldest_day(connection: psycopg.Connection[Any], found: Attributes, key: str) -> date | None:
    """The day of the oldest row, as the statistics have it; what is older finds its place all the same."""
    column = found.column(key)
    if not KEY_TYPES.fullmatch(column.type):
        return None
    zone = " AT TIME ZONE 'UTC'" if column.type.endswith(" with time zone") else ""
    sql = _OLDEST.format(type=column.type, zone=zone)
    row = connection.execute(sql.encode(), [found.schema, found.name, key]).fetchone()
    return row[0] if row else None


def copy_obstacles(a: Attributes) -> list[Finding]:
    """What speaks against copying the table, besides what speaks against partitioning it."""
    found = []
    if a.primary_key is None:
        remedy = f"ALTER TABLE {a.qualified} ADD PRIMARY KEY (…), or `route: attach` at the step"
        found.append(
            Finding("blocked", f"{a.qualified} has no primary key, by which a changed row could be told", remedy)
        )
    found += [
        Finding(
            "blocked",
            f"publication {each.name} carries whatever is made: it would send the copy to subscribers that lack it",
            "`route: attach` at the step",
        )
        for each in a.publications
        if not each.named
    ]
    return found


def period_obstacles(chosen: Chosen) -> list[Finding]:
    """What speaks against the partitions that a copy would get."""
    copy = chosen.conversion
    assert isinstance(copy, Copy)
    found = []
    if not chosen.known:
        detail = f"the server's statistics do not say how old the rows of {copy.name} are"
        found.append(Finding("blocked", detail, f"ANALYZE {copy.name}"))
    count = count_of(copy)
    if count > MOST_PERIODS:
        longer = f"there would be {count:,} partitions: more than {MOST_PERIODS:,} are a burden to every query"
        found.append(Finding("blocked", longer, "a longer `every` at the step"))
    return found


def count_of(copy: Copy) -> int:
    """How many partitions its periods are, about."""
    days = {"day": 1, "week": 7, "month": 30.4, "quarter": 91.3, "year": 365.25}[copy.first.every]
    return int((copy.last.end - copy.first.start).days / days)


_HABITS = """
SELECT coalesce(s.n_tup_ins, 0), coalesce(s.n_tup_upd, 0) + coalesce(s.n_tup_del, 0), c.reltuples::bigint
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid WHERE c.oid = %s
"""

_OLDEST = """
SELECT (CASE WHEN isfinite(v) THEN v END{zone})::date
FROM (SELECT least((s.histogram_bounds::text::{type}[])[1],
                   (SELECT min(m) FROM unnest(s.most_common_vals::text::{type}[]) m)) v
      FROM pg_catalog.pg_stats s
      WHERE s.schemaname = %s AND s.tablename = %s AND s.attname = %s AND NOT s.inherited) o
"""
