"""Names that a person would not choose and a database may have: each goes through every verb on a real server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tests.fix_shop import Shop, statuses

from playbook import psql, undoing
from playbook.changes.check import Check, CheckSpec
from playbook.changes.index import IndexChange, IndexSpec
from playbook.plan.names import Names
from playbook.plan.rewriting import spelt
from playbook.target import catalog
from playbook.target.sql import quote


@dataclass(frozen=True)
class Named:
    """What one table, its schema, its columns, and what the plan makes on it are called."""

    table: str
    owner: str
    moment: str
    amount: str
    index: str
    check: str
    schema: str = "public"


HOSTILE = {
    "quotes": Named('he said "hi"', 'a"b', "it's", '"', 'ix "1"', 'ck "1"'),
    "semicolons": Named(
        "x; DROP TABLE bystander; --", ") ; --", "*/", "/* ", "i; DROP TABLE bystander; --", "c) CHECK (true); --"
    ),
    "sixty_three": Named("t" * 63, "o" * 63, "é" * 31 + "m", "a" * 63, "i" * 63, "é" * 31 + "c"),
    "not_ascii": Named("Größe 表", "straße", "時刻", "naïve ", "ìndex", "prüfung"),
    "reserved": Named("select", "user", "timestamp", "table", "order", "check", schema='My "schema"; --'),
    "formats": Named(" %s %(x)s\t{}", "new\nline", ":since", "dot.dot", "100%\n$1", "back\\slash\r"),
}
BOUND = 40


@pytest.fixture
def place(empty, tmp_path: Path, monkeypatch) -> Shop:
    """A table for each of HOSTILE, and a plan that speaks of them in snake_case."""
    with empty.connect() as connection:
        connection.execute("CREATE TABLE bystander (x int)")
        for named in HOSTILE.values():
            lay_out(connection, named)
        connection.execute("VACUUM (ANALYZE)")
    (tmp_path / "workload.sql").write_text("".join(map(query, HOSTILE)))
    with (tmp_path / "plan.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(plan(HOSTILE), file)
    shop = Shop(empty, tmp_path / "plan.yaml", tmp_path, mapping(HOSTILE))
    monkeypatch.setenv(shop.variable, shop.url())
    return shop


def lay_out(connection, named: Named) -> None:
    schema, table = quote(named.schema), quote(named.schema, named.table)
    owner, moment, amount = (quote(name) for name in (named.owner, named.moment, named.amount))
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}".encode())
    connection.execute(f"CREATE TABLE {table} ({owner} text, {moment} timestamptz, {amount} int)".encode())
    rows = f"SELECT 'o' || n % 7, timestamptz '2026-01-01Z' + n * interval '1 hour', n FROM generate_series(1, {BOUND - 1}) n"
    connection.execute(f"INSERT INTO {table} {rows}".encode())


def query(key: str) -> str:
    """A query of the plan on one of the tables."""
    return f"""
-- name: of_{key}
-- bind owner: sampled from {key}
-- bind since: 1 day before the last {key}.moment
SELECT owner, moment, {key}.amount, '%s {{}} :x' AS told FROM {key} WHERE owner = :owner AND moment > :since ORDER BY moment;
"""


def plan(places: dict[str, Named]) -> dict:
    steps = []
    for key, named in places.items():
        columns = ["owner", "moment DESC"]
        where = "amount IS NOT NULL AND owner <> '%s; {}'"
        expression = f"amount < {BOUND} AND {key}.owner <> ':x'"
        index = {"kind": "index", "table": key, "columns": columns, "where": where, "claims": [f"of_{key}"]}
        steps.append({"name": named.index, **index})
        steps.append({"name": named.check, "kind": "check", "table": key, "expression": expression, "keep": "always"})
    phase = {"id": "1", "title": "One", "week": 1, "priority": "critical", "notebook": "one", "steps": steps}
    return {"name": "hostile", "title": "Hostile names", "workload": "workload.sql", "phases": [phase]}


def mapping(places: dict[str, Named]) -> dict[str, str]:
    """The user's: as nothing else could tell what is meant."""
    mapped = {}
    for key, named in places.items():
        mapped[key] = f"{spelt(named.schema)}.{spelt(named.table)}"
        mapped |= {f"{key}.{name}": spelt(getattr(named, name)) for name in ("owner", "moment", "amount")}
    return mapped


def test_hostile_names_go_through_every_verb(place, snapshot):
    as_found = snapshot(place.target)
    steps = {f"1/{name}" for named in HOSTILE.values() for name in (named.index, named.check)}
    phase = place.playbook(budget_s=1.0).phase("1")
    shown = [statement.sql for _, statements, _ in phase.preview().steps for statement in statements]
    checked = phase.check()
    assert statuses(checked) == dict.fromkeys(steps, "planned")
    before = phase.before()
    assert not before.left_out
    assert {each.query for each in before.measurements if each.plan} >= {f"of_{key}" for key in HOSTILE}
    applied = phase.apply()
    assert statuses(applied) == dict.fromkeys(steps, "applied"), [state.reason for _, state, _ in applied.steps]
    assert sorted(sql for (sql,) in place.execute("SELECT sql FROM playbook.statement")) == sorted(shown)
    assert statuses(place.playbook().phase("1").check()) == dict.fromkeys(steps, "applied")
    assert {one.error for one in undoing.undo(place.context(), tuple(sorted(steps)[::2]))} == {""}
    done = place.by_hand(psql.undo_sql(place.context()))
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(place.target) == as_found
    assert place.execute("SELECT to_regclass('bystander')") == [("bystander",)]


def test_hostile_names_of_the_plans_own_are_found_without_a_mapping(scratch):
    """`timestamp` and `user` as columns, and a table that is a reserved word."""
    with scratch() as connection:
        connection.execute('CREATE TABLE "order" ("user" text, "timestamp" timestamptz, "Check" int)')
        names = Names(catalog.read(connection))
        sql = names.rewrite('SELECT "user", timestamp, "order".check FROM "order" WHERE "order".user = :who')
        assert sql == 'SELECT "user", timestamp, "order"."Check" FROM "order" WHERE "order".user = :who'
        assert names.rewrite_expression("order", '"user" IS NOT NULL AND timestamp > now()') == (
            '"user" IS NOT NULL AND timestamp > now()'
        )
        connection.execute(f"EXPLAIN {sql.replace(':who', 'NULL')}")


IDENTIFIERS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30),
    st.sampled_from([name for named in HOSTILE.values() for name in (named.table, named.owner, named.index)]),
).filter(lambda name: len(name.encode()) <= 63)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(IDENTIFIERS, min_size=6, max_size=6, unique_by=lambda name: name.replace("_", "").lower()))
def test_whatever_the_names_what_is_made_is_found_again_and_dropped(scratch, identifiers):
    """The statements of an index and of a check, run; the catalog then knows both as what was wanted."""
    named = Named(*identifiers)
    places = {"things": named}
    with scratch() as connection, connection.transaction(force_rollback=True):
        lay_out(connection, named)
        index, check = plan(places)["phases"][0]["steps"]
        specs = IndexSpec(**index | {"columns": tuple(index["columns"]), "claims": ()}), CheckSpec(**check)

        def changes():
            found = catalog.read(connection)
            names = Names(found, mapping(places))
            return IndexChange(specs[0], names, found), Check(specs[1], names, found)

        for change in changes():
            assert change.stands().standing == "absent"
            for statement in change.statements():
                connection.execute(statement.sql.replace(" CONCURRENTLY ", " ", 1).encode())
        for change in changes():
            assert change.stands().standing == "exists"
            assert list(change.objects(connection)) == list(change.makes())
            for statement in change.undo():
                connection.execute(statement.sql.replace(" CONCURRENTLY ", " ", 1).encode())
        assert [change.stands().standing for change in changes()] == ["absent", "absent"]
