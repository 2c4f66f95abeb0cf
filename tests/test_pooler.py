"""Through PgBouncer in transaction mode: planned and measured without a trace, never changed."""

from __future__ import annotations

import papermill
import psycopg
import pytest

from playbook.errors import Unsupported
from playbook.settings import NOTEBOOKS
from playbook.target import catalog
from playbook.target.connect import parse
from playbook.target.pooling import ReadingCursor

SESSION = """
SELECT pg_backend_pid(),
  (SELECT jsonb_object_agg(name, setting) FROM pg_settings
   WHERE name NOT IN ('application_name', 'TimeZone', 'DateStyle', 'client_encoding')),  -- PgBouncer keeps these itself
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
  (SELECT count(*) FROM pg_prepared_statements),
  (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
  current_setting('default_transaction_read_only'), current_setting('search_path')
"""


@pytest.fixture
def shop_url(shop, pooled, monkeypatch):
    """The shop's variable leads through the pooler."""
    c = pooled.conninfo
    url = f"postgresql://{c['user']}:{c['password']}@/{c['dbname']}?host={c['host']}&port={c['port']}&schema=public"
    monkeypatch.setenv("SHOP_URL", url)
    return url


def next_client(pooled):
    """What another application finds on the one session that the pooler has."""
    with psycopg.connect(**pooled.conninfo, autocommit=True) as client:
        return client.execute(SESSION).fetchone()


def test_the_next_client_inherits_nothing_of_a_whole_measurement(shop, shop_url, pooled):
    fresh = next_client(pooled)
    phase = shop.playbook(apply=False, measure=True, budget_s=1.5).phase("1")
    phase.check()
    before = phase.before()
    after = phase.after()
    assert before.executed
    assert {each.query for each in after.measurements + before.measurements} >= {"latest_orders", "open_orders"}
    assert all(each.plan for each in before.measurements)
    assert next_client(pooled) == fresh


def test_what_another_client_set_on_the_session_changes_nothing_of_ours(shop, shop_url, pooled):
    """The session comes as others left it: another search_path and time zone are set aside in each transaction."""
    with shop.target.connect() as connection:
        connection.execute("CREATE SCHEMA trap; CREATE TABLE trap.orders (id int)")
    target = parse("env:SHOP_URL", {"SHOP_URL": f"{shop_url.replace('=public', '=trap')}"})
    server = shop.context(apply=False).target.server
    with psycopg.connect(**pooled.conninfo, autocommit=True) as client:
        client.execute("SET search_path = public; SET extra_float_digits = 0")
    with type(target)(**{**vars(target), "server": server}).connect() as connection:
        assert catalog.read(connection).search_path == ("trap",)
        with connection.transaction():
            assert connection.execute("SELECT current_setting('extra_float_digits'), current_schema").fetchone() == (
                "1",
                "trap",
            )
        assert connection.execute("SHOW search_path").fetchone() == ("public",)


def test_nothing_is_applied_through_it_and_the_remedy_is_named(shop, shop_url, snapshot):
    as_found = snapshot(shop.target)
    refused = "through a transaction pooler, .*; name the database's direct URL"
    with pytest.raises(Unsupported, match=refused):
        shop.context(apply=True)
    looked_at = shop.context(apply=False)
    with pytest.raises(Unsupported, match=refused), looked_at.hold("apply"):
        pass
    assert snapshot(shop.target) == as_found


@pytest.mark.exhaustive
@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("0[0134]_*.ipynb")), ids=lambda path: path.stem)
def test_a_whole_notebook_runs_through_it_and_leaves_nothing(shop, shop_url, pooled, tmp_path, notebook):
    """The shop has none of the plan's tables: each step says so, and `%sql` reads the catalog all the same."""
    fresh = next_client(pooled)
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        str(notebook),
        str(executed),
        {"out": str(tmp_path), "target": "env:SHOP_URL"},
        cwd=str(NOTEBOOKS),
        progress_bar=False,
    )
    assert "Reached through a transaction pooler" in executed.read_text()
    assert next_client(pooled) == fresh


def test_the_magics_session_reads_and_cannot_write(shop, shop_url):
    target = shop.context(apply=False).target
    with target.connect() as connection:
        connection.cursor_factory = ReadingCursor
        assert connection.execute("SELECT count(*) FROM customers").fetchone() == (500,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM customers")
        assert connection.execute("SELECT current_schema").fetchone() == ("public",)
