"""What a change costs the writers: the figure is honest, and nothing but probe tables is ever written to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from statistics import median

import psycopg
import pytest

from playbook.evidence.probes import probe_tables
from playbook.evidence.writes import write_overhead
from playbook.target import catalog
from playbook.target.sql import quote

PROBES = "SELECT count(*) FROM pg_class WHERE relname ~ '^write_probe_' AND relkind = 'r'"
SCHEMA = "SELECT to_regnamespace('playbook')::text"


def one(connect, sql):
    with connect() as connection:
        (value,) = connection.execute(sql).fetchone()
        return value


def measured(connect, table, change, **options):
    """Few rounds, for tests that are not about the figure."""
    found = write_overhead(connect, table, change, rounds=3, budget_s=0.3, **options)
    assert found.pct is not None, found.reason


def table_of(connect, name, schema="public"):
    with connect() as connection:
        return catalog.read(connection).table(schema, name)


def doing(*statements):
    """A change on a probe, from SQL with {probe} in the probe's place."""
    return lambda probe: [sql.replace("{probe}", probe) for sql in statements]


def sleeping(seconds, events="INSERT"):
    """A trigger that sleeps for each row."""
    return doing(
        "CREATE FUNCTION pg_temp.sleeping() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$",
        f"CREATE TRIGGER sleeping BEFORE {events} ON {{probe}} FOR EACH ROW EXECUTE FUNCTION pg_temp.sleeping()",
    )


nothing = doing()
FIVE_INDEXES = (
    "(body, kind)",
    "(kind, body, at)",
    "(at, body)",
    "(amount, body)",
    "USING gin (string_to_array(body, NULL)) WITH (fastupdate = off)",
)
five_indexes = doing(*(f"CREATE INDEX ON {{probe}} {index}" for index in FIVE_INDEXES))


@pytest.fixture
def orders(scratch):
    """2,000 orders with two standing indexes."""
    with scratch() as connection:
        connection.execute(
            "CREATE TABLE orders (id bigserial PRIMARY KEY, kind text, body text, amount numeric, at timestamptz)"
        )
        connection.execute("CREATE INDEX orders_at ON orders (at DESC)")
        connection.execute(
            "INSERT INTO orders (kind, body, amount, at) SELECT 'kind ' || n % 7, md5(n::text) || md5((-n)::text), "
            "n / 3.0, '2026-01-01Z'::timestamptz + n * interval '1 minute' FROM generate_series(1, 2000) n"
        )
        connection.execute("ANALYZE orders")
    return table_of(scratch, "orders")


@pytest.fixture
def calm(scratch):
    """Sessions that do not wait for the disk: the figures of these tests are about work, not about the machine."""

    def connect():
        connection = scratch()
        connection.execute("SET synchronous_commit = off")
        return connection

    return connect


class TestTheFigure:
    def test_is_about_none_for_no_change(self, calm, orders):
        found = [write_overhead(calm, orders, nothing, budget_s=0.5) for _ in range(4)]
        assert sum(low <= 0 <= high for low, high in (each.ci95 for each in found)) >= 2
        assert abs(median(each.pct for each in found)) < 10
        assert all(each.rounds >= 20 and each.clients == 4 and not each.reason for each in found)

    @pytest.mark.exhaustive
    def test_is_about_none_for_no_change_in_nineteen_of_twenty_runs(self, scratch, orders):
        found = [write_overhead(scratch, orders, nothing, budget_s=2) for _ in range(60)]
        assert sum(low <= 0 <= high for low, high in (each.ci95 for each in found)) >= 52
        assert abs(median(each.pct for each in found)) < 3

    def test_is_above_20_for_five_more_indexes(self, calm, orders):
        found = write_overhead(calm, orders, five_indexes, budget_s=0.8)
        assert found.pct > 20
        assert 0 < found.ci95[0] <= found.pct <= found.ci95[1]

    def test_is_the_same_when_the_table_has_them_already(self, calm, orders):
        with calm() as connection:
            for sql in five_indexes("orders"):
                connection.execute(sql)
        applied = [index.name for index in table_of(calm, "orders").indexes if "body" in index.definition]
        assert len(applied) == 5
        found = write_overhead(calm, table_of(calm, "orders"), None, applied=applied, budget_s=0.8)
        assert found.pct > 20

    def test_shows_a_slow_trigger_which_only_the_timed_rows_pay(self, calm, orders):
        started = time.monotonic()
        found = write_overhead(calm, orders, sleeping(0.02, "INSERT OR DELETE"), budget_s=0.8)
        assert found.pct > 20
        assert time.monotonic() - started < 15  # the 1,000 rows of the fill alone would sleep for 20 s

    def test_is_had_from_a_small_table_whose_rows_are_used_again(self, calm, orders):
        with calm() as connection:
            connection.execute("DELETE FROM orders WHERE id > 250")
        found = write_overhead(calm, orders, nothing, budget_s=1)
        assert found.rounds >= 20
        assert found.pct is not None

    def test_is_none_when_writes_are_too_slow_for_the_budget(self, calm, orders):
        found = write_overhead(calm, orders, sleeping(0.1), budget_s=0.2)
        assert (found.pct, found.ci95) == (None, None)
        assert "of 20 rounds fitted into 0.6 s" in found.reason


class TestTheProbes:
    """What the two copies look like."""

    def shape(self, connection, side):
        return [
            definition.partition(" USING ")[2]
            for (definition,) in connection.execute(
                "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid::regclass::text ~ ('_' || %s || '$') "
                "ORDER BY 1",
                [side],
            )
        ]

    def shapes(self, connect, table, change, applied=()):
        with probe_tables(connect, table) as probes, connect() as connection:
            probes.make(change, applied)
            return tuple(sorted(self.shape(connection, side)) for side in ("without", "with"))

    def test_have_the_standing_indexes_and_one_has_the_change(self, scratch, orders):
        without, having = self.shapes(scratch, orders, doing("CREATE INDEX ON {probe} (kind)"))
        assert without == ["btree (at DESC)", "btree (id)"]
        assert having == ["btree (at DESC)", "btree (id)", "btree (kind)"]

    def test_lack_exactly_the_copy_of_an_applied_index(self, scratch, orders):
        name = 'of "mine" USING x'
        definitions = {
            "INDEX %s ON orders (kind, at DESC NULLS LAST)": "btree (kind, at DESC NULLS LAST)",
            "INDEX %s ON orders (lower(body) text_pattern_ops) INCLUDE (at) WITH (fillfactor=70) WHERE kind <> 'x'": (
                "btree (lower(body) text_pattern_ops) INCLUDE (at) WITH (fillfactor='70') WHERE (kind <> 'x'::text)"
            ),
            "UNIQUE INDEX %s ON orders (id, at)": "btree (id, at)",
            "INDEX %s ON orders USING hash (body)": "hash (body)",
        }
        with scratch() as connection:
            # Neighbours that differ in a trifle, and a dropped column: neither names nor numbers identify a copy.
            connection.execute("CREATE INDEX ON orders (kind, at DESC)")
            connection.execute("CREATE INDEX ON orders (id, at)")
            connection.execute("ALTER TABLE orders DROP COLUMN amount")
            for definition, shape in definitions.items():
                connection.execute("CREATE " + definition % quote(name))
                without, having = self.shapes(scratch, table_of(scratch, "orders"), None, [name])
                assert sorted([*without, shape]) == having
                connection.execute(f"DROP INDEX {quote(name)}")

    def test_lose_the_applied_index_both_when_the_change_makes_it_again(self, scratch, orders):
        without, having = self.shapes(scratch, orders, doing("CREATE INDEX ON {probe} (at DESC)"), ["orders_at"])
        assert (without, having) == (["btree (id)"], ["btree (at DESC)", "btree (id)"])

    def test_lose_an_applied_constraint_of_any_kind(self, scratch, orders):
        with scratch() as connection:
            connection.execute(
                'ALTER TABLE orders ADD CONSTRAINT once UNIQUE (body), ADD CONSTRAINT "A b" CHECK (id > 0)'
            )
        orders = table_of(scratch, "orders")
        without, having = self.shapes(scratch, orders, None, ["once", "A b"])
        assert set(having) - set(without) == {"btree (body)"}
        with probe_tables(scratch, orders) as probes:
            probes.make(None, ["A b"])
            assert one(scratch, "SELECT count(*) FROM pg_constraint WHERE conname = 'A b'") == 2  # the table's and one

    def test_keep_nobody_from_dropping_the_table(self, scratch, orders):
        with probe_tables(scratch, orders) as probes, scratch() as connection:
            probes.make(nothing, ())
            connection.execute("DROP TABLE orders")  # its sequence would be needed, were defaults copied

    def test_are_named_in_the_reason_when_nothing_of_that_name_was_copied(self, scratch, orders):
        found = write_overhead(scratch, orders, nothing, applied=["orders_At"])
        assert found.pct is None
        assert '"orders_At"' in found.reason


class TestAnyTable:
    def test_with_hostile_names_and_kinds_of_columns(self, calm):
        schema, name, number, words = 'Sch"ema %s', 'Or"ders; -- USING btree', quote("a %s b"), quote("Ünï")
        table, twice = quote(schema, name), quote("tw$1ice")
        drawn = f"SELECT last_value FROM {quote(schema, name + '_c0_seq')}"
        with calm() as connection:
            connection.execute(f"CREATE SCHEMA {quote(schema)}")
            connection.execute("CREATE TYPE mood AS ENUM ('fine', 'it''s \\ ok')")
            connection.execute("CREATE DOMAIN positive AS int CHECK (value > 0)")
            connection.execute(
                f"CREATE TABLE {table} (c0 serial, n int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
                f"{quote('select')} mood, {number} positive DEFAULT 7, {words} text[] NOT NULL, doc jsonb, raw bytea, "
                f"{twice} int GENERATED ALWAYS AS ({number} * 2) STORED, CHECK ({number} < 100000))"
            )
            connection.execute(f"CREATE INDEX ON {table} ({twice}) WHERE {number} > 1")
            connection.execute(
                f"INSERT INTO {table} ({quote('select')}, {number}, {words}, raw) SELECT 'it''s \\ ok', n, "
                "ARRAY['{', NULL, '\\\"' || n], '\\x00ff' FROM generate_series(1, 400) n"
            )
        before = one(calm, drawn)
        change = doing(f"CREATE INDEX ON {{probe}} ({words}, {number})")
        measured(calm, table_of(calm, name, schema), change)
        assert one(calm, drawn) == before

    def test_with_rows_that_violate_the_change_or_a_constraint_not_yet_validated(self, calm, orders):
        with calm() as connection:
            connection.execute("UPDATE orders SET amount = -1 WHERE id % 3 = 0")
            connection.execute("UPDATE orders SET kind = NULL WHERE id % 5 = 0")
            connection.execute("ALTER TABLE orders ADD CHECK (amount >= 0) NOT VALID")
        change = doing("ALTER TABLE {probe} ALTER kind SET NOT NULL", "ALTER TABLE {probe} ADD CHECK (id < 1500)")
        measured(calm, table_of(calm, "orders"), change)

    def test_that_is_partitioned(self, calm):
        with calm() as connection:
            connection.execute("CREATE TABLE events (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
            connection.execute(
                "CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')"
            )
            connection.execute("CREATE INDEX events_at ON events (at)")
            connection.execute("INSERT INTO events SELECT n, '2026-03-01' FROM generate_series(1, 500) n")
        measured(calm, table_of(calm, "events"), None, applied=["events_at"])

    def test_of_which_a_large_one_is_sampled(self, calm):
        with calm() as connection:
            connection.execute("CREATE TABLE large AS SELECT n AS id FROM generate_series(1, 20000) n; ANALYZE large")
        with probe_tables(calm, table_of(calm, "large")) as probes:
            probes.make(nothing, ())
            rows = probes.fill(2000, least=200)
            values = {int(row[0]) for row in rows}
        assert 100 < len(values) == len(rows) <= 1000
        assert max(values) > 10_000  # from all over the table, not its first 2,000 rows


class TestWithoutAFigure:
    """Not measured is None with a reason, never 0."""

    def reason(self, connect, table, change=nothing, **options):
        found = write_overhead(connect, table, change, **options)
        assert (found.pct, found.ci95, found.rounds) == (None, None, 0)
        assert one(connect, PROBES) == 0
        return found.reason

    def test_too_few_rows(self, scratch, orders):
        with scratch() as connection:
            connection.execute("DELETE FROM orders WHERE id > 150")
        assert self.reason(scratch, orders) == "public.orders has 150 rows to sample, 200 are needed"
        with scratch() as connection:
            connection.execute("TRUNCATE orders")
        assert "has 0 rows" in self.reason(scratch, orders)

    def test_no_table_that_is_written_to(self, scratch, orders):
        with scratch() as connection:
            connection.execute("CREATE VIEW seen AS SELECT * FROM orders")
        assert self.reason(scratch, table_of(scratch, "seen")) == (
            "public.seen is not a table that several clients write to"
        )

    def test_a_change_the_server_refuses(self, scratch, orders):
        assert "does not exist" in self.reason(scratch, orders, doing("CREATE INDEX ON {probe} (missing)"))

    def test_a_change_its_rows_refuse_and_no_value_is_told(self, scratch, orders):
        reason = self.reason(scratch, orders, doing("CREATE UNIQUE INDEX ON {probe} (kind)"))
        assert "UniqueViolation" in reason
        assert "kind 1" not in reason

    def test_a_missing_privilege(self, calm, orders):
        role = f"writer_{os.getpid()}"

        def as_role():
            connection = calm()
            connection.execute(f"SET ROLE {role}")
            return connection

        with calm() as connection:
            connection.execute(f"CREATE ROLE {role}; GRANT SELECT ON orders TO {role}")
            try:
                assert "permission denied for database" in self.reason(as_role, orders)
                connection.execute(f"CREATE SCHEMA playbook AUTHORIZATION {role}; REVOKE SELECT ON orders FROM {role}")
                assert "permission denied for table orders" in self.reason(as_role, orders)
                connection.execute(f"GRANT SELECT ON orders TO {role}")
                measured(as_role, orders, nothing)
            finally:
                connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    def test_too_few_sessions_to_be_had(self, scratch, orders):
        opened = []

        def connect():
            if len(opened) == 3:
                raise psycopg.OperationalError("sorry, too many clients already")
            opened.append(scratch())
            return opened[-1]

        assert write_overhead(connect, orders, nothing).reason == "sorry, too many clients already"
        assert one(scratch, PROBES) == 0

    def test_a_publication_that_would_carry_the_probes(self, scratch, orders):
        with scratch() as connection:
            connection.execute("CREATE SCHEMA playbook")
            for scope in ("ALL TABLES", "TABLES IN SCHEMA playbook"):
                connection.execute(f"CREATE PUBLICATION everything FOR {scope}")
                assert self.reason(scratch, orders).startswith("publication everything would carry")
                connection.execute("DROP PUBLICATION everything")


class TestNothingIsLeft:
    def test_and_the_table_was_not_touched(self, scratch, calm, orders):
        state = (
            "SELECT md5(string_agg(o::text || xmin || xmax || ctid, ',' ORDER BY ctid)) || "
            "(SELECT last_value FROM orders_id_seq) FROM orders o"
        )
        before = one(scratch, state)
        with scratch() as connection:
            fingerprint = catalog.Catalog.fingerprint(catalog.read(connection).tables)
        measured(calm, orders, five_indexes)
        assert one(scratch, state) == before
        assert (one(scratch, PROBES), one(scratch, SCHEMA)) == (0, None)
        with scratch() as connection:
            assert catalog.Catalog.fingerprint(catalog.read(connection).tables) == fingerprint

    def test_but_what_others_have_in_the_schema(self, scratch, calm, orders):
        with scratch() as connection:
            connection.execute("CREATE SCHEMA playbook; CREATE TABLE playbook.write_probe_7_plans (id int)")
        measured(calm, orders, nothing)
        assert one(scratch, PROBES) == 1
        with scratch() as connection:
            connection.execute("DROP TABLE playbook.write_probe_7_plans")
        measured(calm, orders, nothing)
        assert one(scratch, SCHEMA) == "playbook"  # not made by the probes, so it stays

    def test_when_another_puts_a_table_into_the_schema_meanwhile(self, scratch, calm, orders):
        def change(probe):
            with scratch() as other:
                other.execute("CREATE TABLE playbook.journal (id int)")
            return []

        measured(calm, orders, change)
        assert one(scratch, "SELECT to_regclass('playbook.journal')::text") == "playbook.journal"

    def test_after_an_exception(self, scratch, orders):
        def broken(probe):
            raise LookupError(probe)

        with pytest.raises(LookupError):
            write_overhead(scratch, orders, broken)
        assert (one(scratch, PROBES), one(scratch, SCHEMA)) == (0, None)

    @pytest.mark.parametrize("while_doing", ["changing", "writing"])
    def test_after_an_interrupt(self, scratch, orders, while_doing):
        slow, delay = (doing("SELECT pg_sleep(30)"), 0.2) if while_doing == "changing" else (sleeping(30), 0.7)

        def change(probe):
            threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            return slow(probe)

        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            write_overhead(scratch, orders, change, budget_s=20)
        assert time.monotonic() - started < 10
        assert (one(scratch, PROBES), one(scratch, SCHEMA)) == (0, None)
        assert one(scratch, "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^INSERT INTO playbook'") == 0

    def test_of_a_killed_process_once_another_measures(self, scratch, calm, orders):
        program = (
            "import psycopg, sys\n"
            "from playbook.evidence.probes import probe_tables\n"
            "from playbook.target import catalog\n"
            "connect = lambda: psycopg.connect(sys.argv[1], autocommit=True)\n"
            "with probe_tables(connect, catalog.read(connect()).table('public', 'orders')) as probes:\n"
            "    probes.make(None, ())\n"
            "    print('made', flush=True)\n"
            "    sys.stdin.read()\n"
        )
        with scratch() as connection:
            dsn = connection.info.dsn + (f" password={connection.info.password}" if connection.info.password else "")
        with subprocess.Popen([sys.executable, "-c", program, dsn], stdin=-1, stdout=-1, text=True) as process:
            try:
                assert process.stdout.readline() == "made\n"
                measured(calm, orders, nothing)
                assert one(scratch, PROBES) == 2  # its session lives, so they are its own
            finally:
                process.kill()
        while one(scratch, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"):
            time.sleep(0.05)
        measured(calm, orders, nothing)
        assert (one(scratch, PROBES), one(scratch, SCHEMA)) == (0, None)
