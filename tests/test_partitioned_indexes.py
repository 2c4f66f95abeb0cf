"""An index of the plan on a partitioned table: part by part beside the writers, attached, resumed, undone."""

from __future__ import annotations

import dataclasses
import subprocess

import pytest

from playbook import parts, undoing
from playbook.changes.index_parts import part_name
from playbook.journal import StatementRecord
from playbook.target import catalog as catalogs
from playbook.target.binaries import wheel_binaries

LONG = "entries_2025_the_rest_of_all_the_regions_that_are_not_the_south"
SOUTH = '"entries 2025 Süd"'


def state(answer):
    ((_, found, *_),) = answer.steps
    return found


def apply(ledger):
    found = state(ledger.playbook().phase("1").apply())
    assert found.status == "applied", found.reason


def undo(ledger):
    assert [one.error for one in undoing.undo(ledger.context())] == [""]


def indexes(ledger):
    rows = ledger.execute(
        "SELECT indexrelid::regclass::text, indrelid::regclass::text, indisvalid, inhparent::regclass::text "
        "FROM pg_index LEFT JOIN pg_inherits ON inhrelid = indexrelid "
        "WHERE indrelid IN (SELECT relid FROM pg_partition_tree('entries')) ORDER BY 1"
    )
    return {name: (table, valid, parent) for name, table, valid, parent in rows}


def tables(ledger):
    with ledger.target.connect() as connection:
        return catalogs.read(connection).tables


def test_every_partition_gets_its_part_and_the_whole_is_valid(ledger, snapshot):
    as_found = snapshot(ledger.target)
    apply(ledger)
    found = indexes(ledger)
    assert len(found) == 6
    assert all(valid for _, valid, _ in found.values())
    assert found["entries_account"] == ("entries", True, None)
    assert found["entries_account_entries_2025"] == ("entries_2025", True, "entries_account")
    assert found["old.entries_account_entries_2024"] == ("old.entries_2024", True, "entries_account")
    assert found['"entries_account_entries 2025 Süd"'] == (SOUTH, True, "entries_account_entries_2025")
    undo(ledger)
    assert snapshot(ledger.target) == as_found


def test_the_whole_comes_first_then_the_long_work_then_the_attaching(ledger):
    ((_, statements, undo_statements),) = ledger.playbook(apply=False).phase("1").preview().steps
    concurrent = [st.sql.startswith("CREATE INDEX CONCURRENTLY") for st in statements]
    assert concurrent == [st.long for st in statements] == [False] * 2 + [True] * 4 + [False] * 5
    assert [st.lock for st in statements] == ["SHARE"] * 2 + ["SHARE UPDATE EXCLUSIVE"] * 4 + ["ACCESS EXCLUSIVE"] * 5
    assert statements[0].sql == "CREATE INDEX entries_account\n  ON ONLY public.entries (account, at DESC)"
    assert statements[-1].sql.startswith("ALTER INDEX public.entries_account\n  ATTACH PARTITION ")
    assert undo_statements[0].sql == "DROP INDEX public.entries_account"
    assert undo_statements[0].relation == "public.entries and its partitions"


def test_names_fit_into_63_bytes_and_stay_distinct(ledger):
    apply(ledger)
    names = [name for (name,) in ledger.execute("SELECT relname FROM pg_class WHERE relname LIKE 'entries_account%'")]
    assert max(len(name.encode()) for name in names) == 63
    (long,) = (part_name("entries_account", table) for table in tables(ledger) if table.name == LONG)
    assert long in names
    assert long.startswith("entries_account_entries_2025_the_rest_of_all_the_regio_")
    wide = [dataclasses.replace(table, schema=schema) for schema in ("a", "b") for table in tables(ledger)]
    assert len({part_name("x" * 60, table) for table in wide}) == len(wide)


def test_the_planner_uses_the_parts(ledger):
    apply(ledger)
    with ledger.target.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute("EXPLAIN SELECT FROM entries WHERE account = 1 AND at > '2026-01-01'").fetchall()
    assert "entries_account_entries_2026" in str(plan)


class TestAnEqualIndexThatAPartitionHasAlready:
    def test_is_attached_and_stands_again_after_undo(self, ledger, snapshot):
        ledger.execute("CREATE INDEX mine ON entries_2026 (account, at DESC) WITH (fillfactor = 70)")
        ledger.execute(f"CREATE INDEX south ON {SOUTH} (account, at DESC)")
        as_found = snapshot(ledger.target)
        checked = state(ledger.playbook().phase("1").check())
        assert checked.reason == "attached as it stands: public.south, public.mine"
        assert "undo builds it anew beforehand" in str(checked.findings)
        mine = ledger.execute("SELECT 'mine'::regclass::oid")
        apply(ledger)
        assert ledger.execute("SELECT 'mine'::regclass::oid") == mine
        assert indexes(ledger)["mine"] == ("entries_2026", True, "entries_account")
        assert indexes(ledger)["south"] == (SOUTH, True, "entries_account_entries_2025")
        assert len(indexes(ledger)) == 6
        undo(ledger)
        assert snapshot(ledger.target) == as_found

    def test_may_be_that_of_a_partitioned_partition_with_all_its_parts(self, ledger, snapshot):
        ledger.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
        as_found = snapshot(ledger.target)
        apply(ledger)
        assert indexes(ledger)["whole_year"] == ("entries_2025", True, "entries_account")
        assert len(indexes(ledger)) == 6
        undo(ledger)
        assert snapshot(ledger.target) == as_found

    def test_is_left_alone_where_it_belongs_to_a_constraint(self, ledger):
        ledger.plan.write_text(ledger.plan.read_text().replace('"at DESC"]', "at, region, amount], unique: true"))
        ledger.execute("ALTER TABLE entries_2026 ADD CONSTRAINT one UNIQUE (account, at, region, amount)")
        apply(ledger)
        assert indexes(ledger)["one"] == ("entries_2026", True, None)

    def test_changed_since_is_left_alone_by_undo(self, ledger):
        ledger.execute("CREATE INDEX mine ON entries_2026 (account, at DESC)")
        apply(ledger)
        ledger.execute("ALTER INDEX mine SET (fillfactor = 60)")
        (one,) = undoing.undo(ledger.context())
        assert "public.mine was changed since" in one.error
        assert len(indexes(ledger)) == 6


class TestPartitionsThatComeAndGo:
    NEW = "CREATE TABLE entries_2027 PARTITION OF entries FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')"

    def before(self, ledger, monkeypatch, position, *sql):
        """Runs `sql` in another session right before that statement is announced to the journal."""
        intent = StatementRecord.intent
        done: list[int] = []

        def meanwhile(record, pid, start):
            if (record.direction, record.position) == ("apply", position) and not done:
                done.append(position)
                for statement in sql:
                    ledger.execute(statement)
            intent(record, pid, start)

        monkeypatch.setattr(StatementRecord, "intent", meanwhile)

    def test_one_made_while_the_parts_are_built_gets_its_own_by_itself(self, ledger, monkeypatch):
        self.before(ledger, monkeypatch, 3, self.NEW)
        apply(ledger)
        assert len(indexes(ledger)) == 7
        undo(ledger)
        assert list(indexes(ledger)) == []

    def test_one_made_before_the_whole_stood_is_named_and_the_next_run_goes_on_with_it(self, ledger, monkeypatch):
        self.before(ledger, monkeypatch, 0, self.NEW, "CREATE INDEX newer ON entries_2027 (amount)")
        found = state(ledger.playbook().phase("1").apply())
        assert found.status == "failed"
        assert "appeared meanwhile and have no part yet: entries_2027; run again to go on" in found.reason
        again = ledger.playbook().phase("1")
        assert [" ".join(st.sql.split()[:2]) for st in again.preview().steps[0][1]] == ["CREATE INDEX", "ALTER INDEX"]
        assert state(again.check()).status == "planned"
        apply(ledger)
        assert indexes(ledger)["entries_account_entries_2027"] == ("entries_2027", True, "entries_account")
        undo(ledger)
        assert list(indexes(ledger)) == ["newer"]

    def test_one_dropped_before_its_turn_fails_the_step_and_the_next_run_goes_on(self, ledger, monkeypatch):
        self.before(ledger, monkeypatch, 2, "DROP TABLE entries_2026")
        assert state(ledger.playbook().phase("1").apply()).status == "failed"
        apply(ledger)
        assert all(valid for _, valid, _ in indexes(ledger).values())
        undo(ledger)
        assert list(indexes(ledger)) == []

    def test_one_detached_after_its_part_was_built_loses_it_at_undo_all_the_same(self, ledger):
        apply(ledger)
        ledger.execute("ALTER TABLE entries DETACH PARTITION entries_2026")
        undo(ledger)
        assert ledger.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'entries_2026'::regclass") == [(0,)]

    def test_one_made_after_apply_is_no_hindrance_to_undo(self, ledger):
        apply(ledger)
        ledger.execute(self.NEW)
        assert state(ledger.playbook().phase("1").check()).status == "applied"
        undo(ledger)
        assert list(indexes(ledger)) == []


class TestCheck:
    def check(self, ledger):
        return state(ledger.playbook().phase("1").check())

    def test_a_valid_index_of_the_whole_covers(self, ledger):
        ledger.execute("CREATE INDEX wide ON entries (account, at DESC, amount)")
        found = self.check(ledger)
        assert (found.status, found.reason[:20]) == ("covered", "wide serves already:")

    def test_an_index_of_every_partition_covers_and_of_some_does_not(self, ledger):
        leaves = [table.qualified for table in tables(ledger) if table.partition_bound and table.kind == "r"]
        for number, table in enumerate(leaves):
            assert self.check(ledger).status == "planned"
            ledger.execute(f"CREATE INDEX wide_{number} ON {table} (account, at DESC, amount)")
        found = self.check(ledger)
        assert found.status == "covered"
        assert "every partition has an index that serves already" in found.reason

    def test_an_invalid_whole_that_others_began_is_not_touched(self, ledger):
        ledger.execute("CREATE INDEX entries_account ON ONLY entries (account, at DESC)")
        found = self.check(ledger)
        assert found.status == "blocked"
        assert "not every partition has its part and was not begun by this playbook" in found.reason

    def test_a_name_that_a_part_would_get_and_another_has_blocks(self, ledger):
        ledger.execute("CREATE TABLE entries_account_entries_2026 (x int)")
        found = self.check(ledger)
        assert found.status == "blocked"
        assert "public.entries_account_entries_2026 is another relation of that name" in found.reason

    def test_a_foreign_table_among_the_partitions_blocks(self, ledger):
        ledger.execute("CREATE EXTENSION postgres_fdw")
        ledger.execute("CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw")
        bounds = "FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')"
        ledger.execute(f"CREATE FOREIGN TABLE entries_2030 PARTITION OF entries {bounds} SERVER far")
        found = self.check(ledger)
        assert found.status == "blocked"
        assert "public.entries_2030 is a foreign table" in found.reason

    def test_a_unique_index_without_the_partition_key_is_refused_before_anything_is_built(self, ledger, snapshot):
        as_found = snapshot(ledger.target)
        ledger.plan.write_text(ledger.plan.read_text().replace('[account, "at DESC"]', "[amount], unique: true"))
        found = state(ledger.playbook().phase("1").apply())
        assert found.status == "failed"
        assert "partition" in found.reason
        assert snapshot(ledger.target) == as_found
        assert undoing.undo(ledger.context()) == []

    def test_a_table_without_partitions_gets_a_whole_that_is_valid_at_once(self, ledger, snapshot):
        ledger.execute("DROP TABLE old.entries_2024, entries_2025, entries_2026")
        as_found = snapshot(ledger.target)
        apply(ledger)
        assert list(indexes(ledger)) == ["entries_account"]
        undo(ledger)
        assert snapshot(ledger.target) == as_found


def test_undo_sql_does_the_same_by_hand(ledger, snapshot):
    ledger.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
    as_found = snapshot(ledger.target)
    apply(ledger)
    c = ledger.target.conninfo
    psql = [str(wheel_binaries().program("psql")), "-v", "ON_ERROR_STOP=1", "-qX", "-U", c["user"], "-h", c["host"]]
    done = subprocess.run(
        [*psql, "-p", str(c["port"]), c["dbname"]],
        input=parts.undo_sql(ledger.context()),
        env={"PGPASSWORD": str(c["password"])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(ledger.target) == as_found


@pytest.mark.exhaustive
@pytest.mark.parametrize(("direction", "points"), [("apply", 10), ("undo", 22)])
def test_stopped_at_every_statement_it_goes_on_from_there(ledger, snapshot, monkeypatch, direction, points):
    """A part and a partitioned part are adopted, so that undo has all kinds of statements."""
    ledger.execute("CREATE INDEX mine ON entries_2026 (account, at DESC)")
    ledger.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
    as_found = snapshot(ledger.target)
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
    for work in (lambda: ledger.playbook().phase("1").apply(), lambda: undoing.undo(ledger.context())):
        while True:
            try:
                work()
                break
            except Stopped:
                pass
    assert snapshot(ledger.target) == as_found
    print(f"stopped at {len(seen)} points of {direction}")
    assert len(seen) == points
