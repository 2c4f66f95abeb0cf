"""pg_partman, where it stands: whether it manages the table already, and how it could take over what a step makes."""

from __future__ import annotations

from typing import Any

import psycopg

from playbook.changes.change import Finding
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period, following
from playbook.target.sql import literal, quote

_INTERVALS = {"day": "daily", "month": "monthly", "year": "yearly"}
"""Those whose names differ from ours in nothing but a `p` before the period."""
_EXTENSION = """
SELECT quote_ident(n.nspname), e.extversion FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_partman'
"""


def managed(connection: psycopg.Connection[Any], schema: str, table: str) -> bool | None:
    """Whether pg_partman makes the table's partitions; None where that cannot be read."""
    found = connection.execute(_EXTENSION).fetchone()
    if found is None:
        return False
    try:
        with connection.transaction():
            asked = f"SELECT EXISTS (SELECT FROM {found[0]}.part_config WHERE parent_table = %s)"
            row = connection.execute(asked.encode(), [f"{schema}.{table}"]).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    return bool(row and row[0])


def findings(
    connection: psycopg.Connection[Any], schema: str, table: str, key: str, cutoff: Period, ahead: int
) -> list[Finding]:
    """That it is not told of the table, which it would want to be named otherwise, and the SQL that tells it."""
    found = connection.execute(_EXTENSION).fetchone()
    if found is None:
        return []
    place, version = found
    detail = f"pg_partman {version} stands here and is not told of the table: it knows partitions by names of its own"
    if not version.startswith("4.") or cutoff.every not in _INTERVALS:
        return [Finding("note", detail, "`playbook maintain` makes the partitions")]
    renames = [
        f"ALTER TABLE {quote(schema, fit(table, f'_{each.label}'))} RENAME TO {quote(fit(table, f'_p{each.label}'))};"
        for each in following(cutoff, ahead)
    ]
    call = (
        f"SELECT {place}.create_parent({literal(f'{schema}.{table}')}, {literal(key)}, 'native', "
        f"{literal(_INTERVALS[cutoff.every])}, p_premake := {ahead}, p_start_partition := '{cutoff.start}');"
    )
    return [
        Finding("note", detail, f"to have it adopt it after apply, instead of maintain: {' '.join([*renames, call])}")
    ]
