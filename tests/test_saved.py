"""Saved plans: exactly what was reviewed is run, on a target that is as it was reviewed, or nothing."""

from __future__ import annotations

import pytest
from tests.fix_shop import statuses

from playbook import reviewing, undoing
from playbook.errors import Moved, UsageError
from playbook.journal import StatementRecord
from playbook.saved import read
from playbook.settings import Settings
from test_cli import playbook

STEPS = ["1/orders_customer_created", "1/orders_open"]


@pytest.fixture
def reviewed(shop):
    """The shop's plan as it was reviewed, in a file."""
    path = shop.folder / "reviewed.yaml"
    reviewing.save(shop.context(apply=False), path)
    return path


def refusal(shop, reviewed):
    with pytest.raises(Moved) as refused:
        reviewing.verify(shop.context(saved=reviewed))
    return str(refused.value)


def test_the_file_is_read_by_people_and_holds_no_secret_and_no_row(shop, reviewed, snapshot):
    text = reviewed.read_text()
    assert "      CREATE INDEX CONCURRENTLY orders_open\n        ON public.orders (created_at)\n" in text
    assert "- DROP INDEX CONCURRENTLY public.orders_open;" in text
    for secret in (shop.target.conninfo["password"], shop.target.conninfo["host"], "city 1"):
        assert str(secret) not in text


def test_saving_changes_nothing_and_saving_twice_writes_the_same(shop, reviewed, snapshot):
    as_found = snapshot(shop.target)
    again = shop.folder / "again.yaml"
    reviewing.save(shop.context(apply=False), again)
    assert again.read_text() == reviewed.read_text()
    assert snapshot(shop.target) == as_found


def test_what_was_reviewed_is_run_and_may_be_run_again(shop, reviewed):
    for _ in range(2):
        reviewing.verify(shop.context(saved=reviewed))
        phase = shop.playbook(saved=reviewed).phase("1")
        assert statuses(phase.apply()) == dict.fromkeys(STEPS, "applied")
    assert len(undoing.undo(shop.context())) == 2
    reviewing.verify(shop.context(saved=reviewed))


def test_a_partitioned_table_may_be_gone_on_with_after_an_interruption(accounts, monkeypatch):
    path = accounts.folder / "reviewed.yaml"
    reviewing.save(accounts.context(apply=False), path)
    intent = StatementRecord.intent

    def stop(record, *arguments):
        if record.position == 5:
            raise KeyboardInterrupt
        intent(record, *arguments)

    monkeypatch.setattr(StatementRecord, "intent", stop)
    with pytest.raises(KeyboardInterrupt):
        accounts.playbook(saved=path).phase("1").apply()
    monkeypatch.undo()
    monkeypatch.setenv("SHOP_URL", accounts.url())
    reviewing.verify(accounts.context(saved=path))
    assert statuses(accounts.playbook(saved=path).phase("1").apply()) == {"1/entries_account": "applied"}


def test_a_target_that_has_moved_is_refused_and_what_moved_is_named(shop, reviewed):
    table, key = "ALTER TABLE orders", "orders_customer_id_fkey"
    restored = f"ADD CONSTRAINT {key} FOREIGN KEY (customer_id) REFERENCES customers(id)"
    for change, said, back in [
        (f"{table} ADD COLUMN note text", "public.orders.note has appeared", f"{table} DROP COLUMN note"),
        (
            f"{table} ALTER total TYPE real",
            "public.orders.total has changed",
            f"{table} ALTER total TYPE numeric(10,2)",
        ),
        ("CREATE INDEX other ON orders (total)", "public.other has appeared", "DROP INDEX other"),
        (f"{table} DROP CONSTRAINT {key}", f"{key} ON public.orders is gone", f"{table} {restored}"),
        (f"{table} OWNER TO pg_monitor", "public.orders has changed", f"{table} OWNER TO postgres"),
        ("CREATE INDEX orders_open ON orders (id)", "public.orders_open has appeared", "DROP INDEX orders_open"),
        ("ALTER TABLE orders RENAME TO o", "the target has no relation orders", "ALTER TABLE o RENAME TO orders"),
    ]:
        shop.execute(change)
        assert said in refusal(shop, reviewed)
        shop.execute(back)
        reviewing.verify(shop.context(saved=reviewed))


def test_a_constraint_is_refused_too_once_its_table_has_moved(shop, monkeypatch):
    plan = shop.plan.read_text()
    head = plan[: plan.index("      - name: orders_customer_created")]
    step = "      - {name: total_given, kind: check, table: orders, expression: total >= 0}\n"
    shop.plan.write_text(head + step + plan[plan.index("priorities:") :])
    path = shop.folder / "reviewed.yaml"
    reviewing.save(shop.context(apply=False), path)
    reviewing.verify(shop.context(saved=path))
    shop.execute("ALTER TABLE orders ADD COLUMN note text")
    assert "orders" in refusal(shop, path)


def test_rows_and_other_tables_may_change_meanwhile(shop, reviewed):
    shop.execute("DELETE FROM orders WHERE id < 100")
    shop.execute("ANALYZE orders")
    shop.execute("CREATE TABLE other (x int)")
    shop.execute("CREATE SCHEMA elsewhere")
    shop.execute("CREATE TABLE elsewhere.orders (x int)")
    reviewing.verify(shop.context(saved=reviewed))


def test_a_plan_that_was_changed_since_is_refused(shop, reviewed):
    shop.plan.write_text(shop.plan.read_text().replace("customer_id, created_at DESC", "customer_id, created_at"))
    assert "1/orders_customer_created: the plan's statements are no longer those that were reviewed" in (
        refusal(shop, reviewed)
    )


def test_a_change_between_the_refusal_and_the_step_blocks_the_step(shop, reviewed):
    phase = shop.playbook(saved=reviewed).phase("1")
    shop.execute("CREATE INDEX other ON orders (total)")
    assert set(statuses(phase.apply()).values()) == {"blocked"}


def test_a_step_that_was_not_reviewed_is_not_run(shop, reviewed):
    text = reviewed.read_text()
    start, end = text.index("  1/orders_open:"), text.index("left_out:")
    reviewed.write_text(text[:start] + text[end:])
    applied = shop.playbook(saved=reviewed).phase("1").apply()
    assert statuses(applied) == {STEPS[0]: "applied", STEPS[1]: "blocked"}


@pytest.mark.parametrize("text", ["", "saved: 2\nsteps: {}\n", "just: words\n", "steps: [\n", "saved: 1\nsteps: [a]\n"])
def test_a_file_that_is_no_saved_plan_is_named(tmp_path, text):
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"other.yaml is no saved plan: .*make it with `playbook plan --save`"):
        read(tmp_path / "other.yaml")


def test_the_command_saves_and_refuses_with_exit_code_2(shop, monkeypatch):
    path = shop.folder / "reviewed.yaml"
    done = playbook("plan", "--plan", shop.plan, "--target", "env:SHOP_URL", "--save", path)
    assert (done.returncode, "reviewed.yaml, 2 steps to run" in done.stdout) == (0, True), done.stderr
    shop.execute("CREATE INDEX other ON orders (total)")
    run = ["run", "--plan", shop.plan, "--target", "env:SHOP_URL", "--out", shop.folder / "out", "--apply"]
    refused = playbook(*run, "--saved", path)
    assert refused.returncode == 2
    assert "public.other has appeared" in refused.stderr
    assert "review anew: playbook plan --save" in refused.stderr
    missing = playbook(*run, "--saved", "missing.yaml")
    assert (missing.returncode, "missing.yaml: No such file" in missing.stderr) == (2, True)


def test_a_kernel_in_another_folder_finds_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environ({}, journal="j.sqlite", saved="reviewed.yaml")
    given = Settings.from_environ(Settings.from_environ(settings.to_environ()).to_environ())
    assert given.journal == tmp_path / "j.sqlite"
    assert given.saved == tmp_path / "reviewed.yaml"
