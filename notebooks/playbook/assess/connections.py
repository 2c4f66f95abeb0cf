"""Connections: how many there are of those there may be, and which hold a transaction open."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from playbook.assess.check import Answer, Check, judged, needs_role, not_checked, ok, warn
from playbook.assess.counters import span
from playbook.assess.session import Session
from playbook.changes.preflight import LONG_TRANSACTION_S

USED_SHARE = 0.8
"""From here on a burst, or a deployment that starts the new before it stops the old, meets "too many clients"."""
LONG_S = 300
"""A transaction older than this keeps VACUUM from clearing away what has died since, in every table."""
LOST_SHARE = 0.05
"""Of all sessions; some clients always go away without a word."""
ENOUGH_LOST = 10

# What kind of backend another role's is, is hidden too; that it has a database and a role is not.
_USED = """
SELECT count(*) AS used, count(*) FILTER (WHERE datname = current_database()) AS here
FROM pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
"""
_SESSIONS = """
SELECT pid, usename::text AS role, coalesce(application_name, '') AS application, coalesce(state, '') AS state,
       now() - state_change AS since, now() - xact_start AS age, coalesce(left(query, 1000), '') AS query
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()
ORDER BY xact_start
"""
_ENDED = """
SELECT sessions, sessions_abandoned + sessions_fatal + sessions_killed AS lost
FROM pg_stat_database WHERE datname = current_database()
"""
_SESSION = ("session", "sessions")


def used(session: Session) -> Iterator[Answer]:
    """Connections in use on the whole server, of those that ordinary roles may have."""
    row = session.row(_USED)
    reserved = sum(
        int(session.settings[name].value)
        for name in ("superuser_reserved_connections", "reserved_connections")
        if name in session.settings
    )
    most = int(session.settings["max_connections"].value) - reserved
    told = f"{row.used:,} of {most:,} connections in use ({row.here:,} in this database)"
    if row.used >= USED_SHARE * most:
        yield warn(told, "-- a pooler (PgBouncer) or smaller pools in the application, before a larger max_connections")
    else:
        yield ok(told)


def idle_in_transaction(session: Session) -> Iterator[Answer]:
    """Sessions whose client began a transaction and went away."""
    if not session.sees_all:
        yield needs_role(session, "pg_read_all_stats", "what other roles' sessions do is hidden")
    sessions = session.rows(_SESSIONS)
    limit = timedelta(seconds=LONG_TRANSACTION_S)
    idle = [row for row in sessions if row.state.startswith("idle in transaction") and row.since > limit]
    found = [_held(row, f"idle in transaction for {span(row.since)}", session) for row in idle]
    yield from _of_those_seen(
        session, found, len(sessions), f"none is idle in a transaction for over {LONG_TRANSACTION_S} s"
    )


def long_transactions(session: Session) -> Iterator[Answer]:
    """Transactions at work for long."""
    if not session.sees_all:
        yield needs_role(session, "pg_read_all_stats", "what other roles' sessions do is hidden")
    sessions = session.rows(_SESSIONS)
    limit = timedelta(seconds=LONG_S)
    long = [row for row in sessions if row.state == "active" and row.age is not None and row.age > limit]
    found = [_held(row, f"in one transaction for {span(row.age)}", session) for row in long]
    yield from _of_those_seen(session, found, len(sessions), f"no transaction is at work for over {LONG_S // 60} min")


def _of_those_seen(session: Session, found: list[Answer], looked_at: int, fine: str) -> Iterator[Answer]:
    """Of the sessions that this role is shown; where some are hidden, that none was found is not said."""
    if session.sees_all and not looked_at:
        yield ok("no other session is in this database")
    elif found or session.sees_all:
        yield from judged(found, looked_at, _SESSION, fine)


def _held(row: Any, what: str, session: Session) -> Answer:
    query = session.text(row.query)
    who = f"process {row.pid} ({row.role}{', ' + row.application if row.application else ''})"
    return warn(
        f"{who} is {what}{': ' + query if query else ''}",
        f"-- after asking its owner\nSELECT pg_terminate_backend({row.pid});\n"
        "-- and so that it does not come again, for all sessions of the server\n"
        "ALTER SYSTEM SET idle_in_transaction_session_timeout = '60s';\nSELECT pg_reload_conf();"
        if row.state.startswith("idle")
        else f"-- after asking its owner\nSELECT pg_cancel_backend({row.pid});",
    )


def lost(session: Session) -> Iterator[Answer]:
    """Sessions that ended badly, counted from PostgreSQL 14 on."""
    if session.server.major < 14:
        yield not_checked("sessions are counted from PostgreSQL 14 on")
        return
    row = session.row(_ENDED)
    if not row.sessions:
        yield not_checked("no session of this database is counted yet")
        return
    told = f"{row.lost:,} of {row.sessions:,} sessions ended by a lost client, an error or a kill {session.since}"
    if row.lost >= ENOUGH_LOST and row.lost > LOST_SHARE * row.sessions:
        yield warn(told, "-- the server's log says of each why (log_disconnections = on)")
    else:
        yield ok(told)


CHECK = Check(
    4,
    "connections",
    "Connections and transactions held open",
    {
        "used": used,
        "idle in transaction": idle_in_transaction,
        "long transactions": long_transactions,
        "lost sessions": lost,
    },
)
