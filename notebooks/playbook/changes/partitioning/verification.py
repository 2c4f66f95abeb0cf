"""Whether two tables hold the same rows: counted and summed up by period in one snapshot, what is pending left out."""

from __future__ import annotations

import re

from playbook.changes.partitioning.attributes import Attributes, Column
from playbook.changes.partitioning.change_log import ChangeLog, dollar_quoted
from playbook.changes.partitioning.periods import Every
from playbook.target.execute import BACK_OFF
from playbook.target.sql import literal, quote

# Types whose values hash the same when they are the same, bit by bit; others are compared as text.
_HASHED = re.compile(
    r"smallint|integer|bigint|boolean|date|uuid|bytea|text|character( varying)?(\(\d+\))?|inet|interval"
    r"|time(stamp)?(\(\d\))? with(out)? time zone"
)


def verify(table: Attributes, key: str, every: Every, log: ChangeLog, old: str, new: str) -> str:
    """Fails where they differ, naming the periods.

    A key that the log speaks of is left out on both sides: its rows are yet to be replayed. Of all others both have to
    hold the same: their number and the sum of their hashes (64 bits each), period by period.
    """
    sides = [_side(table, key, every, log, place) for place in (old, new)]
    body = (
        "\nDECLARE found text;\nBEGIN\n"
        f"  IF EXISTS (SELECT FROM {log.name} WHERE k1 IS NULL) THEN\n"
        f"    RAISE EXCEPTION '{BACK_OFF}the table was emptied' USING ERRCODE = '55P03';\n"
        "  END IF;\n"
        "  SELECT string_agg(format('%s: %s rows and %s', coalesce(period::date::text, 'no period'),\n"
        "                           coalesce(a.rows, 0), coalesce(b.rows, 0)), '; ' ORDER BY period) INTO found\n"
        f"  FROM ({sides[0]}) a\n"
        f"  FULL JOIN ({sides[1]}) b USING (period)\n"
        "  WHERE (a.rows, a.hashes) IS DISTINCT FROM (b.rows, b.hashes);\n"
        "  IF found IS NOT NULL THEN\n"
        f"    RAISE EXCEPTION '% and its copy differ, %', {literal(table.qualified)}, found USING ERRCODE = 'XX001';\n"
        "  END IF;\n"
        "END "
    )
    return ";\n".join(
        [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET LOCAL row_security = off",
            f"DO {dollar_quoted(body)}",
        ]
    )


def _side(table: Attributes, key: str, every: Every, log: ChangeLog, place: str) -> str:
    zone = ", 'UTC'" if table.column(key).type.endswith("with time zone") else ""
    period = f"date_trunc('{every}', r.{quote(key)}{zone})"
    hashed = f"sum({_hash(table)})"
    rows = f"FROM {place} r WHERE NOT {log.pending('r')} GROUP BY 1"
    return f"SELECT {period} AS period, count(*) AS rows, {hashed} AS hashes\n        {rows}"


def _hash(table: Attributes) -> str:
    record = f"ROW({', '.join(_value(column) for column in table.columns)})"
    return (
        f"hash_record_extended({record}, 0)"
        if table.server_version >= 140000
        else f"hashtextextended({record}::text, 0)"
    )


def _value(column: Column) -> str:
    value = f"r.{quote(column.name)}"
    if column.collation:  # one that tells fewer values apart than bytes do would hash them alike
        return f'{value}::text COLLATE "C"'
    return value if _HASHED.fullmatch(column.type) else f"{value}::text"
