"""Keys and constraints: tables without a primary key, constraints not valid, numbers that run out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from playbook import figures
from playbook.assess.check import Answer, Check, counted, judged, not_checked, warn
from playbook.assess.session import Session
from playbook.assess.steps import validation_step
from playbook.target.catalog import Table
from playbook.target.sql import quote

USED_SHARE = 0.7
"""Of the numbers there are, used up: what is left must last for the time that a change of type takes to prepare."""
MAXIMA = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}
"""The largest value of each type (the manual, "Numeric Types")."""
KEYS = 20
"""Integer keys whose highest value is read, those of the largest tables: each is one look into their index."""

_TABLE = ("table", "tables")
_SEQUENCE = ("sequence", "sequences")
_LEFT = f"each has over {1 - USED_SHARE:.0%} of its numbers left"
# A sequence that is owned by a column (serial, identity), or that the default of one takes its values from.
_SEQUENCES = """
SELECT n.nspname::text AS schema, c.relname::text AS name,
       s.seqmax AS most, s.seqincrement AS step, s.seqcycle AS cycles,
       CASE WHEN has_sequence_privilege(c.oid, 'SELECT, USAGE') THEN v.last_value END AS last_value,
       has_sequence_privilege(c.oid, 'SELECT, USAGE') AS visible,
       o.schema AS table_schema, o.name AS table_name, o.column_name, o.type
FROM pg_sequence s
JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_sequences v ON v.schemaname = n.nspname AND v.sequencename = c.relname
LEFT JOIN LATERAL (
  SELECT tn.nspname::text AS schema, t.relname::text AS name, a.attname::text AS column_name,
         format_type(a.atttypid, NULL) AS type
  FROM (
    SELECT d.refobjid AS relid, d.refobjsubid AS attnum FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
      AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    UNION ALL
    SELECT f.adrelid, f.adnum FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
  ) u
  JOIN pg_class t ON t.oid = u.relid
  JOIN pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = u.relid AND a.attnum = u.attnum
  ORDER BY a.atttypid LIMIT 1
) o ON true
WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'playbook')
"""


def primary_keys(session: Session) -> Iterator[Answer]:
    """Tables whose rows nothing tells apart: logical replication sends no UPDATE of them, and duplicates stay."""
    own = [t for t in session.catalog.tables if t.kind in "rp" and t.partition_bound is None]
    bare = [table for table in own if not any(each.kind == "p" for each in table.constraints)]
    found = [
        warn(
            f"{table.qualified} has no primary key ({figures.size(_size(table))})",
            _make_key(table),
        )
        for table in sorted(bare, key=lambda table: (-_size(table), table.qualified))
    ]
    yield from judged(found, len(own), _TABLE, "each has a primary key")


def _size(table: Table) -> int:
    return table.size_bytes or 0


def _make_key(table: Table) -> str:
    """From a unique index over columns that take no NULL, where one stands; else a column has to be found or added."""
    for index in table.indexes:
        columns = [table.column(key.column or "") for key in index.keys]
        plain = index.unique and index.usable and index.immediate and not index.predicate and index.constraint is None
        sorted_plainly = not any(key.descending or key.nulls_first or not key.default_opclass for key in index.keys)
        if plain and sorted_plainly and index.method == "btree" and all(c and c.not_null for c in columns):
            return f"ALTER TABLE {table.qualified} ADD PRIMARY KEY USING INDEX {quote(index.name)};"
    return (
        "-- which columns tell its rows apart? A unique index on them CONCURRENTLY, then ADD PRIMARY KEY USING INDEX.\n"
        "-- Where none do, this adds one, and writes the table anew while nobody may use it:\n"
        f"-- ALTER TABLE {' '.join(table.qualified.splitlines())}\n"
        "--   ADD COLUMN row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
    )


def not_valid(session: Session) -> Iterator[Answer]:
    """Constraints that hold for new rows only: old ones may violate them, and the planner does not believe them."""
    all_ = [(table, each) for table in session.catalog.tables for each in table.constraints]
    unproven = [(table, each) for table, each in all_ if not each.validated]
    found = [
        warn(
            f"{table.qualified}.{quote(each.name)} is NOT VALID: {each.definition.removesuffix(' NOT VALID')}",
            "-- fails, and changes nothing, while a row violates it; reads the table beside readers and writers\n"
            f"ALTER TABLE {table.qualified} VALIDATE CONSTRAINT {quote(each.name)};",
            validation_step(table, each, session.catalog),
        )
        for table, each in sorted(unproven, key=lambda pair: (-_size(pair[0]), pair[1].name))
    ]
    yield from judged(found, len(all_), ("constraint", "constraints"), "all are valid")


def sequences(session: Session) -> Iterator[Answer]:
    """Sequences near the end of their own numbers, or of those that their column's type holds."""
    rows = [row for row in session.rows(_SEQUENCES) if not row.cycles and row.step > 0]
    hidden = [row for row in rows if not row.visible]
    if hidden:
        yield not_checked(
            f"the values of {counted(len(hidden), _SEQUENCE)} are hidden from role {session.server.user}",
            f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {quote(hidden[0].schema)} TO {quote(session.server.user)};",
        )
    near = []
    for row in rows:
        most = min(row.most, MAXIMA.get(row.type or "", row.most))
        if row.last_value is not None and row.last_value > USED_SHARE * most:
            near.append((row.last_value / most, row, most))
    found = [
        warn(
            f"{quote(row.schema, row.name)} has used {figures.percent(100 * share)} of its numbers up to {most:,}"
            f"{_feeds(row)}",
            _widen(row),
        )
        for share, row, most in sorted(near, key=lambda each: -each[0])
    ]
    if len(rows) > len(hidden) or not hidden:
        what = ("sequence", "sequences")
        yield from judged(
            found, len(rows) - len(hidden), what, f"each has over {1 - USED_SHARE:.0%} of its numbers left"
        )


def _feeds(row: Any) -> str:
    if row.column_name is None:
        return ""
    return f", for {quote(row.table_schema, row.table_name)}.{quote(row.column_name)} ({row.type})"


def _widen(row: Any) -> str:
    sequence = f"ALTER SEQUENCE {quote(row.schema, row.name)} AS bigint NO MAXVALUE;"
    if row.column_name is None or row.type == "bigint":
        return sequence
    table, column = quote(row.table_schema, row.table_name), quote(row.column_name)
    return f"{sequence}\n{_to_bigint(table, column)}"


def _to_bigint(table: str, column: str) -> str:
    flat = " ".join(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE bigint;".splitlines())
    return (
        "-- writes the table and its indexes anew while nobody may use it; for a large one: a new bigint column, a\n"
        "-- trigger that fills it, the old rows in batches, then the two swapped. So do columns that refer to it.\n"
        f"-- {flat}"
    )


def integer_keys(session: Session) -> Iterator[Answer]:
    """Integer primary keys that the application fills itself: how near the highest is to the end of its type."""
    fed = {(row.table_schema, row.table_name, row.column_name) for row in session.rows(_SEQUENCES)}
    keys = [
        (table, column)
        for table, column in _integer_keys(session)
        if (table.schema, table.name, column.name) not in fed
    ]
    if keys and not session.measures:
        yield not_checked(
            f"{counted(len(keys), ('integer key', 'integer keys'))} filled by the application: the highest values are "
            "in rows, and a dry run reads none",
            "-- playbook run --measure, or\n"
            + "\n".join(f"SELECT max({quote(c.name)}) FROM {t.qualified};" for t, c in keys[:KEYS]),
        )
        return
    near = []
    for table, column in keys[:KEYS]:
        highest = session.row(f"SELECT max({quote(column.name)}) AS highest FROM {table.qualified}").highest
        if highest is not None and highest > USED_SHARE * MAXIMA[column.type]:
            near.append((highest / MAXIMA[column.type], table, column))
    found = [
        warn(
            f"{table.qualified}.{quote(column.name)} ({column.type}) has used {figures.percent(100 * share)} of its "
            "numbers",
            _to_bigint(table.qualified, quote(column.name)),
        )
        for share, table, column in sorted(near, key=lambda each: -each[0])
    ]
    what = (
        "integer key filled by the application",
        f"integer keys filled by the application (the {KEYS} largest tables)",
    )
    yield from judged(found, len(keys[:KEYS]), what, f"each has over {1 - USED_SHARE:.0%} of its numbers left")


def _integer_keys(session: Session) -> list[tuple[Table, Any]]:
    """Single-column primary keys of type smallint or integer, those of the largest tables first."""
    found = []
    for table in session.catalog.tables:
        key = next((each for each in table.constraints if each.kind == "p"), None)
        if key is None or len(key.columns) != 1 or table.partition_bound is not None:
            continue
        column = table.column(key.columns[0])
        if column and column.type in {"smallint", "integer"} and not column.identity:
            found.append((table, column))
    return sorted(found, key=lambda pair: -_size(pair[0]))


CHECK = Check(
    10,
    "schema",
    "Primary keys, constraints, numbers that run out",
    {
        "primary keys": primary_keys,
        "not valid": not_valid,
        "sequences": sequences,
        "integer keys": integer_keys,
    },
)
