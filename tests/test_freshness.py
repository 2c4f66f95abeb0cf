"""The health check of materialized views: how old an answer is, where that is known, and never a guess where it is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from playbook import refreshing
from playbook.assess import views
from playbook.assess.session import open_session

VIEW = "public.daily_sales"


def looked(shop, **settings):
    """The answers of a dry run: status and text of each, by topic."""
    with open_session(shop.context(apply=False, **settings)) as session:
        found = views.CHECK.look(session)
    return {topic: [(f.status, f.detail, f.remedy) for f in found if f.topic == topic] for topic in ("filled", "age")}


def age(shop, **settings):
    """The one answer about age: its status, its text, its remedy."""
    (answer,) = looked(shop, **settings)["age"]
    return answer


def applied(sales):
    ((_, state, _), *_) = sales.playbook().phase("1").apply().steps
    assert state.status == "applied", state.reason
    return sales


def written(sales):
    """Changes a row, in a session that reports its counts at once."""
    sales.execute("UPDATE sales SET value = 1 WHERE id = 5; SELECT pg_stat_force_next_flush()")


def refreshed_ago(sales, **ago):
    at = (datetime.now(UTC) - timedelta(**ago)).isoformat(timespec="milliseconds")
    sales.execute(f"UPDATE playbook.refresh SET started_at = '{at}', checked_at = '{at}'")


def test_where_there_is_no_view_nothing_is_called_fresh(sales):
    assert looked(sales) == {
        topic: [("not_checked", "there is no materialized view to look at", "")] for topic in ("filled", "age")
    }


def test_one_that_was_refreshed_in_time_is_ok(sales):
    status, detail, _ = age(applied(sales))
    assert (status, detail) == ("ok", "1 materialized view looked at: each is as fresh as the plan asks for")
    assert looked(sales)["filled"][0][0] == "ok"


def test_one_whose_refresh_did_not_come_is_a_warning_with_the_remedy(sales):
    written(applied(sales))
    refreshed_ago(sales, hours=35)
    assert age(sales)[0] == "ok", "half a day late"
    refreshed_ago(sales, hours=37)
    status, detail, remedy = age(sales)
    assert (status, detail) == ("warn", f"what {VIEW} answers is 37 h 00 min old and is to be refreshed every 1d")
    assert "playbook refresh 1/daily_sales" in remedy
    sales.execute(remedy)
    assert sales.execute("SELECT sum(total_value) FROM daily_sales") == sales.execute("SELECT sum(value) FROM sales")


def test_old_tables_make_no_view_stale(sales):
    refreshed_ago(applied(sales), days=300)
    assert age(sales)[0] == "ok"


def test_a_refresh_that_failed_is_a_warning_at_once(sales):
    applied(sales)
    sales.execute("DROP INDEX daily_sales_key")
    written(sales)
    assert [one.word for one in refreshing.refresh(sales.context())] == ["failed"]
    status, detail, _ = age(sales)
    assert (status, "its last refresh, at 2" in detail, detail.endswith("failed")) == ("warn", True, True)


@pytest.mark.parametrize("made", ["MATERIALIZED VIEW theirs AS SELECT count(*) FROM sales", "none"])
def test_of_a_view_that_others_refresh_the_age_is_not_known(sales, made):
    """Whether it bears a name of the plan or not."""
    if made == "none":
        for statement in sales.playbook().phase("1").preview().steps[0][1]:
            sales.execute(statement.sql)
    else:
        sales.execute(f"CREATE {made}")
    status, detail, _ = age(sales)
    assert (status, "the playbook has no refresh on record, and PostgreSQL notes none" in detail) == (
        "not_checked",
        True,
    )
    assert sales.execute("SELECT to_regnamespace('playbook')") == [(None,)]


def test_of_a_view_of_another_plan_the_age_is_told_and_not_judged(sales):
    applied(sales)
    sales.plan.write_text(sales.plan.read_text().replace("name: daily_sales\n", "name: other_sales\n"))
    status, detail, _ = age(sales)
    assert (status, f"{VIEW} was refreshed" in detail) == ("not_checked", True), detail


def test_a_view_that_was_never_filled_is_a_warning(sales):
    sales.execute("CREATE MATERIALIZED VIEW empty_one AS SELECT count(*) FROM sales WITH NO DATA")
    ((status, detail, remedy),) = looked(sales)["filled"]
    assert (status, "public.empty_one was never filled" in detail) == ("warn", True)
    sales.execute(remedy)
    assert looked(sales)["filled"][0][0] == "ok"
