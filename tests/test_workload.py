"""The workload file: what it holds, what a bind is, and what is wrong with it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook.errors import PlanError
from playbook.plan.workload import Bind, Bound, load, numbered, placeholders

GOOD = """\
-- What the shop asks.

-- name: latest_orders
-- about: the latest orders of a customer
-- about: (account page)
-- ties: orders of one instant are alike
-- remark for the reader
-- bind customer_id, status: sampled from shop.orders
-- bind since: 36 hours before the last orders.created_at
SELECT id, created_at  -- the newest first
FROM orders
WHERE customer_id = :customer_id AND status = :status AND created_at >= :since
ORDER BY created_at DESC;

-- 2. The front page

-- Name: cities
SELECT city FROM customers
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "workload.sql"


def test_a_file_holds_named_queries_with_their_binds_in_order(file: Path):
    file.write_text(GOOD)
    latest, cities = load(file).values()
    assert (latest.name, latest.about, latest.line) == (
        "latest_orders",
        "the latest orders of a customer (account page)",
        10,
    )
    assert latest.ties == "orders of one instant are alike"
    assert latest.binds == (
        Bind(("customer_id", "status"), "sampled", "shop.orders", line=8),
        Bind(("since",), "before_last", "orders", "created_at", timedelta(hours=36), 9),
    )
    assert latest.sql.startswith("SELECT id, created_at  -- the newest first\nFROM")
    assert latest.sql.endswith("ORDER BY created_at DESC")
    assert (cities.sql, cities.about, cities.binds) == ("SELECT city FROM customers", "", ())


def test_the_plans_own_workload_is_good():
    root = Path(__file__).parent.parent
    assert load(root / "data/proposals/workload.sql")


WRONG = {
    "no query": ("-- nothing\n", ":1: no query; each starts with a line `-- name: some_name`"),
    "SQL before a name": ("SELECT 1", ":1: SQL before the first"),
    "a field before a name": ("\n-- bind x: sampled from t", ":2: this line belongs below"),
    "no SQL": ("-- name: a\n-- about: b\n", ":1: the query a has no SQL"),
    "a name twice": ("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2", r":3: the query a stands twice \(also at line 2\)"),
    "a bad name": ("-- name: a b\nSELECT 1", ":1: 'a b' is not a query's name"),
    "an unknown placeholder": ("-- name: a\nSELECT 1,\n  :x", ":3: a: :x has no `-- bind x: …` line above the SQL"),
    "a bind without use": ("-- name: a\n-- bind x: sampled from t\nSELECT ':x'", ":2: a: the bind x is not used"),
    "a bind twice": (
        "-- name: a\n-- bind x: sampled from t\n-- bind y, x: sampled from t\nSELECT :x, :y",
        ":3: a: the bind x stands twice",
    ),
    "a bind not understood": (
        "-- name: a\n-- bind x: random\nSELECT :x",
        ":2: 'random' is not understood; write `samp",
    ),
    "weeks": ("-- name: a\n-- bind x: 2 weeks before the last t.c\nSELECT :x", ":2: .* not understood"),
    "a time of two binds": (
        "-- name: a\n-- bind x, y: 2 days before the last t.c\nSELECT :x, :y",
        ":2: one bind a line",
    ),
    "a bind of no name": ("-- name: a\n-- bind x y: sampled from t\nSELECT :x", ":2: 'x y' is not a bind's name"),
    "several statements": ("-- name: a\nSELECT 1;\nDELETE FROM t;", r":2: a: line 2, column 9: several statements"),
    "not a SELECT": ("-- name: a\nUPDATE t SET x = 1", ":2: a: .*a SELECT is expected, not UPDATE"),
    "a WITH that changes": (
        "-- name: a\nWITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d",
        ":2: a: .* it holds DELETE",
    ),
    "cannot be parsed": ("-- name: a\nSELECT 1\nFROM", ":2: a: line 3, column 4: cannot be parsed"),
    "no end of a string": ("-- name: a\nSELECT 'x", ":2: a: a string, comment or quoted name does not end"),
    "a numbered parameter": ("-- name: a\nSELECT $1", ":2: a: a value is written :name"),
    "a question mark": ("-- name: a\nSELECT ?", ":2: a: a value is written :name"),
    "a quoted bind": ('-- name: a\nSELECT :"x"', ":2: a: a value is written :name"),
    "a bind with a space": ("-- name: a\n-- bind x: sampled from t\nSELECT :x, : x", ":3: a: a value is written :name"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_with_file_and_line(file: Path, text: str, message: str):
    file.write_text(text)
    with pytest.raises(PlanError, match=f"^{file}{message}"):
        load(file)


def test_a_file_that_cannot_be_read_is_an_error_that_says_why(file: Path):
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        load(file)
    file.write_bytes(b"-- name: a\nSELECT '\xff'")
    with pytest.raises(PlanError, match="cannot be read: it is not UTF-8"):
        load(file)


NOT_BINDS = [
    "':x'", "E'\\':x'", "$$:x$$", "$t$ $$ :x $t$", "a::x", "a[1:x]", "a[b:x]", "a[f(1):x]", "f(a := 1)", "1 /* :x /* :y */ :z */",
    "1 -- :x\n", '":x"', "data -> 'a:x'", "array[1,2][1:2]",
]  # fmt: skip
BINDS = {
    ":x": "$1", "(:x)": "($1)", ":x::text": "$1::text", "a+:x": "a+$1", "a[:x]": "a[$1]", "a[1::int]": "a[1::int]",
    "a[1: :x]": "a[1: $1]", "f(a := :x)": "f(a := $1)", ":x, :y, :x": "$1, $2, $1", "1 LIMIT:x": "1 LIMIT $1",
    ":user, :date, :type": "$1, $2, $3", "'it''s' || :x || ':y'": "'it''s' || $1 || ':y'", "data ->> :x": "data ->> $1",
    ":xy, :x": "$1, $2",
}  # fmt: skip


@pytest.mark.parametrize("sql", NOT_BINDS)
def test_what_only_looks_like_a_bind_is_left_alone(sql: str):
    assert placeholders(f"SELECT {sql}") == ()


@pytest.mark.parametrize(("sql", "expected"), BINDS.items())
def test_binds_are_numbered_by_name(sql: str, expected: str):
    assert numbered(f"SELECT {sql}")[0] == f"SELECT {expected}"


@settings(deadline=None)
@given(st.lists(st.sampled_from([*NOT_BINDS, *BINDS]), min_size=1, max_size=6))
def test_binds_are_found_wherever_they_stand(parts: list[str]):
    sql = "SELECT " + "\n, ".join(parts)
    found = placeholders(sql)
    assert [p.name for p in found] == [p.name for part in parts for p in placeholders(f"SELECT {part}")]
    assert all(sql[p.start : p.end] == f":{p.name}" for p in found)


def test_values_are_shown_only_when_asked_for():
    bound = Bound("q", "common", "SELECT $1, $2", ("it's", None), ("name", "since"))
    assert "it's" not in repr(bound)
    assert bound.masked() == "name = ***, since = ***"
    assert bound.shown() == "name = 'it''s', since = NULL"
