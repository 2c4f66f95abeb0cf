"""Index steps on a foreign database: applied once, resumed, kept apart from others' work, undone without a trace."""

from __future__ import annotations

import threading
import time

import pytest
from tests.fix_shop import reason, statuses

from playbook import undoing
from playbook.errors import Busy, Drifted, TargetError, UsageError
from playbook.file_store import FileStore
from playbook.journal import StatementRecord

STEPS = ["1/orders_customer_created", "1/orders_open"]
POINTS = ["before_intent", "after_intent", "during", "before_done", "after_done"]


def indexes(shop):
    rows = shop.execute(
        "SELECT indexname FROM pg_indexes WHERE tablename = 'orders' AND schemaname = 'public' ORDER BY 1"
    )
    return [row[0] for row in rows]


def test_apply_makes_the_indexes_and_undo_leaves_the_catalog_as_it_was(shop, snapshot):
    as_found = snapshot(shop.target)
    phase = shop.playbook().phase("1")
    assert statuses(phase.apply()) == dict.fromkeys(STEPS, "applied")
    assert indexes(shop) == ["orders_customer_created", "orders_open", "orders_pkey"]
    assert snapshot(shop.target) != as_found
    assert statuses(phase.undo()) == dict.fromkeys(STEPS, "undone")
    assert snapshot(shop.target) == as_found


def test_apply_runs_the_very_statements_that_preview_shows(shop):
    phase = shop.playbook().phase("1")
    shown = [statement.sql for _, statements, _ in phase.preview().steps for statement in statements]
    assert shown == [
        "CREATE INDEX CONCURRENTLY orders_customer_created\n  ON public.orders (customer_id, created_at DESC)",
        "CREATE INDEX CONCURRENTLY orders_open\n  ON public.orders (created_at)\n  WHERE status = 'open'",
    ]
    phase.apply()
    assert [row[0] for row in shop.execute("SELECT sql FROM playbook.statement ORDER BY step, position")] == shown


def test_preview_names_the_lock_of_each_statement_and_its_undo(shop):
    _, statements, undo = shop.playbook().phase("1").preview().steps[0]
    assert (statements[0].lock, statements[0].relation) == ("SHARE UPDATE EXCLUSIVE", "public.orders")
    assert [statement.sql for statement in undo] == ["DROP INDEX CONCURRENTLY public.orders_customer_created"]


def test_a_dry_run_writes_nothing_at_all(shop, snapshot):
    as_found = snapshot(shop.target)
    phase = shop.playbook(apply=False).phase("1")
    phase.preview()
    phase.check()
    before = phase.before()
    assert not before.executed
    assert {(each.query, bool(each.plan)) for each in before.measurements} >= {("latest_orders", True)}
    applied = phase.apply()
    phase.after()
    phase.verdict()
    phase.settle()
    assert not applied.changes
    assert snapshot(shop.target) == as_found
    assert shop.execute("SELECT to_regnamespace('playbook')") == [(None,)]
    with pytest.raises(UsageError):
        phase.undo()


def test_applied_twice_is_applied_once(shop):
    shop.playbook().phase("1").apply()
    first = shop.execute("SELECT 'orders_open'::regclass::oid")
    again = shop.playbook().phase("1")
    assert statuses(again.check()) == dict.fromkeys(STEPS, "applied")
    again.apply()
    assert shop.execute("SELECT 'orders_open'::regclass::oid") == first


def test_an_undone_step_can_be_applied_again(shop):
    phase = shop.playbook().phase("1")
    phase.apply()
    phase.undo()
    assert statuses(shop.playbook().phase("1").apply()) == dict.fromkeys(STEPS, "applied")


def test_steps_are_undone_last_applied_first(shop):
    shop.playbook().phase("1").apply()
    undone = undoing.undo(shop.context())
    assert [one.step for one in undone] == STEPS[::-1]


def test_one_step_can_be_walked_alone(shop):
    step = shop.playbook().step("1/orders_open")
    step.apply()
    assert indexes(shop) == ["orders_open", "orders_pkey"]
    step.undo()
    assert indexes(shop) == ["orders_pkey"]


def test_an_index_that_stands_already_is_left_to_its_owner(shop):
    shop.execute("CREATE INDEX orders_open ON orders (created_at) WHERE status = 'open'")
    phase = shop.playbook().phase("1")
    assert statuses(phase.check())["1/orders_open"] == "exists"
    phase.apply()
    phase.undo()
    assert "orders_open" in indexes(shop)


def test_an_index_of_that_name_with_another_definition_blocks_and_shows_it(shop):
    shop.execute("CREATE INDEX orders_open ON orders (total)")
    checked = shop.playbook().phase("1").apply()
    assert statuses(checked)["1/orders_open"] == "blocked"
    assert "USING btree (total)" in reason(checked, "1/orders_open")
    assert statuses(checked)["1/orders_customer_created"] == "applied"


def test_a_table_of_that_name_blocks(shop):
    shop.execute("CREATE TABLE orders_open (x int)")
    assert statuses(shop.playbook().phase("1").check())["1/orders_open"] == "blocked"


def test_a_covering_index_is_named(shop):
    shop.execute("CREATE INDEX wide ON orders (customer_id, created_at DESC, status)")
    checked = shop.playbook().phase("1").check()
    assert statuses(checked)["1/orders_customer_created"] == "covered"
    assert "wide serves already" in reason(checked, "1/orders_customer_created")


def test_an_invalid_index_of_others_is_not_touched(shop):
    shop.execute("CREATE INDEX orders_open ON orders (created_at) WHERE status = 'open'")
    shop.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_open'::regclass")
    checked = shop.playbook().phase("1").apply()
    assert statuses(checked)["1/orders_open"] == "blocked"
    assert "not begun by this playbook" in reason(checked, "1/orders_open")
    assert "orders_open" in indexes(shop)


def test_a_table_that_is_not_there_makes_the_step_not_applicable(shop):
    shop.execute("ALTER TABLE orders RENAME TO purchases")
    checked = shop.playbook().phase("1").check()
    assert set(statuses(checked).values()) == {"not_applicable"}
    mapped = shop.playbook(map={"orders": "purchases"}).phase("1")
    assert set(statuses(mapped.check()).values()) == {"planned"}
    assert "ON public.purchases (" in mapped.preview().steps[0][1][0].sql


def test_a_table_dropped_between_check_and_apply_fails_the_step_and_not_the_run(shop):
    phase = shop.playbook().phase("1")
    phase.check()
    shop.execute("DROP TABLE orders")
    assert set(statuses(phase.apply()).values()) <= {"failed", "not_applicable"}


def test_an_index_dropped_by_others_is_planned_again(shop):
    shop.playbook().phase("1").apply()
    shop.execute("DROP INDEX orders_open")
    checked = shop.playbook().phase("1").check()
    assert statuses(checked)["1/orders_open"] == "planned"
    assert "others have dropped it since" in reason(checked, "1/orders_open")


def test_undo_leaves_an_index_alone_that_others_have_changed(shop):
    shop.playbook().phase("1").apply()
    shop.execute("ALTER INDEX orders_open SET (fillfactor = 70)")
    undone = undoing.undo(shop.context())
    assert [bool(one.error) for one in undone] == [True, False]
    assert "was changed since" in undone[0].error
    assert indexes(shop) == ["orders_open", "orders_pkey"]
    with pytest.raises(Drifted):
        shop.playbook().step("1/orders_open").undo()


def test_undo_of_what_is_gone_already_is_done(shop):
    shop.playbook().phase("1").apply()
    shop.execute("DROP INDEX orders_open")
    assert [one.error for one in undoing.undo(shop.context())] == ["", ""]


def test_undo_of_a_step_never_applied_names_those_that_are(shop):
    shop.playbook().step("1/orders_open").apply()
    with pytest.raises(UsageError, match=r"not applied on this target: 1/nothing; applied is 1/orders_open"):
        undoing.undo(shop.context(), ("1/nothing",))


def test_a_second_run_is_told_who_holds_the_target(shop):
    first = shop.context()
    with first.hold("apply"), pytest.raises(Busy, match=rf"is held by playbook {first.run_id} \(backend \d+, from "):
        shop.playbook().phase("1").apply()


def test_uninstall_is_refused_while_steps_are_applied(shop, snapshot):
    as_found = snapshot(shop.target)
    shop.playbook().phase("1").apply()
    with pytest.raises(UsageError, match=r"still applied: .*playbook undo"):
        undoing.uninstall(shop.context(), keep_steps=False)
    undoing.undo(shop.context())
    undoing.uninstall(shop.context(), keep_steps=False)
    assert shop.execute("SELECT to_regnamespace('playbook')") == [(None,)]
    assert snapshot(shop.target) == as_found


def test_with_a_file_journal_nothing_but_the_change_is_made(shop, snapshot):
    as_found = snapshot(shop.target)
    path = shop.folder / "journal.sqlite"
    shop.playbook(journal=path).phase("1").apply()
    assert shop.execute("SELECT to_regnamespace('playbook')") == [(None,)]
    assert FileStore(path).exists()
    undoing.undo(shop.context(journal=path))
    assert snapshot(shop.target) == as_found


def test_the_file_of_another_databases_journal_is_refused(shop):
    path = shop.folder / "journal.sqlite"
    shop.playbook(journal=path).step("1/orders_open").apply()
    with shop.target.connect(dbname="postgres") as other:
        other.execute("DROP DATABASE IF EXISTS shop_elsewhere")
        other.execute("CREATE DATABASE shop_elsewhere")

    def connect():
        return shop.target.connect(dbname="shop_elsewhere")

    with pytest.raises(UsageError, match=r"is the journal of empty_\d+ of cluster .* name another file"):
        FileStore(path, connect).exists()
    with pytest.raises(UsageError, match="name another file"):
        FileStore(path, connect).drop()
    with shop.target.connect(dbname="postgres") as other:
        other.execute("DROP DATABASE shop_elsewhere")
    assert path.exists()


class TestWhereTheJournalMayNotStand:
    def test_a_publication_for_all_tables_blocks_every_step_and_a_file_is_the_way_out(self, shop, snapshot):
        shop.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        as_found = snapshot(shop.target)
        applied = shop.playbook().phase("1").apply()
        assert set(statuses(applied).values()) == {"blocked"}
        assert "publication everything would carry the journal's rows" in reason(applied, STEPS[0])
        assert "--journal FILE" in reason(applied, STEPS[0])
        assert snapshot(shop.target) == as_found
        assert shop.execute("SELECT to_regnamespace('playbook')") == [(None,)]
        path = shop.folder / "journal.sqlite"
        assert set(statuses(shop.playbook(journal=path).phase("1").apply()).values()) == {"applied"}
        assert {one.error for one in undoing.undo(shop.context(journal=path))} == {""}
        assert snapshot(shop.target) == as_found

    def test_a_publication_made_since_keeps_undo_from_writing_the_journal(self, shop):
        shop.playbook().step("1/orders_open").apply()
        shop.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        with pytest.raises(TargetError, match=r"would carry the journal's rows .* by hand with undo\.sql"):
            undoing.undo(shop.context())
        assert "orders_open" in indexes(shop)

    def test_a_publication_of_its_schema_is_one_that_carries_its_rows(self, shop):
        shop.execute("CREATE SCHEMA playbook")
        shop.execute("CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA playbook")
        assert set(statuses(shop.playbook().phase("1").check()).values()) == {"blocked"}

    def test_somebody_elses_schema_of_that_name_is_left_alone(self, shop):
        shop.execute("CREATE SCHEMA playbook")
        shop.execute("CREATE TABLE playbook.games (id int)")
        checked = shop.playbook().phase("1").check()
        assert "a schema playbook stands, which is not the playbook's" in reason(checked, STEPS[0])
        undoing.uninstall(shop.context(), keep_steps=False)
        assert shop.execute("SELECT count(*) FROM playbook.games") == [(0,)]

    def test_of_an_empty_schema_that_was_given_only_the_tables_go(self, shop):
        shop.execute("CREATE SCHEMA playbook")
        shop.playbook().step("1/orders_open").apply()
        undoing.undo(shop.context())
        assert "which was there before" in undoing.uninstall(shop.context(), keep_steps=False)
        assert shop.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'playbook'::regnamespace") == [(0,)]

    def test_a_role_that_may_not_write_it_is_told_the_grant(self, shop):
        owner = ("shop_owner", "ALTER TABLE orders OWNER TO shop_owner", "GRANT ALL ON SCHEMA public TO shop_owner")
        with shop.opened_as(*owner):
            checked = shop.playbook().phase("1").check()
        database = shop.target.conninfo["dbname"]
        assert f"GRANT CREATE ON DATABASE {database} TO shop_owner; or keep" in reason(checked, STEPS[0])
        shop.playbook().step("1/orders_open").apply()
        with shop.opened_as(*owner):
            checked = shop.playbook().phase("1").check()
        assert "GRANT USAGE ON SCHEMA playbook TO shop_owner; or keep" in reason(checked, STEPS[0])


def test_an_index_that_others_made_of_that_name_meanwhile_is_not_ours_to_undo(shop, monkeypatch):
    """It comes between the check and the statement, so the server refuses ours; resume and undo leave theirs alone."""
    intent = StatementRecord.intent

    def meanwhile(record, *arguments):
        if record.step == "1/orders_open":
            shop.execute("CREATE INDEX IF NOT EXISTS orders_open ON orders (total)")
        intent(record, *arguments)

    monkeypatch.setattr(StatementRecord, "intent", meanwhile)
    applied = shop.playbook().phase("1").apply()
    assert statuses(applied) == {STEPS[0]: "applied", STEPS[1]: "failed"}
    assert "already exists" in reason(applied, STEPS[1])
    assert statuses(shop.playbook().phase("1").apply())[STEPS[1]] == "blocked"
    assert [one.step for one in undoing.undo(shop.context())] == [STEPS[0]]
    assert indexes(shop) == ["orders_open", "orders_pkey"]


def test_a_failed_unique_build_leaves_no_invalid_index(shop):
    shop.plan.write_text(
        shop.plan.read_text().replace("columns: [created_at]", "columns: [status]\n        unique: true")
    )
    applied = shop.playbook().phase("1").apply()
    assert statuses(applied)["1/orders_open"] == "failed"
    assert "could not create unique index" in reason(applied, "1/orders_open")
    assert indexes(shop) == ["orders_customer_created", "orders_pkey"]


def test_a_role_without_ownership_is_told_the_grant(shop):
    with shop.opened_as("shop_guest", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop_guest"):
        checked = shop.playbook().phase("1").check()
    assert set(statuses(checked).values()) == {"blocked"}
    assert "ALTER TABLE public.orders OWNER TO shop_guest;" in reason(checked, STEPS[0])


@pytest.mark.parametrize("point", ["after_intent", "during", "before_done"])
def test_an_apply_killed_half_way_is_resumed_and_then_undone(shop, snapshot, point):
    as_found = snapshot(shop.target)
    assert shop.killed(STEPS[0], point) == -9
    assert statuses(shop.playbook().phase("1").apply()) == dict.fromkeys(STEPS, "applied")
    assert shop.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    assert {one.error for one in undoing.undo(shop.context())} == {""}
    assert snapshot(shop.target) == as_found


@pytest.mark.exhaustive
def test_killed_at_every_statement_and_resumed_and_undone(shop, snapshot):
    as_found = snapshot(shop.target)
    covered = 0
    for step in [name for name, _, _ in shop.playbook().phase("1").preview().steps]:
        for point in POINTS:
            for resumed in (True, False):
                assert shop.killed(step, point) == -9, (step, point)
                if resumed:
                    assert statuses(shop.playbook().phase("1").apply()) == dict.fromkeys(STEPS, "applied"), (
                        step,
                        point,
                    )
                assert {one.error for one in undoing.undo(shop.context())} <= {""}, (step, point)
                assert snapshot(shop.target) == as_found, (step, point, resumed)
                covered += 1
    print(f"killed at {covered} points")
    assert covered == 2 * len(STEPS) * len(POINTS)


def test_a_backend_that_survived_its_client_is_waited_for(shop):
    """An old transaction keeps the build waiting, the client is killed, the backend goes on; resume adopts its work."""
    with shop.target.connect() as old:
        old.execute("BEGIN")
        old.execute("UPDATE orders SET total = 0 WHERE id = 1")
        assert shop.killed(STEPS[0], "during") == -9
        alive = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND state = 'active'"
        )
        assert shop.execute(alive) == [(1,)]
        before = shop.execute("SELECT 'orders_customer_created'::regclass::oid")
        threading.Timer(1.0, old.rollback).start()
        phase = shop.playbook().phase("1")
        assert statuses(phase.apply()) == dict.fromkeys(STEPS, "applied")
        time.sleep(0.2)
    assert shop.execute("SELECT 'orders_customer_created'::regclass::oid") == before


def test_values_sampled_from_a_foreign_target_are_masked_unless_asked_for(shop):
    masked = shop.playbook(apply=False, measure=True).phase("1").before()
    assert masked.values["latest_orders", "common"] == "customer_id = ***"
    shown = shop.playbook(apply=False, measure=True, show_values=True).phase("1").before()
    assert "customer_id = '" in shown.values["latest_orders", "common"]
