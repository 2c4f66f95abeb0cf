"""Preflight questions that several kinds of change ask; each answers with findings, never with a guess."""

from __future__ import annotations

from typing import Any

import psycopg

from playbook.changes.change import Finding
from playbook.target.catalog import Table
from playbook.target.sql import quote

LONG_TRANSACTION_S = 60
"""CONCURRENTLY waits for every transaction that is older than itself; from this age on it is worth a warning."""
BUILD_WAITS = "the build waits for them"
HOLDS_LOCK = "one that has used the table keeps the lock from being had, which is asked for 40 ms at a time"
LAG_S = 10
"""Replay lag from which a build's WAL would be felt on a standby."""


def standby(connection: psycopg.Connection[Any]) -> list[Finding]:
    """Nothing can be changed on a standby."""
    if _one(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        return [Finding("blocked", "the target is a standby, which is read-only", "name the primary as target")]
    return []


def current_user(connection: psycopg.Connection[Any]) -> str:
    """The role that the session works as."""
    return str(_one(connection, "SELECT current_user::text"))


def has_privilege(connection: psycopg.Connection[Any], table: Table, privilege: str) -> bool:
    """Whether that role has `privilege` (`REFERENCES`) on the table."""
    return bool(_one(connection, "SELECT pg_catalog.has_table_privilege(%s, %s)", table.qualified, privilege))


def ownership(connection: psycopg.Connection[Any], table: Table, *, creates: bool = True) -> list[Finding]:
    """Indexes and constraints need the table's owner; the remedy names the missing GRANT.

    What `creates` a relation needs CREATE on the schema too.
    """
    user, worker = current_user(connection), table.owner
    findings = []
    if not _one(connection, "SELECT pg_catalog.pg_has_role(current_user, %s::name, 'USAGE')", table.owner):
        remedy = f"GRANT {quote(table.owner)} TO {quote(user)}; or connect as {table.owner}"
        findings.append(Finding("privilege", f"{user} does not own {table.qualified}", remedy))
    else:
        worker = user
    # Who is to be the owner, or its member, has what the owner has.
    return [*findings, *may_create(connection, table.schema, worker)] if creates else findings


def may_create(connection: psycopg.Connection[Any], schema: str, role: str) -> list[Finding]:
    """Whether the role may create in the schema; the remedy names the missing GRANT."""
    if _one(connection, "SELECT pg_catalog.has_schema_privilege(%s::name, %s, 'CREATE')", role, schema):
        return []
    remedy = f"GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(role)};"
    return [Finding("privilege", f"{role} may not create in schema {schema}", remedy)]


def long_transactions(connection: psycopg.Connection[Any], effect: str = BUILD_WAITS) -> list[Finding]:
    """Transactions that are in the way; `effect` says how."""
    row = connection.execute(
        "SELECT count(*), max(extract(epoch FROM now() - xact_start))::int FROM pg_catalog.pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND xact_start < now() - make_interval(secs => %s)",
        [LONG_TRANSACTION_S],
    ).fetchone()
    count, oldest = row or (0, None)
    if count:
        detail = f"{count} transaction(s) older than {LONG_TRANSACTION_S} s, the oldest {oldest} s: {effect}"
        return [Finding("warn", detail, "end them, or apply in a quieter hour (pg_stat_activity shows them)")]
    if not _one(connection, "SELECT pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"):
        return [
            Finding(
                "not_checked",
                "long transactions of other roles are hidden from this role",
                "GRANT pg_read_all_stats to it to have them checked",
            )
        ]
    return []


def replication_lag(connection: psycopg.Connection[Any]) -> list[Finding]:
    """Standbys that are behind already."""
    rows = connection.execute(
        "SELECT coalesce(application_name, ''), extract(epoch FROM replay_lag)::int "
        "FROM pg_catalog.pg_stat_replication WHERE replay_lag > make_interval(secs => %s)",
        [LAG_S],
    ).fetchall()
    return [Finding("warn", f"standby {name} is {lag} s behind", "let it catch up first") for name, lag in rows]


def disk(needed_bytes: int | None) -> list[Finding]:
    """What the change will take; what the server's disk has left cannot be asked with SQL."""
    if needed_bytes is None:
        detail = "expected size unknown: an expression, or a table never analysed; free disk cannot be asked with SQL"
    else:
        needed = f"{needed_bytes / 2**20:.1f} MB" if needed_bytes >= 2**20 else f"{-(-needed_bytes // 1024)} kB"
        detail = f"needs about {needed}, and as much WAL; free disk cannot be asked with SQL"
    return [Finding("not_checked", detail, "look at the server's free disk (df)")]


def _one(connection: psycopg.Connection[Any], sql: str, *values: Any) -> Any:
    row = connection.execute(sql.encode(), values or None).fetchone()
    return row[0] if row else None
