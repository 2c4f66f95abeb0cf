"""undo.sql by hand, with psql alone and beside writers: it takes a partitioned table back like `playbook undo`."""

from __future__ import annotations

import pytest
from tests.fix_conversion import COPY_PLAN, STEP, change_plan, loaded, rows
from tests.fix_routes import by_route
from tests.fix_shop import reason, statuses
from tests.test_rebuild import ATTACH, write_late

from playbook import finishing, psql


def by_hand(shop):
    """Until it comes to its end; what it said before."""
    said = []
    for _ in range(50):
        done = shop.by_hand(psql.undo_sql(shop.context()))
        if not done.returncode:
            assert done.stderr == ""
            return said
        said.append(done.stderr)
    raise AssertionError(said[-1])


@pytest.mark.parametrize(
    ("plan", "afterwards"),
    [
        (ATTACH, lambda shop: None),
        (ATTACH, write_late),
        (ATTACH, lambda shop: finishing.finish(shop.context(), (STEP,), apply=True)),
        (COPY_PLAN, lambda shop: None),
    ],
    ids=["attach", "attach, long after", "split", "copy"],
)
def test_a_partitioned_table_is_taken_back_beside_its_writers(ledger, snapshot, plan, afterwards):
    change_plan(ledger, "every: month", plan)
    as_found = snapshot(ledger.target)
    applied = ledger.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    afterwards(ledger)
    with loaded(ledger) as timeline:
        by_hand(ledger)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(ledger.target) == as_found


@by_route(of=("prisma attach", "prisma copy"))
def test_so_is_one_of_a_prisma_database_by_its_owner(route, snapshot):
    as_found = snapshot(route.admin)
    route.applied()
    with route.loaded() as timeline:
        by_hand(route.shop)
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(route.admin) == as_found


def test_work_that_is_not_done_yet_ends_the_script_and_it_goes_on_from_there(ledger, monkeypatch):
    """Nothing after it runs on what is half done."""
    monkeypatch.setattr("playbook.changes.partitioning.pages.PAGES", 10)
    change_plan(ledger, "every: month", ATTACH)
    ledger.playbook().phase("1").apply()
    write_late(ledger)
    written = rows(ledger)
    said = by_hand(ledger)
    assert len(said) >= 2
    assert all("a part of the work is done: run this script again" in each for each in said)
    assert rows(ledger) == written


def test_a_lock_that_is_not_to_be_had_ends_the_script_and_nothing_is_changed(attached):
    written = rows(attached)
    with attached.target.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM entries")
        done = attached.by_hand(psql.undo_sql(attached.context()))
        assert (done.returncode, "canceling statement due to lock timeout" in done.stderr) == (3, True)
        reader.rollback()
    assert rows(attached) == written
    by_hand(attached)
    assert rows(attached) == written
