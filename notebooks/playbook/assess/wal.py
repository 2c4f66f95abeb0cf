"""Checkpoints, WAL, temporary files and replication: what is written beside the tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from playbook import figures
from playbook.assess.check import Answer, Check, counted, judged, needs_role, not_checked, ok, warn
from playbook.assess.counters import span
from playbook.assess.session import Session
from playbook.changes.preflight import LAG_S
from playbook.target.sql import literal

REQUESTED_SHARE = 0.5
"""Of checkpoints: those that max_wal_size asks for come before their time, and each makes every page be logged whole
again (the manual, "WAL Configuration")."""
ENOUGH_CHECKPOINTS = 10
FULL_SHARE = 0.01
"""Of WAL records, those for which a session first had to write WAL itself (the manual, "pg_stat_wal")."""
ENOUGH_RECORDS = 10_000
SPILLED_BYTES_AN_HOUR = 100 * 1024**2
ENOUGH_FILES = 10
RETAINED_BYTES = 1024**3

_CHECKPOINTS_TO_16 = (
    "SELECT checkpoints_timed AS timed, checkpoints_req AS requested, stats_reset FROM pg_stat_bgwriter"
)
_CHECKPOINTS = "SELECT num_timed AS timed, num_requested AS requested, stats_reset FROM pg_stat_checkpointer"
_WAL = (
    "SELECT wal_records AS records, wal_bytes::bigint AS bytes, wal_buffers_full AS full, stats_reset FROM pg_stat_wal"
)
_TEMPORARY = (
    "SELECT temp_files AS files, temp_bytes::bigint AS bytes FROM pg_stat_database WHERE datname = current_database()"
)
_STANDBYS = """
SELECT pid, coalesce(application_name, '') AS name, state, sent_lsn IS NULL AS hidden, replay_lag
FROM pg_stat_replication ORDER BY replay_lag DESC NULLS LAST
"""
_SLOTS = """
SELECT slot_name::text AS name, active, coalesce(wal_status, '') AS wal_status,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                       restart_lsn)::bigint AS bytes
FROM pg_replication_slots WHERE NOT temporary ORDER BY bytes DESC NULLS LAST
"""
_BEHIND = """
SELECT pg_last_wal_receive_lsn() IS NOT DISTINCT FROM pg_last_wal_replay_lsn() AS caught_up,
       now() - pg_last_xact_replay_timestamp() AS behind
"""


def checkpoints(session: Session) -> Iterator[Answer]:
    """Whether checkpoints come by the clock, or because WAL ran full. For the whole server."""
    row = session.row(_CHECKPOINTS if session.server.major >= 17 else _CHECKPOINTS_TO_16)
    both = row.timed + row.requested
    if both < ENOUGH_CHECKPOINTS:
        yield not_checked(
            f"only {counted(both, ('checkpoint', 'checkpoints'))} since their counters' reset: too few to say"
        )
        return
    told = f"{row.requested:,} of {both:,} checkpoints were asked for, the others came by the clock"
    if row.requested > REQUESTED_SHARE * both:
        size = session.settings["max_wal_size"].bytes
        yield warn(
            f"{told} (max_wal_size is {figures.size(size)})",
            "-- twice as much; recovery after a crash takes longer\n"
            f"ALTER SYSTEM SET max_wal_size = '{size // 2**19}MB';\nSELECT pg_reload_conf();",
        )
    else:
        yield ok(told)


def wal(session: Session) -> Iterator[Answer]:
    """How much WAL there is, and whether its buffers suffice. For the whole server, from PostgreSQL 14 on."""
    if session.server.major < 14:
        yield not_checked("WAL is counted from PostgreSQL 14 on")
        return
    row = session.row(_WAL)
    if row.records < ENOUGH_RECORDS:
        yield not_checked(
            f"only {counted(row.records, ('WAL record', 'WAL records'))} since the counters' reset: too few"
        )
        return
    told = f"{figures.size(row.bytes)} of WAL since {row.stats_reset:%Y-%m-%d %H:%M} UTC"
    if row.full > FULL_SHARE * row.records:
        yield warn(
            f"{told}; its buffers were full {row.full:,} times",
            "-- takes a restart\nALTER SYSTEM SET wal_buffers = '64MB';",
        )
    else:
        yield ok(f"{told}; its buffers were full {row.full:,} times in {row.records:,} records")


def temporary_files(session: Session) -> Iterator[Answer]:
    """Sorts and hashes that outgrew work_mem and went to disk."""
    age = session.since.age
    row = session.row(_TEMPORARY)
    if age is None:
        yield not_checked(f"{row.files:,} temporary files since a time that is not recorded")
        return
    told = f"{counted(row.files, ('temporary file', 'temporary files'))}, {figures.size(row.bytes)}, {session.since}"
    hours = max(age.total_seconds() / 3600, 1.0)
    if row.files >= ENOUGH_FILES and row.bytes > SPILLED_BYTES_AN_HOUR * hours:
        yield warn(
            f"{told} (work_mem is {figures.size(session.settings['work_mem'].bytes)})",
            "-- for the statements that spill (temp_blks_written in pg_stat_statements), not for all: every node of\n"
            "-- every session may take this much\n"
            "SET work_mem = '64MB';",
        )
    else:
        yield ok(told)


def standbys(session: Session) -> Iterator[Answer]:
    """How far standbys are behind; on a standby, how far it is itself."""
    if session.server.standby:
        yield from _standby(session)
        return
    rows = session.rows(_STANDBYS)
    if any(row.hidden for row in rows) and not session.sees_all:
        yield needs_role(session, "pg_read_all_stats", f"how far {counted(len(rows), _STANDBY)} behind is hidden")
        return
    late = [row for row in rows if row.replay_lag is not None and row.replay_lag > timedelta(seconds=LAG_S)]
    found = [
        warn(
            f"standby {row.name} ({row.state}) is {span(row.replay_lag)} behind",
            "-- is it the network, the standby's disk, or a query there that recovery waits for?\n"
            "SELECT * FROM pg_stat_replication;",
        )
        for row in late
    ]
    yield from judged(found, len(rows), ("connected standby", "connected standbys"), f"none is over {LAG_S} s behind")


_STANDBY = ("standby is", "standbys are")


def _standby(session: Session) -> Iterator[Answer]:
    row = session.row(_BEHIND)
    if row.behind is None and not row.caught_up:
        yield not_checked("this standby has replayed nothing yet")
    elif not row.caught_up and row.behind > timedelta(seconds=LAG_S):
        yield warn(f"this standby is {span(row.behind)} behind", "-- see its log, and pg_stat_replication there")
    else:
        yield ok("this standby has replayed what it received")


def slots(session: Session) -> Iterator[Answer]:
    """Slots that keep WAL for a consumer that does not come for it: the disk fills until the server stops."""
    rows = session.rows(_SLOTS)
    found = []
    for row in rows:
        told = f"slot {row.name} keeps {figures.size(row.bytes or 0)} of WAL"
        if row.wal_status == "lost":
            told = f"slot {row.name} has lost WAL that its consumer needs"
        elif row.active and (row.bytes or 0) < RETAINED_BYTES:
            continue
        found.append(
            warn(
                f"{told}{'' if row.active else ' and nobody reads it'}",
                "-- once its consumer is known to be gone for good\n"
                f"SELECT pg_drop_replication_slot({literal(row.name)});\n"
                "-- and a bound on what a slot may keep\n"
                "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';\nSELECT pg_reload_conf();",
            )
        )
    yield from judged(found, len(rows), ("replication slot", "replication slots"), "each has a reader that keeps up")


CHECK = Check(
    9,
    "wal",
    "Checkpoints, WAL, temporary files, replication",
    {
        "checkpoints": checkpoints,
        "WAL": wal,
        "temporary files": temporary_files,
        "standbys": standbys,
        "replication slots": slots,
    },
)
