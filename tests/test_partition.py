"""Partitioning a table in use: everything survives, nothing is lost, undo leaves no trace."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from tests.fix_conversion import STEP, change_plan, described, kind, loaded, rows, statements
from tests.fix_shop import reason, statuses

from playbook import maintaining, undoing
from playbook.changes.partitioning import attributes, recreate
from playbook.errors import Drifted
from playbook.evidence.live import under_load

TOO_LONG = pytest.mark.exhaustive


def test_everything_that_the_table_has_stands_on_its_successor(ledger):
    before = described(ledger)
    ledger.playbook().phase("1").apply()
    after = described(ledger)
    assert kind(ledger) == "p"
    lost = [line for line in before if line not in after]
    assert lost == [
        "ALTER TABLE public.entries ADD CONSTRAINT entries_number_key UNIQUE (number)",
        "ALTER TABLE public.entries ADD CONSTRAINT entries_pkey PRIMARY KEY (id)",
        "ALTER TABLE public.entries REPLICA IDENTITY USING INDEX entries_number_key",
    ]
    assert [line for line in after if line not in before] == [
        "ALTER TABLE public.entries ADD CONSTRAINT entries_pkey PRIMARY KEY (id, at)"
    ]
    identities = ledger.execute(
        "SELECT inhrelid::regclass::text, relreplident FROM pg_inherits JOIN pg_class ON oid = inhrelid "
        "WHERE inhparent = 'entries'::regclass"
    )
    assert {identity for _, identity in identities} == {"i"}


def test_what_hangs_on_it_works_as_before(ledger):
    count = ledger.execute("SELECT count(*) FROM entries")[0][0]
    number = ledger.execute("SELECT nextval('entry_numbers'), nextval(pg_get_serial_sequence('entries', 'id'))")[0]
    ledger.playbook().phase("1").apply()
    ledger.execute("TRUNCATE heard")
    made = ledger.execute("INSERT INTO entries (person, kind, note, at) VALUES (1, 'edit', ' spaces ', timestamptz '2027-02-03') "
                          "RETURNING id, number, note, doubled, tableoid::regclass::text")[0]  # fmt: skip
    assert made[:2] == (number[1] + 5, number[0] + 1)
    assert made[2:4] == ("spaces", 3)
    assert made[4].startswith("entries_2") or made[4] == "entries_default"
    ledger.execute("UPDATE entries SET kind = 'view' WHERE id = %s", made[0])
    ledger.execute("DELETE FROM entries WHERE id = %s", made[0])
    assert ledger.execute("SELECT * FROM heard") == [("counts INSERT", None, None), ("hears UPDATE", "edit", "view")]
    assert ledger.execute("SELECT (SELECT count(*) FROM recent), entry_count()") == [(count, count)]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        ledger.execute("INSERT INTO entries (person) VALUES (999)")
    with pytest.raises(psycopg.errors.CheckViolation):
        ledger.execute("INSERT INTO entries (amount) VALUES (-1)")
    with ledger.target.connect() as app:
        app.execute("SET ROLE ledger_app")
        app.execute("UPDATE entries SET kind = 'secret' WHERE id = (SELECT min(id) FROM entries)")
        app.execute("RESET ROLE; UPDATE entries SET kind = 'hidden' WHERE kind = 'view'; SET ROLE ledger_app")
        assert app.execute("SELECT count(*) FROM entries WHERE kind = 'hidden'").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("TRUNCATE entries")
        app.execute("RESET ROLE; SET ROLE ledger_auditor")
        app.execute("SELECT id, kind FROM entries LIMIT 1")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("SELECT note FROM entries")


def test_writers_lose_nothing_while_it_is_converted_and_undone(ledger, snapshot):
    as_found = snapshot(ledger.target)
    phase = ledger.playbook().phase("1")
    with loaded(ledger) as timeline:
        assert statuses(phase.apply()) == {STEP: "applied"}
    assert (timeline.difference, timeline.failed) == (0, [])
    assert {write.what for write in timeline.writes} == {"insert", "upsert", "move", "empty", "delete"}
    with loaded(ledger) as timeline:
        assert statuses(phase.undo()) == {STEP: "undone"}
    assert (timeline.difference, timeline.failed) == (0, [])
    assert snapshot(ledger.target) == as_found


def test_undo_returns_the_table_with_every_row_written_past_the_cutoff(ledger, snapshot):
    as_found = snapshot(ledger.target)
    phase = ledger.playbook().phase("1")
    phase.apply()
    ledger.execute("INSERT INTO entries (note, at) SELECT 'late ' || n, timestamptz '2027-01-01 00:00:00+00' "
                   "+ (n - 3) * interval '20 days' FROM generate_series(1, 40) n")  # fmt: skip
    ledger.execute("UPDATE entries SET at = at + interval '10 years' WHERE id % 400 = 0")
    assert ledger.execute("SELECT count(*) FROM entries_default")[0][0] > 20
    written = rows(ledger)
    next_id = ledger.execute("SELECT last_value FROM entries_id_seq")
    phase.undo()
    assert rows(ledger) == written
    assert ledger.execute("SELECT last_value FROM entries_id_seq") == next_id
    assert snapshot(ledger.target) == as_found


def test_rows_past_the_partitions_are_refused_where_the_plan_says_so(ledger):
    change_plan(ledger, "every: month", "every: month\n        beyond: refuse\n        ahead: 2")
    ledger.playbook().phase("1").apply()
    with pytest.raises(psycopg.errors.CheckViolation, match="no partition of relation"):
        ledger.execute("INSERT INTO entries (at) VALUES ('2099-01-01')")
    ledger.execute("INSERT INTO entries (at) VALUES ('1999-01-01')")


def test_partitions_are_made_ahead_and_undo_takes_them_back(ledger, snapshot):
    as_found = snapshot(ledger.target)
    ledger.playbook().phase("1").apply()
    context = ledger.context()
    assert [one.made for one in maintaining.maintain(context, datetime(2026, 12, 24, tzinfo=UTC))] == [()]
    (made,) = maintaining.maintain(context, datetime(2027, 2, 28, 23, 59, tzinfo=UTC))
    assert made == maintaining.Maintained(STEP, ("a partition for 2027_04", "a partition for 2027_05"))
    with ledger.target.connect() as connection:
        old, new = (attributes.read(connection, f"public.entries_2027_0{month}") for month in (3, 5))
    assert [line.replace("2027_05", "2027_03") for line in recreate.description(new)] == recreate.description(old)
    assert statuses(ledger.playbook().phase("1").check()) == {STEP: "applied"}
    ledger.execute("INSERT INTO entries (at) VALUES ('2027-04-30 23:59:59.999999+00'), ('2027-07-01 00:00:00+00')")
    (stopped,) = maintaining.maintain(context, datetime(2027, 4, 1, tzinfo=UTC))
    assert stopped.made == ("a partition for 2027_06",)
    assert "lie in the default partition, where they are kept" in stopped.error
    written = rows(ledger)
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert rows(ledger) == written
    assert snapshot(ledger.target) == as_found


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("CREATE TABLE refers (entry bigint CONSTRAINT refers_entry REFERENCES entries)", "dropping foreign key refers_entry"),
        ("CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM entries", "materialized view public.sums is bound to the table"),
        ("CREATE FUNCTION first() RETURNS entries LANGUAGE sql AS 'SELECT * FROM entries LIMIT 1'", "function public.first() is bound"),
        ("CREATE VIEW grouped AS SELECT id, kind, count(*) FROM entries GROUP BY id", "view public.grouped is bound to the table"),
        ("CREATE VIEW alone AS SELECT id FROM ONLY entries", "reads ONLY the table"),
        ("CREATE RULE quiet AS ON DELETE TO entries WHERE OLD.kind = 'kept' DO INSTEAD NOTHING", "is bound to the table"),
        ("CREATE TABLE heirs () INHERITS (entries)", "others inherit from it"),
        ("ALTER PUBLICATION ledger_feed SET (publish_via_partition_root = false)", "partitions in publication ledger_feed"),
        ("ALTER TABLE entries ADD CHECK (amount < 5000) NOT VALID", "is not validated"),
        ("ALTER TABLE entries ALTER at DROP NOT NULL", "NOT NULL of at"),
        ("INSERT INTO entries (at) VALUES ('2064-01-01')", "1 row: at lies past 20"),
        ("ALTER TABLE entries ALTER at DROP NOT NULL; INSERT INTO entries (at) VALUES (NULL)", "1 row: at is NULL"),
        ("CREATE FUNCTION put() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO entries (id) VALUES (1) "
         "ON CONFLICT (id) DO UPDATE SET kind = 'x'; END $$", "ON CONFLICT (number) fails"),
        ("CREATE TABLE entries_history (x int)", "public.entries_history stands already"),
        ("CREATE UNIQUE INDEX notes ON entries (lower(note), id)", "per-partition uniqueness of index notes"),
        ("ALTER TABLE entries ALTER at TYPE text", "at is of type text"),
    ],
)  # fmt: skip
def test_what_cannot_survive_blocks_it_with_the_words_that_accept_it(ledger, snapshot, sql, said):
    ledger.execute(sql)
    as_found = snapshot(ledger.target)
    applied = ledger.playbook().phase("1").apply()
    assert (statuses(applied), said in reason(applied)) == ({STEP: "blocked"}, True), reason(applied)
    assert snapshot(ledger.target) == as_found
    assert ledger.execute("SELECT to_regnamespace('playbook')") == [(None,)]


def test_losses_accepted_in_so_many_words_are_taken_and_given_back(ledger, snapshot):
    ledger.execute("CREATE TABLE refers (entry bigint CONSTRAINT refers_entry REFERENCES entries)")
    ledger.execute("INSERT INTO refers SELECT id FROM entries LIMIT 10")
    ledger.execute("ALTER TABLE entries ALTER at DROP NOT NULL")
    as_found = snapshot(ledger.target)
    change_plan(ledger, "accept: [", "accept: [dropping foreign key refers_entry, NOT NULL of at, ")
    phase = ledger.playbook().phase("1")
    assert statuses(phase.apply()) == {STEP: "applied"}
    ledger.execute("INSERT INTO refers VALUES (-1)")
    (undone,) = undoing.undo(ledger.context())
    assert 'violates foreign key constraint "refers_entry"' in undone.error
    assert kind(ledger) == "r"
    ledger.execute("DELETE FROM refers WHERE entry = -1")
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert snapshot(ledger.target) == as_found


def test_a_dry_run_reads_no_row_and_changes_nothing(ledger, snapshot):
    as_found = snapshot(ledger.target)
    phase = ledger.playbook(apply=False).phase("1")
    (_, state), *_ = phase.check().steps
    assert state.status == "planned"
    assert any("were not counted" in finding.detail for finding in state.findings)
    assert not phase.apply().changes
    assert snapshot(ledger.target) == as_found


def test_what_runs_is_what_preview_shows_and_twice_is_once(ledger):
    shown = [each.sql for each in statements(ledger)]
    ledger.playbook().phase("1").apply()
    sent = ledger.execute("SELECT sql FROM playbook.statement ORDER BY position")
    assert [row[0] for row in sent] == shown
    oid = ledger.execute("SELECT 'entries'::regclass::oid")
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "applied"}
    assert ledger.execute("SELECT 'entries'::regclass::oid") == oid


def test_one_partitioned_by_others_is_left_alone(ledger):
    ledger.execute("DROP VIEW recent; DROP FUNCTION entry_count; DROP TABLE entries")
    ledger.execute("CREATE TABLE entries (id bigint, at timestamptz) PARTITION BY RANGE (at)")
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "exists"}
    ledger.execute("DROP TABLE entries; CREATE TABLE entries (id bigint, at timestamptz) PARTITION BY HASH (id)")
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "blocked"}


@pytest.mark.parametrize(
    "sql",
    [
        "GRANT TRUNCATE ON entries TO ledger_auditor",
        pytest.param("ALTER TABLE entries ADD COLUMN meanwhile int", marks=TOO_LONG),
        pytest.param("CREATE INDEX meanwhile ON entries (kind)", marks=TOO_LONG),
        pytest.param("DROP POLICY never ON entries", marks=TOO_LONG),
        pytest.param("COMMENT ON COLUMN entries.kind IS 'meanwhile'", marks=TOO_LONG),
    ],
)
def test_what_others_change_meanwhile_is_not_lost_in_the_swap(ledger, snapshot, sql, monkeypatch):
    from playbook.changes.partition import Partition

    guard = Partition.guard

    def meddled(self, connection, statement):
        monkeypatch.setattr(Partition, "guard", guard)
        ledger.execute(sql)
        guard(self, connection, statement)

    monkeypatch.setattr(Partition, "guard", meddled)
    applied = ledger.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "failed"}
    assert "was changed by others while it was being converted" in reason(applied)
    assert kind(ledger) == "r"
    as_left = snapshot(ledger.target)
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "applied"}
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert snapshot(ledger.target) == as_left


def test_undo_leaves_one_alone_that_others_have_changed(ledger):
    ledger.playbook().phase("1").apply()
    ledger.execute("GRANT TRUNCATE ON entries TO ledger_auditor")
    with pytest.raises(Drifted, match="GRANT TRUNCATE ON TABLE public.entries TO ledger_auditor"):
        ledger.playbook().phase("1").undo()
    assert kind(ledger) == "p"
    ledger.execute("REVOKE TRUNCATE ON entries FROM ledger_auditor")
    ledger.playbook().phase("1").undo()
    assert kind(ledger) == "r"


@pytest.mark.parametrize(("point", "position"), [("before_done", 6), pytest.param("after_done", 3, marks=TOO_LONG)])
def test_killed_on_its_way_it_is_resumed_and_then_undone(ledger, snapshot, point, position):
    as_found, written = snapshot(ledger.target), rows(ledger)
    assert ledger.killed(STEP, point, position) == -9
    assert rows(ledger) == written
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "applied"}
    assert rows(ledger) == written
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert (snapshot(ledger.target), rows(ledger)) == (as_found, written)


def test_what_others_change_after_a_run_was_killed_is_not_lost_by_resuming_it(ledger, snapshot):
    assert ledger.killed(STEP, "after_done", 4) == -9
    ledger.execute("GRANT TRUNCATE ON entries TO ledger_auditor")
    applied = ledger.playbook().phase("1").apply()
    assert statuses(applied) == {STEP: "failed"}
    assert "has changed since run" in reason(applied)
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert kind(ledger, "entries_partitioned") is None
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "applied"}
    assert "GRANT TRUNCATE ON TABLE public.entries TO ledger_auditor" in described(ledger)


def test_names_of_63_bytes_are_cut_and_kept_apart(ledger, snapshot):
    name = "entries_" + "ä" * 27 + "x"
    assert len(name.encode()) == 63
    ledger.execute(f'ALTER TABLE entries RENAME TO "{name}"')
    ledger.execute(f'ALTER INDEX entries_at RENAME TO "{name[:-1]}y"')
    as_found = snapshot(ledger.target)
    change_plan(ledger, "table: entries", f"table: {name}")
    assert statuses(ledger.playbook().phase("1").apply()) == {STEP: "applied"}
    assert kind(ledger, f'"{name}"') == "p"
    assert [one.error for one in undoing.undo(ledger.context())] == [""]
    assert snapshot(ledger.target) == as_found


@pytest.mark.parametrize("zone", ["America/New_York", pytest.param("Pacific/Kiritimati", marks=TOO_LONG)])
def test_bounds_are_months_of_utc_whatever_the_server_thinks(ledger, zone):
    database = ledger.target.conninfo["dbname"]
    ledger.execute(f"ALTER DATABASE {database} SET timezone TO '{zone}'")
    change_plan(ledger, "every: month", "every: month\n        ahead: 12")
    ledger.playbook().phase("1").apply()
    bounds = ledger.execute(
        "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname ~ '^entries_20.._..$' ORDER BY 1"
    )
    assert len(bounds) == 12
    for name, bound in bounds:
        assert f"FROM ('{name[8:12]}-{name[13:15]}-01 00:00:00+00')" in bound
    edges = [f"{name[8:12]}-{name[13:15]}-01 00:00:00+00" for name, _ in bounds]
    for edge in edges:
        ledger.execute("INSERT INTO entries (at) SELECT %s::timestamptz + n * interval '1 microsecond' "
                       "FROM generate_series(-1, 1) n", edge)  # fmt: skip
    assert ledger.execute("SELECT count(*) FROM entries WHERE at >= %s", edges[0]) == [(35,)]


def test_a_role_that_owns_the_table_and_nothing_else_keeps_its_journal_in_a_file(ledger, snapshot, monkeypatch):
    for sql in (
        "DROP PUBLICATION ledger_feed",
        "ALTER TABLE entries OWNER TO ledger_owner",
        "ALTER VIEW recent OWNER TO ledger_owner",
        "ALTER FUNCTION entry_count OWNER TO ledger_owner",
        "ALTER STATISTICS entries_kind_person OWNER TO ledger_owner",
        "ALTER TABLE entries FORCE ROW LEVEL SECURITY",
        "CREATE POLICY owner ON entries TO ledger_owner USING (true)",
        "GRANT SELECT ON people TO ledger_owner",
    ):
        ledger.execute(sql)
    monkeypatch.setenv("SHOP_URL", ledger.url("ledger_owner"))
    journal = ledger.folder / "journal.sqlite"
    blocked = reason(ledger.playbook(journal=journal).phase("1").check())
    assert "GRANT CREATE ON SCHEMA public TO ledger_owner" in blocked
    ledger.execute("GRANT CREATE ON SCHEMA public TO ledger_owner")
    assert "GRANT REFERENCES ON public.people" in reason(ledger.playbook(journal=journal).phase("1").check())
    ledger.execute("GRANT REFERENCES ON people TO ledger_owner")
    # A policy that might hide rows from the owner keeps them from being counted.
    assert "cannot be counted" in reason(ledger.playbook(journal=journal).phase("1").check())
    ledger.execute("ALTER TABLE entries NO FORCE ROW LEVEL SECURITY")
    as_found, written = snapshot(ledger.target), rows(ledger)
    applied = ledger.playbook(journal=journal).phase("1").apply()
    assert statuses(applied) == {STEP: "applied"}, reason(applied)
    assert [one.error for one in undoing.undo(ledger.context(journal=journal))] == [""]
    assert (snapshot(ledger.target), rows(ledger)) == (as_found, written)


def test_a_prisma_database_is_converted_under_its_own_names_by_its_owner(prisma, snapshot):
    as_found = snapshot(prisma.admin)
    context = prisma.context()
    table = context.names.relation("audit_logs")
    key = context.names.column("audit_logs", "timestamp")
    assert (table.name, key.type) == ("AuditTrail", "timestamp(3) without time zone")
    phase = prisma.playbook().phase("4.2")
    with under_load(prisma.target.connect, prisma.target.conninfo, table, key.name) as timeline:
        assert list(statuses(phase.apply()).values()) == ["applied"]
    assert (timeline.difference, timeline.failed) == (0, [])
    assert kind(prisma, '"AuditTrail"') == "p"
    prisma.execute("""INSERT INTO "AuditTrail" SELECT 'far', "userId", action, entity, "entityId", changes, "ipAddress",
                      "userAgent", success, '2099-01-01' FROM "AuditTrail" LIMIT 1""")
    written = prisma.execute('SELECT * FROM "AuditTrail" ORDER BY id')
    assert [one.error for one in undoing.undo(prisma.context())] == [""]
    assert prisma.execute('SELECT * FROM "AuditTrail" ORDER BY id') == written
    assert snapshot(prisma.admin) == as_found
