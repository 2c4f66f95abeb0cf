"""Cache and I/O: how much is found in shared buffers, how long a read takes, who has to write."""

from __future__ import annotations

from collections.abc import Iterator

from playbook import figures
from playbook.assess.check import Answer, Check, counted, judged, not_checked, ok, warn
from playbook.assess.session import Session

HIT_SHARE = 0.95
"""Below it reading blocks is a large part of the work. The rule of thumb is 99 % where an application reads single rows
(https://devcenter.heroku.com/articles/heroku-postgres-database-tuning); analytics reads more than fits. A block that
the operating system has cached counts as read all the same."""
ENOUGH_BLOCKS = 100_000
"""Blocks asked for (800 MB) below which a share says nothing."""
TABLE_HIT_SHARE = 0.90
TABLE_READS = 10_000
SLOW_READ_MS = 5.0
"""A block from a flash disk takes well below 1 ms, from a spinning one 5 to 10."""
ENOUGH_READS = 1_000
BACKENDS_SHARE = 0.5
"""Of blocks written, by sessions that had to make room for what they read: the background writer should come first."""
ENOUGH_WRITES = 10_000

_DATABASE = """
SELECT blks_hit AS hit, blks_read AS read, blk_read_time AS read_ms
FROM pg_stat_database WHERE datname = current_database()
"""
_WRITTEN_TO_15 = """
SELECT buffers_backend AS by_backends, buffers_backend + buffers_clean + buffers_checkpoint AS written
FROM pg_stat_bgwriter
"""
_WRITTEN = """
SELECT coalesce(sum(writes), 0)::bigint AS written,
       coalesce(sum(writes) FILTER (WHERE backend_type = 'client backend' AND context = 'normal'), 0)::bigint
         AS by_backends
FROM pg_stat_io WHERE object = 'relation'
"""
_BLOCK = ("block", "blocks")


def hit_ratio(session: Session) -> Iterator[Answer]:
    """The share of blocks that this database found in shared buffers."""
    row = session.row(_DATABASE)
    asked = row.hit + row.read
    if asked < ENOUGH_BLOCKS:
        yield not_checked(f"only {counted(asked, _BLOCK)} asked for {session.since}: too few to say")
        return
    told = f"{figures.percent(100 * row.hit / asked)} of {asked:,} blocks were found in shared buffers {session.since}"
    if row.hit < HIT_SHARE * asked:
        yield warn(
            told,
            "-- fewer blocks first (indexes, narrower queries); then more memory, takes a restart\n"
            "ALTER SYSTEM SET shared_buffers = '4GB';",
        )
    else:
        yield ok(told)


def tables(session: Session) -> Iterator[Answer]:
    """The tables most of whose blocks come from outside shared buffers."""
    worst = sorted(
        (
            table
            for table in session.tables
            if table.read >= TABLE_READS and table.hit < TABLE_HIT_SHARE * table.fetched
        ),
        key=lambda table: -table.read,
    )
    found = [
        warn(
            f"{table.qualified}: {table.read:,} blocks read, {figures.percent(100 * table.hit / table.fetched)} found "
            f"in shared buffers {session.since}",
            "-- look for sequential scans of it (check `tables`) and for statements on it (check `statements`)",
        )
        for table in worst
    ]
    yield from judged(found, len(session.tables), ("table", "tables"), "none reads much from outside shared buffers")


def read_time(session: Session) -> Iterator[Answer]:
    """What a block from outside shared buffers costs."""
    if session.settings["track_io_timing"].value == "off":
        yield not_checked(
            "track_io_timing is off, so nothing tells what a read costs",
            "-- pg_test_timing tells what the clock costs on this machine; mostly next to nothing\n"
            "ALTER SYSTEM SET track_io_timing = on;\nSELECT pg_reload_conf();",
        )
        return
    row = session.row(_DATABASE)
    if row.read < ENOUGH_READS or not row.read_ms:
        yield not_checked(f"only {counted(row.read, _BLOCK)} read {session.since}: too few to say")
        return
    mean = row.read_ms / row.read
    told = (
        f"a block from outside shared buffers takes {figures.milliseconds(mean)} (mean of {row.read:,} {session.since})"
    )
    if mean > SLOW_READ_MS:
        yield warn(told, "-- the disk is slow or has too much to do: fewer blocks, more memory, or a faster disk")
    else:
        yield ok(told)


def writes(session: Session) -> Iterator[Answer]:
    """Whether sessions have to write blocks themselves before they can read others. For the whole server."""
    row = session.row(_WRITTEN if session.server.major >= 16 else _WRITTEN_TO_15)
    if row.written < ENOUGH_WRITES:
        yield not_checked(f"only {counted(row.written, _BLOCK)} written by the whole server: too few to say")
        return
    told = f"{figures.percent(100 * row.by_backends / row.written)} of {row.written:,} blocks were written by sessions"
    if row.by_backends > BACKENDS_SHARE * row.written:
        yield warn(
            f"{told}, who waited for that",
            "ALTER SYSTEM SET bgwriter_lru_maxpages = 400;\nALTER SYSTEM SET bgwriter_delay = '50ms';\n"
            "SELECT pg_reload_conf();",
        )
    else:
        yield ok(f"{told}, the others by checkpointer and background writer")


CHECK = Check(
    3, "cache", "Cache and I/O", {"hit ratio": hit_ratio, "tables": tables, "read time": read_time, "writes": writes}
)
