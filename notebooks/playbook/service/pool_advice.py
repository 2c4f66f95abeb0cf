"""What a server says of its connections, how many are free and how they are used; and a pooler, of those who wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

SHARE_OF_FREE = 0.25
"""Of the target's free connections, the most that is taken or advised unasked."""
CHURN = 0.5
"""Sessions for each transaction, from which on they look as if each request opened its own."""
_MANY_SESSIONS = 100  # below that a share says nothing

_SLOTS = """
SELECT current_setting('max_connections')::int AS most,
       current_setting('superuser_reserved_connections')::int
         + coalesce(current_setting('reserved_connections', true), '0')::int AS reserved
"""
_SESSIONS = """
SELECT coalesce(state, '') AS state, count(*) AS sessions,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '5 s') AS stuck
FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1
"""
_HISTORY = """
SELECT sessions, xact_commit + xact_rollback AS transactions
FROM pg_catalog.pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Slots:
    """The connections of a server. `hidden` sessions belong to others, and this role cannot see their states.

    `sessions_ever` and `transactions_ever` are since the statistics of the database began; None before PostgreSQL 14.
    """

    most: int
    reserved: int
    used: int
    active: int
    idle: int
    idle_in_transaction: int
    stuck: int
    hidden: int
    sessions_ever: int | None
    transactions_ever: int | None

    @property
    def free(self) -> int:
        """How many more an ordinary role could open."""
        return max(0, self.most - self.reserved - self.used)

    @property
    def allowed(self) -> int:
        """How many a pool may take unasked: a quarter of what is free, and one at least."""
        return max(1, int(SHARE_OF_FREE * self.free))

    @property
    def churn(self) -> float | None:
        """Sessions for each transaction; near one, each request opens a connection of its own."""
        if not self.sessions_ever or not self.transactions_ever or self.sessions_ever < _MANY_SESSIONS:
            return None
        return self.sessions_ever / self.transactions_ever

    def advice(self) -> tuple[str, ...]:
        """What to do, in plain words; of what cannot be seen nothing is said but that it cannot."""
        lines = [
            f"{self.used} of {self.most} connections are in use and {self.free} are free; the pools of all processes "
            f"together should take no more than a quarter of these unasked: {self.allowed}"
        ]
        if self.free < 0.2 * self.most:
            lines.append("the server is nearly full: shrink the pools, or put PgBouncer in transaction mode in between")
        if self.idle > 20 and self.idle > 4 * max(1, self.active):
            lines.append(f"{self.idle} sessions are idle and {self.active} at work: the pools are larger than needed")
        if self.stuck:
            lines.append(
                f"{self.stuck} sessions have been idle in a transaction for more than 5 s: they hold a connection and "
                "locks; commit before waiting for anything else, and set idle_in_transaction_session_timeout"
            )
        if self.churn is not None and self.churn > CHURN:
            lines.append(
                f"{self.churn:.2f} sessions were opened for each transaction: requests seem to open connections of "
                "their own; use one engine for each process"
            )
        if self.hidden:
            lines.append(f"what {self.hidden} sessions do is hidden from this role (GRANT pg_monitor shows it)")
        return tuple(lines)


def slots(connection: psycopg.Connection[Any]) -> Slots:
    """The server's connections now; changes nothing and is right behind a transaction pooler too."""
    with connection.cursor(row_factory=dict_row) as cursor:
        bound = cursor.execute(_SLOTS).fetchone()
        states = {row["state"]: row for row in cursor.execute(_SESSIONS).fetchall()}
        history = cursor.execute(_HISTORY).fetchone() if connection.info.server_version >= 140000 else None
    assert bound is not None

    def count(prefix: str) -> int:
        return sum(row["sessions"] for state, row in states.items() if state.startswith(prefix) and state)

    return Slots(
        most=bound["most"],
        reserved=bound["reserved"],
        used=sum(row["sessions"] for row in states.values()),
        active=count("active"),
        idle=sum(row["sessions"] for state, row in states.items() if state == "idle"),
        idle_in_transaction=count("idle in transaction"),
        stuck=sum(row["stuck"] for row in states.values()),
        hidden=states.get("", {"sessions": 0})["sessions"],
        sessions_ever=history["sessions"] if history else None,
        transactions_ever=history["transactions"] if history else None,
    )


@dataclass(frozen=True)
class PoolerPool:
    """One pool of PgBouncer, from SHOW POOLS: clients at work and waiting, server connections at work and idle.

    `longest_wait_s` is what the first in the queue has waited.
    """

    database: str
    user: str
    mode: str
    clients: int
    waiting: int
    servers: int
    idle: int
    longest_wait_s: float

    @property
    def saturated(self) -> bool:
        """Whether clients wait, whatever the percentage of connections in use says."""
        return self.waiting > 0


def pooler_pools(console: psycopg.Connection[Any]) -> tuple[PoolerPool, ...]:
    """PgBouncer's pools. `console` is an autocommit connection to its database `pgbouncer`."""
    with console.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SHOW POOLS").fetchall()
    return tuple(
        PoolerPool(
            database=row["database"],
            user=row["user"],
            mode=row["pool_mode"],
            clients=int(row["cl_active"]),
            waiting=int(row["cl_waiting"]),
            servers=int(row["sv_active"]) + int(row["sv_used"]) + int(row["sv_login"]),
            idle=int(row["sv_idle"]),
            longest_wait_s=int(row["maxwait"]) + int(row["maxwait_us"]) / 1e6,
        )
        for row in rows
        if row["database"] != "pgbouncer"
    )
