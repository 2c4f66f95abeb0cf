"""What is in the way of partitioning a table, what would be lost, and what could not be looked at."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from playbook.changes import preflight
from playbook.changes.change import Concern, Finding
from playbook.changes.partitioning.acceptance import Loss
from playbook.changes.partitioning.attributes import Attributes, Index
from playbook.changes.partitioning.conversion import Conversion
from playbook.changes.partitioning.dependents import Dependents
from playbook.changes.violations import violations
from playbook.errors import NotAnalysed
from playbook.target.catalog import Table
from playbook.target.extensions import schema_of
from playbook.target.sql import quote

KEY_TYPES = re.compile(r"date|timestamp(\(\d\))? with(out)? time zone")
_PLAIN_KEY = re.compile(r"(PRIMARY KEY|UNIQUE) \([^()]*\)( DEFERRABLE( INITIALLY DEFERRED)?)?")


def of_table(a: Attributes, dependents: Dependents, key: str) -> list[Finding]:
    """What PostgreSQL or this kind of change cannot carry over."""
    column = a.column(key)
    found: list[tuple[bool, str, str]] = [
        (a.is_partition, "it is a partition already", "partition the table above it"),
        (a.typed, "it is a typed table (OF)", "make it a plain one"),
        (a.relatives > 0 and not a.is_partition, "it inherits, or others inherit from it", "end that first"),
        (a.persistence != "p", "it is UNLOGGED or temporary", f"ALTER TABLE {a.qualified} SET LOGGED"),
        (a.method != "heap", f"its access method is {a.method}", "partition it by hand"),
        (a.labels > 0, "it bears security labels, which are not carried over", "partition it by hand"),
        (not KEY_TYPES.fullmatch(column.type), f"{key} is of type {column.type}", "name a date or timestamp column"),
        (bool(column.generated), f"{key} is a generated column", "name a plain column"),
        (a.server_version < 130000, "the server is older than PostgreSQL 13", "upgrade it"),
    ]
    found += [
        (True, f"{each} is bound to the table", "drop it first, and create it again after")
        for each in dependents.others
    ]
    for view in dependents.views:
        found.append((view.only, f"view {view.name} reads ONLY the table, which will hold no row itself", "rewrite it"))
        found.append((not view.ours, f"view {view.name} belongs to another role", "connect as one that owns both"))
    for function in dependents.functions:
        found.append((not function.ours, f"function {function.name} belongs to another role", "connect as its owner"))
    for statistics in a.statistics:
        other = f"statistics object {statistics.name} belongs to another role"
        found.append((not statistics.ours, other, "connect as one that owns both"))
    for each in a.constraints:
        verify = f"ALTER TABLE {a.qualified} VALIDATE CONSTRAINT {quote(each.name)}"
        found.append((not each.validated, f"constraint {each.name} is not validated", verify))
        found.append(
            (
                each.kind == "c" and each.no_inherit,
                f"constraint {each.name} is NO INHERIT",
                "make it one that is inherited",
            )
        )
        found.append((each.kind == "x", f"exclusion constraint {each.name} cannot span partitions", "drop it"))
    for trigger in a.triggers:
        rows = trigger.for_each_row and trigger.transition_tables
        found.append(
            (rows, f"trigger {trigger.name} needs transition tables for each row", "make it FOR EACH STATEMENT")
        )
    for index in a.indexes:
        odd = index.constraint in {"p", "u"} and not _PLAIN_KEY.fullmatch(index.constraint_definition or "")
        found.append((odd, f"{index.name} is {index.constraint_definition}", "a plain key can be carried over"))
        found.append((not index.valid, f"index {index.name} is INVALID", f"DROP INDEX {quote(a.schema, index.name)}"))
    return [Finding("blocked", f"{a.qualified}: {detail}", remedy) for there, detail, remedy in found if there]


def losses(conversion: Conversion) -> list[Loss]:
    """What partitioning takes away, whoever does it."""
    a = conversion.table
    lost = [_uniqueness(index) for index in a.indexes if index.valid and conversion.is_local(index)]
    lost += [
        Loss(f"dropping foreign key {each.name}", f"foreign key {each.name} of {each.table} refers to what is not "
             "unique by itself any more, and has to be dropped")
        for each in conversion.dependents.references
    ]  # fmt: skip
    if not a.column(conversion.key).not_null:
        lost.append(Loss(f"NOT NULL of {conversion.key}", f"{conversion.key} will take no NULL any more"))
    lost += [
        Loss(f"partitions in publication {each.name}", f"publication {each.name} will send rows under the partitions' "
             "names, which its subscribers lack (with publish_via_partition_root it would not)")
        for each in a.publications
        if not each.via_root
    ]  # fmt: skip
    return lost


def _uniqueness(index: Index) -> Loss:
    what = "index " + index.name if index.computed else ", ".join(index.columns)
    return Loss(
        f"per-partition uniqueness of {what}",
        f"{index.name} keeps {what} unique in the whole table, and will do so only within each partition",
    )


def upserts(connection: psycopg.Connection[Any], conversion: Conversion) -> tuple[list[Loss], list[Finding]]:
    """Statements that name a key which will be none of the whole table: found, or why they were not looked for."""
    a = conversion.table
    local = [index for index in a.indexes if index.valid and conversion.is_local(index)]
    if not local:
        return [], []
    found = [text for text in _function_bodies(connection) if _upserts(text, a.name)]
    logged, told = _logged_statements(connection)
    found += [text for text in logged if _upserts(text, a.name)]
    columns = ", ".join(local[0].columns) or local[0].name
    lost = [Loss(f"ON CONFLICT ({columns}) fails", f"INSERT … ON CONFLICT on {a.qualified} is in use ({len(found)} "
                 f"statement(s)): ON CONFLICT ({columns}) will fail")] if found else []  # fmt: skip
    return lost, told


def _function_bodies(connection: psycopg.Connection[Any]) -> list[str]:
    rows = connection.execute(
        "SELECT p.prosrc FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
        "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.prosrc ~* 'on\\s+conflict'"
    ).fetchall()
    return [row[0] for row in rows]


def _logged_statements(connection: psycopg.Connection[Any]) -> tuple[list[str], list[Finding]]:
    try:
        with connection.transaction():
            schema = schema_of(connection, "pg_stat_statements")
            if schema is None:
                return [], [Finding("not_checked", "an application's INSERT … ON CONFLICT was not looked for: "
                                    "pg_stat_statements is not there", "search its code for ON CONFLICT")]  # fmt: skip
            rows = connection.execute(
                f"SELECT query FROM {schema}.pg_stat_statements WHERE query ~* 'on\\s+conflict' AND dbid = "
                "(SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())".encode()
            ).fetchall()
    except psycopg.Error as error:
        cause = error.diag.message_primary or type(error).__name__
        return [], [Finding("not_checked", f"pg_stat_statements cannot be read: {cause}", "search for ON CONFLICT")]
    return [row[0] for row in rows], []


def _upserts(statement: str, table: str) -> bool:
    """Whether it is an upsert into a table of that name; DO NOTHING without a target needs no key."""
    into = rf'insert\s+into\s+([\w"]+\.)?"?{re.escape(table)}"?[\s(]'
    return bool(
        re.search(into, statement, re.IGNORECASE) and re.search(r"on\s+conflict\s*\(", statement, re.IGNORECASE)
    )


def of_rows(
    connection: psycopg.Connection[Any], table: Table, conversion: Conversion, *, execute: bool
) -> list[Finding]:
    """Rows that no partition could take, or none but a far one: NULL keys, and keys past the last period."""
    key, (limit, bound, default) = conversion.key, conversion.limit()
    column = quote(key)
    if not execute:
        return [Finding("not_checked", f"rows with {key} NULL or past {limit} were not counted, which reads the table")]
    findings = []
    past = "mend them; in the default partition they would keep later periods from getting theirs"
    conditions = (
        (f"checked.{column} IS NULL", f"{key} is NULL", "no partition can take them: give them a value", False),
        (
            f"checked.{column} >= {bound}",
            f"{key} lies past {limit}",
            past if default else "mend them, or name a later `cutoff` at the step",
            default,
        ),
    )
    for condition, what, remedy, bearable in conditions:
        try:
            found = violations(connection, table, condition)
        except NotAnalysed as error:
            findings.append(
                Finding("blocked", f"rows where {what} cannot be counted: {error}", "use a role that sees all")
            )
            continue
        if found.rows:
            concern: Concern = "warn" if bearable else "blocked"
            findings.append(Finding(concern, f"{_rows(found.rows)}: {what}", remedy, found.keys))
    return findings


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def privileges(connection: psycopg.Connection[Any], conversion: Conversion) -> list[Finding]:
    """REFERENCES on what the table refers to, and its owner's right to create in the schema."""
    findings = []
    for each in conversion.table.foreign_keys:
        row = connection.execute("SELECT has_table_privilege(%s, 'REFERENCES')", [each.references]).fetchone()
        if row and not row[0]:
            grant = f"GRANT REFERENCES ON {each.references} TO {quote(conversion.user)};"
            findings.append(Finding("blocked", f"{conversion.user} may not refer to {each.references}", grant))
    for each in conversion.dependents.references:
        row = connection.execute(
            "SELECT pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)", [each.table]
        ).fetchone()
        if row and not row[0]:
            findings.append(Finding("blocked", f"{conversion.user} does not own {each.table}", "connect as its owner"))
    for publication in conversion.table.publications:
        if publication.named and not publication.ours:
            owner = f"{conversion.user} does not own publication {publication.name}"
            findings.append(Finding("blocked", owner, "connect as a role that owns both"))
    return findings


LOCKS_SHARE = 0.8
"""Of the lock table, which all sessions share."""
_LOCKS = """
SELECT sum(setting::int) FILTER (WHERE name <> 'max_locks_per_transaction')::int,
       max(setting::int) FILTER (WHERE name = 'max_locks_per_transaction')
FROM pg_catalog.pg_settings
WHERE name IN ('max_connections', 'max_prepared_transactions', 'max_locks_per_transaction')
"""


def lock_table(connection: psycopg.Connection[Any], conversion: Conversion) -> list[Finding]:
    """Whether so many partitions can be made, and dropped, at once: each with its indexes and TOAST takes a lock.

    The server has room for max_locks_per_transaction * (max_connections + max_prepared_transactions) of them (the
    manual, "Lock Management").
    """
    row = connection.execute(_LOCKS.encode()).fetchone()
    if row is None or None in row:
        return []
    sessions, each = row
    needed = (conversion.made + 2) * (3 + len(conversion.table.indexes))
    if needed <= LOCKS_SHARE * sessions * each:
        return []
    wanted = -(-needed * 2 // sessions)
    room = f"the server has room for {sessions * each:,}"
    detail = f"{conversion.made:,} partitions at once take {needed:,} locks, and {room}"
    fewer = "name a smaller `ahead` at the step, or " if conversion.ahead else ""
    remedy = f"{fewer}set max_locks_per_transaction = {wanted} and restart the server"
    return [Finding("blocked", detail, remedy)]


def names_taken(connection: psycopg.Connection[Any], names: list[str]) -> list[Finding]:
    """Relations that bear a name which is needed."""
    rows = connection.execute(
        "SELECT n FROM unnest(%s::text[]) n WHERE to_regclass(n) IS NOT NULL ORDER BY 1", [names]
    ).fetchall()
    return [Finding("blocked", f"{name} stands already", "rename or drop it") for (name,) in rows]


def swap_waits(connection: psycopg.Connection[Any]) -> list[Finding]:
    """Long transactions keep both the builds and the swap waiting."""
    return preflight.long_transactions(connection, f"{preflight.BUILD_WAITS}, and {preflight.HOLDS_LOCK}")
