"""The health check answers ok, warn or not_checked with a reason, changes nothing, and shows no value of a row."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tests.fix_assess import SOUND, made_sick

from playbook import health
from playbook.assess import bloat, checks, connections, counters, wal
from playbook.assess.assessment import assess
from playbook.assess.check import TOP, not_checked, ok
from playbook.assess.masking import masked
from playbook.assess.session import open_session
from playbook.changes import kinds
from playbook.errors import UsageError
from playbook.phase import Playbook
from playbook.plan.model import load
from playbook.report import write_html
from playbook.run import chosen_notebooks
from playbook.show import findings_table
from playbook.target.connect import Target, identify
from playbook.target.sql import literal

NAMES = [check.name for check in checks()]


def of(assessment, label, status=None):
    """The findings of one topic, `indexes: redundant`."""
    return [f for f in assessment.findings if f.label == label and status in {None, f.status}]


def details(assessment, label, status):
    return "\n".join(finding.detail for finding in of(assessment, label, status))


def labels(assessment, status):
    return {finding.label for finding in assessment.findings if finding.status == status}


def test_there_are_eleven_checks_in_the_order_in_which_they_are_shown():
    assert [
        *("settings", "statements", "cache", "connections", "locks"),
        *("tables", "indexes", "vacuum", "wal", "schema", "views"),
    ] == NAMES


class TestSoundDatabase:
    @pytest.mark.parametrize(
        ("label", "said"),
        [
            ("settings: durability", "fsync, full_page_writes, synchronous_commit are on"),
            ("settings: version", "PostgreSQL 18.6, mended until 2030-11-14"),
            ("statements: since reset", "statements took"),
            ("statements: coverage", "statements were evicted 0 times since the reset of 20"),
            ("cache: hit ratio", "blocks were found in shared buffers in the last"),
            ("connections: used", "connections in use"),
            ("connections: idle in transaction", "no other session is in this database"),
            ("locks: waiting", "no session waits for a lock at this moment"),
            ("locks: deadlocks", "0 deadlocks in the last"),
            ("tables: size", "4 tables with their indexes take"),
            ("tables: sequential scans", "4 tables looked at: none of 10,000 rows or more is mostly read whole"),
            ("indexes: invalid", "4 indexes looked at: all are valid"),
            ("indexes: redundant", "4 indexes looked at: none is redundant"),
            ("indexes: foreign keys", "1 foreign key looked at: an index serves each"),
            ("vacuum: dead rows", "4 tables looked at: autovacuum keeps up"),
            ("vacuum: transaction IDs", "transactions old (0.0% of what there are)"),
            ("wal: temporary files", "0 temporary files, 0 bytes, in the last"),
            ("schema: primary keys", "3 tables looked at: each has a primary key"),
            ("schema: not valid", "constraints looked at: all are valid"),
            ("schema: sequences", "3 sequences looked at: each has over 30% of its numbers left"),
            ("views: filled", "1 materialized view looked at: each can be read"),
        ],
    )
    def test_what_is_in_order_is_ok_with_what_was_looked_at(self, sound_found, label, said):
        (finding,) = of(sound_found, label)
        assert (finding.status, said in finding.detail) == ("ok", True), finding

    def test_each_check_has_an_answer_that_is_ok(self, sound_found):
        assert {label.partition(":")[0] for label in labels(sound_found, "ok")} == set(NAMES)

    def test_nothing_of_the_database_itself_warns(self, sound_found):
        server_wide = {
            "settings: statistics age",
            "cache: writes",
            "wal: checkpoints",
            "wal: WAL",
            "wal: replication slots",
        }
        assert labels(sound_found, "warn") <= server_wide


class TestSickDatabase:
    @pytest.mark.parametrize(
        ("label", "said", "remedy"),
        [
            ("settings: durability", "synchronous_commit is off: a crash loses", "SET synchronous_commit = on;"),
            ("statements: since reset", "1 call of", "EXPLAIN (ANALYZE, BUFFERS, SETTINGS)"),
            ("cache: hit ratio", "blocks were found in shared buffers", "SET shared_buffers"),
            ("cache: tables", "public.wide: 1", "sequential scans"),
            ("tables: sequential scans", "public.children: 2", "ILIKE '%children%'"),
            ("tables: HOT updates", "public.children: ", "ALTER TABLE public.children SET (fillfactor = 90);"),
            (
                "tables: partition candidates",
                "public.events: about 200,000,000 rows, ",
                "",
            ),
            ("indexes: invalid", "public.twins_unique is not valid", "DROP INDEX CONCURRENTLY public.twins_unique;"),
            ("indexes: redundant", "public.children_amount ", "DROP INDEX CONCURRENTLY public.children_amount;"),
            ("indexes: unused", "public.children_amount_at", "DROP INDEX CONCURRENTLY public.children_amount_at;"),
            ("indexes: bloated", "public.swollen_pkey: ", "REINDEX INDEX CONCURRENTLY public.swollen_pkey;"),
            (
                "indexes: foreign keys",
                "public.children.children_parent_id_fkey: no index begins with (parent_id)",
                "CREATE INDEX CONCURRENTLY idx_children_parent_id ON public.children (parent_id);",
            ),
            ("vacuum: dead rows", "public.children: 20,000 dead rows", "RESET (autovacuum_enabled);"),
            ("vacuum: bloat", "public.swollen: ", "VACUUM (FULL, ANALYZE) public.swollen;"),
            (
                "vacuum: transaction IDs",
                "public.twins: its oldest row is 310,0",
                "VACUUM (FREEZE, VERBOSE) public.twins;",
            ),
            ("vacuum: stale statistics", "public.children: ", "ANALYZE public.children;"),
            ("wal: replication slots", "slot sick_slot keeps", "pg_drop_replication_slot('sick_slot')"),
            ("schema: primary keys", "public.events has no primary key (", "-- ALTER TABLE public.events"),
            (
                "schema: not valid",
                "public.children.amount_positive is NOT VALID",
                "VALIDATE CONSTRAINT amount_positive;",
            ),
            ("schema: sequences", "public.children_id_seq has used 93.1 %", "ALTER COLUMN id TYPE bigint;"),
            ("schema: integer keys", "public.swollen.id (integer) has used 88.5 %", "ALTER COLUMN id TYPE bigint;"),
        ],
    )
    def test_each_ailment_is_found_with_its_remedy(self, sick_found, label, said, remedy):
        found = [f for f in of(sick_found, label, "warn") if said in f.detail]
        assert found, of(sick_found, label)
        assert any(remedy in finding.remedy for finding in found), found

    def test_the_estimate_of_what_is_empty_is_near_the_truth(self, sick_found):
        for label in ("vacuum: bloat", "indexes: bloated"):
            (share,) = re.search(r"swollen\S*: ([\d.]+) % of", details(sick_found, label, "warn")).groups()
            assert 75 <= float(share) <= 95, label

    def test_a_dry_run_reads_no_row_and_says_so(self, sick, assessed):
        (finding,) = of(assessed(sick), "schema: integer keys")
        assert finding.status == "not_checked"
        assert "a dry run reads none" in finding.detail

    def test_an_index_is_not_called_unused_by_counters_that_are_young(self, sick, assessed):
        (finding,) = of(assessed(sick), "indexes: unused")
        assert (finding.status, "were not used in the last" in finding.detail) == ("not_checked", True)

    def test_literals_of_statements_are_masked_unless_asked_for(self, sick, assessed, sick_found):
        assert "DO ?" in details(sick_found, "statements: since reset", "warn")
        assert "c4nary" not in json.dumps([f.model_dump() for f in sick_found.findings])
        assert "c4nary" in details(assessed(sick, show_values=True), "statements: since reset", "warn")

    def test_with_pg_monitor_alone_what_is_hidden_is_not_checked(self, sick, roles, assessed):
        assessment = assessed(sick, roles[0])
        for label in ("vacuum: bloat", "indexes: bloated", "schema: sequences"):
            assert "hidden from" in details(assessment, label, "not_checked"), label
            assert not of(assessment, label, "ok"), label
        assert of(assessment, "connections: idle in transaction", "ok")
        assert "DO ?" in details(assessment, "statements: since reset", "warn")
        assert {"indexes: invalid", "schema: not valid", "vacuum: dead rows"} <= labels(assessment, "warn")

    def test_a_plain_role_is_told_what_it_does_not_see_and_never_that_it_is_ok(self, sick, roles, assessed):
        assessment = assessed(sick, roles[1])
        hidden = {
            "settings: pending restart": "GRANT pg_read_all_settings TO nobody_special;",
            "statements: coverage": "GRANT pg_read_all_stats TO nobody_special;",
            "connections: idle in transaction": "GRANT pg_read_all_stats TO nobody_special;",
            "vacuum: workers": "GRANT pg_read_all_stats TO nobody_special;",
            "connections: long transactions": "GRANT pg_read_all_stats TO nobody_special;",
            "schema: sequences": "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO nobody_special;",
        }
        for label, remedy in hidden.items():
            assert [f.remedy for f in of(assessment, label, "not_checked")][:1] == [remedy], label
        assert labels(assessment, "ok").isdisjoint(
            {"connections: idle in transaction", "connections: long transactions", "schema: sequences", "vacuum: bloat"}
        )
        assert "statements of other roles, which this role may not read" in str(
            of(assessment, "statements: since reset")
        )
        assert not [f for f in assessment.findings if "refused" in f.detail]

    def test_a_plain_role_counts_the_sessions_of_all_roles(self, sick, roles, assessed):
        with sick.connect(), sick.connect(), sick.connect():
            used = details(assessed(sick, roles[1]), "connections: used", "ok")
        assert int(re.search(r"\((\d+) in this database\)", used)[1]) >= 4

    def test_a_table_to_be_partitioned_has_a_step_that_a_plan_can_hold(self, sick_found):
        (finding,) = of(sick_found, "tables: partition candidates", "warn")
        (step,) = YAML(typ="safe", pure=True).load(finding.step)
        assert kinds()["partition"].Spec(**step).every == "month"
        assert (step["table"], step["key"]) == ("events", "at")
        assert "# under `steps:` of a phase of partitions, such as 4.2" in health_view(sick_found.steps()).text

    def test_two_foreign_keys_over_the_same_columns_want_one_index(self, sick_found):
        assert [f.remedy for f in of(sick_found, "indexes: foreign keys", "warn")] == [
            "CREATE INDEX CONCURRENTLY idx_children_parent_id ON public.children (parent_id);"
        ]

    def test_it_changes_nothing(self, sick, assessed, snapshot):
        before = snapshot(sick)
        assessed(sick, measure=True)
        assert snapshot(sick) == before

    def test_every_query_of_it_is_one_select(self, sick, context_of):
        with open_session(context_of(sick)) as session:
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                session.rows("SELECT nextval('public.children_id_seq')")
            asked = []
            session.connection.cursor_factory = _noting(asked)
            for check in checks():
                check.look(session)
        assert len(asked) > 20
        assert [sql for sql in asked if not re.match(r"SELECT /\* playbook \*/", sql)] == []


def _noting(asked):
    class Noting(psycopg.Cursor):
        def execute(self, query, params=None, **options):
            asked.append(query.decode() if isinstance(query, bytes) else str(query))
            return super().execute(query, params, **options)

    return Noting


class TestEmptyDatabase:
    @pytest.fixture
    def assessment(self, empty, assessed):
        return assessed(empty)

    def test_of_nothing_nothing_is_ok(self, assessment):
        nothing = {
            *("tables: size", "tables: sequential scans", "tables: HOT updates", "tables: partition candidates"),
            *("tables: partitions ahead", "tables: default partitions"),
            *("indexes: invalid", "indexes: redundant", "indexes: unused", "indexes: bloated", "indexes: foreign keys"),
            *("vacuum: dead rows", "vacuum: bloat", "vacuum: stale statistics", "cache: hit ratio", "cache: tables"),
            *("schema: primary keys", "schema: not valid", "schema: sequences", "schema: integer keys"),
            *("statements: now", "statements: since reset", "statements: coverage", "wal: standbys"),
        }
        assert nothing <= labels(assessment, "not_checked")
        assert nothing.isdisjoint(labels(assessment, "ok"))

    def test_without_pg_stat_statements_it_says_how_to_get_it(self, assessment):
        assert "CREATE EXTENSION pg_stat_statements;" in of(assessment, "statements: now")[0].remedy
        assert "Nothing tells where the time goes" in health.time_chart(assessment).text
        assert health.space_chart(assessment).text == "There is no table, so no room is taken."

    def test_a_hardened_server_hides_more_and_is_told_apart_from_a_sound_one(self, empty, roles, assessed):
        with empty.connect() as connection:
            connection.execute("REVOKE SELECT ON pg_catalog.pg_locks, pg_catalog.pg_stat_database FROM PUBLIC")
            connection.execute("REVOKE SELECT ON pg_catalog.pg_stat_checkpointer FROM PUBLIC")
        assessment = assessed(empty, roles[1])
        for label in ("locks: waiting", "locks: deadlocks", "connections: lost sessions", "settings: statistics age"):
            (finding,) = of(assessment, label)
            assert (finding.status, finding.remedy) == ("not_checked", "GRANT pg_monitor TO nobody_special;")

    def test_each_check_has_an_answer_that_is_not_checked(self, empty, roles, assessed):
        with empty.connect() as connection:
            connection.execute("REVOKE SELECT ON pg_catalog.pg_locks FROM PUBLIC")
        found = {label.partition(":")[0] for label in labels(assessed(empty, roles[1]), "not_checked")}
        assert found == set(NAMES)


class TestSessions:
    """What is seen only while it lasts: thresholds in time are lowered, for a test cannot wait for a minute."""

    def test_a_session_idle_in_a_transaction_is_named_and_its_statement_masked(
        self, sound, roles, assessed, monkeypatch
    ):
        monkeypatch.setattr(connections, "LONG_TRANSACTION_S", 0)
        with sound.connect(autocommit=False, application_name="forgetful") as other:
            other.execute("SELECT count(*) FROM orders WHERE total > 424242")
            (finding,) = of(assessed(sound), "connections: idle in transaction", "warn")
            assert re.match(r"process \d+ \(\w+, forgetful\) is idle in transaction for \d+ s: SELECT", finding.detail)
            assert "424242" not in finding.detail
            assert f"pg_terminate_backend({other.info.backend_pid})" in finding.remedy
            plain = of(assessed(sound, roles[1]), "connections: idle in transaction")
            assert [finding.status for finding in plain] == ["not_checked"]

    def test_a_long_transaction_is_named(self, sound, assessed, monkeypatch):
        monkeypatch.setattr(connections, "LONG_S", -1)
        with sound.connect() as other, _running(other, "SELECT pg_sleep(30)"):
            (finding,) = of(assessed(sound), "connections: long transactions", "warn")
            assert f"pg_cancel_backend({other.info.backend_pid})" in finding.remedy

    def test_who_waits_for_whom_is_told_to_any_role(self, sound, roles, assessed, context_of):
        with sound.connect(autocommit=False) as holder, sound.connect() as waiter, sound.connect() as third:
            holder.execute("UPDATE customers SET name = name WHERE id = 1")
            change = "UPDATE customers SET name = 'c4nary' WHERE id = 1"
            with _running(waiter, change), _running(third, change):
                _until(sound, "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")
                for role in ("", roles[1]):
                    found = of(assessed(sound, role), "locks: waiting", "warn")
                    assert {int(finding.detail.split()[1]) for finding in found} == {
                        waiter.info.backend_pid,
                        third.info.backend_pid,
                    }
                    assert any(f"pg_cancel_backend({holder.info.backend_pid})" in f.remedy for f in found)
                    assert not any("c4nary" in f.detail for f in found)
                holder.rollback()

    def test_a_table_held_exclusively_keeps_it_waiting_for_a_moment_only(self, sound, context_of):
        context = context_of(sound)
        with sound.connect(autocommit=False) as holder:
            holder.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            assessment = assess(context, window_s=0.0)
        assert assessment.seconds < 30
        assert not [f for f in assessment.findings if "refused" in f.detail]

    def test_what_ran_between_the_two_snapshots_is_told_and_no_other_databases_work(self, sound, empty, context_of):
        context = context_of(sound)

        def work(text):
            if "waiting" not in text:
                return
            with sound.connect() as here, empty.connect() as elsewhere:
                # Of a form that no other test's statement has: the first text of a form is the one that is kept.
                here.execute("SELECT pg_sleep(0.06) AS slow_one FROM (VALUES (1)) AS once")
                elsewhere.execute("SELECT pg_sleep(0.07) AS slow_elsewhere")

        context.progress = work
        assessment = assess(context, window_s=0.2)
        (finding,) = of(assessment, "statements: now", "warn")
        assert "in 1 call of" in finding.detail
        assert "slow_one" in finding.detail
        texts = [usage.text for usage in assessment.activity.window]
        assert not any("slow_elsewhere" in text or "playbook" in text for text in texts)
        assert "slow_one" in health.time_chart(assessment).alt

    def test_checkpoints_that_were_asked_for_and_files_that_spilled(self, sound, assessed, monkeypatch):
        monkeypatch.setattr(wal, "SPILLED_BYTES_AN_HOUR", 1024)
        with sound.connect() as connection:
            connection.execute("SELECT pg_stat_reset_shared('checkpointer')")
            assert "too few" in details(assessed(sound), "wal: checkpoints", "not_checked")
            for _ in range(wal.ENOUGH_CHECKPOINTS):
                connection.execute("CHECKPOINT")
            connection.execute("SET work_mem = '64kB'")
            for _ in range(wal.ENOUGH_FILES):
                connection.execute("SELECT count(*) FROM (SELECT n FROM generate_series(1, 9000) n ORDER BY -n) s")
            connection.execute("SELECT pg_stat_force_next_flush()")
        assessment = assessed(sound)
        assert "asked for" in details(assessment, "wal: checkpoints", "warn")
        assert "temporary files" in details(assessment, "wal: temporary files", "warn")

    def test_behind_a_transaction_pooler_the_next_client_inherits_nothing(self, pooled, context_of):
        with pooled.connect() as connection:
            connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        assessment = assess(context_of(pooled), window_s=0.0)
        assert of(assessment, "schema: primary keys", "ok")
        with pooled.connect() as connection:
            settings = connection.execute(
                "SELECT current_setting('statement_timeout'), current_setting('default_transaction_read_only'), "
                "current_setting('search_path')"
            ).fetchone()
        assert settings == ("0", "off", '"$user", public')


class _running:
    """A statement that runs in another session, in a thread, until the block ends."""

    def __init__(self, connection, sql):
        self.connection = connection
        self.thread = threading.Thread(target=self._run, args=(sql,))

    def _run(self, sql):
        with suppress(psycopg.errors.QueryCanceled):
            self.connection.execute(sql)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.connection.cancel_safe()
        self.thread.join()


def _until(target, condition):
    with target.connect() as connection:
        for _ in range(1000):
            if connection.execute(condition).fetchone()[0]:
                return
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(f"never came true: {condition}")


class TestOtherVersions:
    def test_on_postgresql_15_it_finds_the_same(self, empty15, assessed):
        made_sick(empty15)
        assessment = assessed(empty15, measure=True)
        assert not [f for f in assessment.findings if "refused" in f.detail]
        assert labels(assessment, "warn") >= {
            *("settings: durability", "statements: since reset", "tables: sequential scans", "tables: HOT updates"),
            *("tables: partition candidates", "indexes: invalid", "indexes: redundant", "indexes: bloated"),
            *("indexes: foreign keys", "vacuum: dead rows", "vacuum: bloat", "vacuum: transaction IDs"),
            *("vacuum: stale statistics", "wal: replication slots", "schema: primary keys", "schema: not valid"),
            *("schema: sequences", "schema: integer keys"),
        }
        assert "c4nary" not in json.dumps([f.model_dump() for f in assessment.findings])
        with empty15.connect() as connection:
            connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")

    def test_on_postgresql_16_without_contrib_it_answers_every_topic(self, empty16, assessed):
        with empty16.connect() as connection:
            connection.execute(SOUND)
        assessment = assessed(empty16)
        assert not [f for f in assessment.findings if "refused" in f.detail]
        assert {finding.check for finding in assessment.findings} == set(NAMES)

    @pytest.mark.exhaustive
    def test_on_a_standby_it_looks_too_and_the_primary_sees_who_streams(self, standby15, empty15, assessed):
        with empty15.connect() as connection:
            connection.execute(SOUND)
        standby15.catch_up(empty15)
        conninfo = standby15.conninfo(empty15.conninfo["dbname"])
        assessment = assessed(identify(Target(spec="env:ASSESSED_URL", conninfo=conninfo)))
        assert not [f for f in assessment.findings if "refused" in f.detail]
        assert "has replayed what it received" in details(assessment, "wal: standbys", "ok")
        assert "1 connected standby looked at" in details(assessed(empty15), "wal: standbys", "ok")

    def test_a_version_without_fixes_is_told_of(self, sound, context_of):
        from playbook.assess import settings

        with open_session(context_of(sound)) as session:
            session.__dict__["since"] = counters.Since(session.since.now + timedelta(days=5000), None, None)
            (answer,) = settings.version(session)
        assert (answer.status, "no hole is mended any more" in answer.detail) == ("warn", True)


PARTITIONED = """
CREATE TABLE {name} (at {type} NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE {name}_old PARTITION OF {name} FOR VALUES FROM (MINVALUE) TO ('2020-01-01') PARTITION BY RANGE (at);
CREATE TABLE {name}_2019 PARTITION OF {name}_old FOR VALUES FROM ('2019-01-01') TO ('2020-01-01');
CREATE TABLE {name}_last PARTITION OF {name} FOR VALUES FROM ({start}) TO ({end});
"""
MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"


class TestPartitionedTables:
    """Any that is partitioned by range of a time, whoever made it; what is one's part has its next periods there."""

    @staticmethod
    def make(target, name, *, start, end, default=True, type_="date"):
        with target.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            bounds = {key: connection.execute(f"SELECT quote_literal(({sql})::text)").fetchone()[0]
                      for key, sql in (("start", start), ("end", end))}  # fmt: skip
            connection.execute(PARTITIONED.format(name=name, type=type_, **bounds))
            if default:
                connection.execute(f"CREATE TABLE {name}_rest PARTITION OF {name} DEFAULT")

    def test_whose_partitions_run_out_is_named_with_the_next_one_to_make(self, empty, assessed):
        self.make(empty, "this_month", start=MONTH, end=f"{MONTH} + interval '1 month'", type_="timestamptz")
        self.make(empty, "last_year", start="date '2021-01-01'", end="date '2022-01-01'", default=False)
        self.make(empty, "ahead", start=f"{MONTH} + interval '1 month'", end=f"{MONTH} + interval '2 months'")
        first, second = of(assessed(empty), "tables: partitions ahead")
        assert (first.status, second.status) == ("warn", "warn")
        assert first.detail == (
            "public.last_year: its last partition ended on 2022-01-01; later rows go nowhere: they are refused"
        )
        assert "public.this_month: its last partition ends on" in second.detail
        assert second.detail.endswith("later rows go into the default partition public.this_month_rest")
        for finding in (first, second):
            with empty.connect() as connection:
                connection.execute(finding.remedy)
        with empty.connect() as connection:
            connection.execute("DROP TABLE last_year")
        (fine,) = of(assessed(empty), "tables: partitions ahead")
        assert (fine.status, "2 tables partitioned by time looked at: each has" in fine.detail) == ("ok", True)

    def test_rows_in_a_default_partition_are_found_and_its_emptiness_is_sure(self, empty, assessed):
        self.make(empty, "log", start=MONTH, end="date '2099-01-01'")
        (fine,) = of(assessed(empty), "tables: default partitions")
        assert (fine.status, fine.detail) == ("ok", "1 default partition looked at: none holds a row")
        with empty.connect() as connection:
            connection.execute("INSERT INTO log VALUES ('2100-01-01', 'far')")
            connection.execute("SELECT pg_stat_force_next_flush()")
            connection.execute("SELECT 1")
            (told,) = of(assessed(empty), "tables: default partitions")
            assert (told.status, told.detail) == (
                "warn",
                "public.log_rest holds about 1 row of public.log (8.00 kB): they fit into no other partition, and none "
                "can be made for their time while they are there",
            )
            connection.execute(told.remedy)
            # Counters that a crash has emptied know of no row.
            connection.execute("SELECT pg_stat_reset()")
            (unknown,) = of(assessed(empty), "tables: default partitions")
            assert (unknown.status, "1 default partition may hold rows" in unknown.detail) == ("not_checked", True)
            (found,) = of(assessed(empty, measure=True), "tables: default partitions")
            assert (found.status, "public.log_rest holds rows of" in found.detail) == ("warn", True)


class TestManyTables:
    def test_the_number_of_queries_does_not_follow_the_number_of_tables_and_findings_are_counted(self, empty, assessed):
        def make(first, last):
            with empty.connect() as connection:
                connection.execute(
                    f"DO $$ BEGIN FOR i IN {first}..{last} LOOP EXECUTE 'CREATE TABLE t' || i || ' (id int)'; END LOOP; END $$"
                )

        make(1, 2)
        few = assessed(empty)
        make(3, 60)
        many = assessed(empty)
        assert many.queries == few.queries
        found = of(many, "schema: primary keys", "warn")
        assert len(found) == TOP + 1
        assert found[-1].detail == "and 55 more, of 60 tables looked at"


HOSTILE = '<script>alert(1)</script>\n\'; DROP TABLE x; --"q"'


class TestHostileNames:
    @pytest.fixture
    def hostile(self, empty):
        name = '"' + HOSTILE.replace('"', '""') + '"'
        with empty.connect() as connection:
            connection.execute(f"CREATE SCHEMA {name}")
            connection.execute(f"CREATE TABLE {name}.{name} (id int PRIMARY KEY)")
            connection.execute(f"COMMENT ON TABLE {name}.{name} IS '<script>alert(2)</script>'")
            connection.execute(
                f"CREATE TABLE {name}.referring ({name} int, amount int, CONSTRAINT fk FOREIGN KEY ({name}) "
                f"REFERENCES {name}.{name} (id), CONSTRAINT {name} CHECK ({name} > 0 AND amount <> 7) NOT VALID)"
            )
            connection.execute(f"ALTER TABLE {name}.referring DROP CONSTRAINT {name}")
            connection.execute(f"ALTER TABLE {name}.referring ADD CONSTRAINT {name} CHECK ({name} > 0) NOT VALID")
            connection.execute(f"INSERT INTO {name}.referring SELECT FROM generate_series(1, 1500)")
        return empty

    def test_are_shown_as_text_in_notebook_and_report(self, hostile, assessed, tmp_path):
        assessment = assessed(hostile)
        shown = [findings_table(assessment.findings), *map(health_view, (assessment.remedies(), assessment.steps()))]
        write_html(
            {"schema": 1, "findings": [finding.model_dump() for finding in assessment.findings]}, tmp_path / "r.html"
        )
        pages = [*(each.html for each in shown), (tmp_path / "r.html").read_text()]
        assert all("<script" not in page and "&lt;script&gt;" in page for page in pages)
        assert "script" in health.space_chart(assessment).alt

    def test_make_no_remedy_run_what_they_say(self, hostile, assessed):
        """All remedies together are run as they stand: they mend what they are for, and nothing else."""
        assessment = assessed(hostile)
        text = "\n".join(
            f.remedy for f in assessment.findings if f.label in {"indexes: foreign keys", "schema: not valid"}
        )
        with hostile.connect() as connection:
            for statement in text.replace(";\n--", ";;\n--").split(";\n"):
                connection.execute(statement.encode())
        again = assessed(hostile)
        assert not of(again, "indexes: foreign keys", "warn")
        assert not of(again, "schema: not valid", "warn")


def health_view(answer):
    from playbook.views import VIEWS

    return VIEWS[type(answer)](answer)


class TestSteps:
    """What stands as YAML beside a finding can be pasted into a plan, and mends it."""

    def test_pasted_into_a_plan_they_mend_what_was_found_and_undo_leaves_it(self, shop, assessed, snapshot):
        shop.execute("ALTER TABLE orders ADD CONSTRAINT total_positive CHECK (total >= 0) NOT VALID")
        shop.execute("ALTER TABLE orders ADD COLUMN paid_by int")
        shop.execute(
            "ALTER TABLE orders ADD CONSTRAINT paid FOREIGN KEY (paid_by) REFERENCES customers (id) ON DELETE SET NULL "
            "NOT VALID"
        )
        as_found = snapshot(shop.target)
        assessment = assessed(shop.target)
        steps = "".join(finding.step for finding in assessment.findings)
        assert {line.strip() for line in steps.splitlines() if "kind:" in line} == {
            "kind: index",
            "kind: check",
            "kind: foreign_key",
        }
        plan = shop.plan.read_text()
        head, tail = plan[: plan.index("      - name: orders_customer")], plan[plan.index("priorities:") :]
        shop.plan.write_text(head + steps + tail)
        load(shop.plan, {name: kind.Spec for name, kind in kinds().items()})
        phase = shop.playbook().phase("1")
        run = [" ".join(each.sql.split()) for _, statements, _ in phase.preview().steps for each in statements]
        assert [sql for sql in run if "CONSTRAINT" in sql] == [
            f"ALTER TABLE public.orders VALIDATE CONSTRAINT {name}" for name in ("paid", "total_positive")
        ]
        assert {state.reason for _, state in phase.check().steps if "NOT VALID" in state.reason} == {
            f"{name} stands NOT VALID: no row that was there before was verified" for name in ("total_positive", "paid")
        }
        assert {state.status for _, state, _ in phase.apply().steps} == {"applied"}
        again = assessed(shop.target)
        assert not of(again, "indexes: foreign keys", "warn")
        assert not of(again, "schema: not valid", "warn")
        phase.undo()
        assert snapshot(shop.target) == as_found, "what others had added stands, NOT VALID as it was"


class TestRun:
    def test_the_notebook_comes_first_on_any_target_and_alone_where_asked_for(self, shop):
        context = shop.context()
        assert chosen_notebooks(context, ())[0] == "00_current_state"
        assert chosen_notebooks(context, ("0",)) == ["00_current_state"]
        with pytest.raises(UsageError, match="no phase 7"):
            chosen_notebooks(context, ("7",))

    def test_its_findings_are_its_part_of_the_results(self, shop):
        assessment = shop.playbook(apply=False).assess(window_s=0.0)
        part = json.loads((shop.folder / "out" / "parts" / "00_current_state.json").read_text())
        assert part["findings"] == [finding.model_dump() for finding in assessment.findings]
        assert (part["steps"], part["comparisons"], part["metrics"]) == ([], [], {})

    def test_a_second_look_sees_what_has_changed_since(self, shop):
        playbook = shop.playbook(apply=False)
        assert playbook.assess(window_s=0.0)
        shop.execute("CREATE TABLE keyless (id int)")
        assert "keyless" in details(playbook.assess(window_s=0.0), "schema: primary keys", "warn")

    def test_the_overview_has_a_line_for_each_check(self, shop):
        text = health_view(Playbook(shop.context(apply=False)).assess(window_s=0.0).verdict()).text
        assert all(check.title in text for check in checks())
        assert "nothing was changed" in text


@pytest.mark.parametrize(
    ("sql", "shown"),
    [
        ("SELECT * FROM t WHERE a = 'secret' AND b = 42", "SELECT * FROM t WHERE a = ? AND b = ?"),
        ("ALTER ROLE app PASSWORD 'secret'", "ALTER role app password ?"),
        ("select count(*) from s.t -- secret\n where x=$1", "SELECT count(*) FROM s.t WHERE x = $1"),
        ("SELECT E'it\\'s', $q$secret$q$, \"Quoted\" /* secret */", 'SELECT ?, ?, "Quoted"'),
        ("SELECT 'cut off in the mid", "(a statement that cannot be read with certainty, so nothing of it is shown)"),
    ],
)
def test_masking_leaves_no_literal_and_no_comment(sql, shown):
    assert masked(sql) == shown


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=3))
def test_masking_hides_any_string(text):
    told = masked(f"UPDATE t SET a = {literal(text)}, b = b + 31415926 -- 31415926")
    assert told == "UPDATE t SET a = ?, b = b + ?"


def test_a_topic_without_an_answer_is_not_checked(sound, context_of):
    from playbook.assess.check import Check

    with open_session(context_of(sound)) as session:
        check = Check(1, "made", "Made", {"silent": lambda _: [], "sure": lambda _: [ok("fine")]})
        assert [(f.topic, f.status) for f in check.look(session)] == [("silent", "not_checked"), ("sure", "ok")]
    assert not_checked("why").status == "not_checked"


@pytest.mark.parametrize(
    ("rows", "widths", "pages"),
    [
        # 100,000 rows of (int, int): 28 bytes of header and pointer, 8 of data; 226 rows a page of 8168 usable bytes.
        (100_000, [bloat.Width(4, 0), bloat.Width(4, 0)], 441),
        (0, [bloat.Width(4, 0)], 0),
    ],
)
def test_a_packed_table_is_reckoned_as_the_page_layout_says(rows, widths, pages):
    assert bloat.of_table(1000, rows, widths).needed == pages
