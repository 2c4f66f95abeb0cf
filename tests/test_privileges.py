"""A role with few privileges: what it lacks is named as SQL, each piece of it, and that SQL is enough."""

from __future__ import annotations

import pytest
from psycopg import sql

from playbook.step import missing_grants

CLERK = "clerk"
PASSWORD = "c4nary-of-the-clerk"
EXTRA_STEP = """\
      - name: customers_slug
        kind: index
        table: customers
        columns: [{expression: "slug(city)"}]
        claims: []
      - name: orders_status_known
        kind: check
        table: orders
        expression: status <> ''
"""


@pytest.fixture
def as_clerk(shop, monkeypatch):
    """The shop as a role sees it that may read its tables and nothing else; functions are closed to the public."""
    plan = shop.plan.read_text()
    shop.plan.write_text(plan.replace("priorities:", EXTRA_STEP + "priorities:"))
    with shop.target.connect() as connection:
        connection.execute(f"DROP ROLE IF EXISTS {CLERK}; DROP ROLE IF EXISTS shopkeeper")
        connection.execute(f"CREATE ROLE {CLERK} LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE shopkeeper")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("ALTER TABLE customers OWNER TO shopkeeper; GRANT SELECT ON orders, customers TO clerk")
        connection.execute("CREATE FUNCTION slug(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'")
        connection.execute("REVOKE EXECUTE ON FUNCTION slug(text) FROM PUBLIC")
        database = connection.info.dbname
    monkeypatch.setenv(
        "SHOP_URL",
        shop.url().replace(f"{shop.target.conninfo['user']}:{shop.target.conninfo['password']}", f"{CLERK}:{PASSWORD}"),
    )
    yield shop
    with shop.target.connect() as connection:
        connection.execute(f"REASSIGN OWNED BY {CLERK}, shopkeeper TO CURRENT_USER; DROP OWNED BY {CLERK}, shopkeeper")
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM clerk").format(sql.Identifier(database)))
        connection.execute(f"DROP ROLE {CLERK}; DROP ROLE shopkeeper")


def test_each_missing_privilege_is_named_as_sql_that_is_enough(as_clerk, snapshot):
    as_found = snapshot(as_clerk.target)
    database = as_clerk.target.server.database
    grants = missing_grants(as_clerk.context(), ["indexes"])
    assert set(grants) == {
        "ALTER TABLE public.orders OWNER TO clerk;",  # its owner is a superuser: membership would give away too much
        "GRANT shopkeeper TO clerk;",
        "GRANT CREATE ON SCHEMA public TO clerk;",
        "GRANT CREATE ON SCHEMA public TO shopkeeper;",
        "GRANT EXECUTE ON FUNCTION slug(text) TO shopkeeper;",  # an index is built with the rights of its table's owner
        f"GRANT CREATE ON DATABASE {database} TO clerk;",
    }
    blocked = as_clerk.playbook().phase("1")
    assert {state.status for _, state in blocked.check().steps} == {"blocked"}
    assert {state.status for _, state, _ in blocked.apply().steps} == {"blocked"}
    assert snapshot(as_clerk.target) == as_found
    for grant in grants:
        as_clerk.execute(grant)
    assert missing_grants(as_clerk.context(), ["indexes"]) == []
    applied = as_clerk.playbook().phase("1").apply()
    assert {(state.status, state.reason) for _, state, _ in applied.steps if state.status != "applied"} == set()


def test_a_dry_run_needs_none_of_them(as_clerk, snapshot):
    as_found = snapshot(as_clerk.target)
    phase = as_clerk.playbook(apply=False).phase("1")
    states = dict(phase.check().steps)
    assert {state.status for state in states.values()} == {"planned"}
    assert "ALTER TABLE public.orders OWNER TO clerk" in states["1/orders_open"].reason
    assert all(each.plan for each in phase.before().measurements)
    assert snapshot(as_clerk.target) == as_found


def test_a_journal_of_another_role_is_asked_for_by_name(as_clerk):
    as_clerk.execute(
        "CREATE SCHEMA playbook; CREATE TABLE playbook.step (evidence text); CREATE TABLE playbook.statement (backend_start text)"
    )
    grants = missing_grants(as_clerk.context(), ["indexes"])
    assert "GRANT USAGE ON SCHEMA playbook TO clerk;" in grants
    assert "GRANT SELECT, INSERT, UPDATE, DELETE ON playbook.step, playbook.statement TO clerk;" in grants


def test_a_journal_in_a_file_needs_nothing_of_the_database(as_clerk, tmp_path):
    grants = missing_grants(as_clerk.context(journal=tmp_path / "journal"), ["indexes"])
    assert not [grant for grant in grants if "DATABASE" in grant]
