"""Settings, version, and how old the statistics are that all other checks rest on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from playbook import figures
from playbook.assess.check import Answer, Check, needs_role, not_checked, ok, warn
from playbook.assess.counters import YOUNG, span
from playbook.assess.session import Session

END_OF_LIFE = {
    13: date(2025, 11, 13),
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""The last release of each major version: https://www.postgresql.org/support/versioning/"""
DEFAULT_SHARED_BUFFERS = 128 * 1024**2
"""What initdb writes; the manual ("Resource Consumption") begins with a quarter of the machine's memory."""
OUTGROWN = 4
"""A database this many times as large as default shared buffers has outgrown them."""

_DURABILITY = {
    "fsync": "a crash of the machine may leave the database broken beyond repair",
    "full_page_writes": "a crash of the machine may leave torn pages",
    "synchronous_commit": "a crash loses transactions that clients were told are committed",
}
_HOUSEKEEPING = {
    "autovacuum": "dead rows are never cleared away, statistics grow stale",
    "track_counts": "autovacuum does not know which tables need it, and most of these checks see nothing",
}


def version(session: Session) -> Iterator[Answer]:
    """Whether the major version still gets fixes. Whether a newer minor one is out, no server knows."""
    server = session.server
    end = END_OF_LIFE[server.major]
    if session.since.now.date() > end:
        yield warn(
            f"PostgreSQL {server.version}: the last release of {server.major} was on {end}, no hole is mended any more",
            "-- upgrade to a supported major version (pg_upgrade, or logical replication)",
        )
    else:
        yield ok(
            f"PostgreSQL {server.version}, mended until {end}; whether a newer {server.major}.x is out, SQL cannot ask"
        )


def durability(session: Session) -> Iterator[Answer]:
    """Settings that trade committed rows for speed."""
    yield from _switched_off(session, _DURABILITY, "a crash loses nothing that is committed")


def housekeeping(session: Session) -> Iterator[Answer]:
    """Settings without which the server does not look after itself."""
    yield from _switched_off(session, _HOUSEKEEPING, "the server looks after itself")


def _switched_off(session: Session, dangers: dict[str, str], fine: str) -> Iterator[Answer]:
    off = [name for name in dangers if session.settings[name].value == "off"]
    for name in off:
        yield warn(f"{name} is off: {dangers[name]}", f"ALTER SYSTEM SET {name} = on;\nSELECT pg_reload_conf();")
    if not off:
        yield ok(f"{', '.join(dangers)} are on: {fine}")


def memory(session: Session) -> Iterator[Answer]:
    """Shared buffers against the size of the database; the machine's memory cannot be asked with SQL."""
    shared = session.settings["shared_buffers"].bytes
    size = session.row("SELECT pg_database_size(current_database()) AS bytes").bytes
    told = f"shared_buffers is {figures.size(shared)}, the database {figures.size(size)}"
    if shared <= DEFAULT_SHARED_BUFFERS and size > OUTGROWN * shared:
        yield warn(
            f"{told}: that is the default for a small machine",
            "-- a quarter of the machine's memory is a reasonable start; takes a restart\n"
            "ALTER SYSTEM SET shared_buffers = '4GB';",
        )
    else:
        yield ok(f"{told}; set it against the machine's memory, which SQL cannot ask")


def pending(session: Session) -> Iterator[Answer]:
    """Settings that were changed and wait for a restart."""
    waiting = sorted(setting.name for setting in session.settings.values() if setting.pending_restart)
    if waiting:
        yield warn(f"changed, but in force only after a restart: {', '.join(waiting)}", "-- restart the server")
    else:
        yield ok(f"{len(session.settings)} settings looked at: none waits for a restart")
    if "shared_preload_libraries" not in session.settings:
        yield needs_role(session, "pg_read_all_settings", "settings for superusers are hidden")


def statistics_age(session: Session) -> Iterator[Answer]:
    """How long the counters count: what they have not seen may still come."""
    since = session.since
    if since.age is None:
        yield not_checked("no time is recorded since when counters count")
    elif since.age < YOUNG:
        yield warn(
            f"counters hold what happened {since}, not a whole week: what they say of unused indexes is not final",
            f"-- look again when they are {span(YOUNG)} old; nobody should call pg_stat_reset() before",
        )
    else:
        yield ok(f"counters hold what happened {since}")


CHECK = Check(
    1,
    "settings",
    "Settings, version, age of statistics",
    {
        "version": version,
        "durability": durability,
        "housekeeping": housekeeping,
        "memory": memory,
        "pending restart": pending,
        "statistics age": statistics_age,
    },
)
