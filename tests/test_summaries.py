"""Materialized views on a foreign database: made beside readers and writers, right for their time, undone without a trace."""

from __future__ import annotations

import threading

import psycopg
import pytest
from tests.fix_sales import STEP
from tests.killing import killed_at_every_statement

from playbook import refreshing, undoing
from playbook.changes import summary
from playbook.errors import Drifted, LockNotGranted
from playbook.phase import Playbook
from playbook.target.execute import LockPolicy

VIEW = "public.daily_sales"
NUMBER = 4
# The plan's query as it stands, its clock bound and its days cut in a zone.
PLAIN = """
SELECT date_trunc('day', sold_at{moment}, '{zone}') AS date, state, count(*), avg(value), sum(value),
       avg(extract(epoch FROM coalesce(paid_at{moment},
         (date_trunc('day', now() AT TIME ZONE '{zone}') + interval '1 day') AT TIME ZONE '{zone}') - sold_at{moment}) / 3600)
FROM sales GROUP BY 1, 2
"""


def state(answer, step=STEP):
    return next(state for name, state, *_ in answer.steps if name == step)


def applied(sales, **settings):
    return state(sales.playbook(**settings).phase("1").apply())


def change(sales, old, new):
    text = sales.plan.read_text()
    assert old in text
    sales.plan.write_text(text.replace(old, new))
    return sales


def differing(sales, zone="UTC", moment=""):
    """Rows of the view that the plain query does not give, and the other way round."""
    plain = PLAIN.format(zone=zone, moment=moment)
    return sales.execute(
        f"(SELECT * FROM daily_sales EXCEPT ({plain})) UNION ALL (({plain}) EXCEPT SELECT * FROM daily_sales)"
    )


def walked(sales, **settings):
    phase = sales.playbook(budget_s=1.0, **settings).phase("1")
    phase.check()
    phase.before()
    phase.apply()
    phase.after()
    return phase


def test_it_is_made_filled_and_undone_without_a_trace(sales, snapshot):
    as_found = snapshot(sales.target)
    phase = sales.playbook().phase("1")
    assert state(phase.apply()).status == "applied"
    assert sales.execute("SELECT relispopulated FROM pg_class WHERE oid = 'daily_sales'::regclass") == [(True,)]
    assert differing(sales) == []
    columns = (
        "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    )
    assert sales.execute(columns, "daily_sales") == [("date state count avg_value total_value avg_hours",)]
    assert "rows kept; an answer is up to 1d old" in state(sales.playbook().phase("1").check()).reason
    assert state(phase.undo()).status == "undone"
    assert snapshot(sales.target) == as_found


def test_what_runs_is_what_preview_shows_and_it_is_filled_outside_locks_that_anyone_meets(sales):
    phase = sales.playbook().phase("1")
    shown = phase.preview().steps[0][1]
    assert [(" ".join(each.sql.split())[:45], each.lock, each.relation, each.long) for each in shown] == [
        ("CREATE MATERIALIZED VIEW public.daily_sales A", "ACCESS SHARE", "public.sales", False),
        ("CREATE UNIQUE INDEX daily_sales_key ON public", "SHARE", VIEW, False),
        ("REFRESH MATERIALIZED VIEW public.daily_sales", "ACCESS EXCLUSIVE", VIEW, True),
        ("VACUUM (ANALYZE) public.daily_sales", "SHARE UPDATE EXCLUSIVE", VIEW, True),
    ]
    assert shown[0].sql.endswith("WITH NO DATA")
    phase.apply()
    assert sales.execute("SELECT sql FROM playbook.statement ORDER BY position") == [(each.sql,) for each in shown]


def test_the_dashboard_is_answered_from_it_with_the_same_rows(sales):
    found = walked(sales).verdict().steps[0]
    assert {(each.query, each.same_rows) for each in found.comparisons} == {("daily", True), ("since", True)}
    assert all("an answer is up to 1d old" in each.same_rows_reason for each in found.comparisons)
    assert all("daily_sales" in each.after_plan for each in found.comparisons)
    assert not any("daily_sales" in each.before_plan for each in found.comparisons)
    assert found.row["size_bytes"] > 0


def test_an_answer_older_than_the_tables_is_right_for_its_time_and_told(sales):
    phase = sales.playbook(budget_s=1.0).phase("1")
    phase.before()
    phase.apply()
    sales.execute("UPDATE sales SET value = 1e6, state = 'PAID' WHERE id % 50 = 0")
    phase.after()
    found = phase.verdict().steps[0]
    assert {each.same_rows for each in found.comparisons} == {True}
    assert all("written to since it was refreshed" in each.same_rows_reason for each in found.comparisons)


def test_a_query_that_answers_wrongly_fails(sales):
    workload = sales.folder / "workload.sql"
    workload.write_text(workload.read_text().replace("CAST(sum(count) AS bigint)", "count(*)"))
    found = walked(sales).verdict().steps[0]
    assert {each.query: each.same_rows for each in found.comparisons} == {"daily": True, "since": False}
    assert found.decision.failed


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
@pytest.mark.parametrize("zoned", [True, False], ids=["timestamptz", "timestamp"])
def test_days_are_cut_in_the_plans_zone_whatever_the_sessions(sales, zone, zoned):
    """On columns without a zone, which hold UTC as ORMs store it, as well."""
    if not zoned:
        for column in ("sold_at", "paid_at"):
            sales.execute(f"ALTER TABLE sales ALTER {column} TYPE timestamp(3) USING {column} AT TIME ZONE 'UTC'")
    change(sales, "time_zone: UTC", f"time_zone: {zone}")
    assert applied(sales).status == "applied"
    for session in ("UTC", "Europe/Berlin", "Pacific/Apia"):
        with sales.target.connect() as connection:
            connection.execute(f"SET TimeZone = '{session}'")
            connection.execute("REFRESH MATERIALIZED VIEW daily_sales")
        assert differing(sales, zone, "" if zoned else " AT TIME ZONE 'UTC'") == [], session


def test_a_refresh_without_a_change_rewrites_no_row(sales):
    applied(sales)
    before = sales.execute("SELECT ctid, xmin FROM daily_sales ORDER BY 1")
    sales.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY daily_sales")
    assert sales.execute("SELECT ctid, xmin FROM daily_sales ORDER BY 1") == before


def test_one_that_stands_with_the_same_definition_is_left_to_its_owner(sales, snapshot):
    for statement in sales.playbook().phase("1").preview().steps[0][1]:
        sales.execute(statement.sql)
    as_found = snapshot(sales.target)
    phase = sales.playbook().phase("1")
    assert state(phase.apply()).status == "exists"
    phase.undo()
    assert snapshot(sales.target) == as_found
    assert sales.execute("SELECT to_regnamespace('playbook')") == [(None,)]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("CREATE MATERIALIZED VIEW daily_sales AS SELECT state, count(*) FROM sales GROUP BY 1", "GROUP BY state"),
        ("CREATE VIEW daily_sales AS SELECT 1 AS one", "another relation of that name"),
        ("CREATE TABLE daily_sales (x int)", "another relation of that name"),
    ],
)
def test_another_of_that_name_blocks_it_and_both_are_shown(sales, snapshot, made, said):
    sales.execute(made)
    as_found = snapshot(sales.target)
    found = applied(sales)
    assert found.status == "blocked"
    assert said in found.reason
    assert "MATERIALIZED" not in made or "The plan's is: SELECT DATE_TRUNC" in found.reason
    assert snapshot(sales.target) == as_found


def test_an_index_of_that_name_that_tells_no_row_apart_blocks_it_and_both_are_shown(sales, snapshot):
    """As the plan's own SQL makes it: on the same columns, and not unique."""
    sales.execute(sales.playbook().phase("1").preview().steps[0][1][0].sql)
    sales.execute("CREATE INDEX daily_sales_key ON daily_sales (date DESC, state)")
    as_found = snapshot(sales.target)
    found = applied(sales)
    assert found.status == "blocked"
    assert "CREATE INDEX daily_sales_key" in found.reason
    assert "The plan's is: CREATE UNIQUE INDEX" in found.reason
    assert snapshot(sales.target) == as_found


def test_a_query_of_what_the_index_holds_is_answered_from_it_alone_after_a_refresh_too(sales):
    change(sales, "[date DESC, state]}", "[date DESC, state], include: [count, total_value]}")
    applied(sales)

    def explained():
        with sales.target.connect() as connection:
            for other in ("enable_seqscan", "enable_bitmapscan"):  # which so small a view is read by otherwise
                connection.execute(f"SET {other} = off")
            query = "SELECT date, state, count, total_value FROM daily_sales WHERE date < '2026-03-22'"
            return str(connection.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query}").fetchall())

    assert "Heap Fetches: 0'" in explained()
    sales.execute("UPDATE sales SET value = value + 1 WHERE id = 5")
    assert [one.word for one in refreshing.refresh(sales.context(), force=True)] == ["refreshed"]
    assert "Index Only Scan using daily_sales_key" in explained()
    assert applied(sales).status == "applied"


def test_one_of_the_same_definition_is_completed_and_undo_leaves_it_as_it_was(sales, snapshot):
    create = sales.playbook().phase("1").preview().steps[0][1][0]
    sales.execute(create.sql)
    as_found = snapshot(sales.target)
    assert applied(sales).status == "applied"
    assert differing(sales) == []
    assert [one.error for one in undoing.undo(sales.context())] == [""]
    assert snapshot(sales.target) == as_found


def test_a_dry_run_writes_nothing_and_still_knows_one_that_stands(sales, snapshot):
    for statement in sales.playbook().phase("1").preview().steps[0][1]:
        sales.execute(statement.sql)
    as_found = snapshot(sales.target)
    with sales.read_only():
        phase = sales.playbook(apply=False).phase("1")
        assert state(phase.check()).status == "exists"
        phase.before()
        phase.after()
    assert snapshot(sales.target) == as_found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("SUM(value) AS", "SUM(value AS", "cannot be parsed"),
        ("SUM(value)", "SUM(state)", "function sum(text) does not exist"),
        ("SUM(value)", "SUM(value * random())", "is volatile"),
        ("NOW()", "LOCALTIMESTAMP", "cannot be bound to a day"),
        ("columns: [date DESC, state]", "columns: [day]", "the query returns no column day"),
    ],
)
def test_a_query_that_cannot_be_kept_blocks_with_its_reason(sales, snapshot, old, new, said):
    as_found = snapshot(sales.target)
    found = applied(change(sales, old, new))
    assert (found.status, said in found.reason) == ("blocked", True), found.reason
    assert snapshot(sales.target) == as_found


def test_rows_that_the_index_cannot_tell_apart_fail_it_and_it_is_taken_back(sales, snapshot):
    as_found = snapshot(sales.target)
    found = applied(change(sales, "columns: [date DESC, state]", "columns: [date DESC]"))
    assert found.status == "failed"
    assert "what the step had made was taken back" in found.reason
    assert snapshot(sales.target) == as_found


def test_without_a_unique_key_it_is_refreshed_plainly_in_a_quiet_hour_and_that_is_said(sales):
    change(sales, "        unique_index: {name: daily_sales_key, columns: [date DESC, state]}\n", "")
    found = applied(sales)
    assert found.status == "applied"
    assert "readers wait while it is refreshed" in found.reason
    assert any("keep refresh_at (03:10 UTC) in a quiet hour" in each.remedy for each in found.findings)


def test_a_base_column_that_is_gone_makes_it_not_applicable_and_undo_done(sales):
    applied(sales)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        sales.execute("ALTER TABLE sales DROP COLUMN value")
    sales.execute("ALTER TABLE sales DROP COLUMN value CASCADE")
    found = state(sales.playbook().phase("1").check())
    assert found.status == "not_applicable"
    assert "has no column value" in found.reason
    assert [one.error for one in undoing.undo(sales.context())] == [""]


def test_views_that_depend_on_it_keep_undo_from_dropping_it(sales, snapshot):
    as_found = snapshot(sales.target)
    applied(sales)
    sales.execute("CREATE VIEW paid AS SELECT * FROM daily_sales WHERE state = 'PAID'")
    undone = undoing.undo(sales.context())
    assert "view paid depends on materialized view daily_sales" in undone[0].error
    assert sales.execute("SELECT count(*) > 0 FROM paid") == [(True,)]
    sales.execute("DROP VIEW paid")
    assert [one.error for one in undoing.undo(sales.context())] == [""]
    assert snapshot(sales.target) == as_found


def test_undo_leaves_one_alone_that_others_have_changed(sales):
    applied(sales)
    sales.execute("CREATE INDEX theirs ON daily_sales (count)")
    with pytest.raises(Drifted, match="theirs"):
        sales.playbook().phase("1").undo()


def test_a_transaction_that_holds_the_table_keeps_it_from_being_made(sales, snapshot, monkeypatch):
    as_found = snapshot(sales.target)
    monkeypatch.setattr(summary, "LOCK_TIMEOUT_MS", 100)
    context = sales.context()
    context.policy = LockPolicy(limit_s=0.5, backoff_s=(0.05, 0.1))
    phase = Playbook(context).phase("1")
    phase.check()
    with sales.target.connect() as other:
        other.execute("BEGIN")
        other.execute("ALTER TABLE sales SET (fillfactor = 90)")
        other.execute("LOCK TABLE sales")
        with pytest.raises(LockNotGranted, match="nothing was changed"):
            phase.steps[0].apply({})  # as a run that has read the catalog, which cannot be read just now
        other.rollback()
    undoing.undo(sales.context())
    assert snapshot(sales.target) == as_found


def test_a_partitioned_table_is_summed_over_all_its_partitions(sales, snapshot):
    sales.execute("ALTER TABLE sales RENAME TO flat")
    sales.execute("CREATE TABLE sales (LIKE flat) PARTITION BY RANGE (sold_at)")
    for number, bounds in enumerate([("2026-01-01", "2026-04-01"), ("2026-04-01", "2027-01-01")]):
        sales.execute(
            "CREATE TABLE sales_{} PARTITION OF sales FOR VALUES FROM ('{}') TO ('{}')".format(number, *bounds)
        )
    sales.execute("INSERT INTO sales SELECT * FROM flat")
    as_found = snapshot(sales.target)
    assert applied(sales).status == "applied"
    assert differing(sales) == []
    undoing.undo(sales.context())
    assert snapshot(sales.target) == as_found


def test_a_role_is_told_the_grants_that_it_lacks(sales):
    with sales.opened_as("sales_guest"):
        found = state(sales.playbook().phase("1").check())
    assert found.status == "blocked"
    assert "GRANT SELECT ON public.sales TO sales_guest;" in found.reason
    assert "GRANT CREATE ON SCHEMA public TO sales_guest" in found.reason


def test_row_security_that_sums_do_not_keep_is_a_warning(sales):
    sales.execute("ALTER TABLE sales ENABLE ROW LEVEL SECURITY")
    findings = state(sales.playbook().phase("1").check()).findings
    assert any("row security" in each.detail for each in findings if each.concern == "warn")


@pytest.mark.parametrize(
    ("point", "position", "touch"),
    [("after_done", 0, ""), ("during", 2, "LOCK TABLE sales")],
    ids=["made", "while it is filled"],
)
def test_killed_while_it_is_made_it_is_resumed_and_then_undone(sales, snapshot, point, position, touch):
    as_found = snapshot(sales.target)
    assert sales.killed(STEP, point, position, touch=touch) == -9
    assert applied(sales).status == "applied"
    assert differing(sales) == []
    assert {one.error for one in undoing.undo(sales.context())} == {""}
    assert snapshot(sales.target) == as_found


@pytest.mark.exhaustive
def test_killed_at_every_statement_and_resumed_and_undone(sales, snapshot):
    def resume():
        assert applied(sales).status == "applied"
        assert differing(sales) == []

    killed_at_every_statement(sales, snapshot, {STEP: NUMBER}, resume)


def test_readers_and_writers_go_on_while_it_is_filled(sales):
    """A reader and a writer, both with open transactions, hold what they hold: nothing that the step needs."""
    with sales.target.connect() as reader, sales.target.connect() as writer:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sales")
        writer.execute("BEGIN")
        writer.execute("UPDATE sales SET value = 5 WHERE id = 1")
        done = threading.Event()

        def write():
            with sales.target.connect() as another:
                another.execute("UPDATE sales SET value = 7 WHERE id = 2")
                done.set()

        assert applied(sales).status == "applied"
        threading.Thread(target=write).start()
        assert done.wait(10)


def test_the_plans_summary_stands_on_a_database_of_prismas_naming(prisma, snapshot):
    """Quoted camelCase, statuses as an enum, timestamps without a zone; the view's columns keep the plan's names."""
    as_found = snapshot(prisma.admin)
    phase = prisma.playbook(budget_s=1.0).phase("3.1")
    phase.before()
    phase.apply()
    phase.after()
    found = phase.verdict().steps[0]
    assert found.row["status"] == "applied", found.row["reason"]
    assert {(each.query, each.same_rows) for each in found.comparisons} == {
        ("dashboard_daily", True),
        ("dashboard_daily_last_30_days", True),
        ("dashboard_totals_by_status", True),
        ("dashboard_processing_hours", True),
    }
    assert "DATE_TRUNC('day', (\"createdAt\" AT TIME ZONE 'UTC'), 'UTC')" in found.row["statements"][0]
    phase.undo()
    assert snapshot(prisma.admin) == as_found
