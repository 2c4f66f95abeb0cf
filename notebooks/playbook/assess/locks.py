"""Locks: who waits for whom at this moment, and how often two waited for each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from playbook.assess.check import Answer, Check, judged, not_checked, ok, warn
from playbook.assess.counters import span
from playbook.assess.session import Session

MOST_WAITING = 50
"""pg_blocking_pids holds up the lock manager for a moment at each call: asked of so many waiting sessions at most."""
DEADLOCKS_A_DAY = 1.0

# pg_locks shows every role who waits; what the sessions run is shown to pg_read_all_stats only.
_WAITING = """
SELECT w.pid, pg_blocking_pids(w.pid) AS blockers, w.mode, w.relation, a.usename::text AS role,
       now() - coalesce(a.state_change, a.query_start) AS since, coalesce(left(a.query, 1000), '') AS query
FROM (
  SELECT DISTINCT ON (l.pid) l.pid, l.mode, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS relation
  FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation AND l.database = (
    SELECT oid FROM pg_database WHERE datname = current_database())
  LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT l.granted ORDER BY l.pid LIMIT {most}
) w LEFT JOIN pg_stat_activity a ON a.pid = w.pid
ORDER BY since DESC NULLS LAST
"""
_GRANTED = "SELECT count(*) AS held FROM pg_locks WHERE granted AND pid <> pg_backend_pid()"
_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


def waiting(session: Session) -> Iterator[Answer]:
    """Sessions of the whole server that wait for a lock at this moment, and those that hold it."""
    rows = session.rows(_WAITING.format(most=MOST_WAITING))
    if not rows:
        held = session.row(_GRANTED).held
        yield ok(f"no session waits for a lock at this moment ({held:,} locks are held by others)")
        return
    # Those who hold and do not wait themselves are where the queue begins.
    waits = {row.pid for row in rows}
    found = [_blocked(row, waits, session) for row in rows]
    yield from judged(found, len(rows), ("waiting session", "waiting sessions"), "")


def _blocked(row: Any, waits: set[int], session: Session) -> Answer:
    blockers = [pid for pid in row.blockers if pid]
    first = [pid for pid in blockers if pid not in waits] or blockers
    what = f"{row.mode} on {row.relation}" if row.relation else row.mode
    since = f" for {span(row.since)}" if row.since is not None else ""
    query = session.text(row.query)
    held = f"process {', '.join(map(str, blockers))}" if blockers else "a prepared transaction, or one that just ended"
    return warn(
        f"process {row.pid} waits{since} for {what}, held by {held}{': ' + query if query else ''}",
        "\n".join(
            [
                "-- after asking its owner; pg_terminate_backend ends its whole session",
                *(f"SELECT pg_cancel_backend({pid});" for pid in first),
            ]
        )
        if first
        else "-- SELECT * FROM pg_prepared_xacts;",
    )


def deadlocks(session: Session) -> Iterator[Answer]:
    """How often two transactions waited for each other until one was cancelled."""
    age = session.since.age
    number = session.row(_DEADLOCKS).deadlocks
    if age is None:
        yield not_checked(f"{number:,} deadlocks since a time that is not recorded")
        return
    told = f"{number:,} {'deadlock' if number == 1 else 'deadlocks'} {session.since}"
    if number > DEADLOCKS_A_DAY * max(age.total_seconds() / 86_400, 1.0):
        yield warn(
            told,
            "-- the server's log holds both statements of each: let all transactions take their rows in one order,\n"
            "-- and have waits of over deadlock_timeout logged\n"
            "ALTER SYSTEM SET log_lock_waits = on;\nSELECT pg_reload_conf();",
        )
    else:
        yield ok(told)


CHECK = Check(5, "locks", "Locks and blockers", {"waiting": waiting, "deadlocks": deadlocks})
