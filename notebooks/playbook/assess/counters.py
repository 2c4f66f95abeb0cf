"""What the server counts of tables and indexes: one query for all tables, one for all indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from playbook.target.sql import quote

if TYPE_CHECKING:
    from playbook.assess.session import Session

YOUNG = timedelta(days=7)
"""Counters younger than this have not seen a whole week of work: what they have not counted may still come."""

_USER_SCHEMAS = """
  JOIN pg_namespace n ON n.oid = c.relnamespace
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'playbook')
"""

# From the counters' functions and not from pg_stat_user_tables: the view sums every index of every table on the way.
TABLES = f"""
SELECT n.nspname::text AS schema, c.relname::text AS name, c.reltuples::float8 AS estimated_rows,
       c.relpages AS pages, coalesce(c.reloptions, '{{}}') AS options,
       pg_stat_get_numscans(c.oid) AS seq_scans, pg_stat_get_tuples_returned(c.oid) AS seq_rows,
       coalesce((SELECT sum(pg_stat_get_numscans(i.indexrelid)) FROM pg_index i WHERE i.indrelid = c.oid), 0)::bigint
         AS index_scans,
       pg_stat_get_tuples_inserted(c.oid) AS inserted, pg_stat_get_tuples_updated(c.oid) AS updated,
       pg_stat_get_tuples_hot_updated(c.oid) AS hot_updated,
       pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead,
       pg_stat_get_mod_since_analyze(c.oid) AS changed,
       greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed_at,
       greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed_at,
       pg_stat_get_blocks_fetched(c.oid) AS fetched, pg_stat_get_blocks_hit(c.oid) AS hit,
       greatest(age(c.relfrozenxid), age(t.relfrozenxid)) AS xid_age,
       greatest(mxid_age(c.relminmxid), mxid_age(t.relminmxid)) AS mxid_age
FROM pg_class c {_USER_SCHEMAS}
LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.relkind IN ('r', 'm')
"""

INDEXES = f"""
SELECT n.nspname::text AS schema, c.relname::text AS name, c.reltuples::float8 AS estimated_rows, c.relpages AS pages,
       pg_stat_get_numscans(c.oid) AS scans, i.indisreplident AS replica_identity, i.indisclustered AS clustered
FROM pg_class c {_USER_SCHEMAS}
JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relkind = 'i'
"""

# PostgreSQL 15 and later drop the counters after a crash, and only those of the whole server say when.
SINCE = """
SELECT now() AS now, d.stats_reset AS reset_at,
       (SELECT stats_reset FROM pg_stat_bgwriter) AS server_reset_at
FROM pg_stat_database d WHERE d.datname = current_database()
"""


SETTINGS = "SELECT name, setting, coalesce(unit, '') AS unit, pending_restart FROM pg_settings"

_UNITS = {"B": 1, "kB": 1024, "8kB": 8192, "MB": 1024**2, "GB": 1024**3}


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as pg_settings has it: its value in its unit."""

    name: str
    value: str
    unit: str
    pending_restart: bool

    @property
    def bytes(self) -> int:
        """Of a setting that is a size."""
        return int(self.value) * _UNITS[self.unit]


@dataclass(frozen=True, slots=True)
class TableCounters:
    """A table or materialized view as the server counts it; ages in transactions."""

    schema: str
    name: str
    estimated_rows: float
    pages: int
    options: tuple[str, ...]
    seq_scans: int
    seq_rows: int
    index_scans: int
    inserted: int
    updated: int
    hot_updated: int
    live: int
    dead: int
    changed: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None
    fetched: int
    hit: int
    xid_age: int
    mxid_age: int

    @property
    def qualified(self) -> str:
        """The quoted name with its schema."""
        return quote(self.schema, self.name)

    @property
    def read(self) -> int:
        """Blocks of the heap that were not found in shared buffers."""
        return max(0, self.fetched - self.hit)

    def setting(self, name: str, settings: Mapping[str, Setting]) -> float:
        """An autovacuum setting of the table, or else the server's."""
        own = self.option(name)
        return float(settings[name].value if own is None else own)

    def option(self, name: str) -> str | None:
        """A storage parameter of the table's own (`fillfactor`)."""
        return dict(option.partition("=")[::2] for option in self.options).get(name)


@dataclass(frozen=True, slots=True)
class IndexCounters:
    """An index as the server counts it."""

    schema: str
    name: str
    estimated_rows: float
    pages: int
    scans: int
    replica_identity: bool
    clustered: bool


@dataclass(frozen=True, slots=True)
class Since:
    """From when on counters count. `reset_at` is None where no reset is recorded: since the database was made, or since
    the crash after which the server made its counters anew."""

    now: datetime
    reset_at: datetime | None
    server_reset_at: datetime | None

    @property
    def age(self) -> timedelta | None:
        """How long they count, at most; None where nothing is recorded."""
        moment = self.reset_at or self.server_reset_at
        return self.now - moment if moment else None

    @property
    def young(self) -> bool:
        """Whether they have not seen a week of work."""
        return self.age is None or self.age < YOUNG

    def __str__(self) -> str:
        if self.age is None:
            return "since a time that is not recorded"
        return f"in the last {span(self.age)}{'' if self.reset_at else ' or less'}"


def settings(session: Session) -> dict[str, Setting]:
    """Every setting that this role may see, by name."""
    return {row.name: Setting(*row) for row in session.rows(SETTINGS)}


def tables(session: Session) -> list[TableCounters]:
    """Every user table and materialized view."""
    return [TableCounters(**row._asdict() | {"options": tuple(row.options)}) for row in session.rows(TABLES)]


def indexes(session: Session) -> dict[tuple[str, str], IndexCounters]:
    """Every index of a user table that has storage, by schema and name."""
    return {(row.schema, row.name): IndexCounters(*row) for row in session.rows(INDEXES)}


def since(session: Session) -> Since:
    """From when on the counters of this database count."""
    return Since(*session.row(SINCE))


def span(age: timedelta) -> str:
    """`12 days`, `3 hours`, `5 min`, `40 s`."""
    seconds = max(0, round(age.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7200:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} hours" if seconds < 172_800 else f"{seconds // 86_400:,} days"
