"""Covered, the same, redundant: judged from the catalog, held against what PostgreSQL itself plans."""

import re
from dataclasses import replace

import psycopg
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from playbook.changes.covering import WantedIndex, WantedKey, covered_by, redundant, same_definition, why_not
from playbook.changes.expressions import same_expression
from playbook.target.catalog import read
from playbook.target.sql import quote

TABLE = """
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE TABLE t (
  a int, b int, n numeric, f float8, s text, v varchar(20), c text COLLATE "C", at timestamptz, local timestamp,
  kind varchar(9), ok boolean, mood mood, tags text[], "userId" int
);
"""
DESC = {"descending": True}


def key(column=None, **rest):
    return WantedKey(column=column, **rest)


def wanted(*keys, **rest):
    keys = tuple(each if isinstance(each, WantedKey) else key(each) for each in keys)
    return WantedIndex(**{"name": "wanted", "table": "public.t", "method": "btree", "keys": keys, **rest})


def create(index, name):
    include = f" INCLUDE ({', '.join(map(quote, index.include))})" if index.include else ""
    where = f" WHERE {index.predicate}" if index.predicate else ""
    unique = "UNIQUE " if index.unique else ""
    keys = ", ".join(each.key_sql() for each in index.keys)
    return f"CREATE {unique}INDEX {quote(name)} ON {index.table} USING {index.method} ({keys}){include}{where}"


@pytest.fixture
def connection(scratch):
    connection = scratch()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(TABLE)
    return connection


@pytest.fixture
def table(connection):
    return read(connection).table("public", "t")


@pytest.fixture
def with_table(connection):
    """The table after some DDL."""

    def after(ddl, name="t"):
        connection.execute(ddl)
        return read(connection).table("public", name)

    return after


@pytest.fixture
def would_be(connection):
    """The table as it would be after some DDL, which is rolled back."""

    def after(ddl):
        with connection.transaction(force_rollback=True):
            connection.execute(ddl)
            return read(connection).table("public", "t")

    return after


COVERED = [
    ("(a)", wanted("a")),
    ("(a, b)", wanted("a")),
    ("(a, b, n)", wanted("a", "b")),
    ("(a DESC, b)", wanted("a", key("b", descending=True))),
    ("(a DESC NULLS LAST)", wanted(key("a", nulls_first=True))),
    ("(a, b DESC)", wanted(key("a", nulls_first=False), key("b", descending=True, nulls_first=True))),
    ("(a, b)", wanted("a", include=("b",))),
    ("(a) INCLUDE (b, n)", wanted("a", include=("n", "b"))),
    ("(b, a) INCLUDE (n)", wanted("b", include=("a", "n"))),
    ("(a)", wanted("a", predicate="b > 5")),
    ("(a) INCLUDE (b, n)", wanted("a", include=("n",), predicate="b > 5")),
    ("(a) WHERE b > 5", wanted("a", predicate="(b > 5)")),
    ("(a) WHERE kind IN ('x', 'y')", wanted("a", predicate="kind in ('x','y')")),
    ("(a) WHERE kind NOT IN ('x', 'y')", wanted("a", predicate="kind not in ('x', 'y')")),
    ("(a) WHERE n BETWEEN -1 AND 2.5", wanted("a", predicate="n >= -1 AND n <= 2.5")),
    ("(a) WHERE mood = 'wild'", wanted("a", predicate="mood = 'wild'")),
    ("(a) WHERE at >= '2024-01-01'", wanted("a", predicate="at >= '2024-01-01'")),
    ("(a) WHERE \"userId\" IS NOT NULL", wanted("a", predicate='t."userId" is not null')),
    ("(lower(v))", wanted(key(expression="lower(v)"))),
    ("(lower(s), a)", wanted(key(expression="LOWER( s )"))),
    ("((a + b * 2))", wanted(key(expression="a + (b * 2)"))),
    ("(date_trunc('day', local))", wanted(key(expression="date_trunc('day', local)"))),
    ("(a)", wanted(key(expression="a"))),
    ("(s text_pattern_ops)", wanted(key("s", opclass="text_pattern_ops"))),
    ("(s text_pattern_ops)", wanted(key("s", opclass="pg_catalog.text_pattern_ops"))),
    ("(v text_pattern_ops)", wanted(key("v", opclass="varchar_pattern_ops"))),
    ("(s)", wanted(key("s", opclass="text_ops"))),
    ('(s COLLATE "C")', wanted(key("s", collation="C"))),
    ('(s COLLATE "C")', wanted(key("s", collation='pg_catalog."C"'))),
    ("(c)", wanted(key("c", collation="C"))),
    ('(c COLLATE "C")', wanted("c")),
    ('("userId")', wanted("userId")),
    ("USING hash (a)", wanted("a", method="hash")),
    ("USING gin (tags)", wanted("tags", method="gin")),
]  # fmt: skip
NOT_COVERED = [
    ("(b, a)", wanted("a"), "begin with the same keys"),
    ("(a)", wanted("a", "b"), "begin with the same keys"),
    ("(a, n, b)", wanted("a", "b"), "begin with the same keys"),
    ("(a, b)", wanted("a", key("b", descending=True)), "another order"),
    ("(a DESC, b)", wanted("a", "b"), "another order"),
    ("(a)", wanted(key("a", nulls_first=True)), "another order"),
    ("(a DESC NULLS LAST, b DESC)", wanted("a", "b"), "another order"),
    ("(a)", wanted("a", include=("b",)), "does not hold b"),
    ("(a) INCLUDE (n)", wanted("a", include=("n",), predicate="b > 5"), "does not hold b"),
    ("(a) WHERE b > 5", wanted("a"), "only rows where (b > 5)"),
    ("(a) WHERE b > 5", wanted("a", predicate="b > 6"), "only rows where"),
    ("(a) WHERE b > 5", wanted("a", predicate="b > 5 AND n > 0"), "only rows where"),
    ("(a) WHERE (b > 5 OR n > 5) AND f > 0", wanted("a", predicate="b > 5 OR n > 5 AND f > 0"), "only rows where"),
    ("(a) WHERE a::text = '5'", wanted("a", predicate="a = '5'"), "only rows where"),
    ("(a) WHERE (@ a) + b > 5", wanted("a", predicate="@ a + b > 5"), "only rows where"),
    ("(a) WHERE ok = (ok IS NULL)", wanted("a", predicate="ok = ok IS NULL"), "only rows where"),
    ("(a) WHERE kind = 'X'", wanted("a", predicate="kind = 'x'"), "only rows where"),
    ("(a) WHERE at >= '2024-01-01 01:00+00'", wanted("a", predicate="at >= '2024-01-01'"), "only rows where"),
    ("(upper(s))", wanted(key(expression="lower(s)")), "same keys"),
    ("(mod(a, b))", wanted(key(expression="a % b")), "same keys"),
    ("(substr(s, 1, 3))", wanted(key(expression="substring(s, 1, 3)")), "same keys"),
    ("(char_length(s))", wanted(key(expression="length(s)")), "same keys"),
    ("(date_part('year', local))", wanted(key(expression="extract(year FROM local)")), "same keys"),
    ("((a + b) )", wanted(key(expression="a - b")), "same keys"),
    ("(((a + b) * 2))", wanted(key(expression="a + b * 2")), "same keys"),
    ("(lower(s))", wanted("s"), "same keys"),
    ("(s)", wanted(key("s", opclass="text_pattern_ops")), "same keys"),
    ("(s text_pattern_ops)", wanted("s"), "same keys"),
    ("(s)", wanted(key("s", collation="C")), "same keys"),
    ('(s COLLATE "C")', wanted("s"), "same keys"),
    ('(lower(s) COLLATE "C")', wanted(key(expression="lower(s)")), "same keys"),
    ("USING hash (a)", wanted("a"), "is a hash index, not btree"),
    ("(a)", wanted("a", method="hash"), "is a btree index, not hash"),
    ("USING gin (tags)", wanted("tags", method="gist"), "is a gin index"),
]  # fmt: skip


def test_covered(would_be):
    for stands, index in COVERED:
        table = would_be(f"CREATE INDEX standing ON t {stands}")
        assert (stands, why_not(index, table.indexes[0], table)) == (stands, "")
        assert covered_by(index, table) is table.indexes[0]


def test_not_covered_and_why(would_be):
    for stands, index, reason in NOT_COVERED:
        table = would_be(f"CREATE INDEX standing ON t {stands}")
        assert covered_by(index, table) is None, stands
        assert reason in why_not(index, table.indexes[0], table), stands


UNIQUE = [
    ("CREATE UNIQUE INDEX ON t (a, b)", wanted("a", "b", unique=True), ""),
    ("CREATE UNIQUE INDEX ON t (a DESC, b DESC)", wanted("a", "b", unique=True), ""),
    ("CREATE UNIQUE INDEX ON t (a) INCLUDE (b)", wanted("a", unique=True), ""),
    ("ALTER TABLE t ADD PRIMARY KEY (a, b)", wanted("a", "b", unique=True), ""),
    ("CREATE UNIQUE INDEX ON t (a, b)", wanted("a"), ""),
    ("ALTER TABLE t ADD UNIQUE (a) DEFERRABLE", wanted("a"), ""),
    ("CREATE UNIQUE INDEX ON t (a) WHERE b > 5", wanted("a", unique=True, predicate="b > 5"), ""),
    ("CREATE INDEX ON t (a, b)", wanted("a", "b", unique=True), "is not unique"),
    ("CREATE UNIQUE INDEX ON t (a, b)", wanted("a", unique=True), "more columns"),
    ("CREATE UNIQUE INDEX ON t (b, a)", wanted("a", "b", unique=True), "same keys"),
    ("CREATE UNIQUE INDEX ON t (a)", wanted("a", "b", unique=True), "same keys"),
    ("ALTER TABLE t ADD UNIQUE (a) DEFERRABLE", wanted("a", unique=True), "another way"),
    ("CREATE UNIQUE INDEX ON t (a) WHERE b > 5", wanted("a", unique=True), "other rows"),
    ("CREATE UNIQUE INDEX ON t (a)", wanted("a", unique=True, predicate="b > 5"), "other rows"),
]


def test_a_wanted_unique_index_is_covered_by_an_equally_unique_one_only(would_be):
    for ddl, index, reason in UNIQUE:
        table = would_be(ddl)
        (standing,) = table.indexes
        assert covered_by(index, table) is (None if reason else standing), ddl
        assert reason in why_not(index, standing, table), ddl


def test_nulls_not_distinct_is_part_of_being_unique(connection, with_table):
    if connection.info.server_version < 150000:
        pytest.skip("NULLS NOT DISTINCT came with PostgreSQL 15")
    table = with_table("CREATE UNIQUE INDEX ON t (a) NULLS NOT DISTINCT")
    assert covered_by(wanted("a", unique=True), table) is None
    assert covered_by(wanted("a", unique=True, nulls_not_distinct=True), table)
    assert covered_by(wanted("a"), table)


def test_an_index_whose_build_did_not_end_covers_nothing(connection, with_table):
    connection.execute("INSERT INTO t (a) VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY ON t (a)")
    table = with_table("SELECT")
    assert covered_by(wanted("a"), table) is None
    assert "not valid" in why_not(wanted("a"), table.indexes[0], table)


def test_on_a_partitioned_table_an_index_covers_once_every_partition_has_its_part(with_table):
    index = wanted("a", table="public.p")
    table = with_table(
        "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); CREATE INDEX whole ON ONLY p (a)",
        "p",
    )
    assert covered_by(index, table) is None
    table = with_table("CREATE INDEX part ON p1 (a); ALTER INDEX whole ATTACH PARTITION part", "p")
    assert covered_by(index, table).name == "whole"


def test_a_partition_is_covered_by_its_part_of_the_whole_index(with_table):
    table = with_table(
        "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); CREATE INDEX ON p (a, b)",
        "p1",
    )
    assert covered_by(wanted("a", table="public.p1"), table).name == "p1_a_b_idx"


def test_an_heirs_index_does_not_cover_its_parent(with_table):
    table = with_table("CREATE TABLE heir () INHERITS (t); CREATE INDEX ON heir (a)")
    assert covered_by(wanted("a"), table) is None


def test_of_several_the_narrowest_is_named(with_table):
    table = with_table("CREATE INDEX x ON t (a, b, n); CREATE INDEX y ON t (a, b); CREATE INDEX z ON t (a, b)")
    assert covered_by(wanted("a"), table).name == "y"


SAME = [
    wanted("a", key("b", descending=True), include=("n", "s"), predicate="kind = 'x' AND ok"),
    wanted(key(expression="lower(v)", collation="C", opclass="text_pattern_ops"), key("a", nulls_first=True)),
    wanted(key("a", descending=True, nulls_first=False), unique=True),
    wanted("userId"),
    wanted("tags", method="gin"),
    wanted(key(expression="coalesce(n, -1)"), predicate="at >= '2024-02-03 04:05'"),
]
OTHER = [
    (wanted("a", "b"), wanted("b", "a")),
    (wanted("a", "b"), wanted("a")),
    (wanted("a"), wanted("a", "b")),
    (wanted("a"), wanted(key("a", descending=True))),
    (wanted("a"), wanted("a", unique=True)),
    (wanted("a", unique=True), wanted("a")),
    (wanted("a"), wanted("a", include=("b",))),
    (wanted("a", include=("b",)), wanted("a")),
    (wanted("a"), wanted("a", predicate="b > 5")),
    (wanted("a", predicate="b > 5"), wanted("a")),
    (wanted("a", predicate="b > 5"), wanted("a", predicate="b > 6")),
    (wanted("s"), wanted(key("s", opclass="text_pattern_ops"))),
    (wanted("s"), wanted(key("s", collation="C"))),
    (wanted("a"), wanted("a", method="hash")),
    (wanted("a"), wanted("a", table="public.u")),
]


def test_an_index_made_as_wanted_has_the_same_definition(would_be):
    for index in SAME:
        table = would_be(create(index, "standing"))
        assert same_definition(index, table.indexes[0], table), table.indexes[0].definition


def test_another_index_has_another_definition(would_be):
    for stands, index in OTHER:
        table = would_be(create(stands, "standing"))
        assert not same_definition(index, table.indexes[0], table), table.indexes[0].definition


def test_without_its_table_an_index_is_the_same_as_long_as_the_server_casts_no_column(with_table):
    plain, cast = wanted("a", predicate="s = 'x'"), wanted("b", predicate="kind = 'x'")
    table = with_table(f"{create(plain, 'one')}; {create(cast, 'two')}")
    assert same_definition(plain, table.indexes[0])
    assert not same_definition(cast, table.indexes[1])
    assert same_definition(cast, table.indexes[1], table)


def test_a_broken_build_has_the_definition_of_what_was_built(connection, with_table):
    connection.execute("INSERT INTO t (a) VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY standing ON t (a)")
    table = with_table("SELECT")
    assert same_definition(wanted("a", unique=True), table.indexes[0], table)


def told_redundant(table):
    return {index.name: (keeper.name, how) for index, keeper, how in redundant(table)}


def test_redundant_indexes_are_told_with_the_one_to_keep(with_table):
    table = with_table(
        "CREATE INDEX short ON t (a); CREATE INDEX middle ON t (a, b); CREATE INDEX long ON t (a, b, n DESC);"
        "CREATE INDEX back ON t (a DESC, b DESC); CREATE INDEX other ON t (b)"
    )
    assert told_redundant(table) == {
        "short": ("long", "(a) is what long begins with"),
        "middle": ("long", "(a, b) is what long begins with"),
        "back": ("long", "(a DESC, b DESC) is what long begins with, read backward"),
    }


def test_of_two_equal_indexes_one_stays(with_table):
    table = with_table("CREATE INDEX x ON t (a); CREATE INDEX y ON t (a); CREATE INDEX z ON t (a DESC)")
    assert told_redundant(table) == {
        "y": ("x", "(a) is what x holds"),
        "z": ("x", "(a DESC) is what x holds, read backward"),
    }


def test_what_makes_unique_or_backs_a_constraint_stays_and_is_the_one_to_keep(with_table):
    table = with_table(
        "ALTER TABLE t ADD PRIMARY KEY (a); CREATE UNIQUE INDEX a_b ON t (a, b); CREATE INDEX plain ON t (a);"
        "CREATE UNIQUE INDEX identity ON t (a); ALTER TABLE t REPLICA IDENTITY USING INDEX identity;"
        "CREATE INDEX also ON t (a, b, n)"
    )
    assert told_redundant(table) == {"plain": ("a_b", "(a) is what a_b begins with")}


NOT_REDUNDANT = [
    "CREATE INDEX x ON t (a) WHERE b > 5; CREATE INDEX y ON t (a)",
    "CREATE INDEX x ON t (a) INCLUDE (b); CREATE INDEX y ON t (a, n)",
    "CREATE INDEX x ON t (s); CREATE INDEX y ON t (s text_pattern_ops)",
    "CREATE INDEX x ON t (a); CREATE INDEX y ON t USING hash (a)",
    "CREATE INDEX x ON t (a); CREATE INDEX y ON t (a); UPDATE pg_index SET indisvalid = false"
    " WHERE indexrelid = 'y'::regclass",
    "CREATE INDEX x ON t (a, b); CREATE INDEX y ON t (a, b DESC)",
]


def test_indexes_that_each_serve_something_are_not_redundant(would_be):
    for ddl in NOT_REDUNDANT:
        assert told_redundant(would_be(ddl)) == {}, ddl


def test_partitions_have_no_redundant_parts_of_their_own_but_the_whole_is_told(with_table):
    ddl = (
        "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a); CREATE INDEX x ON p (a); CREATE INDEX y ON p (a, b);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9)"
    )
    assert told_redundant(with_table(ddl, "p1")) == {}
    assert set(told_redundant(with_table("SELECT", "p"))) == {"x"}


@pytest.mark.parametrize(
    ("written", "sql"),
    [
        (key("a"), "a"),
        (key("userId", descending=True), '"userId" DESC'),
        (key("a", descending=True, nulls_first=True), "a DESC"),
        (key("a", descending=True, nulls_first=False), "a DESC NULLS LAST"),
        (key("a", nulls_first=True), "a NULLS FIRST"),
        (key(expression="lower(s)", collation="C", opclass="text_ops"), '(lower(s)) COLLATE "C" text_ops'),
        (key("s", collation="en_US.utf8"), 's COLLATE "en_US.utf8"'),
        (key("s", collation='pg_catalog."C"', opclass="ext.gin_trgm_ops"), 's COLLATE pg_catalog."C" ext.gin_trgm_ops'),
    ],
)
def test_keys_are_written_as_create_index_takes_them(written, sql):
    assert written.key_sql() == sql


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"column": "a", "expression": "b"},
        {"column": "a", "opclass": "x.y; DROP"},
        {"column": "a", "collation": '"'},
    ],
)
def test_a_key_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=r"not a name|either a column or an expression"):
        WantedKey(**wrong)


# --- against the planner ------------------------------------------------------------------------------------------

# What a query compares each key with: found again in the plan's Index Cond.
BASES = {
    "a": "1001", "b": "1002", "n": "1003.5", "s": "'k4'", "v": "'k5'", "c": "'k6'", "at": "'2031-07-07 00:00:00+00'",
    "lower(s)": "'k8'", "lower(v)": "'k9'", "a + b": "1010", "coalesce(n, -1)": "1011.5",
    "date_trunc('day', local)": "'2031-12-12 00:00:00'",
}  # fmt: skip
TEXTUAL = {"s", "v", "c", "lower(s)", "lower(v)"}
PREDICATES = [
    None, "n IS NOT NULL", "a > 5", "kind = 'x'", "kind IN ('x', 'y')", "ok", "at >= '2024-01-01'",
    "f BETWEEN -1 AND 2.5", "mood <> 'calm' OR f > 3",
]  # fmt: skip
PLANNING = """
SET enable_seqscan = off; SET enable_sort = off; SET enable_incremental_sort = off; SET enable_bitmapscan = off;
SET jit = off; SET max_parallel_workers_per_gather = 0;
INSERT INTO t (a, b, n, s, v, c, at, kind, ok, mood)
SELECT nullif(i % 50, 0), i % 7, i, i::text, i::text, i::text, now(), 'x', true, 'wild' FROM generate_series(1, 200) i;
VACUUM ANALYZE t;
"""


@st.composite
def keys(draw, base):
    textual = base in TEXTUAL
    return WantedKey(
        column=base if base.isidentifier() else None,
        expression=None if base.isidentifier() else base,
        descending=draw(st.booleans()),
        nulls_first=draw(st.sampled_from([None, True, False])),
        opclass=draw(st.sampled_from([None, None, "text_pattern_ops"])) if textual else None,
        collation=draw(st.sampled_from([None, None, "C"])) if textual else None,
    )


def base_of(each):
    return each.column or each.expression


@st.composite
def indexes(draw):
    bases = draw(st.lists(st.sampled_from(list(BASES)), min_size=1, max_size=3, unique=True))
    return wanted(
        *(draw(keys(base)) for base in bases),
        include=tuple(draw(st.lists(st.sampled_from(["userId", "f", "b"]), max_size=2, unique=True))),
        predicate=draw(st.sampled_from(PREDICATES)),
    )


def turned_round(each):
    return replace(each, descending=not each.descending, nulls_first=not each.puts_nulls_first)


@st.composite
def standing_beside(draw, index):
    """An index much like `index`: alike, wider, turned round, or different in one respect."""
    changed = list(index.keys)
    place = draw(st.integers(0, len(changed) - 1))
    include, predicate = index.include, index.predicate
    respects = ["nothing", "nulls", "one", "swap", "shorter", "include", "predicate", "full"]
    textual = next((place for place, each in enumerate(changed) if base_of(each) in TEXTUAL), None)
    match draw(
        st.sampled_from(respects if textual is None else [*respects, "class", "class", "collation", "collation"])
    ):
        case "nulls":
            changed[place] = replace(changed[place], nulls_first=not changed[place].puts_nulls_first)
        case "class":
            opclass = None if changed[textual].opclass else "text_pattern_ops"
            changed[textual] = replace(changed[textual], opclass=opclass)
        case "collation":
            changed[textual] = replace(changed[textual], collation=None if changed[textual].collation else "C")
        case "one":
            changed[place] = turned_round(changed[place])
        case "swap":
            changed = changed[1:] + changed[:1]
        case "shorter":
            changed = changed[: max(1, len(changed) - 1)]
        case "include":
            include = include[1:]
        case "predicate":
            predicate = draw(st.sampled_from(PREDICATES))
        case "full":
            predicate = None
    if draw(st.booleans()):
        changed = [turned_round(each) for each in changed]
    others = st.sampled_from([base for base in BASES if base not in map(base_of, changed)])
    changed += [draw(keys(base)) for base in draw(st.lists(others, max_size=2, unique=True))]
    return replace(index, keys=tuple(changed), include=include, predicate=predicate)


def operand(each):
    return f"({base_of(each)})" + (f' COLLATE "{each.collation}"' if each.collation else "")


def order_by(each, backward):
    descending, nulls_first = each.descending != backward, each.puts_nulls_first != backward
    less, greater = ("~<~", "~>~") if each.opclass else ("<", ">")
    return f"{operand(each)} USING {greater if descending else less} NULLS {'FIRST' if nulls_first else 'LAST'}"


def queries(index):
    """What an index is wanted for: its first keys compared, the rest ordered by, either way round."""
    for compared in range(len(index.keys) + 1):
        conditions = [f"{operand(each)} = {BASES[base_of(each)]}" for each in index.keys[:compared]]
        conditions += [f"({index.predicate})"] if index.predicate else []
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        for backward in (False, True) if compared < len(index.keys) else (False,):
            order = ", ".join(order_by(each, backward) for each in index.keys[compared:])
            columns = [each.column for each in index.keys if each.column] if index.include else []
            shown = ", ".join(map(quote, [*columns, *index.include])) or "1"
            yield f"SELECT {shown} FROM t{where}{f' ORDER BY {order}' if order else ''}", index.keys[:compared]


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def planned(connection, query):
    ((plan,),) = connection.execute(f"EXPLAIN (FORMAT JSON, COSTS OFF) {query}").fetchone()
    return list(nodes(plan["Plan"]))


def served(connection, index):
    """For each query that `index` is wanted for: whether an index finds the rows, by all comparisons, in the order, and
    (where it has a payload) holds all that is asked for."""
    for query, compared in queries(index):
        plan = planned(connection, query)
        condition = " ".join(node.get("Index Cond", "") for node in plan)
        yield any("Index Name" in node for node in plan)
        yield all(BASES[base_of(each)] in condition for each in compared)
        yield not any("Sort" in node["Node Type"] for node in plan)
        if index.include:
            connection.execute("SET LOCAL enable_indexscan = off")
            yield any(node["Node Type"] == "Index Only Scan" for node in planned(connection, query))
            connection.execute("SET LOCAL enable_indexscan = on")


def served_by(connection, stands, index):
    """The table with `stands` alone on it, and how that serves the queries of `index`."""
    with connection.transaction(force_rollback=True):
        connection.execute(create(stands, "standing"))
        return read(connection).table("public", "t"), list(served(connection, index))


@pytest.fixture
def planning(connection):
    for statement in PLANNING.split(";"):
        connection.execute(statement)
    return connection


def decidable(index, stands, table):
    """Whether a plan must show what is missing. Not where one predicate may imply the other, which the planner proves
    and we do not try to, nor with a payload beside expressions, which it never reads without the table."""
    implied = index.predicate and stands.predicate and index.predicate != stands.predicate
    payload = "not hold" in why_not(index, table.indexes[0], table) and any(each.expression for each in index.keys)
    return not implied and not payload


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), index=indexes())
def test_what_is_covered_the_planner_serves_as_well_and_what_is_not_it_does_not(planning, data, index):
    stands = data.draw(standing_beside(index))
    _, with_wanted = served_by(planning, index, index)
    table, with_standing = served_by(planning, stands, index)
    covers = covered_by(index, table) is not None
    event("covered" if covers else "not covered")
    worse = list(map(int.__lt__, with_standing, with_wanted))
    if covers:
        assert not any(worse)
    elif decidable(index, stands, table):
        assert any(worse)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=indexes())
def test_every_index_that_is_made_as_wanted_is_recognised(connection, index):
    with connection.transaction(force_rollback=True):
        connection.execute(create(index, "standing"))
        table = read(connection).table("public", "t")
    assert same_definition(index, table.indexes[0], table)
    assert covered_by(index, table) is table.indexes[0]


# --- against the server's own form of an expression ---------------------------------------------------------------

NUMBERS = st.sampled_from(["a", "b", "n", "f", '"userId"', "1", "-1", "2.5", "(a)", "abs(a)", "abs(-1)"])
TEXTS = st.sampled_from(["s", "v", "kind", "'x'", "'1'", "'2024-01-01'", "lower(v)", "'x'::text", "s || v", "a::text"])
TIMES = st.sampled_from(["at", "'2024-01-01'::timestamptz", "'2024-01-01 00:00:00+00'", "'2024-01-01'"])
SUMS = st.builds("{} {} {}".format, NUMBERS, st.sampled_from(["+", "-", "*", "%"]), NUMBERS) | NUMBERS
COMPARED = st.sampled_from(["=", "<>", "<", ">="])
AMONG = st.sampled_from(["IN", "NOT IN"])
CONDITIONS = st.recursive(
    st.builds("{} {} {}".format, SUMS | st.builds("({})".format, SUMS), COMPARED, SUMS)
    | st.builds("{} {} {}".format, TEXTS, COMPARED | st.sampled_from(["LIKE", "NOT LIKE"]), TEXTS)
    | st.builds("at {} {}".format, COMPARED, TIMES)
    | st.builds("{} {} ({})".format, NUMBERS, AMONG, st.sampled_from(["1", "1, -2", "a, 2"]))
    | st.builds("kind {} ('x', 'y')".format, AMONG)
    | st.builds("{} BETWEEN {} AND {}".format, NUMBERS, NUMBERS, NUMBERS)
    | st.builds("{} IS {} NULL".format, SUMS | TEXTS, st.sampled_from(["", "NOT"]))
    | st.sampled_from(["ok", "ok IS TRUE", "mood = 'calm'", "mood IN ('calm', 'wild')"])
    | st.sampled_from(["ok = (ok IS NULL)", "(ok = ok) IS NULL", "(@ a) + b > 5", "@ (a + b) > 5"]),
    lambda inner: st.builds("{} {} {}".format, inner, st.sampled_from(["AND", "OR"]), inner)
    | st.builds("({})".format, inner)
    | st.builds("NOT {}".format, inner)
    | st.builds("({}) IS NOT NULL".format, inner),
    max_leaves=3,
)  # fmt: skip


def stored(connection, condition):
    """The condition as the server keeps it, None where it refuses it."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(f"ALTER TABLE t ADD CONSTRAINT k CHECK ({condition})")
            ((text,),) = connection.execute(
                "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = 'k'"
            ).fetchall()
            return text
    except psycopg.Error:
        return None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), one=CONDITIONS)
def test_expressions_taken_for_the_same_are_the_same_to_the_server(connection, table, data, one):
    other = data.draw(st.just(one) | CONDITIONS | st.just(one.replace("(", "").replace(")", "")))
    first, second = stored(connection, one), stored(connection, other)
    assume(first is not None and second is not None)
    same = same_expression(one, second, table) or same_expression(other, first, table)
    event("taken for the same" if same else "not taken for the same")
    if same:
        assert outside_in(first) == outside_in(second)


def outside_in(text):
    """NOT … = ANY as <> ALL: the one is what the server keeps of NOT kind IN, the other of kind NOT IN."""
    return re.sub(r"\(NOT \((\S+) = ANY (\(+ARRAY\[[^]]*\](?:\)::text\[\])?\))\)\)", r"(\1 <> ALL \2)", text)
