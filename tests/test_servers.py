"""The other servers that tests run against: PostgreSQL 15 with hypopg and pg_cron, and a pooler in between."""

from __future__ import annotations


def test_postgresql_15_stands_beside_the_embedded_server(empty15):
    assert empty15.server.major == 15
    assert empty15.server.tested
    with empty15.connect() as connection:
        preloaded = connection.execute("SHOW shared_preload_libraries").fetchone()[0]
    assert preloaded.startswith("pg_stat_statements")


def test_postgresql_16_stands_beside_it(empty16):
    assert empty16.server.major == 16
    assert empty16.server.tested


def test_hypopg_can_be_asked(hypopg):
    with hypopg.connect() as connection:
        connection.execute("CREATE TABLE t (id int)")
        assert connection.execute("SELECT count(*) FROM hypopg_create_index('CREATE INDEX ON t (id)')").fetchone() == (
            1,
        )


def test_pg_cron_can_be_asked(cron):
    with cron.connect() as connection:
        assert connection.execute("SELECT cron.schedule('nothing', '0 3 * * *', 'SELECT 1')").fetchone() == (1,)


def test_a_pooler_in_transaction_mode_is_noticed(pooled):
    assert pooled.server.pooled
    assert not pooled.server.standby
