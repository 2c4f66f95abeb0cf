"""Which statements may be executed for measuring, and which are refused however they hide what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook.errors import NotAnalysed
from playbook.plan.admission import admit
from playbook.plan.lexing import lex
from playbook.plan.workload import numbered

Connect = Callable[[], psycopg.Connection[Any]]
Session = psycopg.Connection[Any]

SCHEMA = """
CREATE TABLE t (id int, a text, ts timestamptz, numbers int[]);
CREATE FUNCTION vol(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION stab(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION two(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION of_row(t) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION "Évil one"(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION is_good(int) RETURNS bool LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION added(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SCHEMA other;
CREATE FUNCTION other.hidden(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE OPERATOR @@+ (LEFTARG = int, RIGHTARG = int, FUNCTION = added);
CREATE AGGREGATE total(int) (SFUNC = added, STYPE = int);
CREATE AGGREGATE honest(int) (SFUNC = int4pl, STYPE = int);
CREATE DOMAIN good AS int CHECK (is_good(VALUE));
CREATE DOMAIN better AS good;
CREATE VIEW plain AS SELECT id, now() FROM t;
CREATE VIEW calling AS SELECT vol(id) FROM t;
CREATE VIEW outer_view AS SELECT * FROM calling;
CREATE VIEW adding AS SELECT 1 @@+ 2 FROM t;
CREATE MATERIALIZED VIEW stored AS SELECT vol(id) FROM t;
"""

ADMITTED = [
    "SELECT * FROM t WHERE id = $1 AND a IN ('x', 'y') ORDER BY ts DESC LIMIT 5;",
    "SELECT 1 -- done",
    "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1",
    "WITH x(a, b) AS MATERIALIZED (SELECT id, count(*) FILTER (WHERE a LIKE 'x') FROM t GROUP BY (id)) "
    "SELECT sum(b) OVER (PARTITION BY a) FROM x",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
    "SELECT now(), current_date, date_trunc('day', ts, 'UTC'), coalesce(a, 'x'), extract(epoch FROM ts), row(id, a), "
    "CAST(a AS varchar(20)), id::numeric(10, 2), left(a, 2), array(SELECT 1), nullif(a, 'b'), greatest(id, 1) FROM t",
    "SELECT stab(t.id), honest(t.id) FROM t, plain, stored GROUP BY (1)",
    "SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (1)",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id), string_agg(a, ', ' ORDER BY id) FROM t "
    "GROUP BY GROUPING SETS ((a), (id), ())",
    "SELECT 'vol(1); DELETE FROM t', $$ nextval('x') $$, E'it\\'s; vol(1)' /* vol( /* ; */ ) */ FROM t -- ; DELETE",
    "SELECT x.n FROM generate_series(1, 3) WITH ORDINALITY AS x(n, o) CROSS JOIN LATERAL unnest(ARRAY[1, 2]) AS u(calling)",
    "SELECT calling.id FROM t AS calling WHERE EXISTS (SELECT 1) AND NOT (a IS NULL) AND id BETWEEN (1) AND (2)",
    "SELECT a -> 'b' FROM (SELECT jsonb_build_object('a', a) AS a FROM t WHERE numbers @> '{1}' AND a ~* 'x') AS j",
    "SELECT interval '1 day', t.ts AT TIME ZONE 'UTC', position('a' IN a), substring(a FROM 1 FOR 2), trim(BOTH FROM a) FROM t",
    "SELECT table_name FROM information_schema.tables",
]
NOT_ONE_SELECT = [
    "", ";", "-- x", "/* x */", "VALUES (1)", "TABLE t", "DELETE FROM t", "SET x = 1", "BEGIN", "LOCK t", "NOTIFY x", "CALL f()",
    "DO $$ BEGIN END $$", "COPY t TO PROGRAM 'x'", "COPY (SELECT 1) TO STDOUT", "PREPARE x AS SELECT 1", "EXECUTE x",
    "EXPLAIN SELECT 1", "EXPLAIN ANALYZE DELETE FROM t", "EXPLAIN SELECT 1; COMMIT; DELETE FROM t",
    "SELECT 1; DELETE FROM t", "SELECT 1;;SELECT 2", "SELECT 1 --\n; DELETE FROM t", "SELECT 1 --\r; DELETE FROM t",
    "SELECT/**/1;/**/DELETE/**/FROM t", "SELECT /* /* */ */ 1; DELETE FROM t", "SELECT $$a$$; DELETE FROM t",
    "SELECT $a$ $b$ $a$; DELETE FROM t", "SELECT 'a\\'; DELETE FROM t; --'", "SELECT E'a\\'; --'; DELETE FROM t",
    "SELECT \"a;\"\"\"; DELETE FROM t",
    "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "WITH d AS (SELECT 1) DELETE FROM t", "WITH d AS (INSERT INTO t VALUES (1) RETURNING *) SELECT 1",
    "SELECT * INTO x FROM t", "SELECT * FROM t FOR UPDATE", "SELECT * FROM t FOR NO KEY UPDATE", "SELECT * FROM t FOR SHARE",
]  # fmt: skip
READ_IN_TWO_WAYS = [
    "SELECT U&\"pg_sl\\0065ep\"(1)", "SELECT u&'x'", "SELECT 'a' 'b'", "SELECT E'a'\n'\\'; --'", "SELECT 'a", 'SELECT "a',
    "SELECT $$a", "SELECT $a$ $b$", "SELECT /* 1", "SELECT 1 /* /* */", "SELECT a\\b FROM t", 'SELECT ""', "SELECT 1\x00",
    "SELECT \u20071", "SELECT {x}", "SELECT " + "(" * 20_000 + "1" + ")" * 20_000, "SELECT " + "1+" * 500_000 + "1",
]  # fmt: skip
VOLATILE = [
    "SELECT pg_sleep(1)", "SELECT PG_SLEEP /* x */ (1)", 'SELECT "pg_sleep"(1)', "SELECT pg_catalog . pg_sleep(1)",
    "SELECT nextval('s')", "SELECT set_config('a', 'b', true)", "SELECT pg_terminate_backend(1)", "SELECT lo_unlink(1)",
    "SELECT pg_read_file('x')", "SELECT query_to_xml('SELECT 1', true, true, '')", "SELECT random()", "SELECT clock_timestamp()",
    "SELECT pg_advisory_lock(1)", "SELECT * FROM pg_locks", "SELECT vol(1)", "SELECT (vol)(1), vol(1)", "SELECT two(1)",
    "SELECT of_row(t) FROM t", "SELECT t.of_row FROM t", "SELECT (t).of_row FROM t", "SELECT \"Évil one\"(1)",
    "SELECT other.hidden(1)", 'SELECT "other"."hidden"(1)', "SELECT total(id) FROM t", "SELECT 1 OPERATOR(public.@@+) 2",
    "SELECT 1::good", "SELECT CAST(1 AS better)", "SELECT '{1}'::_good", "SELECT good '1'", "SELECT * FROM calling",
    "SELECT * FROM public.calling", "SELECT * FROM outer_view", "SELECT * FROM adding", "SELECT * FROM t, (SELECT * FROM outer_view) x",
    "SELECT * FROM t JOIN ((calling AS c CROSS JOIN t AS u)) ON true", "SELECT (TABLE calling)", "SELECT ARRAY(SELECT vol(1))",
    "SELECT id FROM t ORDER BY vol(id)", "SELECT id FROM t LIMIT vol(1)", "SELECT * FROM ROWS FROM (vol(1), stab(2)) AS x",
    "SELECT sum(id) OVER (ORDER BY vol(2)) FROM t", "SELECT CASE WHEN false THEN vol(1) END", "SELECT stab(vol(1))",
]  # fmt: skip
OWN_SQL = ["SELECT table_to_xml('calling', true, true, '')", "SELECT database_to_xml(true, true, '')"]
UNKNOWN = ["SELECT nosuch(1)", "SELECT hidden(1)", "SELECT other.stab(1)", "SELECT pg_temp.f(1)"]


@pytest.fixture
def session(scratch: Connect) -> Iterator[Session]:
    with scratch() as connection:
        connection.execute(SCHEMA)
        yield connection


def reason(connection: Session, sql: str) -> str | None:
    """Why a statement is refused; None when it is admitted."""
    try:
        admit(connection, sql)
    except NotAnalysed as error:
        return str(error)
    return None


def test_one_select_that_only_reads_is_admitted(session: Session):
    for sql in ADMITTED:
        assert reason(session, sql) is None, sql
        plannable, _ = numbered(sql.replace("$1", "1"))
        session.execute(f"EXPLAIN {plannable}")  # the list itself is right


def test_only_one_select_is_admitted(session: Session):
    assert [sql for sql in NOT_ONE_SELECT if reason(session, sql) is None] == []


def test_what_could_be_read_in_two_ways_is_refused(session: Session):
    assert [sql[:80] for sql in READ_IN_TWO_WAYS if reason(session, sql) is None] == []


def test_volatile_functions_are_found_wherever_they_hide(session: Session):
    assert [sql for sql in VOLATILE if reason(session, sql) is None] == []
    assert "two(text) is volatile" in str(reason(session, "SELECT two(1)"))
    assert "vol(integer) in the view calling is volatile" in str(reason(session, "SELECT * FROM outer_view"))


def test_functions_that_run_sql_of_their_own_are_refused_though_stable(session: Session):
    assert [sql for sql in OWN_SQL if "runs SQL of its own" not in str(reason(session, sql))] == []


def test_unknown_functions_are_refused(session: Session):
    assert [sql for sql in UNKNOWN if "the target has no function" not in str(reason(session, sql))] == []
    session.execute("SET search_path = other, public")
    assert "other.hidden(integer) is volatile" in str(reason(session, "SELECT hidden(1)")).replace(
        "hidden(", "other.hidden(", 1
    )


def test_extensions_that_reach_further_are_refused(session: Session):
    session.execute("CREATE EXTENSION dblink; CREATE EXTENSION tablefunc; CREATE EXTENSION pg_stat_statements")
    for sql in (
        "SELECT dblink('dbname=x', 'DELETE FROM t')",
        "SELECT * FROM dblink_exec('dbname=x', 'DELETE FROM t')",
        "SELECT * FROM crosstab('SELECT dblink_exec($$$$, $$$$)') AS c(a int, b int)",
        "SELECT * FROM connectby('t', 'a', 'b', 'c', 0) AS c(a int)",
        "SELECT * FROM pg_stat_statements",
    ):
        assert reason(session, sql), sql


def test_foreign_tables_are_refused_also_as_partitions_and_behind_views(session: Session):
    session.execute(
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE remote (id int) SERVER far; CREATE VIEW far_view AS SELECT * FROM remote;"
        "CREATE TABLE parts (id int) PARTITION BY LIST (id); CREATE TABLE near PARTITION OF parts FOR VALUES IN (1)"
    )
    assert reason(session, "SELECT * FROM parts") is None
    session.execute("CREATE FOREIGN TABLE farther PARTITION OF parts FOR VALUES IN (2) SERVER far")
    for sql in ("SELECT * FROM remote", "SELECT * FROM far_view", "SELECT id FROM parts"):
        assert "is a foreign table" in str(reason(session, sql)), sql


def test_row_security_that_calls_volatile_functions_is_refused_where_it_is_active(session: Session):
    session.execute(
        "CREATE TABLE secured (id int); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY p ON secured USING (is_good(id)); GRANT SELECT ON secured TO pg_read_all_stats"
    )
    assert reason(session, "SELECT * FROM secured") is None  # the superuser is exempt
    session.execute("SET ROLE pg_read_all_stats")
    assert "is_good(integer) in the row security of secured" in str(reason(session, "SELECT * FROM secured"))


def test_volatile_casts_and_comparisons_are_refused(session: Session):
    session.execute(
        "CREATE TYPE kind AS ENUM ('a'); CREATE FUNCTION to_kind(text) RETURNS kind LANGUAGE sql AS 'SELECT NULL::kind';"
        "CREATE CAST (text AS kind) WITH FUNCTION to_kind(text)"
    )
    assert "the cast from text to kind calls to_kind(text)" in str(reason(session, "SELECT a::kind FROM t"))
    assert reason(session, "SELECT a FROM t") is None
    session.execute("DROP CAST (text AS kind); CREATE CAST (text AS kind) WITH FUNCTION to_kind(text) AS IMPLICIT")
    assert reason(session, "SELECT a FROM t")
    session.execute(
        "DROP CAST (text AS kind); CREATE FUNCTION same(text, int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
        "CREATE OPERATOR = (LEFTARG = text, RIGHTARG = int, FUNCTION = same)"
    )
    assert "the operator =(text,integer) calls same(text,integer)" in str(reason(session, "SELECT a IN (1) FROM t"))


def test_backslashes_are_refused_where_strings_escape_by_them(session: Session):
    assert reason(session, "SELECT 'a\\'") is None
    session.execute("SET standard_conforming_strings = off")
    assert "a backslash" in str(reason(session, "SELECT 'a\\', 1"))
    assert reason(session, "SELECT 'a', E'\\''") is None


def test_nothing_is_executed_or_left_behind(session: Session):
    session.execute("CREATE SEQUENCE s")
    for sql in ("SELECT nextval('s')", *ADMITTED):
        reason(session, sql)
    assert session.execute("SELECT is_called FROM s").fetchone() == (False,)
    assert session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


# PostgreSQL's lexical rules

PARTS = [
    "a", "B1", '"x;y"', '"a""b"', "'it''s;'", "E'it\\'s;'", "$$;$$", "$t$;$$;$t$", "/* ; /* ; */ */", "-- ;\n", "1.5e3", "$1",
    "é", ".5", "::", "<=", "->>", "||", "x'ff'", " \t\n", "(", ")", "[", ",",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=12))
def test_no_semicolon_of_a_string_name_or_comment_is_taken_for_one(parts: list[str]):
    lexemes = lex(" 1 ".join(parts))
    assert not any(lexeme.kind == "mark" and lexeme.text == ";" for lexeme in lexemes)
    assert [each.text for each in lex(" 1 ".join([*parts, " ; "]))][-1] == ";"


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str):
    try:
        lexemes = lex(text)
    except NotAnalysed:
        return
    assert all(0 <= lexeme.start < len(text) for lexeme in lexemes)
