"""Preflight questions that several kinds of change ask; each answers with findings, never with a guess."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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


_CALL = re.compile(r'("(?:[^"]|"")+"|[A-Za-z_][\w$]*)\s*\(')
_JOURNAL = """
SELECT current_database()::text, n.oid IS NOT NULL,
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false),
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false),
  (SELECT count(*) FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relname = ANY(%(tables)s)),
  (SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, p))
   FROM pg_catalog.pg_class c, pg_catalog.unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
   WHERE c.relnamespace = n.oid AND c.relname = ANY(%(tables)s))
FROM (VALUES (1)) AS one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = %(schema)s
"""


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
    user, owner = current_user(connection), owner_to_be(connection, table)
    findings = []
    if not _is_member(connection, table.owner):
        # A superuser's membership would give away the whole server.
        gives = f"GRANT {quote(owner)} TO" if owner != user else f"ALTER TABLE {table.qualified} OWNER TO"
        or_else = f"or connect as {table.owner}"
        findings.append(_missing(f"{user} does not own {table.qualified}", f"{gives} {quote(user)};", or_else))
    # Who is to be the owner, or its member, has what the owner has.
    worker = user if _is_member(connection, owner) else owner
    return [*findings, *may_create(connection, table.schema, worker)] if creates else findings


def may_create(connection: psycopg.Connection[Any], schema: str, role: str) -> list[Finding]:
    """Whether the role may create in the schema; the remedy names the missing GRANT."""
    if _one(connection, "SELECT pg_catalog.has_schema_privilege(%s::name, %s, 'CREATE')", role, schema):
        return []
    grant = f"GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(role)};"
    return [_missing(f"{role} may not create in schema {schema}", grant)]


def owner_to_be(connection: psycopg.Connection[Any], table: Table) -> str:
    """The role that owns the table once `ownership` has nothing to say: this one where it belongs to a superuser."""
    is_superuser = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = %s"
    if _is_member(connection, table.owner) or not _one(connection, is_superuser, table.owner):
        return table.owner
    return current_user(connection)


def _is_member(connection: psycopg.Connection[Any], role: str) -> bool:
    return bool(_one(connection, "SELECT pg_catalog.pg_has_role(current_user, %s::name, 'USAGE')", role))


def execution(connection: psycopg.Connection[Any], table: Table, expressions: Iterable[str]) -> list[Finding]:
    """The functions that these expressions may call (all overloads) and that the table's owner may not execute.

    An index is built with the rights of the table's owner, whoever gives the command.
    """
    called = {name for text in expressions for name in _CALL.findall(text)}
    names = [name[1:-1].replace('""', '"') if name.startswith('"') else name.lower() for name in called]
    if not names:
        return []
    owner = owner_to_be(connection, table)
    rows = connection.execute(
        "SELECT oid::pg_catalog.regprocedure::text FROM pg_catalog.pg_proc WHERE proname = ANY(%s) "
        "AND prokind = 'f' AND NOT pg_catalog.has_function_privilege(%s::name, oid, 'EXECUTE') ORDER BY 1",
        [names, owner],
    )
    return [
        _missing(f"{owner} may not execute {name}", f"GRANT EXECUTE ON FUNCTION {name} TO {quote(owner)};")
        for (name,) in rows
    ]


def journal(connection: psycopg.Connection[Any], schema: str, tables: Sequence[str]) -> list[Finding]:
    """What this role lacks to make the journal in `schema`, or to write to the one that stands."""
    row = connection.execute(_JOURNAL, {"schema": schema, "tables": list(tables)}).fetchone()
    assert row is not None
    database, stands, makes_schema, enters, makes_tables, made, writes = row
    user, found, or_file = current_user(connection), [], "or keep the journal in a file: --journal FILE"
    if not stands and not makes_schema:
        grant = f"GRANT CREATE ON DATABASE {quote(database)} TO {quote(user)};"
        found.append(_missing(f"{user} may not create the journal's schema {schema}", grant, or_file))
    if stands and not enters:
        grant = f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(user)};"
        found.append(_missing(f"{user} may not use the journal's schema {schema}", grant, or_file))
    if stands and made < len(tables) and not makes_tables:
        grant = f"GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(user)};"
        found.append(_missing(f"{user} may not create the journal's tables in schema {schema}", grant, or_file))
    if made and not writes:
        listed = ", ".join(quote(schema, table) for table in tables)
        grant = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {listed} TO {quote(user)};"
        found.append(_missing(f"{user} may not write to the journal of another role", grant, or_file))
    return found


def _missing(detail: str, grant: str, or_else: str = "") -> Finding:
    return Finding("privilege", detail, f"{grant} {or_else}".rstrip(), grant=grant)


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


def arrays(table: Table, method: str, keys: Iterable[str | None]) -> list[Finding]:
    """Columns that hold several values: a btree compares them whole, which an application seldom does."""
    names = set(keys)
    held = [column for column in table.columns if column.name in names and column.type.endswith("[]")]
    if method != "btree" or not held:
        return []
    name, kind = quote(held[0].name), held[0].type
    detail = f"{name} is {kind}, and a btree compares whole arrays: it serves `{name} = …`, not `… = ANY({name})` or @>"
    return [Finding("warn", detail, "where the application asks for one of the values, a gin index serves")]


def size(bytes_: int) -> str:
    """`1.4 MB`, `24 kB`."""
    return f"{bytes_ / 2**20:.1f} MB" if bytes_ >= 2**20 else f"{-(-bytes_ // 1024)} kB"


def disk(needed_bytes: int | None) -> list[Finding]:
    """What the change will take; what the server's disk has left cannot be asked with SQL."""
    if needed_bytes is None:
        detail = "expected size unknown: an expression, or a table never analysed; free disk cannot be asked with SQL"
    else:
        detail = f"needs about {size(needed_bytes)}, and as much WAL; free disk cannot be asked with SQL"
    return [Finding("not_checked", detail, "look at the server's free disk (df)")]


def _one(connection: psycopg.Connection[Any], sql: str, *values: Any) -> Any:
    row = connection.execute(sql.encode(), values or None).fetchone()
    return row[0] if row else None
