"""Extensions of a database: whether one is there, and in which schema its objects stand."""

from __future__ import annotations

from typing import Any

import psycopg

from playbook.target.sql import OWN

_SCHEMA = f"""
{OWN} pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = %s
"""


def schema_of(connection: psycopg.Connection[Any], extension: str) -> str | None:
    """The schema of the extension's objects, quoted; None where it is not in this database."""
    row = connection.execute(_SCHEMA.encode(), [extension]).fetchone()
    return row[0] if row else None
