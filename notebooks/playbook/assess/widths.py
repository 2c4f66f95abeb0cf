"""Average widths of columns, from the statistics that ANALYZE keeps; those of others' tables are hidden."""

from __future__ import annotations

from collections.abc import Iterable

from playbook.assess.bloat import Width
from playbook.assess.check import Answer, counted, not_checked
from playbook.assess.session import Session
from playbook.target.catalog import Table

_WIDTHS = """
SELECT schemaname::text AS schema, tablename::text AS name, attname::text AS column, avg_width, null_frac
FROM pg_stats
WHERE (schemaname, tablename) IN (SELECT s, t FROM unnest(%s::name[], %s::name[]) AS wanted (s, t)) AND NOT inherited
"""


def widths_of(session: Session, tables: Iterable[Table]) -> dict[tuple[str, str, str], Width]:
    """The widths of the columns of `tables` that this role may read, by schema, table and column: one query."""
    tables = list(tables)
    if not tables:
        return {}
    rows = session.rows(_WIDTHS, [table.schema for table in tables], [table.name for table in tables])
    return {(row.schema, row.name, row.column): Width(row.avg_width, row.null_frac) for row in rows}


def unknown(number: int, what: tuple[str, str]) -> Answer:
    """So many tables or indexes that cannot be reckoned, for want of a width."""
    return not_checked(
        f"{counted(number, what)}: the statistics of the columns are hidden from this role, or there are none",
        "-- ANALYZE, or ask as a role that may SELECT from the tables (pg_read_all_data)",
    )
