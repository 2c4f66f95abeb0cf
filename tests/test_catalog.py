"""The catalog against what the server itself says."""

import itertools
import tempfile
import threading
import time
from contextlib import contextmanager
from operator import attrgetter

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from playbook.errors import Busy
from playbook.target import catalog as catalog_module
from playbook.target.catalog import Catalog, read
from playbook.target.sql import quote

SCHEMA = """
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE TABLE users (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  email varchar(120) NOT NULL UNIQUE,
  mood mood DEFAULT 'calm',
  name text COLLATE "C",
  score numeric(5,2) DEFAULT 1.5,
  lower_email text GENERATED ALWAYS AS (lower(email)) STORED,
  CONSTRAINT score_positive CHECK (score > 0)
);
CREATE TABLE "Orders" (
  id int PRIMARY KEY,
  "userId" bigint REFERENCES users (id) DEFERRABLE,
  placed_at timestamptz,
  EXCLUDE USING gist (int4range(id, id + 1) WITH &&)
);
ALTER TABLE "Orders" ADD CONSTRAINT recent CHECK (placed_at > '2000-01-01') NOT VALID;
CREATE VIEW mails AS SELECT email FROM users;
CREATE MATERIALIZED VIEW counts AS SELECT mood, count(*) AS n FROM users GROUP BY mood;
CREATE UNIQUE INDEX counts_mood ON counts (mood);
"""
HOSTILE = [
    "semi;colon",
    'Quote"d',
    "apo'strophe",
    "tab\tle",
    "select",
    "üñí→名前",
    "%s {} :x",
    "x" * 63,
    "é" * 31,
    "a.b",
    "-- c",
]


@pytest.fixture
def connection(scratch):
    return scratch()


def execute(connection, sql):
    connection.execute(sql)
    return read(connection)


def test_columns_have_type_default_identity_generation_and_collation(connection):
    users = execute(connection, SCHEMA).table("public", "users")
    assert [(column.name, column.type, column.not_null) for column in users.columns] == [
        ("id", "bigint", True),
        ("email", "character varying(120)", True),
        ("mood", "public.mood", False),
        ("name", "text", False),
        ("score", "numeric(5,2)", False),
        ("lower_email", "text", False),
    ]
    assert users.column("id").identity == "a"
    assert users.column("mood").default == "'calm'::public.mood"
    assert users.column("name").collation == 'pg_catalog."C"'
    assert users.column("score").collation is None
    assert (users.column("lower_email").generated, users.column("score").generated) == ("s", "")
    assert users.column("lower_email").default == "lower((email)::text)"
    assert users.column("Email") is None


def test_every_kind_of_relation_with_rows_is_there(connection):
    connection.execute("CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw")
    connection.execute("CREATE FOREIGN TABLE distant (id int) SERVER far")
    connection.execute("CREATE TABLE events (at date) PARTITION BY RANGE (at); CREATE SEQUENCE numbers")
    kinds = {table.name: table.kind for table in execute(connection, SCHEMA).tables}
    assert kinds == {
        "Orders": "r", "counts": "m", "distant": "f", "events": "p", "mails": "v", "users": "r",
    }  # fmt: skip


def test_system_schemas_temporary_tables_and_the_journal_are_left_out(connection):
    connection.execute("CREATE TEMP TABLE passing (id int); CREATE SCHEMA playbook; CREATE SCHEMA app")
    connection.execute(
        'CREATE TABLE playbook.journal (id int); CREATE TABLE app.kept (id int); CREATE SCHEMA "PG_mine"'
    )
    catalog = execute(connection, 'CREATE TABLE "PG_mine".kept (id int)')
    assert [table.qualified for table in catalog.tables] == ['"PG_mine".kept', "app.kept"]


def test_search_path_is_the_effective_one_of_the_role(connection):
    connection.execute('CREATE SCHEMA "App"; SET search_path = missing, "App", "$user", public')
    assert read(connection).search_path == ("App", "public")


def test_keys_tell_order_class_collation_and_expression(connection):
    connection.execute(SCHEMA)
    catalog = execute(
        connection,
        'CREATE INDEX i ON users (name DESC, email text_pattern_ops NULLS FIRST, name COLLATE "POSIX" DESC NULLS LAST,'
        " lower(email) COLLATE \"C\" varchar_pattern_ops, (score * 2)) INCLUDE (mood, id) WHERE mood = 'wild'",
    )
    index = catalog.index("public", "i")
    assert [str(key) for key in index.keys] == [
        "name DESC",
        "email text_pattern_ops NULLS FIRST",
        'name COLLATE "POSIX" DESC NULLS LAST',
        'lower((email)::text) COLLATE "C" varchar_pattern_ops',
        "((score * (2)::numeric))",
    ]
    assert [(key.descending, key.nulls_first) for key in index.keys] == [
        (True, True), (False, True), (True, False), (False, False), (False, False),
    ]  # fmt: skip
    assert [key.column for key in index.keys] == ["name", "email", "name", None, None]
    assert [key.opclass.removeprefix("pg_catalog.") for key in index.keys] == [
        "text_ops", "text_pattern_ops", "text_ops", "varchar_pattern_ops", "numeric_ops",
    ]  # fmt: skip
    assert index.keys[3].opclass_family == "pg_catalog.text_pattern_ops"
    assert index.keys[0].collation == 'pg_catalog."C"'
    assert index.included == ("mood", "id")
    assert index.predicate == "(mood = 'wild'::public.mood)"
    assert (index.method, index.table, index.unique, index.usable) == ("btree", "users", False, True)


def test_classes_of_extensions_keep_their_schema_and_options(connection):
    connection.execute("CREATE SCHEMA ext; CREATE EXTENSION pg_trgm SCHEMA ext; CREATE TABLE t (a text, b int[])")
    connection.execute(
        "CREATE INDEX trgm ON t USING gist (a ext.gist_trgm_ops (siglen = 32)); CREATE INDEX h ON t USING hash (a)"
    )
    catalog = execute(connection, "CREATE INDEX gin ON t USING gin (b)")
    (key,) = catalog.index("public", "trgm").keys
    assert (key.opclass, key.default_opclass, key.opclass_options) == ("ext.gist_trgm_ops", False, "siglen=32")
    assert str(catalog.index("public", "gin").keys[0]) == "b"
    assert [index.method for index in catalog.table("public", "t").indexes] == ["gin", "hash", "gist"]


COLUMNS = dict(zip(HOSTILE, itertools.cycle(["text", "varchar(9)", "int", "timestamptz", "mood"]), strict=False))
KEYS = st.tuples(
    st.sampled_from(list(COLUMNS)),
    st.booleans(),
    st.sampled_from(["", '"C"', '"POSIX"']),
    st.sampled_from(["", "text_ops", "text_pattern_ops", "varchar_ops", "bpchar_ops"]),
    st.sampled_from(["", "DESC", "NULLS FIRST", "DESC NULLS LAST"]),
)


def key_sql(key):
    column, expression, collation, opclass, order = key
    textual = COLUMNS[column] in {"text", "varchar(9)"}
    computed = f"lower({quote(column)})" if textual else f"(coalesce({quote(column)}, NULL))"
    parts = [computed if expression else quote(column)]
    parts += [f"COLLATE {collation}"] if collation and textual else []
    parts += [opclass] if opclass and textual else []
    return " ".join([*parts, order])


@contextmanager
def rolled_back(connection):
    with connection.transaction(force_rollback=True):
        yield


@pytest.fixture
def hostile(connection):
    connection.execute("CREATE TYPE mood AS ENUM ('calm')")
    connection.execute(f"CREATE TABLE t ({', '.join(f'{quote(name)} {kind}' for name, kind in COLUMNS.items())})")
    return connection


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(KEYS, min_size=1, max_size=4),
    name=st.sampled_from([*HOSTILE, "b (b text_pattern_ops", "USING btree (b)"]),
)
def test_keys_written_out_are_the_servers_own_definition(hostile, keys, name):
    with rolled_back(hostile):
        hostile.execute(f"CREATE INDEX {quote(name)} ON t ({', '.join(map(key_sql, keys))})".encode())
        index = read(hostile).index("public", name)
        written = f"CREATE INDEX {quote(name)} ON public.t USING btree ({', '.join(map(str, index.keys))})"
        assert written == index.definition


def test_hostile_names_come_back_as_they_are_and_quoted_they_are_found(connection):
    for name in HOSTILE:
        connection.execute(f"CREATE SCHEMA {quote(name)}".encode())
        connection.execute(f"CREATE TABLE {quote(name, name)} ({quote(name)} int CHECK ({quote(name)} > 0))".encode())
        connection.execute(f"CREATE INDEX {quote(name[:-1] + '_')} ON {quote(name, name)} ({quote(name)})".encode())
    catalog = read(connection)
    assert {table.name for table in catalog.tables} == set(HOSTILE)
    for name in HOSTILE:
        table = catalog.table(name, name)
        index = table.indexes[0]
        assert table.column(name).name == index.keys[0].column == table.constraints[0].columns[0] == name
        for found in (table, index):
            assert connection.execute("SELECT to_regclass(%s)::oid", [found.qualified]).fetchone()[0] is not None


def test_unique_primary_and_exclusion_indexes_name_their_constraint(connection):
    catalog = execute(connection, SCHEMA)
    told = {
        index.name: (index.unique, index.primary, index.exclusion, index.constraint)
        for table in catalog.tables
        for index in table.indexes
    }
    assert told == {
        "Orders_pkey": (True, True, False, "Orders_pkey"),
        "Orders_int4range_excl": (False, False, True, "Orders_int4range_excl"),
        "users_pkey": (True, True, False, "users_pkey"),
        "users_email_key": (True, False, False, "users_email_key"),
        "counts_mood": (True, False, False, None),
    }


def test_a_deferrable_unique_index_is_not_immediate(connection):
    catalog = execute(connection, "CREATE TABLE t (a int UNIQUE DEFERRABLE, b int UNIQUE)")
    assert [(index.name, index.immediate) for index in catalog.tables[0].indexes] == [
        ("t_a_key", False),
        ("t_b_key", True),
    ]


def test_nulls_not_distinct_is_told_where_the_version_has_it(connection):
    if connection.info.server_version < 150000:
        pytest.skip("NULLS NOT DISTINCT came with PostgreSQL 15")
    catalog = execute(connection, "CREATE TABLE t (a int UNIQUE NULLS NOT DISTINCT, b int UNIQUE)")
    assert [index.nulls_not_distinct for index in catalog.tables[0].indexes] == [True, False]


def test_constraints_have_kind_columns_reference_and_whether_validated(connection):
    catalog = execute(connection, SCHEMA)
    told = {constraint.name: constraint for table in catalog.tables for constraint in table.constraints}
    assert told["Orders_userId_fkey"].kind == "f"
    assert told["Orders_userId_fkey"].columns == ("userId",)
    assert told["Orders_userId_fkey"].references == "public.users"
    assert told["Orders_userId_fkey"].definition == 'FOREIGN KEY ("userId") REFERENCES public.users(id) DEFERRABLE'
    assert (told["recent"].validated, told["score_positive"].validated) == (False, True)
    assert told["score_positive"].columns == ("score",)
    not_null = {constraint.columns for constraint in told.values() if constraint.kind == "n"}
    assert not_null == ({("id",), ("email",)} if connection.info.server_version >= 180000 else set())


def test_a_foreign_key_to_a_partitioned_table_is_told_once(connection):
    connection.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    connection.execute(
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); CREATE TABLE p2 PARTITION OF p DEFAULT"
    )
    catalog = execute(connection, "CREATE TABLE t (p_id int REFERENCES p)")
    assert [constraint.references for constraint in catalog.table("public", "t").constraints] == ["public.p"]


def test_partitions_know_parent_and_bound_and_the_parent_its_key(connection):
    connection.execute("CREATE TABLE logs (at date, kind text) PARTITION BY RANGE (at)")
    connection.execute("CREATE TABLE logs_2024 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    connection.execute("CREATE TABLE base (id int); CREATE TABLE heir () INHERITS (base)")
    catalog = read(connection)
    logs, part, heir = (catalog.table("public", name) for name in ("logs", "logs_2024", "heir"))
    assert (logs.kind, logs.partition_key, logs.parent, logs.size_bytes) == ("p", "RANGE (at)", None, None)
    assert (part.kind, part.partition_key, part.parent) == ("r", None, ("public", "logs"))
    assert part.partition_bound == "FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')"
    assert (heir.parent, heir.partition_bound) == (("public", "base"), None)


def test_the_index_of_a_partitioned_table_is_valid_once_every_partition_has_its_part(connection):
    connection.execute("CREATE TABLE logs (at date) PARTITION BY RANGE (at)")
    connection.execute("CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    connection.execute("CREATE INDEX whole ON ONLY logs (at); CREATE INDEX part ON logs_1 (at)")
    catalog = read(connection)
    assert catalog.index("public", "whole").partitioned
    assert not catalog.index("public", "whole").usable
    assert catalog.index("public", "part").parent is None
    catalog = execute(connection, "ALTER INDEX whole ATTACH PARTITION part")
    assert catalog.index("public", "whole").usable
    assert catalog.index("public", "part").parent == "public.whole"
    assert not catalog.index("public", "part").partitioned


def test_an_index_whose_build_did_not_end_is_not_usable(connection):
    connection.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON t (a)")
    index = read(connection).index("public", "broken")
    assert (index.valid, index.usable) == (False, False)


def test_rows_are_unknown_until_counted_and_sizes_grow(connection):
    table = execute(connection, "CREATE TABLE t (a int PRIMARY KEY, b text); CREATE VIEW v AS TABLE t").table(
        "public", "t"
    )
    assert table.estimated_rows == -1
    before = table.size_bytes
    connection.execute("INSERT INTO t SELECT i, repeat(md5(i::text), 9) FROM generate_series(1, 1000) i")
    catalog = execute(connection, "ANALYZE t")
    table = catalog.table("public", "t")
    assert table.estimated_rows == 1000
    assert table.size_bytes > before + 288_000
    assert catalog.table("public", "v").size_bytes is None
    (pg_size,) = connection.execute("SELECT pg_relation_size('t_pkey')").fetchone()
    assert table.indexes[0].size_bytes == pg_size > 0


def test_storage_options_and_other_facts_of_a_table(connection):
    connection.execute("CREATE ROLE catalog_owner")
    try:
        connection.execute("CREATE UNLOGGED TABLE t (a int PRIMARY KEY); ALTER TABLE t OWNER TO catalog_owner")
        connection.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t REPLICA IDENTITY FULL")
        table = execute(connection, "CREATE INDEX i ON t (a) WITH (fillfactor = 70)").table("public", "t")
        assert (table.owner, table.persistence, table.row_security, table.replica_identity) == (
            "catalog_owner", "u", True, "f",
        )  # fmt: skip
        assert [(index.name, index.options, index.tablespace) for index in table.indexes] == [
            ("i", ("fillfactor=70",), None),
            ("t_pkey", (), None),
        ]
    finally:
        connection.execute("DROP OWNED BY catalog_owner; DROP ROLE catalog_owner")


@contextmanager
def messages_sent(connection):
    """The statements that libpq sent, one a message, as its own trace has them."""
    sent = []
    with tempfile.TemporaryFile("w+") as trace:
        connection.pgconn.trace(trace.fileno())
        try:
            yield sent
        finally:
            connection.pgconn.untrace()
            trace.seek(0)
            sent += [line for line in trace if line.split("\t")[1:2] == ["F"] and ("Query" in line or "Parse" in line)]


@pytest.mark.parametrize("tables", [0, 3, 40])
def test_at_most_twelve_statements_whatever_the_number_of_tables(connection, tables):
    for number in range(tables):
        connection.execute(f"CREATE TABLE t{number} (a int PRIMARY KEY, b text DEFAULT 'x' UNIQUE, CHECK (a > 0))")
    with messages_sent(connection) as sent:
        catalog = read(connection)
    assert len(catalog.tables) == tables
    assert 8 <= len(sent) <= 12


def test_any_role_reads_the_same(connection):
    connection.execute("CREATE ROLE catalog_nobody")
    try:
        connection.execute(SCHEMA)
        connection.execute("CREATE SCHEMA closed; CREATE TABLE closed.t (a int PRIMARY KEY)")
        mine = read(connection)
        connection.execute("SET ROLE catalog_nobody")
        assert read(connection) == mine
    finally:
        connection.execute("RESET ROLE; DROP ROLE catalog_nobody")


def test_reading_works_whatever_the_rows_of_the_connection_look_like(connection):
    expected = execute(connection, SCHEMA)
    connection.row_factory = dict_row
    assert read(connection) == expected


def session_state(connection):
    shown = "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'transaction%' ORDER BY name"
    prepared = "SELECT count(*) FROM pg_prepared_statements"
    return connection.execute(shown).fetchall(), connection.execute(prepared).fetchall()


def test_the_session_stays_as_it_was(connection):
    connection.execute("SET search_path = public; SET TimeZone = 'Asia/Tokyo'; SET lock_timeout = '7s'")
    connection.prepare_threshold = 1
    before = session_state(connection)
    for _ in range(3):
        read(connection)
    assert session_state(connection) == before
    connection.execute("CREATE TABLE writable ()")


def test_within_a_transaction_it_sees_what_that_does_and_leaves_it_going_on(connection):
    connection.execute("SET search_path = public")
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE TABLE t (a int); CREATE INDEX i ON t (a)")
        assert read(connection).index("public", "i").table == "t"
        assert connection.execute("SHOW search_path").fetchone() == ("public",)
        connection.execute("INSERT INTO t VALUES (1)")
    assert read(connection).tables == ()


def test_texts_are_the_same_whatever_the_settings_of_the_session(connection):
    connection.execute("CREATE TYPE mood AS ENUM ('calm')")
    connection.execute(
        "CREATE TABLE t (at timestamptz, mood mood, f float8 DEFAULT 0.1, i interval DEFAULT '1 day 2 hours')"
    )
    connection.execute("CREATE INDEX i ON t (at) WHERE at > '2024-01-01 00:00+00' AND mood = 'calm'")
    before = read(connection)
    connection.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'; SET search_path = pg_catalog")
    connection.execute("SET IntervalStyle = iso_8601; SET extra_float_digits = -9; SET quote_all_identifiers = on")
    assert read(connection).tables == before.tables


def test_a_table_held_exclusively_is_waited_for_and_then_named(connection, scratch, monkeypatch):
    monkeypatch.setattr(catalog_module, "LOCK_TIMEOUT_MS", 50)
    connection.execute("CREATE TABLE held (a int CHECK (a > 0))")
    holder = scratch()
    with holder.transaction():
        holder.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Busy, match=rf"public\.held, process {holder.info.backend_pid}\b.*try again"):
            read(connection)
    assert read(connection).table("public", "held")


def test_one_snapshot_while_others_create_and_drop(connection, scratch):
    """Each table comes with an index and a check or not at all, though the texts are deparsed outside the snapshot."""
    stop = threading.Event()

    def names_of(catalog):
        return tuple(map(attrgetter("name"), catalog.tables))

    def churn():
        other = scratch()
        for number in itertools.count():
            if stop.is_set():
                return
            with other.transaction():
                other.execute(f"CREATE TABLE t{number} (a int DEFAULT 1 CHECK (a > 0), b text)")
                other.execute(f'CREATE INDEX ON t{number} (lower(b)) WHERE a > 5; DROP TABLE IF EXISTS "t{number - 3}"')

    churning = threading.Thread(target=churn)
    churning.start()
    try:
        seen = [read(connection)]
        until = time.monotonic() + 30
        while len(seen) < 12 or (len(set(map(names_of, seen))) <= 3 and time.monotonic() < until):
            seen.append(read(connection))
    finally:
        stop.set()
        churning.join()
    assert len(set(map(names_of, seen))) > 3
    for catalog in seen:
        assert len(catalog.tables) <= 3
        assert all(table.column("a").not_null is False and table.column("b") for table in catalog.tables)


CHANGES = [
    "ALTER TABLE t ADD COLUMN d int",
    "ALTER TABLE t ALTER COLUMN b TYPE varchar(5)",
    'ALTER TABLE t ALTER COLUMN b TYPE text COLLATE "C"',
    "ALTER TABLE t ALTER COLUMN b SET DEFAULT 'y'",
    "ALTER TABLE t ALTER COLUMN b SET NOT NULL",
    "ALTER TABLE t RENAME COLUMN b TO c",
    "ALTER TABLE t ADD CONSTRAINT k CHECK (a > 0) NOT VALID",
    "ALTER TABLE t DROP CONSTRAINT positive",
    "ALTER TABLE t VALIDATE CONSTRAINT later",
    "CREATE INDEX j ON t (b)",
    "DROP INDEX i",
    "ALTER INDEX i RENAME TO j",
    "ALTER INDEX i SET (fillfactor = 50)",
    "DROP INDEX i; CREATE INDEX i ON t (b DESC)",
    "DROP INDEX i; CREATE INDEX i ON t (b) WHERE a > 1",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
]  # fmt: skip


@pytest.fixture
def fingerprinted(connection):
    connection.execute(
        "CREATE TABLE t (a int PRIMARY KEY, b text, CONSTRAINT positive CHECK (a > -9)); CREATE TABLE u (a int)"
    )
    connection.execute("CREATE INDEX i ON t (b); ALTER TABLE t ADD CONSTRAINT later CHECK (a > -8) NOT VALID")
    return connection


def fingerprint(connection, *names):
    catalog = read(connection)
    return Catalog.fingerprint(catalog.table("public", name) for name in names)


def test_the_fingerprint_tells_what_ddl_changed(fingerprinted):
    before, other = fingerprint(fingerprinted, "t"), fingerprint(fingerprinted, "u")
    for change in CHANGES:
        with rolled_back(fingerprinted):
            fingerprinted.execute(change)
            assert fingerprint(fingerprinted, "t") != before, change
            assert fingerprint(fingerprinted, "u") == other, change


def test_the_fingerprint_is_the_same_after_data_statistics_and_changes_taken_back(fingerprinted):
    before = fingerprint(fingerprinted, "t", "u")
    fingerprinted.execute("INSERT INTO t SELECT generate_series(1, 9999); ANALYZE t; SET search_path = pg_catalog")
    fingerprinted.execute("ALTER TABLE public.t ADD COLUMN c int; ALTER TABLE public.t DROP COLUMN c")
    fingerprinted.execute("DROP INDEX public.i; CREATE INDEX i ON public.t (b); SET TimeZone = 'Asia/Tokyo'")
    assert fingerprint(fingerprinted, "u", "t") == before
    assert len(before) == 64


def test_the_fingerprint_is_that_of_a_restored_copy(fingerprinted):
    before = fingerprint(fingerprinted, "t")
    fingerprinted.execute("ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b text; CREATE INDEX i ON t (b)")
    assert fingerprint(fingerprinted, "t") == before


def test_values_are_shared_and_frozen(connection):
    connection.execute("CREATE TABLE t (a int PRIMARY KEY); CREATE TABLE u (a int PRIMARY KEY)")
    first, second = read(connection).tables
    assert first.columns[0] is second.columns[0]
    assert first.indexes[0].keys is second.indexes[0].keys
    with pytest.raises(AttributeError):
        first.name = "changed"
