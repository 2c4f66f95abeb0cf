"""The journal, on the target and in a file: the same words, the same answers."""

from __future__ import annotations

import psycopg
import pytest

from playbook.errors import TargetError, UsageError
from playbook.file_store import FileStore
from playbook.journal import Entry, Journal
from playbook.target.sql import Statement
from playbook.target_store import TargetStore

BUILD = Statement("CREATE INDEX CONCURRENTLY i ON t (a)", "build i", "SHARE UPDATE EXCLUSIVE", "t", False, True)
DROP = Statement("DROP INDEX CONCURRENTLY i", "drop i", transactional=False, long=True)
ALTER = Statement("ALTER TABLE t ADD CHECK (a > 0)", "add check", "ACCESS EXCLUSIVE", "t")


@pytest.fixture(params=["target", "file"])
def store(request, scratch, tmp_path):
    return TargetStore(scratch) if request.param == "target" else FileStore(tmp_path / "journal.sqlite")


@pytest.fixture
def journal(store):
    journal = Journal(store, "proposals")
    journal.open()
    return journal


def entry(step="1.1/i", **more):
    given = {"kind": "index", "status": "applying", "run_id": "r1", "statements": (BUILD,), "undo": (DROP,)} | more
    return Entry(step=step, **given)


def test_reading_a_journal_that_was_never_made_makes_nothing(store):
    assert Journal(store, "proposals").entries() == []
    assert not store.exists()


def test_an_entry_comes_back_as_it_was_written(journal):
    journal.begin(entry(objects={'public."odd ""name"': ""}, evidence={"before": [1.5, None]}))
    kept = journal.entry("1.1/i")
    assert kept is not None
    assert kept.statements == (BUILD,)
    assert kept.undo == (DROP,)
    assert kept.objects == {'public."odd ""name"': ""}
    assert kept.evidence == {"before": [1.5, None]}
    assert kept.changed_at.endswith("+00:00")


def test_entries_keep_the_order_in_which_steps_were_applied(journal):
    for step in ("1.1/b", "1.1/a", "3.2/c"):
        journal.begin(entry(step))
    journal.begin(entry("1.1/b"))
    assert [each.step for each in journal.entries()] == ["1.1/a", "3.2/c", "1.1/b"]


def test_a_status_keeps_what_the_entry_holds_besides(journal):
    journal.begin(entry(evidence={"before": []}))
    journal.close("1.1/i", "applied", seconds=1.5, objects={"public.i": "CREATE INDEX …"})
    kept = journal.entry("1.1/i")
    assert (kept.status, kept.seconds, kept.objects) == ("applied", 1.5, {"public.i": "CREATE INDEX …"})
    assert kept.evidence == {"before": []}


def test_plans_do_not_see_each_other(journal, store):
    journal.begin(entry())
    assert Journal(store, "another").entries() == []


def test_a_statement_is_unknown_then_intended_then_done(journal, scratch):
    journal.begin(entry())
    record = journal.record("1.1/i", "apply", 0, BUILD)
    assert journal.sent("1.1/i", "apply", 0).state == ""
    record.intent(4711, "2026-01-01 00:00:00+00")
    sent = journal.sent("1.1/i", "apply", 0)
    assert (sent.state, sent.backend_pid, sent.backend_start) == ("intent", 4711, "2026-01-01 00:00:00+00")
    with scratch() as connection:
        record.done(connection)
    assert journal.sent("1.1/i", "apply", 0).state == "done"
    assert journal.sent("1.1/i", "undo", 0).state == ""


def test_on_the_target_the_done_row_of_a_transactional_statement_goes_with_its_transaction(scratch):
    journal = Journal(TargetStore(scratch), "proposals")
    journal.open()
    journal.begin(entry(statements=(ALTER,)))
    record = journal.record("1.1/i", "apply", 0, ALTER)
    record.intent(1, "")
    with scratch() as connection:
        connection.execute("BEGIN")
        record.done(connection)
        assert not record.confirmed()
        connection.execute("ROLLBACK")
        assert journal.sent("1.1/i", "apply", 0).state == "intent"
        with connection.transaction():
            record.done(connection)
    assert record.confirmed()


def test_beginning_a_step_anew_forgets_its_statements(journal):
    journal.begin(entry())
    journal.record("1.1/i", "apply", 0, BUILD).intent(1, "")
    journal.begin(entry())
    assert journal.sent("1.1/i", "apply", 0).state == ""


def test_dropping_the_store_leaves_no_trace(journal, store, scratch):
    journal.begin(entry())
    store.drop()
    assert not store.exists()
    with scratch() as connection:
        assert connection.execute("SELECT to_regnamespace('playbook')").fetchone() == (None,)


def test_preview_announces_what_the_journal_makes_and_nothing_once_it_stands(scratch):
    store = TargetStore(scratch)
    announced = [statement.sql.split("(")[0].strip() for statement in store.statements()]
    assert announced == [
        "CREATE SCHEMA playbook",
        "COMMENT ON SCHEMA playbook IS 'made by the playbook for its journal; `playbook uninstall` removes it'",
        "CREATE TABLE playbook.step",
        "CREATE TABLE playbook.statement",
    ]
    Journal(store, "proposals").open()
    assert store.statements() == ()


def test_a_publication_for_all_tables_is_refused_with_the_way_out(scratch):
    with scratch() as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        with pytest.raises(TargetError, match=r"publication everything would carry .*--journal FILE"):
            Journal(TargetStore(scratch), "proposals").open()
        assert connection.execute("SELECT to_regnamespace('playbook')").fetchone() == (None,)


def test_a_role_that_may_not_create_is_told_the_grant(scratch):
    with scratch() as connection:
        database = connection.info.dbname
        connection.execute("DROP ROLE IF EXISTS journal_guest")
        connection.execute("CREATE ROLE journal_guest")

        def as_guest() -> psycopg.Connection:
            guest = scratch()
            guest.execute("SET ROLE journal_guest")
            return guest

        with pytest.raises(TargetError, match=rf"GRANT CREATE ON DATABASE {database} TO journal_guest.*--journal FILE"):
            Journal(TargetStore(as_guest), "proposals").open()
        connection.execute("DROP ROLE journal_guest")


def test_a_file_that_is_no_journal_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database" * 100)
    with pytest.raises(UsageError, match=r"notes.txt cannot be used.*name a writable file"):
        Journal(FileStore(path), "proposals").open()


def test_a_file_in_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be used"):
        Journal(FileStore(tmp_path / "missing" / "journal"), "proposals").open()
