"""Verifying a copy: whatever differs in any column of any type is noticed, and nothing that does not."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from playbook.changes.partitioning import attributes, verification
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.periods import containing

COLUMNS = {
    "small": ("smallint", "7::smallint"),
    "medium": ("integer", "-1"),
    "large": ("bigint", "(5::bigint << 32) # ((5::bigint << 32) - 1)"),
    "flag": ("boolean", "false"),
    "day": ("date", "'infinity'"),
    "code": ("uuid", "'00000000-0000-0000-0000-000000000001'"),
    "raw": ("bytea", r"'\x00'"),
    "words": ("text", "'A'"),
    "sorted": ('text COLLATE "C"', "'A'"),
    "short": ("varchar(5)", "''"),
    "padded": ("character(3)", "'b'"),
    "span": ("interval", "'24 hours'"),
    "zoned": ("timestamptz(3)", "'2026-02-01 00:00:00.001+00'"),
    "unzoned": ("timestamp", "'-infinity'"),
    "hour": ("timetz", "'10:00+02'"),
    "number": ("numeric", "1.50"),
    "ratio": ("double precision", "'-0'"),
    "document": ("jsonb", """'{"a": 1.0}'"""),
    "list": ("int[]", "'{1,NULL}'"),
    "bounds": ("int", "1"),  # as the verification calls something of its own
}
SAME = {
    "words": "'a'", "sorted": "'a'", "span": "'1 day'", "hour": "'09:00+01'", "number": "1.5", "ratio": "'0'",
    "document": """'{"a": 1}'""", "large": "0",
}  # fmt: skip
"""What is equal to PostgreSQL, or hashes the same by itself, and is another value all the same."""


@pytest.fixture
def twins(empty):
    """Two tables with the same 300 rows from January to March, every second of which has NULL wherever it may be."""
    names = ", ".join(COLUMNS)
    columns = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    values = ", ".join(f"CASE WHEN n % 2 = 0 THEN {value}::{COLUMNS[name][0]} END" for name, (_, value) in SAMPLE)
    with empty.connect() as connection:
        connection.execute(
            f"CREATE TABLE entries (id bigint PRIMARY KEY, at timestamptz NOT NULL, {columns});"
            f"INSERT INTO entries (id, at, {names}) SELECT n, timestamptz '2026-01-01 00:00+00' + n * interval '7 hours',"
            f" {values} FROM generate_series(0, 299) n;"
            "CREATE TABLE twin AS SELECT * FROM entries ORDER BY id DESC"
        )
        yield connection


SAMPLE = [(name, (kind, SAME.get(name, value))) for name, (kind, value) in COLUMNS.items()]


def differing(connection, change=""):
    """What the verification says after that change, which is taken back."""
    table = attributes.read(connection, "public.entries")
    log = ChangeLog(table, "at", "public.entries", "_changes")
    periods = (containing(date(2026, 1, 1), "month"), containing(date(2026, 2, 1), "month"))
    connection.execute("SET timezone = 'America/New_York'")
    with connection.transaction(force_rollback=True):
        for command in (*log.create(), change):
            connection.execute(command.encode())
        sql = verification.verify(table, "at", periods, log, "public.entries", "public.twin")
        try:
            connection.execute(sql.replace("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;", "").encode())
        except psycopg.errors.DataCorrupted as error:
            return error.diag.message_primary
    return ""


def test_tables_with_the_same_rows_in_another_order_are_the_same(twins):
    assert differing(twins) == ""


def test_a_value_that_is_another_is_noticed_in_each_type(twins):
    missed = []
    for name, (kind, value) in COLUMNS.items():
        row = 10 if name in SAME else 11
        other = f"UPDATE twin SET {name} = {value}::{kind} WHERE id = {row}"
        none = f"UPDATE twin SET {name} = NULL WHERE id = 10"
        exchanged = f"UPDATE twin t SET {name} = s.{name} FROM twin s WHERE t.id IN (10, 11) AND s.id = t.id # 1"
        said = [differing(twins, change) for change in (other, none, exchanged)]
        missed += [(name, one) for one in said if "differ, 2026-01-01: 107 rows and 107" not in one]
    assert missed == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DELETE FROM twin WHERE id = 299", "2026-03-01: 97 rows and 96"),
        ("DELETE FROM entries WHERE id = 0", "2026-01-01: 106 rows and 107"),
        ("INSERT INTO twin SELECT * FROM twin WHERE id IN (0, 0)", "2026-01-01: 107 rows and 108"),
        ("UPDATE twin SET id = id # 1 WHERE id = 0", "2026-01-01: 107 rows and 107"),
        ("UPDATE twin SET id = (id << 32) # id WHERE id = 4", "2026-01-01: 107 rows and 107"),
        ("UPDATE twin SET at = at - interval '1 year' WHERE id = 0", "before 2026-01-01: 0 rows and 1; 2026-01-01"),
        ("UPDATE twin SET at = NULL WHERE id = 0", "no period: 0 rows and 1"),
        ("UPDATE twin SET at = at + interval '1 microsecond' WHERE id = 0", "2026-01-01: 107 rows and 107"),
    ],
)
def test_a_row_that_is_lost_doubled_or_moved_is_noticed_and_its_period_named(twins, change, said):
    assert said in differing(twins, change)


def test_rows_that_are_yet_to_be_replayed_are_left_out(twins):
    changes = "UPDATE twin SET medium = 3 WHERE id IN (5, 6); INSERT INTO entries_changes VALUES (5), (5)"
    assert "differ" in differing(twins, changes)
    assert differing(twins, changes.replace("VALUES (5)", "VALUES (6)")) == ""
