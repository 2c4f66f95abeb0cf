"""Values sampled from the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from playbook.errors import NotAnalysed, NotFound
from playbook.plan import binds
from playbook.plan.binds import bind
from playbook.plan.names import Names
from playbook.plan.workload import Bind, Bound, Query
from playbook.target.catalog import read

Connect = Callable[[], psycopg.Connection[Any]]

EVENTS = """
CREATE TYPE "Status" AS ENUM ('open', 'done', 'lost');
CREATE TABLE "Events" (
  "userId" text, status "Status", tags text[], at timestamp(3) without time zone, day date, value numeric, note text
);
INSERT INTO "Events"
SELECT CASE WHEN n <= 60 THEN 'alice' WHEN n <= 90 THEN 'bob' WHEN n <= 98 THEN 'carl' ELSE 'dora ' || n END,
       (CASE WHEN n <= 80 THEN 'open' WHEN n <= 99 THEN 'done' ELSE 'lost' END)::"Status",
       CASE WHEN n <= 70 THEN ARRAY['a, b', 'c"{}'] ELSE ARRAY['x'] END,
       timestamp '2026-01-01' + n * interval '1 day', date '2026-01-01' + n, n % 3 + 0.50, NULL
FROM generate_series(1, 100) n;
INSERT INTO "Events" (at, day) VALUES ('infinity', '-infinity');
ANALYZE "Events";
"""


def query(sql: str, *how: Bind) -> Query:
    return Query("q", "", sql, how)


def sampled(*columns: str, relation: str = "events") -> Bind:
    return Bind(columns, "sampled", relation)


def before_last(column: str, **interval: int) -> Bind:
    return Bind(("since",), "before_last", "events", column, timedelta(**interval))


@pytest.fixture
def events(scratch: Connect) -> Iterator[psycopg.Connection[Any]]:
    with scratch() as connection:
        connection.execute(EVENTS)
        yield connection


def values(connection: psycopg.Connection[Any], q: Query, *, execute: bool = True) -> list[tuple[str, tuple[Any, ...]]]:
    return [(b.bind, b.values) for b in bind(q, Names(read(connection)), connection, execute=execute)]


def rows(connection: psycopg.Connection[Any], bound: Bound) -> list[Any]:
    return psycopg.RawCursor(connection).execute(bound.sql, bound.values).fetchall()


BY_USER = query(
    "SELECT count(*) FROM events WHERE user_id = :user_id AND status = :status", sampled("user_id", "status")
)


def test_common_values_are_the_most_frequent_combination_and_rare_ones_exist(events: psycopg.Connection[Any]):
    common, rare = bind(BY_USER, Names(read(events)), events, execute=True)
    assert common.sql == 'SELECT count(*) FROM "Events" AS events WHERE "userId" = $1 AND status = $2'
    assert (common.names, common.values) == (("user_id", "status"), ("alice", "open"))
    assert (common.bind, rare.bind) == ("common", "rare")
    assert rows(events, common) == [(60,)]
    assert rows(events, rare) == [(1,)]


def test_the_same_values_are_sampled_every_time(events: psycopg.Connection[Any]):
    assert values(events, BY_USER) == values(events, BY_USER) == [
        ("common", ("alice", "open")),
        ("rare", ("dora 99", "done")),
    ]  # fmt: skip


def test_equally_frequent_combinations_are_taken_by_their_text(events: psycopg.Connection[Any]):
    events.execute("TRUNCATE \"Events\"; INSERT INTO \"Events\" (note) VALUES ('b'), ('B'), ('a')")
    q = query("SELECT 1 FROM events WHERE note = :note", sampled("note"))
    assert values(events, q) == [("common", ("B",)), ("rare", ("b",))]


def test_every_type_can_be_compared_with_its_sampled_value(events: psycopg.Connection[Any]):
    for column in ("status", "tags", "at", "day", "value"):
        q = query(f"SELECT count(*) FROM events WHERE {column} = :{column}", sampled(column))
        for bound in bind(q, Names(read(events)), events, execute=True):
            assert rows(events, bound)[0][0] >= 1, bound


def test_combinations_with_nulls_are_taken_only_where_there_are_no_others(events: psycopg.Connection[Any]):
    assert values(events, query("SELECT 1 FROM events WHERE note = :note", sampled("note"))) == [("common", (None,))]
    events.execute("UPDATE \"Events\" SET note = 'x' WHERE value = 1.5 AND status = 'lost'")
    q = query("SELECT 1 FROM events WHERE note = :note AND status = :status", sampled("note", "status"))
    assert [v for _, v in values(events, q)] == [("x", "lost")]


def test_one_combination_makes_one_bound(events: psycopg.Connection[Any]):
    events.execute('DELETE FROM "Events" WHERE "userId" <> \'alice\'')
    assert [which for which, _ in values(events, BY_USER)] == ["common"]


def test_a_query_without_sampled_binds_is_bound_once(events: psycopg.Connection[Any]):
    (bound,) = bind(query("SELECT 1 FROM events"), Names(read(events)), events, execute=True)
    assert (bound.bind, bound.values) == ("common", ())


@pytest.mark.parametrize("execute", [True, False], ids=["from the table", "from statistics"])
def test_a_time_counts_back_from_the_last_finite_one(events: psycopg.Connection[Any], execute: bool):
    for column, interval, expected in [
        ("at", {"days": 30}, "2026-03-12 00:00:00"),
        ("at", {"hours": 36}, "2026-04-09 12:00:00"),
        ("day", {"days": 1}, "2026-04-10"),
    ]:
        q = query(f"SELECT 1 FROM events WHERE {column} >= :since", before_last(column, **interval))
        assert values(events, q, execute=execute) == [("common", (expected,))]


def test_a_query_with_a_name_that_the_target_lacks_is_not_found(events: psycopg.Connection[Any]):
    with pytest.raises(NotFound, match="no column nope"):
        values(events, query("SELECT 1 FROM events WHERE status = :nope", sampled("nope")))


def test_big_tables_are_sampled_and_the_sample_is_the_same_every_time(
    events: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(binds, "SAMPLED_ROWS", 1000)
    events.execute(
        "CREATE TABLE parts (kind int, at timestamptz) PARTITION BY RANGE (kind);"
        "CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (5);"
        "CREATE TABLE high PARTITION OF parts FOR VALUES FROM (5) TO (1000);"
        "INSERT INTO parts SELECT CASE WHEN n % 3 = 0 THEN 7 ELSE n % 1000 END, now() FROM generate_series(1, 50000) n;"
        "ANALYZE low, high"
    )
    q = query("SELECT 1 FROM parts WHERE kind = :kind", sampled("kind", relation="parts"))
    names, asked = Names(read(events)), Recorded(events)
    first = bind(q, names, events, execute=True)
    assert asked.of(lambda: bind(q, names, events, execute=True)) == first
    assert first[0].values == ("7",)
    # About 1000 of 50,000 rows, by the number that the partitions have together.
    assert any("TABLESAMPLE system (2.000000) REPEATABLE (42)" in text for text in asked.texts)


def test_an_index_answers_for_the_last_time_of_a_big_table(
    events: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(binds, "SAMPLED_ROWS", 1000)
    events.execute('INSERT INTO "Events" SELECT e.* FROM "Events" e, generate_series(1, 100); ANALYZE "Events"')
    q = query("SELECT 1 FROM events WHERE at >= :since", before_last("at", days=0))
    asked = Recorded(events)
    asked.of(lambda: values(events, q))
    assert any("TABLESAMPLE" in text for text in asked.texts)
    events.execute('CREATE INDEX ON "Events" (at)')
    asked = Recorded(events)
    assert asked.of(lambda: values(events, q)) == [("common", ("2026-04-11 00:00:00",))]
    assert not any("TABLESAMPLE" in text for text in asked.texts)


def test_values_too_rare_for_the_sample_are_found_all_the_same(
    events: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(binds, "SAMPLED_ROWS", 100)
    events.execute(
        'INSERT INTO "Events" (status) SELECT \'open\' FROM generate_series(1, 20000); ANALYZE "Events";'
        "INSERT INTO \"Events\" (note, at) VALUES ('the only one', '2030-01-01')"
    )
    assert values(events, query("SELECT 1 FROM events WHERE note = :note", sampled("note"))) == [
        ("common", ("the only one",))
    ]
    q = query("SELECT 1 FROM events WHERE at >= :since", before_last("at", days=0))
    assert values(events, q)[0][1][0] >= "2026-04"


def test_views_are_sampled_too(events: psycopg.Connection[Any]):
    events.execute('CREATE VIEW "LatestEvents" AS SELECT * FROM "Events" WHERE value > 1')
    q = query("SELECT 1 FROM latest_events WHERE status = :status", sampled("status", relation="latest_events"))
    assert values(events, q)[0] == ("common", ("open",))


class Recorded:
    """The statements that the server executes for a session, as it counts them itself."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.texts: list[str] = []

    def of(self, action: Callable[[], Any]) -> Any:
        self._connection.add_notice_handler(self._keep)
        self._connection.execute("SET client_min_messages = log; SET log_min_duration_statement = 0")
        try:
            return action()
        finally:
            self._connection.execute("RESET log_min_duration_statement; RESET client_min_messages")
            self._connection.remove_notice_handler(self._keep)

    def _keep(self, notice: psycopg.errors.Diagnostic) -> None:
        self.texts.append(notice.message_primary or "")


# Where nothing may be executed


def test_without_executing_values_come_from_statistics(events: psycopg.Connection[Any]):
    common, rare = bind(BY_USER, Names(read(events)), events, execute=False)
    assert common.values == ("alice", "open")
    assert rows(events, rare) != rows(events, common)
    assert rare.values[1] in {"done", "lost"}


def test_array_and_enum_statistics_keep_their_types(events: psycopg.Connection[Any]):
    q = query("SELECT count(*) FROM events WHERE tags = :tags AND status = :status", sampled("tags", "status"))
    common, *_ = bind(q, Names(read(events)), events, execute=False)
    assert common.values == ('{"a, b","c\\"{}"}', "open")
    assert rows(events, common) == [(70,)]


def test_without_executing_no_table_is_read(events: psycopg.Connection[Any], scratch: Connect):
    q = query(
        "SELECT 1 FROM events WHERE status = :status AND at > :since", sampled("status"), before_last("at", days=1)
    )
    with scratch() as other:
        names = Names(read(events))
        other.execute('BEGIN; LOCK TABLE "Events" IN ACCESS EXCLUSIVE MODE')
        events.execute("SET lock_timeout = '200ms'")
        assert bind(q, names, events, execute=False)[0].values[0] == "open"
        with pytest.raises(psycopg.errors.LockNotAvailable):
            bind(q, names, events, execute=True)


def test_without_statistics_the_reason_says_what_to_do(events: psycopg.Connection[Any]):
    events.execute("CREATE TABLE fresh (id int); INSERT INTO fresh VALUES (1)")
    q = query("SELECT 1 FROM fresh WHERE id = :id", sampled("id", relation="fresh"))
    with pytest.raises(
        NotAnalysed, match=r"public\.fresh\.id has no statistics .*run ANALYZE public\.fresh, or .*--measure"
    ):
        values(events, q, execute=False)


# What goes wrong


def test_an_empty_table_is_not_analysed(events: psycopg.Connection[Any]):
    events.execute('TRUNCATE "Events"')
    with pytest.raises(NotAnalysed, match=r'public\."Events" has no rows to sample values from'):
        values(events, BY_USER)
    with pytest.raises(NotAnalysed, match=r'public\."Events"\.at holds no time to count back from'):
        values(events, query("SELECT 1 FROM events WHERE at > :since", before_last("at", days=1)))


def test_a_column_that_is_no_time_is_not_analysed_and_no_value_is_told(events: psycopg.Connection[Any]):
    q = query("SELECT 1 FROM events WHERE user_id > :since", before_last("user_id", days=1))
    for execute in (True, False):
        with pytest.raises(NotAnalysed, match="cannot be sampled") as caught:
            values(events, q, execute=execute)
        assert "alice" not in str(caught.value)


def test_a_missing_privilege_is_named(events: psycopg.Connection[Any]):
    names = Names(read(events))
    events.execute("SET SESSION AUTHORIZATION pg_read_all_settings")
    with pytest.raises(NotAnalysed, match=r'may not read public\."Events": GRANT SELECT ON public\."Events"'):
        bind(BY_USER, names, events, execute=True)


def test_sampling_takes_no_longer_than_the_limit(events: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binds, "TIMEOUT_MS", 5)
    # The server makes the whole series before its first row, which takes any machine longer than that.
    events.execute("CREATE VIEW slow AS SELECT n FROM generate_series(1, 3000000) AS a(n)")
    with pytest.raises(NotAnalysed, match=r"sampling public\.slow took longer than"):
        values(events, query("SELECT 1 FROM slow WHERE n = :n", sampled("n", relation="slow")))


def test_sampling_executes_nothing_that_may_not_be_executed(events: psycopg.Connection[Any]):
    events.execute("CREATE SEQUENCE s; CREATE VIEW counted AS SELECT nextval('s') AS n, status FROM \"Events\"")
    with pytest.raises(NotAnalysed, match=r"nextval\(regclass\) in the view counted is volatile"):
        values(events, query("SELECT 1 FROM counted WHERE n = :n", sampled("n", relation="counted")))
    assert events.execute("SELECT is_called FROM s").fetchone() == (False,)


def test_sampling_leaves_the_session_as_it_was(events: psycopg.Connection[Any]):
    before = events.execute("SELECT name, setting FROM pg_settings").fetchall()
    values(events, BY_USER)
    values(events, BY_USER, execute=False)
    assert events.execute("SELECT name, setting FROM pg_settings").fetchall() == before
    assert events.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
