"""The plan's names on targets that name things otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlglot import exp, parse_one

from playbook.errors import Ambiguous, NotFound, PlanError, UsageError
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Column, Table, read
from playbook.target.sql import quote

Connect = Callable[[], psycopg.Connection[Any]]


def table(name: str, *columns: str, kind: str = "r") -> Table:
    """`table("app.Users", "id", "tags:text[]")`; without a schema it is in public."""
    schema, _, name = ("public." + name if "." not in name else name).partition(".")
    described = []
    for position, column in enumerate(columns, start=1):
        bare, _, type_ = column.partition(":")
        described.append(Column(bare, type_ or "text", False, None, "", "", position))
    return Table(
        schema, name, kind, "owner", "p", tuple(described), (), (), 10.0, 8192, None, None, None, False, "d"
    )  # fmt: skip


def names(*tables: Table, path: tuple[str, ...] = ("public",), user: Any = {}, plan: Any = {}) -> Names:
    return Names(Catalog(180000, "db", path, tables), user, plan)


PRISMA = names(
    table("User", "id", "userId", "fullName", "createdAt", "user", "type"),
    table("OrderItem", "id", "userId", "unitPrice", "createdAt", "timestamp", "Tags:text[]"),
    table("proposals", "id", "status", "created_at", "value"),
    user={"users": "User", "order_items": "OrderItem"},
)


# Resolution of relations


def test_an_exact_name_wins_over_one_that_differs_in_case_and_underscores():
    assert names(table("audit_logs"), table("AuditLogs")).relation("audit_logs").name == "audit_logs"


def test_a_name_without_case_and_underscores_is_taken_where_there_is_one():
    assert names(table("AuditLogs"), table("users")).relation("audit_logs").name == "AuditLogs"


def test_two_such_names_in_one_schema_are_an_error_that_lists_them():
    with pytest.raises(Ambiguous, match=r'public\."AuditLogs" and public\.auditlogs may be meant by audit_logs'):
        names(table("AuditLogs"), table("auditlogs")).relation("audit_logs")


def test_the_first_schema_of_the_search_path_that_has_a_candidate_wins():
    found = names(table("b.AuditLogs"), table("a.auditlogs"), path=("a", "b"))
    assert found.relation("audit_logs").schema == "a"


def test_an_exact_name_further_down_the_search_path_wins_over_a_near_one():
    found = names(table("a.AuditLogs"), table("b.audit_logs"), path=("a", "b"))
    assert found.relation("audit_logs").schema == "b"


def test_a_relation_outside_the_search_path_is_suggested_but_not_taken():
    with pytest.raises(NotFound, match=r'outside the search_path \(public\): app\."AuditLogs"; map it: --map audit'):
        names(table("app.AuditLogs")).relation("audit_logs")


def test_a_schema_in_the_plan_is_looked_at_alone():
    found = names(table("public.logs"), table("App.logs"))
    assert found.relation("app.logs").schema == "App"
    with pytest.raises(NotFound):
        found.relation("other.logs")


@pytest.mark.parametrize(
    ("plan", "target"),
    [("proposals", "Proposal"), ("category", "Categories"), ("box", "boxes"), ("proposal", "propsals")],
)
def test_singulars_plurals_and_near_spellings_are_only_suggested(plan: str, target: str):
    with pytest.raises(NotFound, match=re.escape(f"near names: {quote('public', target)}")):
        names(table(target), table("zebra")).relation(plan)


def test_the_option_that_maps_a_name_is_written_out_where_one_relation_is_likely_meant():
    def reason(name: str, *tables: Table, path: tuple[str, ...] = ("public",), **mappings: Any) -> str:
        with pytest.raises(NotFound) as refused:
            names(*tables, path=path, **mappings).relation(name)
        return str(refused.value)

    archived = (table("public.Proposal"), table("archive.Proposal"))
    assert reason("proposals", *archived).endswith("--map proposals=Proposal")
    assert reason("proposals", *archived, path=()).endswith("--map proposals=NAME")
    assert reason("proposals", table("public.Propsal")).endswith("--map proposals=NAME")
    assert reason("proposals", table("my app.Proposals")).endswith("--map 'proposals=my app.Proposals'")
    assert reason("proposals", table("zebra")).endswith(
        "nor one of a near name; if it has another: --map proposals=NAME"
    )
    wrong = reason("proposals", table("Offer"), user={"proposals": "Offers"})
    assert wrong == (
        'proposals is mapped to Offers: the target has no relation Offers; near names: public."Offer"; map it: '
        "--map proposals=Offer"
    )


def test_a_users_mapping_wins_over_an_exact_name():
    found = names(table("audit_logs"), table("AuditTrail"), user={"audit_logs": "AuditTrail"})
    assert found.relation("audit_logs").name == "AuditTrail"


def test_a_plans_mapping_serves_only_where_nothing_else_is_found():
    plan = {"audit_logs": "AuditTrail"}
    assert names(table("AuditLogs"), table("AuditTrail"), plan=plan).relation("audit_logs").name == "AuditLogs"
    assert names(table("AuditTrail"), plan=plan).relation("audit_logs").name == "AuditTrail"


def test_a_mapping_can_name_another_schema_and_names_with_dots():
    found = names(table("app.Trail"), table("public.a.b"), user={"x": "app.Trail", "y": '"a.b"'})
    assert (found.relation("x").schema, found.relation("y").name) == ("app", "a.b")


def test_a_mapping_to_nothing_is_an_error_that_names_it():
    with pytest.raises(NotFound, match=r"logs is mapped to AuditTrial: .*near names: public\.\"AuditTrail\""):
        names(table("AuditTrail"), user={"logs": "AuditTrial"}).relation("logs")


def test_a_mapping_is_checked_as_a_whole():
    tables = (table("AuditTrail", "actor"), table("app.Logs", "userId"))
    good = {
        "audit_logs": "AuditTrail",
        "audit_logs.user_id": "actor",
        "app.events": "app.Logs",
        "app.logs.who": "userId",
    }
    names(*tables, user=good).check_mapping()
    for pair, why in {
        (
            "audit_logs",
            "AuditTrial",
        ): "--map audit_logs=AuditTrial: the target has no relation AuditTrial; near names: pub",
        (
            "AuditTrail.user_id",
            "actr",
        ): "--map AuditTrail.user_id=actr: .* has no column actr; near names: actor; map it",
        ("nowhere.user_id", "actor"): "--map nowhere.user_id=actor: the target has no relation actor",
        ("audit_logs", "a.b.c"): "--map audit_logs=a.b.c: a.b.c is no relation: write NAME or SCHEMA.NAME",
    }.items():
        with pytest.raises(UsageError, match=why):
            names(*tables, user=dict([pair])).check_mapping()


@pytest.mark.parametrize("mapped", ["", "a.b.c", "a.", 'x"y'])
def test_a_mapping_that_is_no_name_is_an_error(mapped: str):
    with pytest.raises(PlanError, match="NAME"):
        names(table("t"), user={"t": mapped}).relation("t")


def test_relations_of_another_kind_are_passed_over():
    both = names(table("audit_logs", kind="v"), table("AuditLogs", kind="p"))
    assert both.relation("audit_logs", kinds="rp").name == "AuditLogs"
    with pytest.raises(NotFound, match=r"public\.audit_logs is a view; a table or partitioned table is needed"):
        names(table("audit_logs", kind="v")).relation("audit_logs", kinds="rp")


# Resolution of columns


def test_columns_are_resolved_like_relations():
    found = names(table("logs", "userId", "user_name", "USER_NAME", "tags:text[]", "actor"), user={"logs.who": "actor"})
    assert found.column("logs", "user_id").name == "userId"
    assert found.column("logs", "user_name").name == "user_name"
    assert found.column("logs", "who").name == "actor"
    assert found.column_type("logs", "tags") == "text[]"
    with pytest.raises(Ambiguous, match='"USER_NAME" and user_name for username; map it: --map logs.username=COLUMN'):
        found.column("logs", "username")
    with pytest.raises(NotFound, match='has no column user_idd; near names: "userId"'):
        found.column("logs", "user_idd")


def test_a_column_given_to_a_name_by_the_user_is_meant_by_no_other_name():
    found = names(table("logs", "value", "val"), user={"logs.tags": "value"}, plan={"logs.value": "val"})
    assert found.column("logs", "tags").name == "value"
    assert found.column("logs", "value").name == "val"


def test_a_column_mapped_to_nothing_is_an_error_that_names_the_mapping():
    with pytest.raises(NotFound, match="logs.who is mapped to actr: public.logs has no column actr; near names: actor"):
        names(table("logs", "actor"), user={"logs.who": "actr"}).column("logs", "who")


# Rewriting: what is replaced and what is not

REWRITTEN = {
    "tables, columns and qualifiers": (
        "SELECT u.full_name FROM public.users u WHERE u.user_id = :user_id",
        'SELECT u."fullName" FROM public."User" u WHERE u."userId" = :user_id',
    ),
    "a table without an alias keeps the plan's name as one": (
        "SELECT users.full_name, public.users.*, users FROM public.users",
        'SELECT users."fullName", users.*, users FROM public."User" AS users',
    ),
    "unqualified columns of several relations": (
        "SELECT full_name, unit_price FROM users u JOIN order_items o ON u.user_id = o.user_id",
        'SELECT "fullName", "unitPrice" FROM "User" u JOIN "OrderItem" o ON u."userId" = o."userId"',
    ),
    "strings, comments, casts, binds and dollar quotes stay": (
        "SELECT 'user_id', $$user_id$$, E'\\'user_id', user_id::text /* user_id */ FROM users -- user_id :user_id\n",
        "SELECT 'user_id', $$user_id$$, E'\\'user_id', \"userId\"::text /* user_id */ FROM \"User\" AS users -- user_id :user_id\n",
    ),
    "keywords can be columns; a bare user is the session's": (
        "SELECT user, u.user, \"user\", o.timestamp, timestamp '2020-01-01' FROM users u, order_items o ORDER BY timestamp",
        'SELECT user, u.user, "user", o.timestamp, timestamp \'2020-01-01\' FROM "User" u, "OrderItem" o ORDER BY timestamp',
    ),
    "functions, their named arguments and the fields of extract are no columns": (
        "SELECT user_id(1), make_interval(days => 1), extract(hour FROM created_at) FROM users",
        'SELECT user_id(1), make_interval(days => 1), extract(hour FROM "createdAt") FROM "User" AS users',
    ),
    "an output alias in ORDER BY stays, an input column in GROUP BY does not": (
        "SELECT date_trunc('day', created_at) AS created_at FROM users GROUP BY created_at ORDER BY created_at",
        'SELECT date_trunc(\'day\', "createdAt") AS created_at FROM "User" AS users GROUP BY "createdAt" ORDER BY created_at',
    ),
    "an output alias in GROUP BY stays where no input column has that name": (
        "SELECT date_trunc('day', created_at) AS day, count(*) FROM users GROUP BY day ORDER BY count(*), day",
        'SELECT date_trunc(\'day\', "createdAt") AS day, count(*) FROM "User" AS users GROUP BY day ORDER BY count(*), day',
    ),
    "a derived table keeps the plan's column names": (
        "SELECT d.user_id FROM (SELECT user_id, (created_at)::date, tags[1:2] FROM order_items) d WHERE created_at > :x",
        'SELECT d.user_id FROM (SELECT "userId" AS user_id, ("createdAt")::date AS created_at, "Tags"[1:2] AS tags '
        'FROM "OrderItem" AS order_items) d WHERE created_at > :x',
    ),
    "what comes through * keeps the target's": (
        "WITH w AS (SELECT * FROM users) SELECT w.user_id, full_name FROM w ORDER BY user_id",
        'WITH w AS (SELECT * FROM "User" AS users) SELECT w."userId", "fullName" FROM w ORDER BY "userId"',
    ),
    "a CTE hides a table, and its column list names its columns": (
        "WITH users(user_id) AS (SELECT u.user_id FROM users u) SELECT user_id FROM users",
        'WITH users(user_id) AS (SELECT u."userId" AS user_id FROM "User" u) SELECT user_id FROM users',
    ),
    "a CTE of the target's name does not capture the table": (
        'WITH "User" AS (SELECT 1) SELECT full_name FROM users',
        'WITH "User" AS (SELECT 1) SELECT "fullName" FROM public."User" AS users',
    ),
    "a recursive CTE": (
        "WITH RECURSIVE r AS (SELECT user_id FROM users UNION ALL SELECT o.user_id FROM order_items o JOIN r USING (user_id)) "
        "SELECT r.user_id FROM r".replace("USING (user_id)", "ON o.user_id = r.user_id"),
        'WITH RECURSIVE r AS (SELECT "userId" AS user_id FROM "User" AS users UNION ALL SELECT o."userId" FROM "OrderItem" o '
        'JOIN r ON o."userId" = r.user_id) SELECT r.user_id FROM r',
    ),
    "set operations are ordered by what their first part is called": (
        "SELECT user_id FROM users UNION SELECT user_id FROM order_items ORDER BY user_id",
        'SELECT "userId" FROM "User" AS users UNION SELECT "userId" FROM "OrderItem" AS order_items ORDER BY "userId"',
    ),
    "correlated subqueries see the query around them": (
        "SELECT 1 FROM users u WHERE EXISTS (SELECT 1 FROM proposals WHERE status = full_name AND u.user_id = id)",
        'SELECT 1 FROM "User" u WHERE EXISTS (SELECT 1 FROM proposals WHERE status = "fullName" AND u."userId" = id)',
    ),
    "LATERAL sees what stands before it": (
        "SELECT l.n FROM users u, LATERAL (SELECT count(*) AS n FROM order_items o WHERE o.user_id = u.user_id) l",
        'SELECT l.n FROM "User" u, LATERAL (SELECT count(*) AS n FROM "OrderItem" o WHERE o."userId" = u."userId") l',
    ),
    "functions in FROM, whole rows and their fields": (
        "SELECT t, (o).user_id, to_jsonb(o), (o).* FROM order_items o, unnest(o.tags) AS t WHERE t = :tag",
        'SELECT t, (o)."userId", to_jsonb(o), (o).* FROM "OrderItem" o, unnest(o."Tags") AS t WHERE t = :tag',
    ),
    "USING where both sides agree": (
        "SELECT user_id, full_name FROM users JOIN order_items USING (user_id)",
        'SELECT "userId", "fullName" FROM "User" AS users JOIN "OrderItem" AS order_items USING ("userId")',
    ),
    "window clauses": (
        "SELECT sum(unit_price) OVER w, rank() OVER (PARTITION BY user_id ORDER BY created_at) FROM order_items "
        "WINDOW w AS (PARTITION BY user_id)",
        'SELECT sum("unitPrice") OVER w, rank() OVER (PARTITION BY "userId" ORDER BY "createdAt") FROM "OrderItem" AS '
        'order_items WINDOW w AS (PARTITION BY "userId")',
    ),
    "joins in parentheses": (
        "SELECT u.full_name FROM (users u JOIN order_items o ON o.user_id = u.user_id) LEFT JOIN proposals p ON p.id = o.id",
        'SELECT u."fullName" FROM ("User" u JOIN "OrderItem" o ON o."userId" = u."userId") LEFT JOIN proposals p ON p.id = o.id',
    ),
    "PostgreSQL's own relations": ("SELECT relname FROM pg_class, pg_catalog.pg_index", None),
    "a semicolon and a comment at the end": (
        "SELECT user_id FROM users; -- done",
        'SELECT "userId" FROM "User" AS users; -- done',
    ),
}


@pytest.mark.parametrize(("plan", "target"), REWRITTEN.values(), ids=REWRITTEN.keys())
def test_only_the_names_are_replaced(plan: str, target: str | None):
    assert PRISMA.rewrite(plan) == (target or plan)


def test_an_unqualified_name_is_qualified_where_it_would_mean_another_column():
    found = names(table("a", "title"), table("b", "title", "other"), user={"a.owner": "title", "b.owner2": "other"})
    assert found.rewrite("SELECT owner FROM a, b") == "SELECT a.title FROM a, b"
    assert found.rewrite("SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE owner = owner2)") == (
        "SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a.title = other)"
    )
    assert PRISMA.rewrite('SELECT type AS "userId" FROM users ORDER BY user_id') == (
        'SELECT type AS "userId" FROM "User" AS users ORDER BY users."userId"'
    )


def test_relations_off_the_search_path_are_written_with_their_schema():
    found = names(table("app.logs", "userId"), user={"logs": "app.logs", "events": "app.logs"})
    assert found.rewrite("SELECT user_id FROM logs") == 'SELECT "userId" FROM app.logs'
    assert found.rewrite("SELECT events.user_id FROM events") == 'SELECT events."userId" FROM app.logs AS events'


def test_a_view_keeps_the_plans_column_names():
    sql = "SELECT user_id, count(*) FROM users GROUP BY user_id"
    assert PRISMA.rewrite(sql, keep_names=True) == (
        'SELECT "userId" AS user_id, count(*) FROM "User" AS users GROUP BY "userId"'
    )


REFUSED = {
    "SELECT user_idd FROM users": (NotFound, 'line 1, column 8: public."User" has no column user_idd; near names: "us'),
    "SELECT 1\nFROM  order_itm": (NotFound, r"line 2, column 7: the target has no relation order_itm; near names: pub"),
    "SELECT x.id FROM users u": (NotFound, "line 1, column 8: no relation x here; there are u"),
    "SELECT nope FROM users, proposals": (NotFound, "column 8: no column nope in users, proposals"),
    "SELECT user_id FROM users, order_items": (Ambiguous, "user_id may mean order_items.userId and users.userId"),
    "SELECT 1 FROM users u JOIN (SELECT user_id FROM order_items) d USING (user_id)": (
        PlanError,
        "write the join with ON",
    ),
    "SELECT 1 FROM users u NATURAL JOIN (SELECT user_id FROM order_items) d": (PlanError, "write the join with ON"),
    "SELECT date_trunc(full_name, created_at) FROM users": (PlanError, "column 19: full_name cannot be placed here"),
    "SELECT @ unit_price FROM order_items": (PlanError, "column 10: unit_price cannot be placed here; qualify it"),
    "SELECT 1 FROM": (PlanError, "line 1, column 13: cannot be parsed near"),
    "SELECT 'x": (PlanError, "does not end"),
    "SELECT 1; SELECT 2": (PlanError, "line 1, column 9: several statements"),
    "DELETE FROM users": (PlanError, "a SELECT is expected, not DELETE"),
    "WITH d AS (DELETE FROM users RETURNING *) SELECT * FROM d": (PlanError, "it holds DELETE"),
    "SELECT * INTO x FROM users": (PlanError, "it holds INTO"),
    "SELECT 1 FROM users FOR UPDATE": (PlanError, "locks rows"),
    "": (PlanError, "no statement"),
    f"SELECT {'(' * 3000}1{')' * 3000}": (PlanError, "nested too deeply"),
    f"SELECT '{'x' * 100_000}'": (PlanError, "100,000 are the limit"),
}


@pytest.mark.parametrize(("sql", "error"), REFUSED.items(), ids=[sql[:50] for sql in REFUSED])
def test_what_cannot_be_placed_is_an_error_with_its_place(sql: str, error: tuple[type[Exception], str]):
    with pytest.raises(error[0], match=error[1].replace("(", r"\(")):
        PRISMA.rewrite(sql)


def test_expressions_of_checks_and_indexes_are_rewritten_without_qualifiers():
    rewrite = PRISMA.rewrite_expression
    assert rewrite("users", "full_name IS NOT NULL -- really") == '"fullName" IS NOT NULL -- really'
    assert rewrite("users", "users.full_name <> public.users.type") == '"fullName" <> type'
    assert rewrite("proposals", "value IS NULL OR value >= 0") == "value IS NULL OR value >= 0"


@pytest.mark.parametrize(
    "sql", ["", "a = ", "value) FROM proposals WHERE (true", "value, id", "value); SELECT (1", "1 )"]
)
def test_what_is_not_one_expression_is_an_error(sql: str):
    with pytest.raises(PlanError):
        PRISMA.rewrite_expression("proposals", sql)


def test_an_unknown_column_in_an_expression_is_an_error_with_its_place():
    with pytest.raises(NotFound, match="line 1, column 10: .* has no column nope"):
        PRISMA.rewrite_expression("proposals", "value >= nope")


# Against a real server: the same rows as on a target that has the plan's own names

PLAN_SCHEMA = """
CREATE SCHEMA plan; SET search_path = plan;
CREATE TABLE users (id int, user_id int, full_name text, created_at date, value int, type text);
CREATE TABLE order_items (id int, user_id int, unit_price int, created_at date, tags int[], label text);
INSERT INTO users SELECT n, n % 5, 'name ' || n % 3, date '2020-01-01' + n % 4, n * 7 % 10, 't' || n % 2
FROM generate_series(1, 12) n;
INSERT INTO order_items SELECT n, n % 5, n * 3 % 7, date '2020-01-01' + n % 3, ARRAY[n % 2, n % 3], 'l' || n
FROM generate_series(1, 15) n;
"""
TARGET_SCHEMA = """
CREATE SCHEMA target; SET search_path = target;
CREATE TABLE "Users" (id, "userId", "fullName", "createdAt", val, type) AS TABLE plan.users;
CREATE TABLE "OrderItem" (id, "userId", "unitPrice", "createdAt", value, label) AS TABLE plan.order_items;
"""
# `value` is another column there: a name left as it is would go unnoticed by the parser, and be wrong.
MAPPING = {"order_items": "OrderItem", "users.value": "val", "order_items.tags": "value"}
RUN = [
    "SELECT user_id, value FROM users WHERE created_at > date '2020-01-01' ORDER BY value, id LIMIT 5",
    "SELECT u.value, o.tags FROM users u JOIN order_items o ON o.user_id = u.user_id ORDER BY u.id, o.id",
    "SELECT value, tags FROM users, order_items ORDER BY users.id, order_items.id",
    "SELECT value FROM users WHERE EXISTS (SELECT 1 FROM order_items WHERE value = unit_price) ORDER BY value",
    "SELECT tags AS value, unit_price FROM order_items ORDER BY value, id",
    "SELECT unit_price AS value FROM order_items ORDER BY tags, id",
    "SELECT value AS type, count(*) FROM users GROUP BY value, type ORDER BY type, 2",
    "SELECT date_trunc('month', created_at) AS created_at, sum(value) FROM users GROUP BY created_at ORDER BY 1, 2",
    "SELECT d.value, d.n FROM (SELECT value, count(*) AS n FROM users GROUP BY value) d ORDER BY value",
    "SELECT * FROM (SELECT tags, user_id::text, (created_at) FROM order_items) d ORDER BY tags, user_id, created_at",
    "SELECT value FROM (SELECT * FROM users) d WHERE user_id = 1 ORDER BY value",
    "WITH w(value, a) AS (SELECT o.tags, user_id FROM order_items o) SELECT w.*, value FROM w ORDER BY value, a",
    "WITH users AS (SELECT tags AS value FROM order_items) SELECT value FROM users ORDER BY users.value",
    "WITH RECURSIVE r AS (SELECT id, value FROM users WHERE id = 1 UNION ALL SELECT u.id, u.value FROM users u JOIN r ON "
    "u.id = r.id + 1) SELECT sum(value), max(id) FROM r",
    "SELECT user_id, full_name FROM users JOIN order_items USING (user_id) ORDER BY 1, 2",
    "SELECT value FROM users UNION SELECT unit_price FROM order_items ORDER BY value",
    "SELECT DISTINCT ON (type, user_id) type, user_id, value FROM users ORDER BY type, user_id, value DESC",
    "SELECT rank() OVER w, sum(value) OVER (w ROWS 1 PRECEDING) FROM users WINDOW w AS (PARTITION BY type ORDER BY id)",
    "SELECT (o).tags, (o).user_id FROM order_items o ORDER BY o.id",
    "SELECT u.id, l.n, t FROM users u, LATERAL (SELECT count(*) AS n FROM order_items o WHERE o.unit_price = value) l, "
    "generate_series(1, u.value) AS t ORDER BY u.id, t",
    "SELECT users.id, (SELECT max(unit_price) FROM order_items i WHERE i.user_id = users.user_id AND value > 2) FROM users "
    "ORDER BY id",
    "SELECT user_id, full_name, count(*) FROM users GROUP BY GROUPING SETS ((user_id), (full_name), ()) ORDER BY 1, 2, 3",
    "SELECT j.total FROM (users u JOIN order_items o ON o.id = u.id) AS j(id, user_id, b, c, total) ORDER BY total",
    "SELECT u.full_name FROM users u WHERE (u.user_id, value) IN (SELECT user_id, unit_price FROM order_items) ORDER BY 1",
]


def test_rewritten_queries_return_the_rows_of_the_plans_own_schema(scratch: Connect):
    with scratch() as plan, scratch() as target:
        plan.execute(PLAN_SCHEMA)
        target.execute(TARGET_SCHEMA)
        found = Names(read(target), MAPPING)
        for sql in RUN:
            rewritten = found.rewrite(sql)
            assert plan.execute(sql).fetchall() == target.execute(rewritten).fetchall(), rewritten
            assert names(*TABLES_OF_PLAN).rewrite(sql) == sql


TABLES_OF_PLAN = (
    table("users", "id", "user_id", "full_name", "created_at", "value", "type"),
    table("order_items", "id", "user_id", "unit_price", "created_at", "tags", "label"),
)


def test_a_rewritten_view_has_the_plans_column_names(scratch: Connect):
    with scratch() as connection:
        connection.execute(PLAN_SCHEMA + TARGET_SCHEMA)
        sql = Names(read(connection), MAPPING).rewrite("SELECT user_id, tags::text FROM order_items", keep_names=True)
        cursor = connection.execute(sql)
        assert cursor.description is not None
        assert [column.name for column in cursor.description] == ["user_id", "tags"]


# Properties

COLUMNS = ("user_id", "full_name", "value", "timestamp")
identifiers = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(
    lambda name: name not in {"a", "b", "c", "e", "t", "w", "x", "things", *COLUMNS}  # the statements' own
)
statements = st.sampled_from(
    [
        "SELECT e.user_id,\n\te.full_name AS x -- e.value\nFROM things e WHERE e.value = :value AND user_id <> 'user_id' ORDER BY x",
        "SELECT max(value), count(*) FILTER (WHERE user_id > $$a$$) FROM things t GROUP BY t.timestamp, full_name HAVING max(value) > 1",
        "WITH w AS (SELECT t.* FROM things t) SELECT w.user_id::text, W.full_name FROM w WHERE w.timestamp > timestamp '2020-01-01'",
        "SELECT a.value FROM things a JOIN things b USING (user_id) WHERE EXISTS (SELECT 1 FROM things c WHERE c.value = b.value)",
    ]
)


SPELLINGS = st.sampled_from(["user_id", "userId", "UserID", "userid", "user__id", "users_id", "other"])


@settings(deadline=None, max_examples=200)
@given(
    st.sets(st.tuples(st.sampled_from(["a", "b", "off"]), SPELLINGS, st.sampled_from("rv"))),
    st.permutations(["a", "b"]),
    SPELLINGS,
    st.sampled_from(["r", "v", "rv"]),
)
def test_a_name_means_the_first_exact_then_the_one_folded_alike_and_never_one_off_the_path(held, path, wanted, kinds):
    tables = [table(f"{schema}.{name}", "id", kind=kind) for schema, name, kind in held]
    tables = list({(each.schema, each.name): each for each in tables}.values())  # one relation of a name in a schema
    found = names(*tables, path=tuple(path))
    fitting = [each for schema in path for each in tables if each.schema == schema and each.kind in kinds]
    exact = [each for each in fitting if each.name == wanted]
    alike = [each for each in fitting if each.name.replace("_", "").lower() == wanted.replace("_", "").lower()]
    first = [each for each in alike if each.schema == alike[0].schema]
    if exact or len(first) == 1:
        assert found.relation(wanted, kinds) is (exact or first)[0]
    elif first:
        with pytest.raises(Ambiguous) as listed:
            found.relation(wanted, kinds)
        assert all(each.qualified in str(listed.value) for each in first)
    else:
        with pytest.raises(NotFound):
            found.relation(wanted, kinds)


@settings(deadline=None, max_examples=20)
@given(statements)
def test_rewriting_to_the_same_names_changes_no_byte(sql: str):
    assert names(table("things", *COLUMNS)).rewrite(sql) == sql


@settings(deadline=None, max_examples=50)
@given(statements, st.lists(identifiers, min_size=5, max_size=5, unique_by=lambda name: name.replace("_", "").lower()))
@example("SELECT t.user_id FROM things t", ['"', "';--", "select", "a.b", "*/"])
def test_rewritten_sql_has_the_same_tree_but_for_the_names(sql: str, given_names: list[str]):
    target, *columns = given_names
    hostile = table("things", *COLUMNS)
    described = tuple(replace(column, name=name) for column, name in zip(hostile.columns, columns, strict=True))
    mapping = {f"things.{plan}": in_mapping(name) for plan, name in zip(COLUMNS, columns, strict=True)}
    found = names(replace(hostile, name=target, columns=described), user=mapping | {"things": in_mapping(target)})
    back = {target: "things"} | dict(zip(columns, COLUMNS, strict=True))
    assert tree(found.rewrite(sql), back) == tree(sql, {})


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([target or plan for plan, target in REWRITTEN.values()]))
def test_rewriting_what_was_rewritten_changes_nothing(sql: str):
    assert PRISMA.rewrite(sql) == sql


def in_mapping(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def tree(sql: str, back: dict[str, str]) -> str:
    """The tree of a statement with its names put back and their quoting forgotten."""
    parsed = parse_one(sql, dialect="postgres")
    for identifier in parsed.find_all(exp.Identifier):
        name = identifier.this if identifier.quoted else identifier.this.lower()
        identifier.set("this", back.get(name, name))
        identifier.set("quoted", False)
    return repr(parsed)
