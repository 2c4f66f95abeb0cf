"""What depends on a table from outside: views and functions to re-point at its successor, and what is in the way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.changes.partitioning import attributes_queries
from playbook.target.sql import quote


@dataclass(frozen=True)
class View:
    """A view over the table; `definition` and `options` are what CREATE OR REPLACE VIEW has to be told again."""

    name: str
    definition: str
    options: tuple[str, ...]
    ours: bool

    @property
    def only(self) -> bool:
        """Whether it reads ONLY the table itself, which holds no row once it has partitions."""
        return re.search(r"\bFROM ONLY\b|\bJOIN ONLY\b", self.definition) is not None

    def command(self) -> str:
        """The view again, bound to the table that bears the name by then."""
        options = f" WITH ({', '.join(self.options)})" if self.options else ""
        return f"CREATE OR REPLACE VIEW {self.name}{options} AS\n{self.definition.rstrip().rstrip(';')}"


@dataclass(frozen=True)
class Function:
    """A function whose body is bound to the table (BEGIN ATOMIC); `command` creates it or replaces it."""

    name: str
    command: str
    ours: bool


@dataclass(frozen=True)
class Reference:
    """A foreign key of another table to this one."""

    name: str
    table: str
    definition: str
    validated: bool


@dataclass(frozen=True)
class Dependents:
    """`others` describe what can be neither kept nor re-pointed."""

    views: tuple[View, ...]
    functions: tuple[Function, ...]
    references: tuple[Reference, ...]
    others: tuple[str, ...]


def read(connection: psycopg.Connection[Any], oid: int) -> Dependents:
    """What depends on the table with that OID."""
    with connection.transaction():
        connection.execute(attributes_queries.SETTINGS.encode())
        values = {"oid": oid}
        views = connection.execute(_VIEWS.encode(), values).fetchall()
        bodies = "p.prosqlbody IS NOT NULL" if connection.info.server_version >= 140000 else "false"
        functions = connection.execute(_FUNCTIONS.format(bodies=bodies).encode(), values).fetchall()
        references = connection.execute(_REFERENCES.encode(), values).fetchall()
        others = connection.execute(_OTHERS.format(bodies=bodies).encode(), values).fetchall()
    return Dependents(
        tuple(View(quote(*row[:2]), row[2], tuple(row[3] or ()), row[4]) for row in views),
        tuple(Function(*row) for row in functions),
        tuple(Reference(*row) for row in references),
        tuple(row[0] for row in others),
    )


_VIEWS = """
SELECT DISTINCT n.nspname::text, v.relname::text, pg_get_viewdef(v.oid), v.reloptions::text[],
       pg_has_role(v.relowner, 'USAGE')
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s
ORDER BY 1, 2
"""

_FUNCTIONS = """
SELECT DISTINCT p.oid::regprocedure::text, pg_get_functiondef(p.oid), pg_has_role(p.proowner, 'USAGE')
FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND {bodies}
ORDER BY 1
"""

_REFERENCES = """
SELECT k.conname::text, k.conrelid::regclass::text, pg_get_constraintdef(k.oid), k.convalidated
FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = %(oid)s AND k.conparentid = 0 ORDER BY 2, 1
"""

# Everything else that depends on the table, its row type or (as a view with GROUP BY id does) on its keys.
_OTHERS = """
WITH own_type AS (
  SELECT t.oid FROM pg_type t JOIN pg_class c ON c.reltype = t.oid OR c.reltype = t.typelem WHERE c.oid = %(oid)s
)
SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass
                     THEN (SELECT pg_describe_object('pg_class'::regclass, r.ev_class, 0)
                                  || CASE WHEN r.ev_class = %(oid)s THEN ' (a rule)' ELSE '' END
                           FROM pg_rewrite r WHERE r.oid = d.objid)
                     ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
FROM pg_depend d
WHERE (d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s
       OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT oid FROM own_type)
       OR d.refclassid = 'pg_constraint'::regclass AND d.classid = 'pg_rewrite'::regclass
          AND d.refobjid IN (SELECT oid FROM pg_constraint WHERE conrelid = %(oid)s))
  AND NOT CASE d.classid
    WHEN 'pg_class'::regclass THEN EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i','t','S'))
    WHEN 'pg_type'::regclass THEN d.objid IN (SELECT oid FROM own_type)
    WHEN 'pg_attrdef'::regclass THEN EXISTS (SELECT FROM pg_attrdef x WHERE x.oid = d.objid AND x.adrelid = %(oid)s)
    WHEN 'pg_constraint'::regclass THEN true
    WHEN 'pg_trigger'::regclass THEN true
    WHEN 'pg_policy'::regclass THEN EXISTS (SELECT FROM pg_policy x WHERE x.oid = d.objid AND x.polrelid = %(oid)s)
    WHEN 'pg_statistic_ext'::regclass THEN true
    WHEN 'pg_publication_rel'::regclass THEN true
    WHEN 'pg_rewrite'::regclass THEN d.refclassid = 'pg_class'::regclass AND EXISTS (
      SELECT FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class
      WHERE r.oid = d.objid AND v.relkind = 'v' AND v.oid <> %(oid)s)
    WHEN 'pg_proc'::regclass THEN d.refclassid = 'pg_class'::regclass AND EXISTS (
      SELECT FROM pg_proc p WHERE p.oid = d.objid AND {bodies})
    ELSE false END
UNION ALL
SELECT pg_describe_object(d.refclassid, d.refobjid, 0) || ' (its extension)'
FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = %(oid)s AND d.deptype = 'e'
ORDER BY 1
"""
