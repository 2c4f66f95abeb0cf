"""Whether two tables hold the same rows: counted and summed up by period in one snapshot, what is pending left out.

What the checksum is good for: a row's hash has 64 bits, and each column's goes into the next one's seed, so that what
two rows have exchanged shows as well; a period's checksum is the exact sum of its rows' hashes, which does not depend
on their order and, unlike an exclusive or, does not lose a row that is there twice. Rows that were lost, doubled or
altered by a fault (not by somebody who looks for collisions) are missed with a probability of about 2^-64 a period; a
moment alone that was altered with one of 2^-32, which is what PostgreSQL folds its 64 bits into before it hashes them.
"""

from __future__ import annotations

import re
from functools import reduce

from playbook.changes.partitioning.attributes import Attributes, Column
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.periods import Period, step
from playbook.target.execute import BACK_OFF
from playbook.target.sql import dollar_quoted, literal, quote

# Types whose values hash the same when they are the same, bit by bit; others are compared as text.
_HASHED = re.compile(r"smallint|integer|bigint|boolean|date|uuid|bytea|time(stamp)?(\(\d\))? with(out)? time zone")
# What hashes one value, of the types that most columns have: a third of the time that a record of it takes.
_FUNCTIONS = {
    "smallint": "hashint2extended",
    "integer": "hashint4extended",
    "bigint": "hashint8extended",
    "uuid": "uuid_hash_extended",
    "timestamp without time zone": "timestamp_hash_extended",
}
_SINCE_18 = {"timestamp with time zone": "timestamptz_hash_extended", "date": "hashdateextended"}
_PRECISION = re.compile(r"\(\d\)")


def verify(table: Attributes, key: str, periods: tuple[Period, Period], log: ChangeLog, old: str, new: str) -> str:
    """Fails where they differ, naming the periods, of which `periods` are the first and the last with their own sums.

    A key that the log speaks of is left out on both sides: its rows are yet to be replayed. Of all others both have to
    hold the same: their number and the sum of their hashes, period by period; what is older than the first and what is
    newer than the last are one more each.
    """
    query = (
        "\n  SELECT string_agg(format('%s: %s rows and %s', CASE WHEN period = 0 THEN 'before ' || $2[1]::date\n"
        "    ELSE coalesce($2[period]::date::text, 'no period') END, a, b), '; ' ORDER BY period)\n"
        "  FROM (SELECT period, count(*) FILTER (WHERE old) AS a, count(*) FILTER (WHERE NOT old) AS b\n"
        f"    FROM ({_side(table, key, log, old, 'true')}\n"
        "      UNION ALL\n"
        f"      {_side(table, key, log, new, 'false')}) r\n"
        "    GROUP BY period\n"
        "    HAVING count(*) FILTER (WHERE old) <> count(*) FILTER (WHERE NOT old)\n"
        "      OR sum(hash) FILTER (WHERE old) IS DISTINCT FROM sum(hash) FILTER (WHERE NOT old)) r"
    )
    body = (
        "\nDECLARE\n"
        f"  starts timestamp[] := ARRAY(SELECT {_series(*periods)});\n"
        f"  bounds {_type(table, key)}[] := {_bounds(table, key)};\n"
        "  found text;\n"
        "BEGIN\n"
        f"  IF EXISTS (SELECT FROM {log.name} WHERE k1 IS NULL) THEN\n"
        f"    RAISE EXCEPTION '{BACK_OFF}the table was emptied' USING ERRCODE = '55P03';\n"
        "  END IF;\n"
        "  -- by EXECUTE: what is selected into a variable otherwise never runs in parallel\n"
        f"  EXECUTE {dollar_quoted(query)} INTO found USING bounds, starts;\n"
        "  IF found IS NOT NULL THEN\n"
        f"    RAISE EXCEPTION '% and its copy differ, %', {literal(table.qualified)}, found USING ERRCODE = 'XX001';\n"
        "  END IF;\n"
        "END "
    )
    return ";\n".join(
        [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET LOCAL row_security = off",
            "SET LOCAL jit = off",
            f"DO {dollar_quoted(body)}",
        ]
    )


def _series(first: Period, last: Period) -> str:
    return f"generate_series(timestamp '{first.start}', timestamp '{last.end}', interval '{step(first.every)}')"


def _type(table: Attributes, key: str) -> str:
    return _PRECISION.sub("", table.column(key).type)


def _bounds(table: Attributes, key: str) -> str:
    """The starts as values of the key's type, whatever the session's time zone is."""
    if _type(table, key).endswith("with time zone"):
        return "ARRAY(SELECT start AT TIME ZONE 'UTC' FROM unnest(starts) AS start)"
    return f"starts::{_type(table, key)}[]"


def _side(table: Attributes, key: str, log: ChangeLog, place: str, old: str) -> str:
    """One pass. Of a UNION's columns the planner has no statistics: it expects few groups, and so sums up in parallel.

    Else it would expect as many periods as there are keys.
    """
    period = f"width_bucket(r.{quote(key)}, $1)"
    each = f"SELECT {old} AS old, {period} AS period,\n        {_hash(table)} AS hash"
    return f"{each}\n      FROM {place} r WHERE NOT {log.pending('r')}"


def _hash(table: Attributes) -> str:
    """A row's hash: those of the columns that may be NULL side by side, and from there on a chain of all others."""
    if table.server_version < 140000:
        return f"hashtextextended(ROW({', '.join(map(_value, table.columns))})::text, 0)"
    functions = _FUNCTIONS | (_SINCE_18 if table.server_version >= 180000 else {})
    named = {column: _function(column, functions) for column in table.columns}
    others = [_value(column) for column, function in named.items() if not function]
    side = [f"hash_record_extended(ROW({', '.join(others)}), 0)"] if others else []
    side += [
        f"coalesce({_link(str(seed), (column, function))}, {seed})"
        for seed, (column, function) in enumerate(named.items(), 1)
        if function and not column.not_null
    ]
    chain = [(column, function) for column, function in named.items() if function and column.not_null]
    return reduce(_link, chain, " # ".join(side) or "0")


def _function(column: Column, functions: dict[str, str]) -> str:
    return functions.get(_PRECISION.sub("", column.type), "") if _is_hashed(column) else "hashtextextended"


def _link(seed: str, hashed: tuple[Column, str]) -> str:
    column, function = hashed
    value = _value(column)
    if column.type == "bigint":  # its halves are folded into one before they are hashed
        seed = f"hashint4extended(({value} >> 32)::int, {seed})"
    return f"{function}({value}, {seed})"


def _value(column: Column) -> str:
    value = f"r.{quote(column.name)}"
    return value if _is_hashed(column) else f'{value}::text COLLATE "C"'


def _is_hashed(column: Column) -> bool:
    return _HASHED.fullmatch(column.type) is not None
