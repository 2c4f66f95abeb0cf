"""Same rows: what may differ does, what may not is found, and what cannot be decided is not decided."""

from __future__ import annotations

import psycopg
import pytest

from playbook.evidence.ordering import Key, ordering_of
from playbook.evidence.rows import INDEX_SCANS, SameRows, same_rows
from playbook.plan.workload import Bound

SCHEMA = """
CREATE TABLE sales (id int PRIMARY KEY, shop text, day date, amount numeric(10,2), weight float8, note text);
INSERT INTO sales
  SELECT i, 'shop ' || i % 7, date '2024-01-01' + i % 30, i % 97 + 0.25, random(),
    CASE WHEN i % 5 > 0 THEN md5(i::text) END
  FROM generate_series(1, 3000) AS i;
CREATE TABLE forwards AS SELECT * FROM sales ORDER BY id;
CREATE TABLE backwards AS SELECT * FROM sales ORDER BY id DESC;
CREATE INDEX sales_shop_day ON sales (shop, day);
CREATE MATERIALIZED VIEW by_day AS
  SELECT day, count(*) AS n, sum(amount) AS total, avg(amount) AS mean, sum(weight) AS weight FROM sales GROUP BY day;
CREATE MATERIALIZED VIEW by_day_wrong AS
  SELECT day, count(*) AS n, sum(amount) + (day = '2024-01-09')::int AS total FROM sales GROUP BY day;
ANALYZE;
"""


@pytest.fixture(scope="module")
def connect(server):
    """Opens sessions on a database that the tests of this module only read."""
    with psycopg.connect(**server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE rows")
        with psycopg.connect(**server.conninfo("rows"), autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield lambda: psycopg.connect(**server.conninfo("rows"), autocommit=True)
        admin.execute("DROP DATABASE rows WITH (FORCE)")


def bound(sql, *values):
    return Bound("a_query", "common", sql, values)


def compared(connect, old, new=None, *values, **options):
    return same_rows(connect, bound(old, *values), bound(new or old, *values), **options)


def values(connect, old, new, **options):
    """Compares two lists of rows, written as VALUES, with the columns a, b and c as far as there are any."""
    text = "SELECT * FROM (VALUES {}) AS v"
    return same_rows(connect, bound(text.format(old)), bound(text.format(new)), **options).equal


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM sales WHERE shop = $1 AND day > $2 ORDER BY day DESC, id",
        "SELECT shop, sum(weight), avg(amount), count(note) FROM sales WHERE shop = $1 AND day > $2 GROUP BY shop",
        "SELECT note FROM sales WHERE shop = $1 AND day > $2",
        "SELECT id FROM sales WHERE shop = $1 AND day > $2 AND id < 0",
    ],
)
def test_with_and_without_an_index_the_rows_are_the_same(connect, sql):
    found = compared(connect, sql, None, "shop 3", "2024-01-09", without=INDEX_SCANS)
    assert found == SameRows(True)


def test_a_right_view_gives_the_rows_of_its_query(connect):
    old = "SELECT day, count(*), sum(amount), avg(amount), sum(weight) FROM sales GROUP BY day ORDER BY day DESC"
    new = "SELECT day, n, total, mean, weight FROM by_day ORDER BY day DESC"
    assert compared(connect, old, new) == SameRows(True)


def test_a_roll_up_of_a_view_differs_by_noise_only(connect):
    old = "SELECT avg(amount), sum(weight), count(*) FROM sales"
    new = "SELECT sum(mean * n) / sum(n), sum(weight), sum(n) FROM by_day"
    assert compared(connect, old, new) == SameRows(True)


def test_a_wrong_view_is_refused(connect):
    old = "SELECT day, count(*), sum(amount) FROM sales GROUP BY day ORDER BY day DESC"
    found = compared(connect, old, "SELECT day, n, total FROM by_day_wrong ORDER BY day DESC")
    assert found == SameRows(False, "1 of 30 rows differ")


def test_a_stale_view_is_refused(scratch):
    with scratch() as connection:
        connection.execute(SCHEMA)
        connection.execute("DELETE FROM sales WHERE day = '2024-01-03'")
    found = compared(scratch, "SELECT day, sum(amount) FROM sales GROUP BY day", "SELECT day, total FROM by_day")
    assert found == SameRows(False, "29 rows against 30")


def test_duplicates_count(connect):
    assert values(connect, "(1), (1), (2)", "(2), (1), (1)")
    assert values(connect, "(1), (1), (2)", "(1), (2), (2)") is False


@pytest.mark.parametrize(
    ("old", "new", "equal"),
    [
        ("(1.0::float8)", "(1.000000000001::float8)", True),
        ("(1.0::float8)", "(1.00000001::float8)", False),
        ("(1e15::float8)", "(1e15::float8 + 100)", True),
        ("(0.1::float8 + 0.2::float8)", "(0.3::float8)", True),
        ("(0::float8)", "('-0'::float8)", True),
        ("(5e-17::float8)", "(0::float8)", True),
        ("('NaN'::float8)", "('NaN'::float8 * 2)", True),
        ("('NaN'::float8)", "(NULL::float8)", False),
        ("('Infinity'::float8)", "('-Infinity'::float8)", False),
        ("(0.1::float4)", "(0.1000001::float4)", True),
        ("(0.1::float4)", "(0.1001::float4)", False),
        ("(2.50)", "(2.5)", True),
        ("(10000000000.01)", "(10000000000.02)", False),
        ("(123456789012345678.91)", "(123456789012345678.92)", False),
        ("(1.0 / 3)", "(0.33333333333333333333333)", True),
        ("('NaN'::numeric)", "('NaN'::numeric + 1)", True),
        ("(17891.931750796740::numeric)", "(17891.931750796741391600::numeric)", True),
        ("(5::bigint)", "(5.000)", True),
        ("(5::bigint)", "('5'::text)", False),
        ("(9007199254740993)", "(9007199254740992)", False),
        ("(NULL::text)", "('')", False),
        ("(ARRAY[0.1::float8 + 0.2, NULL])", "(ARRAY[0.3::float8, NULL])", True),
        ("(ARRAY[1.5, 2])", "(ARRAY[2, 1.5])", False),
        ("""('{"a": 1.50, "b": [1]}'::jsonb)""", """('{"b": [1.0], "a": 1.5}'::jsonb)""", True),
        ("""('{"a": 1}'::jsonb)""", """('{"a": "1"}'::jsonb)""", False),
        ("""('{"a": 0.30000000000000004}'::jsonb)""", """('{"a": 0.3}'::jsonb)""", True),
        ("""('{"a": "#"}'::json)""", """('{"a": 7}'::json)""", False),
        ("(timestamptz '2024-01-01 12:00+02')", "(timestamptz '2024-01-01 10:00+00')", True),
        ("(timestamp '2024-01-01')", "(timestamp '2024-01-01 00:00:00.000001')", False),
        ("('a'::char(5))", "('a'::char(3))", True),
        ("(true)", "(false)", False),
        ("(1, 2)", "(1)", False),
        ("('a', NULL::text)", "(NULL::text, 'a')", False),
        (
            "(1.0::float8, 2.0::float8), (1.0::float8 + 1e-13, 1.0::float8)",
            "(1.0::float8, 1.0::float8), (1.0::float8, 2.0::float8)",
            True,
        ),
    ],
)
def test_values_are_compared_by_what_they_mean(connect, old, new, equal):
    assert values(connect, old, new) is equal


def test_many_floats_apart_by_noise_are_paired_right(connect):
    old = "SELECT i, i * 0.1::float8 AS x FROM generate_series(1, 5000) AS i"
    new = "SELECT i, i * 0.1::float8 * (1 + (i % 3 - 1) * 1e-13) FROM generate_series(5000, 1, -1) AS i"
    assert compared(connect, old, new) == SameRows(True)
    swapped = "SELECT 5001 - i, i * 0.1::float8 FROM generate_series(1, 5000) AS i"
    assert compared(connect, old, swapped).equal is False


def test_without_order_by_any_order_is_right(connect):
    assert compared(connect, "SELECT id, note FROM sales", "SELECT id, note FROM sales ORDER BY note DESC") == SameRows(
        True
    )


def test_an_order_that_is_not_the_one_asked_for_is_refused(connect):
    old = "SELECT shop, id FROM sales ORDER BY shop, id"
    found = compared(connect, old, "SELECT shop, id FROM sales ORDER BY shop DESC, id")
    assert found == SameRows(False, "the same rows, but not in the order of ORDER BY")
    found = compared(connect, old, "SELECT shop, id FROM (SELECT * FROM sales ORDER BY id DESC) AS s")
    assert found == SameRows(False, "the same rows, but the new query has no ORDER BY to keep their order")


@pytest.mark.parametrize("collation", ["C", "default"])
def test_text_is_ordered_by_the_servers_collation_not_by_pythons(connect, collation):
    words = "(VALUES ('Äpfel'), ('apfel'), ('Zebra'), ('zebra'), (NULL), ('_x')) AS v(word)"
    sql = f'SELECT word FROM {words} ORDER BY word COLLATE "{collation}" DESC'
    reverse = f'SELECT word FROM (SELECT * FROM {words} ORDER BY 1) AS t(word) ORDER BY word COLLATE "{collation}" DESC'
    assert compared(connect, sql, reverse) == SameRows(True)


TIED_BY_ID = "SELECT id, shop FROM (SELECT * FROM sales ORDER BY id{}) AS s ORDER BY shop"


def test_rows_that_tie_may_come_in_any_order(connect):
    assert compared(connect, "SELECT id, shop FROM sales ORDER BY shop, id", TIED_BY_ID.format(" DESC")).equal is None
    assert compared(connect, TIED_BY_ID.format(""), TIED_BY_ID.format(" DESC")) == SameRows(True)


def test_a_key_that_is_not_shown_is_honoured_too(connect):
    old = "SELECT id FROM sales ORDER BY lower(shop), day DESC"
    assert compared(connect, old, "SELECT id FROM sales ORDER BY lower(shop), day DESC, note").equal is None
    same = "SELECT id FROM (SELECT * FROM sales ORDER BY note) AS s ORDER BY lower(shop), day DESC"
    assert compared(connect, old, same) == SameRows(True)
    other = "SELECT id FROM sales ORDER BY lower(shop), day - 2 * (day - date '2024-01-01') DESC"
    assert compared(connect, old, other).equal is False


@pytest.mark.parametrize("shown", ["id, amount", "id", "*"])
@pytest.mark.parametrize("limit", ["LIMIT 40", "OFFSET 10 LIMIT 40", "FETCH FIRST 40 ROWS ONLY", "LIMIT $1"])
def test_rows_that_tie_at_the_cut_of_a_limit_may_differ(connect, shown, limit):
    old, new = (f"SELECT {shown} FROM {table} ORDER BY amount {limit}" for table in ("forwards", "backwards"))
    values = ("40",) if "$1" in limit else ()
    found = compared(connect, old, new, *values)
    assert found == SameRows(True, "only rows that tie at the cut of LIMIT differ")


def test_rows_inside_the_cut_must_not_differ(connect):
    new = "SELECT CASE WHEN id = 97 THEN -1 ELSE id END, amount FROM backwards ORDER BY amount LIMIT 40"
    assert compared(connect, "SELECT id, amount FROM forwards ORDER BY amount LIMIT 40", new).equal is False


def test_rows_that_tie_before_a_limit_that_cuts_nothing_must_be_the_same(connect):
    old = "SELECT id, amount FROM forwards WHERE id < 50 ORDER BY amount > 0 LIMIT 100"
    new = "SELECT id + 1, amount FROM forwards WHERE id < 50 ORDER BY amount > 0 LIMIT 100"
    assert compared(connect, old, new).equal is False


def test_with_ties_leaves_no_choice(connect):
    old, new = (
        f"SELECT id, amount FROM {table} ORDER BY amount FETCH FIRST 3 ROWS WITH TIES"
        for table in ("forwards", "backwards")
    )
    assert compared(connect, old, new) == SameRows(True)
    assert compared(connect, old, new.replace("id,", "id + 1,")).equal is False


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT id FROM {} LIMIT 5", "LIMIT without ORDER BY"),
        ("SELECT string_agg(id::text, ',') FROM {}", "string_agg"),
        ("SELECT id, row_number() OVER (ORDER BY shop) FROM {}", "window function"),
        ("SELECT DISTINCT ON (shop) shop, id FROM {} ORDER BY shop", "DISTINCT ON"),
        ("SELECT max(id) FROM (SELECT id FROM {} ORDER BY shop LIMIT 9) AS s", "LIMIT inside"),
        ("SELECT id FROM {0} UNION ALL SELECT id FROM {0} WHERE id < 0 ORDER BY 1 % 1 LIMIT 3", "not compared"),
    ],
)
def test_what_may_rightly_differ_is_left_undecided_with_the_reason(connect, sql, why):
    found = compared(connect, sql.format("forwards"), sql.format("backwards"))
    assert found.equal is None
    assert why in found.reason


@pytest.mark.parametrize(
    "sql", ["SELECT random()", "SELECT id FROM sales ORDER BY random()", "SELECT clock_timestamp()"]
)
def test_a_query_that_differs_from_itself_proves_nothing(connect, sql):
    found = compared(connect, sql)
    assert found == SameRows(None, "the query is unstable: run twice in one snapshot, it gives different rows")


def test_both_sides_see_one_snapshot_in_one_session(connect):
    sessions = []

    def observed():
        sessions.append(connect())
        return sessions[-1]

    snapshot = bound("SELECT pg_current_snapshot()::text, pg_backend_pid(), now()")
    assert same_rows(observed, snapshot, snapshot) == SameRows(True)
    assert len(sessions) == 1
    assert sessions[0].closed


def test_results_too_large_are_not_compared(connect):
    found = compared(connect, "SELECT id FROM sales", max_rows=2999)
    assert found == SameRows(None, "not compared: more than 2,999 rows")
    assert compared(connect, "SELECT id FROM sales", max_rows=3000).equal


def test_a_timeout_is_a_reason_not_an_error(connect):
    found = compared(connect, "SELECT pg_sleep(30)", timeout_s=0.2)
    assert found == SameRows(None, "not compared: it took longer than 0.2 s")


def test_a_query_that_fails_is_a_reason_without_its_values(connect):
    found = compared(connect, "SELECT * FROM sales WHERE id = $1::int", None, "s3cret")
    assert found.equal is None
    assert "s3cret" not in found.reason


@pytest.mark.parametrize("sql", ["DELETE FROM sales", "SELECT 1; DELETE FROM sales", "COPY sales TO STDOUT"])
def test_what_is_not_one_select_is_not_run(connect, sql):
    assert compared(connect, sql).reason.startswith("not analysed")
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM sales").fetchone() == (3000,)


def test_settings_are_switched_off_for_the_old_side_only(connect):
    setting = "SELECT current_setting('enable_indexscan'), current_setting('enable_bitmapscan')"
    found = compared(connect, setting, without=INDEX_SCANS)
    assert found.equal is False
    assert compared(connect, setting).equal is True


@pytest.mark.parametrize(
    ("sql", "expected", "keys"),
    [
        ("SELECT a, b FROM t ORDER BY b DESC NULLS LAST, 1", "", (Key(1), Key(0))),
        ("SELECT a AS x FROM t ORDER BY x, a", "", (Key(0), Key(0))),
        ("SELECT a FROM t ORDER BY t.b, c", "SELECT a , t.b, c FROM t ORDER BY t.b, c", (Key(0, True), Key(1, True))),
        ("SELECT *, a + 1 AS y FROM t ORDER BY y", "", (Key(-1),)),
        (
            "SELECT a IS DISTINCT FROM b, c FROM t ORDER BY d",
            "SELECT a IS DISTINCT FROM b, c , d FROM t ORDER BY d",
            (Key(0, True),),
        ),
        (
            "SELECT a FROM t ORDER BY f(b, c)[1] LIMIT 3",
            "SELECT a , f(b, c)[1] FROM t ORDER BY f(b, c)[1] LIMIT 3",
            (Key(0, True),),
        ),
        ("SELECT DISTINCT a, lower(b) FROM t ORDER BY lower(b)", "", (Key(1),)),
        ("SELECT a FROM t UNION SELECT a FROM u ORDER BY a", "", (Key(0),)),
        ("SELECT a FROM t UNION SELECT a FROM u ORDER BY a + 1", "", None),
        ("SELECT a FROM (SELECT a FROM t ORDER BY b) AS s", "", ()),
    ],
)
def test_keys_are_placed_among_the_columns_or_added_to_them(sql, expected, keys):
    ordering = ordering_of(bound(sql))
    assert (ordering.sql, ordering.keys) == (expected or sql, keys)
