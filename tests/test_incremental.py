"""An incremental summary: the plain query's rows in every snapshot, whoever writes whatever at the same time."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest
from tests.fix_sales import STEP
from tests.killing import killed_at_every_statement

from playbook import refreshing, undoing

NUMBER = 13
PLAIN = """
SELECT date_trunc('day', sold_at, 'UTC') AS date, state, count(*), round(avg(value), 8), sum(value),
       round(avg(extract(epoch FROM coalesce(paid_at,
         (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC') - sold_at) / 3600), 8)
FROM sales GROUP BY 1, 2
"""
KEPT = "SELECT date, state, count, round(avg_value, 8), total_value, round(avg_hours, 8) FROM daily_sales"
DIFFERING = f"(({KEPT}) EXCEPT ({PLAIN})) UNION ALL (({PLAIN}) EXCEPT ({KEPT}))"


@pytest.fixture
def sales(sales):
    """The plan with the other kind: that one word is the choice."""
    sales.plan.write_text(sales.plan.read_text().replace("kind: materialized_view", "kind: incremental_summary"))
    return sales


def applied(sales, **settings):
    (_, state, _), *_ = sales.playbook(**settings).phase("1").apply().steps
    return state


def differing(sales):
    return sales.execute(DIFFERING)


def deltas(sales):
    return sales.execute("SELECT count(*)::int FROM daily_sales_deltas")[0][0]


def test_it_is_made_read_and_undone_without_a_trace(sales, snapshot):
    as_found = snapshot(sales.target)
    phase = sales.playbook(budget_s=1.0).phase("1")
    phase.check()
    phase.before()
    phase.apply()
    phase.after()
    found = phase.verdict().steps[0]
    assert found.row["status"] == "applied", found.row["reason"]
    assert "an answer is as fresh as the tables" in found.row["reason"]
    assert {(each.query, each.same_rows) for each in found.comparisons} == {("daily", True), ("since", True)}
    assert len(found.row["statements"]) == NUMBER
    assert sales.playbook().phase("1").check().steps[0][1].status == "applied"
    assert differing(sales) == []
    assert [one.error for one in undoing.undo(sales.context())] == [""]
    assert snapshot(sales.target) == as_found


@pytest.mark.parametrize(
    "write",
    [
        "INSERT INTO sales SELECT n, 'NEW', now(), NULL, n FROM generate_series(10000, 10100) n",
        "UPDATE sales SET state = 'PAID', paid_at = sold_at + interval '1 hour' WHERE id % 2 = 0",
        "UPDATE sales SET sold_at = sold_at + interval '3 days', value = NULL WHERE id % 7 = 0",
        "UPDATE sales SET id = -id",
        "DELETE FROM sales WHERE state = 'OPEN'",
        "INSERT INTO sales VALUES (5, 'NEW', now(), NULL, 1) ON CONFLICT (id) DO UPDATE SET state = 'LOST', value = 3",
        "MERGE INTO sales USING (VALUES (1), (99999)) AS v(id) ON sales.id = v.id WHEN MATCHED THEN DELETE "
        "WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'NEW', now(), NULL, 7)",
        "TRUNCATE sales",
        "SET session_replication_role = replica; DELETE FROM sales WHERE id < 100",
        "BEGIN; DELETE FROM sales; ROLLBACK",
    ],
)
def test_every_way_of_writing_is_noted(sales, write):
    assert applied(sales).status == "applied"
    with sales.target.connect() as connection:
        connection.execute(write)
        if "TRUNCATE" in write:
            connection.execute("INSERT INTO sales VALUES (1, 'NEW', now(), NULL, 1)")
    assert differing(sales) == []
    refreshing.refresh(sales.context(), force=True)
    assert (differing(sales), deltas(sales)) == ([], 0)


def test_an_update_of_what_is_not_summed_appends_nothing(sales):
    applied(sales)
    sales.execute("UPDATE sales SET id = id + 100000")
    assert deltas(sales) == 0


def test_a_key_that_becomes_null_later_hides_no_other_group(sales):
    applied(sales)
    sales.execute("ALTER TABLE sales ALTER state DROP NOT NULL")
    sales.execute(
        "INSERT INTO sales VALUES (10000, NULL, '2026-04-01', NULL, 5), (10001, 'PAID', '2026-04-01', NULL, 5)"
    )
    for kept, plain in ((KEPT, PLAIN), (PLAIN, KEPT)):
        assert sales.execute(f"SELECT * FROM (({kept}) EXCEPT ({plain})) AS each WHERE state IS NOT NULL") == []
    assert sales.execute("SELECT count FROM daily_sales WHERE state IS NULL") == [(1,)]


def test_only_the_columns_that_are_summed_are_noted_as_they_are(sales):
    """Whatever they are: text of another collation, JSON whose values cannot be told to be equal."""
    sales.execute('ALTER TABLE sales ADD note json, ALTER state TYPE varchar(9) COLLATE "C"')
    sales.plan.write_text(sales.plan.read_text().replace("AVG(value)", "AVG(CAST(note ->> 'price' AS numeric))"))
    assert applied(sales).status == "applied"
    sales.execute("INSERT INTO sales VALUES (10000, 'NEW', '2026-04-01', NULL, 5, '{\"price\": 7}')")
    sales.execute("UPDATE sales SET note = '{\"price\": 9}' WHERE id = 10000")
    columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)::text"
    assert sales.execute(
        f"{columns} FROM pg_attribute WHERE attrelid = 'daily_sales_deltas'::regclass AND attnum > 0"
    ) == [
        (
            "state character varying(9), sold_at timestamp with time zone, paid_at timestamp with time zone, "
            "value numeric(14,2), note json, playbook_sign bigint",
        )
    ]
    for _ in range(2):
        assert sales.execute("SELECT avg_value FROM daily_sales WHERE state = 'NEW'") == [(9,)]
        refreshing.refresh(sales.context(), force=True)


def test_columns_may_be_called_as_the_trigger_calls_its_own(sales):
    for old, new in (("state", "few"), ("value", "found")):
        sales.execute(f"ALTER TABLE sales RENAME {old} TO {new}")
        sales.plan.write_text(sales.plan.read_text().replace(f"{old})", f"{new})").replace(f" {old}", f" {new}"))
    assert applied(sales).status == "applied"
    sales.execute("INSERT INTO sales SELECT 10000 + n, 'NEW', '2026-04-01', NULL, 2 FROM generate_series(1, 30) n")
    assert sales.execute("SELECT count, total_value FROM daily_sales WHERE few = 'NEW'") == [(30, 60)]


def test_groups_without_rows_are_gone_and_come_back(sales):
    applied(sales)
    sales.execute("DELETE FROM sales WHERE state = 'OPEN'")
    assert sales.execute("SELECT count(*) FROM daily_sales WHERE state = 'OPEN'") == [(0,)]
    refreshing.refresh(sales.context(), force=True)
    assert sales.execute("SELECT count(*) FROM daily_sales_sums WHERE state = 'OPEN'") == [(0,)]
    sales.execute("INSERT INTO sales VALUES (10000, 'OPEN', '2026-04-01', NULL, 5)")
    assert differing(sales) == []


def test_keys_that_may_be_null_are_a_group(sales):
    sales.execute("ALTER TABLE sales ALTER state DROP NOT NULL")
    sales.execute("UPDATE sales SET state = NULL WHERE id % 5 = 0")
    applied(sales)
    for write in ("DELETE FROM sales WHERE id % 10 = 0", "UPDATE sales SET state = NULL WHERE id % 3 = 0"):
        sales.execute(write)
        assert differing(sales) == []
        refreshing.refresh(sales.context(), force=True)
        assert differing(sales) == []


def test_a_column_that_is_noted_cannot_be_dropped_before_it_is_undone(sales):
    applied(sales)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="daily_sales_columns"):
        sales.execute("ALTER TABLE sales DROP COLUMN value")
    assert [one.error for one in undoing.undo(sales.context())] == [""]
    sales.execute("ALTER TABLE sales DROP COLUMN value")
    assert applied(sales).status == "not_applicable"


def test_a_role_that_may_write_the_table_needs_nothing_more(sales):
    applied(sales)
    sales.execute("DROP ROLE IF EXISTS sales_writer")
    sales.execute("CREATE ROLE sales_writer")
    sales.execute("GRANT INSERT ON sales TO sales_writer")
    sales.execute("SET ROLE sales_writer; INSERT INTO sales VALUES (10000, 'NEW', now(), NULL, 5)")
    assert differing(sales) == []
    sales.execute("DROP OWNED BY sales_writer")
    sales.execute("DROP ROLE sales_writer")


class Writer(threading.Thread):
    """Inserts, deletes, updates that move rows between groups, upserts and rollbacks, at random, in transactions."""

    def __init__(self, sales, seed, rounds):
        super().__init__()
        self.sales, self.draw, self.rounds, self.error = sales, random.Random(seed), rounds, None

    def run(self):
        try:
            with self.sales.target.connect() as connection:
                for _ in range(self.rounds):
                    connection.execute("BEGIN")
                    for _ in range(self.draw.choice((1, 1, 2, 3))):
                        connection.execute("SAVEPOINT s")
                        connection.execute(self.write())
                        connection.execute(self.draw.choice(("RELEASE s", "RELEASE s", "ROLLBACK TO s")))
                    connection.execute(self.draw.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK")))
        except Exception as error:
            self.error = error

    def write(self):
        draw = self.draw
        some = f"(SELECT id FROM sales WHERE id % 97 = {draw.randrange(97)} LIMIT 3 FOR UPDATE SKIP LOCKED)"
        state, value = draw.choice(("'OPEN'", "'PAID'", "'LOST'")), draw.choice(("NULL", "value + 1", "3.5"))
        day = f"timestamptz '2026-04-01 23:30:00+00' + {draw.randrange(90)} * interval '1 hour'"
        return draw.choice(
            (
                f"INSERT INTO sales VALUES ({draw.randrange(10**6, 10**12)}, {state}, {day}, NULL, {draw.random() * 100})",
                f"DELETE FROM sales WHERE id IN {some}",
                f"UPDATE sales SET state = {state}, sold_at = {day} WHERE id IN {some}",
                f"UPDATE sales SET value = {value}, paid_at = {draw.choice(('NULL', day))} WHERE id IN {some}",
            )
        )


def written_beside(sales, work, *, writers=5, rounds=25, seed=7):
    """Runs `work` again and again while the writers write."""
    threads = [Writer(sales, seed + number, rounds) for number in range(writers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        work()
    for thread in threads:
        thread.join()
    assert [thread.error for thread in threads if thread.error] == []


def test_under_random_writers_every_snapshot_holds_the_plain_querys_rows_while_deltas_are_folded(sales):
    applied(sales)
    summary = refreshing.kept(sales.context())[0].summary
    seen = []

    def look():
        with sales.target.connect() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            seen.append(connection.execute(DIFFERING).fetchall())
            connection.rollback()
            with connection.transaction():
                summary.refresh(connection)

    written_beside(sales, look, rounds=40)
    assert [rows for rows in seen if rows] == []
    assert len(seen) > 1
    assert differing(sales) == []
    refreshing.refresh(sales.context(), force=True)
    assert (differing(sales), deltas(sales)) == ([], 0)


def test_made_and_undone_under_writers_it_misses_no_row_and_no_writer_fails(sales, snapshot):
    as_found = snapshot(sales.target)
    found = []

    def make():
        assert applied(sales).status == "applied"
        found.append(differing(sales))
        assert [one.error for one in undoing.undo(sales.context())] == [""]

    written_beside(sales, make, writers=3, rounds=20)
    assert [rows for rows in found if rows] == []
    assert snapshot(sales.target) == as_found


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(20))
def test_under_random_writers_for_long(sales, seed):
    applied(sales)
    written_beside(sales, lambda: refreshing.refresh(sales.context(), force=True), writers=8, rounds=120, seed=seed)
    assert differing(sales) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("SUM(value)", "MAX(value)", "keeps count, sum and avg of one table's rows"),
        ("SUM(value)", "SUM(DISTINCT value)", "keeps count, sum and avg"),
        ("FROM sales", "FROM sales JOIN shops ON shops.id = sales.id", "no joins"),
        ("FROM sales\n", "FROM sales WHERE sold_at < NOW()\n", "its WHERE asks for the clock"),
        ("/3600)", "/3600 * EXTRACT(EPOCH FROM NOW()))", "does not move in a straight line with the clock"),
    ],
)
def test_a_query_that_deltas_cannot_keep_blocks_with_its_reason(sales, old, new, said):
    text = sales.plan.read_text()
    assert old in text
    sales.plan.write_text(text.replace(old, new))
    found = applied(sales)
    assert (found.status, said in found.reason) == ("blocked", True), found.reason


def test_a_table_whose_writes_cannot_all_be_noted_blocks_it(sales):
    sales.execute("ALTER TABLE sales RENAME TO flat")
    sales.execute("CREATE TABLE sales (LIKE flat) PARTITION BY RANGE (sold_at)")
    found = applied(sales)
    assert (found.status, "is partitioned" in found.reason) == ("blocked", True), found.reason


def test_one_that_stands_with_the_same_definition_is_left_to_its_owner_and_another_blocks_it(sales, snapshot):
    for statement in sales.playbook().phase("1").preview().steps[0][1]:
        sales.execute(statement.sql)
    as_found = snapshot(sales.target)
    assert applied(sales).status == "exists"
    sales.execute("CREATE OR REPLACE VIEW daily_sales AS SELECT date, state, NULL::bigint AS count, NULL::numeric AS avg_value, "
                  "NULL::numeric AS total_value, NULL::numeric AS avg_hours FROM daily_sales_sums")  # fmt: skip
    found = applied(sales)
    assert found.status == "blocked"
    assert "stands already as: SELECT date," in found.reason
    assert "The plan's is: SELECT" in found.reason
    assert snapshot(sales.target) != as_found
    assert sales.execute("SELECT to_regnamespace('playbook')") == [(None,)]


def test_a_role_that_does_not_own_the_table_is_told_so(sales):
    with sales.opened_as("sales_guest", "GRANT SELECT ON sales TO sales_guest"):
        ((_, found),) = sales.playbook().phase("1").check().steps
    assert (found.status, "ALTER TABLE public.sales OWNER TO sales_guest" in found.reason) == ("blocked", True)


def test_killed_while_it_is_made_it_goes_on_counting_each_row_once(sales, snapshot):
    as_found = snapshot(sales.target)
    assert sales.killed(STEP, "after_done", 9) == -9  # filled, without its index and view
    sales.execute("DELETE FROM sales WHERE id % 4 = 0")
    assert applied(sales).status == "applied"
    assert differing(sales) == []
    assert [one.error for one in undoing.undo(sales.context())] == [""]
    assert snapshot(sales.target) == as_found


@pytest.mark.exhaustive
def test_killed_at_every_statement_and_resumed_and_undone(sales, snapshot):
    def resume():
        assert applied(sales).status == "applied"
        assert differing(sales) == []

    killed_at_every_statement(
        sales,
        snapshot,
        {STEP: NUMBER},
        resume,
        meanwhile=lambda: sales.execute("UPDATE sales SET value = value + 1 WHERE id % 4 = 0"),
    )
