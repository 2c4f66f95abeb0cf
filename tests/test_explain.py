"""Plans as nodes: what EXPLAIN says, without the values of the query, and never more than one SELECT."""

from __future__ import annotations

import json

import psycopg
import pytest

from playbook.errors import NotAnalysed
from playbook.evidence.explain import Plan, explain, masked, parse
from playbook.evidence.reading import Select, reading
from playbook.plan.workload import Bound

SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, status text, customer int, total numeric);
INSERT INTO orders
  SELECT i, CASE WHEN i % 10 = 0 THEN 'open' ELSE 'done' END, i % 500, i FROM generate_series(1, 20000) AS i;
CREATE INDEX orders_customer ON orders (customer);
ANALYZE orders;
"""


@pytest.fixture
def connection(scratch):
    with scratch() as connection:
        connection.execute(SCHEMA)
        connection.execute("VACUUM orders")
        yield connection


def bound(sql, *values):
    return Bound("a_query", "common", sql, values)


def test_a_plan_names_its_nodes_relations_and_indexes(connection):
    sql = "SELECT o.total FROM orders o WHERE customer = $1 ORDER BY total LIMIT 3"
    plan = explain(connection, bound(sql, "7"), analyze=False)
    assert plan.nodes[:2] == ("Limit", "Sort")
    assert plan.indexes == ("orders_customer",)
    assert {node.relation for node in plan.root.walk() if node.relation} == {"orders"}


def test_figures_of_execution_are_none_unless_it_was_analysed(connection):
    query = bound("SELECT * FROM orders WHERE status = $1", "open")
    planned = explain(connection, query, analyze=False)
    executed = explain(connection, query, analyze=True)
    assert (planned.buffers, planned.execution_ms, planned.root.rows, planned.spilled) == (None, None, None, None)
    assert executed.root.rows == 2000
    assert executed.root.removed == 18000
    assert executed.buffers > 50
    assert executed.execution_ms > 0
    assert executed.spilled is False


def test_a_sort_that_does_not_fit_into_work_mem_is_seen_to_spill(connection):
    connection.execute("SET work_mem = '64kB'")
    plan = explain(connection, bound("SELECT * FROM orders ORDER BY total"), analyze=True)
    sort = next(node for node in plan.root.walk() if node.type == "Sort")
    assert (plan.spilled, sort.sort_on_disk) == (True, True)
    assert sort.sort_kb > 64
    assert ("work_mem", "64kB") in plan.settings


def test_index_only_scans_tell_their_heap_fetches(connection):
    connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    query = bound("SELECT customer FROM orders WHERE customer < $1", "5")
    assert explain(connection, query, analyze=True).heap_fetches == 0
    connection.execute("UPDATE orders SET total = total + 1 WHERE customer < 5")
    assert explain(connection, query, analyze=True).heap_fetches > 0


def test_the_plan_is_made_for_the_values(connection):
    connection.execute("CREATE INDEX orders_status ON orders (status); ANALYZE orders")
    sql = "SELECT * FROM orders WHERE status = $1"
    assert explain(connection, bound(sql, "none such"), analyze=False).indexes == ("orders_status",)
    assert explain(connection, bound(sql, "done"), analyze=False).indexes == ()
    for _ in range(8):
        explain(connection, bound(sql, "done"), analyze=True)
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_the_hash_is_of_the_shape_alone(connection):
    sql = "SELECT * FROM orders WHERE customer = $1"
    first = explain(connection, bound(sql, "7"), analyze=False)
    other_value = explain(connection, bound(sql, "8"), analyze=True)
    assert first.hash == other_value.hash
    connection.execute("DROP INDEX orders_customer")
    assert explain(connection, bound(sql, "7"), analyze=False).hash != first.hash


def test_a_left_join_and_an_inner_join_have_different_hashes(connection):
    connection.execute("SET enable_nestloop = off; SET enable_mergejoin = off")
    plans = [
        explain(connection, bound(f"SELECT * FROM orders a {kind} orders b ON a.id = b.customer + 1"), analyze=False)
        for kind in ("JOIN", "LEFT JOIN")
    ]
    assert "Hash Join" in plans[0].nodes
    assert plans[0].hash != plans[1].hash


def test_the_text_has_a_line_a_node_and_no_values(connection):
    query = bound("SELECT count(*) FROM orders WHERE status = $1 AND total > $2", "s3cret-status", "17.25")
    plan = explain(connection, query, analyze=True)
    text = plan.text()
    assert len(text.splitlines()) == len(plan.nodes)
    assert "Seq Scan on orders" in text
    assert "status = ?" in text
    assert "s3cret" not in json.dumps(plan.to_json())
    assert "17.25" not in json.dumps(plan.to_json())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("(name = 'it''s'::text)", "(name = ?::text)"),
        (r"(path ~ E'a\'b' OR path = 'C:\')", "(path ~ ? OR path = ?)"),
        ("(col1 > 12.5) AND (e2 < 1e9)", "(col1 > ?) AND (e2 < ?)"),
        ('("year 2024" = 2024)', '("year 2024" = ?)'),
        ("(id = (InitPlan 1).col1)", "(id = (InitPlan 1).col1)"),
        ("(tags @> '{a,b}'::text[])", "(tags @> ?::text[])"),
        ("(a = $0)", "(a = $0)"),
    ],
)
def test_literals_are_masked_and_names_are_not(condition, expected):
    assert masked(condition) == expected


def test_a_plan_survives_json(connection):
    plan = explain(connection, bound("SELECT status, sum(total) FROM orders GROUP BY 1 ORDER BY 2"), analyze=True)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    sort = next(node for node in plan.root.walk() if node.type == "Sort")
    assert sort.sort_on_disk is False
    assert sort.read == 0


def test_a_plan_of_postgresql_13_is_read(connection):
    old = [
        {
            "Plan": {
                "Node Type": "Seq Scan",
                "Parallel Aware": False,
                "Relation Name": "t",
                "Plan Rows": 5,
                "Plan Width": 4,
            }
        }
    ]
    plan = parse(json.dumps(old))
    assert (plan.nodes, plan.buffers, plan.planning_ms, plan.settings) == (("Seq Scan",), None, None, ())


@pytest.mark.parametrize("values", [(), ("1",)])
def test_a_second_statement_is_refused_by_the_server_itself(connection, values):
    sql = f"SELECT {'$1::int' if values else '1'}; DELETE FROM orders"
    with reading(connection, timeout_s=5), Select(connection) as cursor, pytest.raises(psycopg.errors.SyntaxError):
        cursor.run(sql, values)
    assert connection.execute("SELECT count(*) FROM orders").fetchone() == (20000,)


@pytest.mark.parametrize(
    "sql", ["SELECT 1; COMMIT; DELETE FROM orders", "COPY orders TO PROGRAM 'cat'", "DELETE FROM orders", ""]
)
def test_what_is_not_one_select_is_not_even_sent(connection, sql):
    with pytest.raises(NotAnalysed, match="not analysed"):
        explain(connection, bound(sql), analyze=True)


def test_execution_is_read_only_and_limited_in_time(connection):
    connection.execute("CREATE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'DELETE FROM orders; SELECT 1'")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        explain(connection, bound("SELECT spoil()"), analyze=True)
    with pytest.raises(psycopg.errors.QueryCanceled):
        explain(connection, bound("SELECT pg_sleep(5)"), analyze=True, timeout_s=0.1)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_nothing_is_left_set_on_the_session(connection):
    before = connection.execute("SELECT name, setting FROM pg_settings ORDER BY 1").fetchall()
    explain(connection, bound("SELECT 1"), analyze=True, timeout_s=3)
    assert connection.execute("SELECT name, setting FROM pg_settings ORDER BY 1").fetchall() == before
