"""An index of the plan on a partitioned table: part by part beside the writers, attached, resumed, undone."""

from __future__ import annotations

import dataclasses

import pytest

from playbook import psql, undoing
from playbook.changes.index_parts import part_name
from playbook.journal import StatementRecord
from playbook.target import catalog as catalogs

LONG = "entries_2025_the_rest_of_all_the_regions_that_are_not_the_south"
SOUTH = '"entries 2025 Süd"'


def state(answer):
    ((_, found, *_),) = answer.steps
    return found


def apply(accounts):
    found = state(accounts.playbook().phase("1").apply())
    assert found.status == "applied", found.reason


def undo(accounts):
    assert [one.error for one in undoing.undo(accounts.context())] == [""]


def indexes(accounts):
    rows = accounts.execute(
        "SELECT indexrelid::regclass::text, indrelid::regclass::text, indisvalid, inhparent::regclass::text "
        "FROM pg_index LEFT JOIN pg_inherits ON inhrelid = indexrelid "
        "WHERE indrelid IN (SELECT relid FROM pg_partition_tree('entries')) ORDER BY 1"
    )
    return {name: (table, valid, parent) for name, table, valid, parent in rows}


def tables(accounts):
    with accounts.target.connect() as connection:
        return catalogs.read(connection).tables


def test_every_partition_gets_its_part_and_the_whole_is_valid(accounts, snapshot):
    as_found = snapshot(accounts.target)
    apply(accounts)
    found = indexes(accounts)
    assert len(found) == 6
    assert all(valid for _, valid, _ in found.values())
    assert found["entries_account"] == ("entries", True, None)
    assert found["entries_account_entries_2025"] == ("entries_2025", True, "entries_account")
    assert found["old.entries_account_entries_2024"] == ("old.entries_2024", True, "entries_account")
    assert found['"entries_account_entries 2025 Süd"'] == (SOUTH, True, "entries_account_entries_2025")
    undo(accounts)
    assert snapshot(accounts.target) == as_found


def test_the_whole_comes_first_then_the_long_work_then_the_attaching(accounts):
    ((_, statements, undo_statements),) = accounts.playbook(apply=False).phase("1").preview().steps
    concurrent = [st.sql.startswith("CREATE INDEX CONCURRENTLY") for st in statements]
    assert concurrent == [st.long for st in statements] == [False] * 2 + [True] * 4 + [False] * 5
    assert [st.lock for st in statements] == ["SHARE"] * 2 + ["SHARE UPDATE EXCLUSIVE"] * 4 + ["ACCESS EXCLUSIVE"] * 5
    assert statements[0].sql == "CREATE INDEX entries_account\n  ON ONLY public.entries (account, at DESC)"
    assert statements[-1].sql.startswith("ALTER INDEX public.entries_account\n  ATTACH PARTITION ")
    assert undo_statements[0].sql == "DROP INDEX public.entries_account"
    assert undo_statements[0].relation == "public.entries and its partitions"


def test_names_fit_into_63_bytes_and_stay_distinct(accounts):
    apply(accounts)
    names = [name for (name,) in accounts.execute("SELECT relname FROM pg_class WHERE relname LIKE 'entries_account%'")]
    assert max(len(name.encode()) for name in names) == 63
    (long,) = (part_name("entries_account", table) for table in tables(accounts) if table.name == LONG)
    assert long in names
    assert long.startswith("entries_account_entries_2025_the_rest_of_all_the_regio_")
    wide = [dataclasses.replace(table, schema=schema) for schema in ("a", "b") for table in tables(accounts)]
    assert len({part_name("x" * 60, table) for table in wide}) == len(wide)


def test_the_planner_uses_the_parts(accounts):
    apply(accounts)
    with accounts.target.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute("EXPLAIN SELECT FROM entries WHERE account = 1 AND at > '2026-01-01'").fetchall()
    assert "entries_account_entries_2026" in str(plan)


class TestAnEqualIndexThatAPartitionHasAlready:
    def test_is_attached_and_stands_again_after_undo(self, accounts, snapshot):
        accounts.execute("CREATE INDEX mine ON entries_2026 (account, at DESC) WITH (fillfactor = 70)")
        accounts.execute(f"CREATE INDEX south ON {SOUTH} (account, at DESC)")
        as_found = snapshot(accounts.target)
        checked = state(accounts.playbook().phase("1").check())
        assert checked.reason == "attached as it stands: public.south, public.mine"
        assert "undo builds it anew beforehand" in str(checked.findings)
        mine = accounts.execute("SELECT 'mine'::regclass::oid")
        apply(accounts)
        assert accounts.execute("SELECT 'mine'::regclass::oid") == mine
        assert indexes(accounts)["mine"] == ("entries_2026", True, "entries_account")
        assert indexes(accounts)["south"] == (SOUTH, True, "entries_account_entries_2025")
        assert len(indexes(accounts)) == 6
        undo(accounts)
        assert snapshot(accounts.target) == as_found

    def test_may_be_that_of_a_partitioned_partition_with_all_its_parts(self, accounts, snapshot):
        accounts.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
        as_found = snapshot(accounts.target)
        apply(accounts)
        assert indexes(accounts)["whole_year"] == ("entries_2025", True, "entries_account")
        assert len(indexes(accounts)) == 6
        undo(accounts)
        assert snapshot(accounts.target) == as_found

    def test_is_left_alone_where_it_belongs_to_a_constraint(self, accounts):
        accounts.plan.write_text(accounts.plan.read_text().replace('"at DESC"]', "at, region, amount], unique: true"))
        accounts.execute("ALTER TABLE entries_2026 ADD CONSTRAINT one UNIQUE (account, at, region, amount)")
        apply(accounts)
        assert indexes(accounts)["one"] == ("entries_2026", True, None)

    def test_changed_since_is_left_alone_by_undo(self, accounts):
        accounts.execute("CREATE INDEX mine ON entries_2026 (account, at DESC)")
        apply(accounts)
        accounts.execute("ALTER INDEX mine SET (fillfactor = 60)")
        (one,) = undoing.undo(accounts.context())
        assert "public.mine was changed since" in one.error
        assert len(indexes(accounts)) == 6


class TestPartitionsThatComeAndGo:
    NEW = "CREATE TABLE entries_2027 PARTITION OF entries FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"

    def before(self, accounts, monkeypatch, position, *sql):
        """Runs `sql` in another session right before that statement is announced to the journal."""
        intent = StatementRecord.intent
        done: list[int] = []

        def meanwhile(record, pid, start):
            if (record.direction, record.position) == ("apply", position) and not done:
                done.append(position)
                for statement in sql:
                    accounts.execute(statement)
            intent(record, pid, start)

        monkeypatch.setattr(StatementRecord, "intent", meanwhile)

    def test_one_made_while_the_parts_are_built_gets_its_own_by_itself(self, accounts, monkeypatch):
        self.before(accounts, monkeypatch, 3, self.NEW)
        apply(accounts)
        assert len(indexes(accounts)) == 7
        undo(accounts)
        assert list(indexes(accounts)) == []

    def test_one_made_before_the_whole_stood_is_named_and_the_next_run_goes_on_with_it(self, accounts, monkeypatch):
        self.before(accounts, monkeypatch, 0, self.NEW, "CREATE INDEX newer ON entries_2027 (amount)")
        found = state(accounts.playbook().phase("1").apply())
        assert found.status == "failed"
        assert "appeared meanwhile and have no part yet: entries_2027; run again to go on" in found.reason
        again = accounts.playbook().phase("1")
        assert [" ".join(st.sql.split()[:2]) for st in again.preview().steps[0][1]] == ["CREATE INDEX", "ALTER INDEX"]
        assert state(again.check()).status == "planned"
        apply(accounts)
        assert indexes(accounts)["entries_account_entries_2027"] == ("entries_2027", True, "entries_account")
        undo(accounts)
        assert list(indexes(accounts)) == ["newer"]

    def test_one_dropped_before_its_turn_fails_the_step_and_the_next_run_goes_on(self, accounts, monkeypatch):
        self.before(accounts, monkeypatch, 2, "DROP TABLE entries_2026")
        assert state(accounts.playbook().phase("1").apply()).status == "failed"
        apply(accounts)
        assert all(valid for _, valid, _ in indexes(accounts).values())
        undo(accounts)
        assert list(indexes(accounts)) == []

    def test_one_detached_after_its_part_was_built_loses_it_at_undo_all_the_same(self, accounts):
        apply(accounts)
        accounts.execute("ALTER TABLE entries DETACH PARTITION entries_2026")
        undo(accounts)
        assert accounts.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'entries_2026'::regclass") == [(0,)]

    def test_one_made_after_apply_is_no_hindrance_to_undo(self, accounts):
        apply(accounts)
        accounts.execute(self.NEW)
        assert state(accounts.playbook().phase("1").check()).status == "applied"
        undo(accounts)
        assert list(indexes(accounts)) == []


class TestCheck:
    def check(self, accounts):
        return state(accounts.playbook().phase("1").check())

    def test_a_valid_index_of_the_whole_covers(self, accounts):
        accounts.execute("CREATE INDEX wide ON entries (account, at DESC, amount)")
        found = self.check(accounts)
        assert (found.status, found.reason[:20]) == ("covered", "wide serves already:")

    def test_an_index_of_every_partition_covers_and_of_some_does_not(self, accounts):
        leaves = [table.qualified for table in tables(accounts) if table.partition_bound and table.kind == "r"]
        for number, table in enumerate(leaves):
            assert self.check(accounts).status == "planned"
            accounts.execute(f"CREATE INDEX wide_{number} ON {table} (account, at DESC, amount)")
        found = self.check(accounts)
        assert found.status == "covered"
        assert "every partition has an index that serves already" in found.reason

    def test_an_invalid_whole_that_others_began_is_not_touched(self, accounts):
        accounts.execute("CREATE INDEX entries_account ON ONLY entries (account, at DESC)")
        found = self.check(accounts)
        assert found.status == "blocked"
        assert "not every partition has its part and was not begun by this playbook" in found.reason

    def test_a_name_that_a_part_would_get_and_another_has_blocks(self, accounts):
        accounts.execute("CREATE TABLE entries_account_entries_2026 (x int)")
        found = self.check(accounts)
        assert found.status == "blocked"
        assert "public.entries_account_entries_2026 is another relation of that name" in found.reason

    def test_a_foreign_table_among_the_partitions_blocks(self, accounts):
        accounts.execute("CREATE EXTENSION postgres_fdw")
        accounts.execute("CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw")
        bounds = "FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')"
        accounts.execute(f"CREATE FOREIGN TABLE entries_2030 PARTITION OF entries {bounds} SERVER far")
        found = self.check(accounts)
        assert found.status == "blocked"
        assert "public.entries_2030 is a foreign table" in found.reason

    def test_a_unique_index_without_the_partition_key_is_refused_before_anything_is_built(self, accounts, snapshot):
        as_found = snapshot(accounts.target)
        accounts.plan.write_text(accounts.plan.read_text().replace('[account, "at DESC"]', "[amount], unique: true"))
        found = state(accounts.playbook().phase("1").apply())
        assert found.status == "failed"
        assert "partition" in found.reason
        assert snapshot(accounts.target) == as_found
        assert undoing.undo(accounts.context()) == []

    def test_a_table_without_partitions_gets_a_whole_that_is_valid_at_once(self, accounts, snapshot):
        accounts.execute("DROP TABLE old.entries_2024, entries_2025, entries_2026")
        as_found = snapshot(accounts.target)
        apply(accounts)
        assert list(indexes(accounts)) == ["entries_account"]
        undo(accounts)
        assert snapshot(accounts.target) == as_found


def test_undo_sql_does_the_same_by_hand(accounts, snapshot):
    accounts.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
    as_found = snapshot(accounts.target)
    apply(accounts)
    done = accounts.by_hand(psql.undo_sql(accounts.context()))
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(accounts.target) == as_found


@pytest.mark.exhaustive
@pytest.mark.parametrize(("direction", "points"), [("apply", 10), ("undo", 22)])
def test_stopped_at_every_statement_it_goes_on_from_there(accounts, snapshot, monkeypatch, direction, points):
    """A part and a partitioned part are adopted, so that undo has all kinds of statements."""
    accounts.execute("CREATE INDEX mine ON entries_2026 (account, at DESC)")
    accounts.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
    as_found = snapshot(accounts.target)
    seen: list[tuple[int, str]] = []

    class Stopped(BaseException):
        pass

    def stopping(name):
        verb = getattr(StatementRecord, name)

        def stop(record, *arguments):
            verb(record, *arguments)
            if record.direction == direction and (record.position, name) not in seen:
                seen.append((record.position, name))
                raise Stopped

        return stop

    for name in ("intent", "done"):
        monkeypatch.setattr(StatementRecord, name, stopping(name))
    for work in (lambda: accounts.playbook().phase("1").apply(), lambda: undoing.undo(accounts.context())):
        while True:
            try:
                work()
                break
            except Stopped:
                pass
    assert snapshot(accounts.target) == as_found
    print(f"stopped at {len(seen)} points of {direction}")
    assert len(seen) == points
