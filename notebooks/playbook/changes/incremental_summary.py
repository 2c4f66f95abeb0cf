"""Kind `incremental_summary`: an aggregate that triggers keep up to date: an answer is never older than the tables.

A writer appends what its statement changed to a table of deltas; it updates no row, so writers never meet in one. A
reader adds up the deltas and the sums. A refresh, in the background, folds the deltas into the sums. All of it is
ordinary rows in ordinary transactions: a reader's snapshot sees the deltas of exactly those writes that it sees.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import psycopg

from playbook.changes import equality, preflight
from playbook.changes.aggregates import Aggregates, Component, Key, aggregates, names
from playbook.changes.change import Finding
from playbook.changes.noting import SIGN, Noting
from playbook.changes.summary import Part, Refreshed, Summary, stands_as, stands_otherwise, view_definition
from playbook.changes.summary_spec import SummarySpec
from playbook.errors import PlanError
from playbook.plan.names import Names
from playbook.target.catalog import Catalog, Table
from playbook.target.sql import Statement, literal, quote

CHECKED_ROWS = 10_000
"""Rows on which it is checked that what depends on the clock moves in a straight line with it."""
_LONGEST = 50


class IncrementalSummary(Summary):
    """A view over two tables: sums by group, and the deltas that are yet to be folded into them."""

    kind = "incremental_summary"
    Spec = SummarySpec
    relkind = "v"

    def __init__(self, spec: SummarySpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        if len(spec.name.encode()) > _LONGEST:
            raise PlanError(f"{spec.name}: at most {_LONGEST} bytes, since the names of its parts are longer")
        self.taken: Aggregates = aggregates(self.query.sql, self.table, self.query.clock)
        self._comparable = True

    def ask(self, connection: psycopg.Connection[Any]) -> None:
        """Also whether the values that are noted can be compared: there is no such thing as equal JSON or points."""
        listed = ", ".join(map(quote, self.taken.reads))
        try:
            equality.columns(connection, f"SELECT FROM {self.table.qualified} GROUP BY {listed or '()'}")
        except psycopg.Error:
            self._comparable = False
        super().ask(connection)

    @property
    def table(self) -> Table:
        """The one table that it sums."""
        return self.query.tables[0]

    def _name(self, part: str) -> str:
        return quote(self.schema, f"{self.spec.name}_{part}")

    @cached_property
    def _sums(self) -> str:
        return self._name("sums")

    @cached_property
    def _deltas(self) -> str:
        return self._name("deltas")

    @property
    def _function(self) -> str:
        return self._name("note") + "()"

    @property
    def _noting(self) -> Noting:
        return Noting(
            summary=self.spec.name,
            table=self.table,
            reads=self.taken.reads,
            sums=self._sums,
            deltas=self._deltas,
            function=self._function,
            comparable=self._comparable,
        )

    @property
    def _kept(self) -> tuple[Key | Component, ...]:
        return (*self.taken.keys, *self.taken.components)

    def parts(self) -> tuple[Part, ...]:
        """Both tables, the triggers, the sums as they are once these stand, the view."""
        return (
            self._sums_part(),
            self._deltas_part(),
            *self._noting.parts(),
            self._fill_part(),
            self._index_part(),
            self._view_part(),
            self._analyze_part(),
        )

    def _stored(self) -> list[str]:
        """Columns that PostgreSQL makes of the sums when it writes them."""
        own = {c.name: quote(c.name) for c in self.taken.components}
        stored = [each for measure in self.taken.measures for each in measure.stored]
        return [f"{quote(name)} numeric GENERATED ALWAYS AS ({sql.format(**own)}) STORED" for name, sql in stored]

    def _sums_part(self) -> Part:
        types = dict(self.columns)
        keys = [f"{quote(key.name)} {types.get(key.name, 'text')}" for key in self.taken.keys]
        kept = [f"{quote(c.name)} {c.type} NOT NULL" for c in self.taken.components]
        columns = ",\n  ".join([*keys, *kept, *self._stored()])
        return self._table_part(self._sums, "the sums by group", f"(\n  {columns}\n) WITH (fillfactor = 80)")

    def _deltas_part(self) -> Part:
        """Its columns are of the table's types and collations; it is vacuumed by what was folded, however large."""
        options = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000"
        columns = ", ".join([*map(quote, self.taken.reads), f"CAST(1 AS bigint) AS {SIGN}"])
        select = f"SELECT {columns} FROM {self.table.qualified} WITH NO DATA"
        return self._table_part(self._deltas, "what writers changed since, appended", f"WITH ({options}) AS\n{select}")

    def _table_part(self, name: str, purpose: str, definition: str) -> Part:
        made = Statement(f"CREATE TABLE {name} {definition}", purpose)
        dropped = Statement(f"DROP TABLE IF EXISTS {name}", f"drop {purpose}", "ACCESS EXCLUSIVE", name)
        return Part(made, dropped, stands_as(name, "r"))

    def _each(self, source: str, sign: str = "") -> str:
        """The rows of a relation that has the table's columns, each as its share of the sums."""
        keys = ", ".join(f"{key.sql} AS {quote(key.name)}" for key in self.taken.keys)
        components = ", ".join(f"{sign}({c.sql}) AS {quote(c.name)}" for c in self.taken.components)
        where = f" WHERE {self.taken.where}" if self.taken.where else ""
        return f"SELECT {keys}, {components} FROM {source} AS {self.taken.alias}{where}"

    def _noted(self, source: str) -> str:
        """Deltas, each as its share of the sums, summed by group."""
        sums = ", ".join(f"CAST(sum({quote(c.name)}) AS {c.type}) AS {quote(c.name)}" for c in self.taken.components)
        keys = names(self.taken.keys)
        return f"SELECT {keys}, {sums} FROM ({self._each(source, f'{SIGN} * ')}) AS noted GROUP BY {keys}"

    def _fill_part(self) -> Part:
        """Rows less what the deltas say already, in one snapshot: so it counts exactly once what was written since."""
        sums = ", ".join(f"sum({quote(c.name)})" for c in self.taken.components)
        sql = (
            f"INSERT INTO {self._sums} ({names(self._kept)})\nSELECT {names(self.taken.keys)}, {sums}\nFROM (\n"
            f"  {self._each(self.table.qualified)}\n  UNION ALL\n  {self._each(self._deltas, f'-{SIGN} * ')}\n"
            f") AS counted\nGROUP BY {names(self.taken.keys)}"
        )
        made = Statement(sql, f"fill {self.spec.name}", "ACCESS SHARE", self.table.qualified, long=True)
        # Not by its size: an insert that was rolled back leaves an empty file that is long.
        probe = (
            f"SELECT EXISTS (SELECT FROM {self._sums}) OR NOT (EXISTS (SELECT FROM {self._deltas}) "
            f"OR EXISTS (SELECT FROM {self.table.qualified}))"
        )
        return Part(made, None, probe)

    def _index_part(self) -> Part:
        given = self.spec.unique_index
        name = given.name if given else f"{self.spec.name}_key"
        keys = ", ".join(key.key_sql() for key in given.keys) if given else names(self.taken.keys)
        made = Statement(
            f"CREATE INDEX {quote(name)}\n  ON {self._sums} ({keys})", f"find a group ({name})", "SHARE", self._sums
        )
        whole = quote(self.schema, name)
        dropped = Statement(f"DROP INDEX IF EXISTS {whole}", f"drop {name}", "ACCESS EXCLUSIVE", self._sums)
        wanted = f"CREATE INDEX {quote(name)} ON {self._sums} USING btree ({keys})"
        probe = f"SELECT pg_catalog.pg_get_indexdef(pg_catalog.to_regclass({literal(whole)})) = {literal(wanted)}"
        return Part(made, dropped, probe)

    def _match(self, one: str, other: str) -> str:
        return " AND ".join(
            f"{one}.{quote(key.name)} {'IS NOT DISTINCT FROM' if key.nullable else '='} {other}.{quote(key.name)}"
            for key in self.taken.keys
        )

    def _view_sql(self) -> str:
        """The sums as they are kept of groups that nothing was noted of, and the others with what was noted.

        Two branches, so that a condition on the keys reaches the index of the sums. In the first, which mostly holds
        nearly all groups, nothing is joined: what was noted is a small hash that each group is looked up in.
        """
        alone = {c.name: f"s.{quote(c.name)}" for c in self.taken.components}
        both = {c.name: f"(coalesce(s.{quote(c.name)}, 0) + d.{quote(c.name)})" for c in self.taken.components}
        return (
            f"SELECT\n  {self._shown('s', alone)}\nFROM {self._sums} AS s\nWHERE s.n > 0 AND {self._untouched()}\n"
            f"UNION ALL\nSELECT\n  {self._shown('d', both)}\nFROM ({self._noted(self._deltas)}) AS d\n"
            f"LEFT JOIN {self._sums} AS s ON {self._match('s', 'd')}\nWHERE coalesce(s.n, 0) + d.n > 0"
        )

    def _untouched(self) -> str:
        """Whether nothing was noted of a group of the sums. Only keys that are never NULL can be looked up by hash."""
        where = f" WHERE ({self.taken.where})" if self.taken.where else ""
        if any(key.nullable for key in self.taken.keys):
            keys = ", ".join(f"{key.sql} AS {quote(key.name)}" for key in self.taken.keys)
            noted = f"SELECT {keys} FROM {self._deltas} AS {self.taken.alias}{where}"
            return f"NOT EXISTS (SELECT FROM ({noted}) AS d WHERE {self._match('s', 'd')})"
        # A key that is NULL all the same, since its column may be by now, must not make the answer unknown for all.
        keys, known = ", ".join(key.sql for key in self.taken.keys), names(self.taken.keys, "s.")
        given = " AND ".join(f"({key.sql}) IS NOT NULL" for key in self.taken.keys)
        where = f"{where} AND {given}" if where else f" WHERE {given}"
        return f"({known}) NOT IN (SELECT {keys} FROM {self._deltas} AS {self.taken.alias}{where})"

    def _shown(self, side: str, components: dict[str, str]) -> str:
        """The select list, with the keys of one side; kept as they are divided already where `side` is the sums."""
        types = dict(self.columns)
        columns = {key.name: f"{side}.{quote(key.name)}" for key in self.taken.keys}
        for measure in self.taken.measures:
            stored = {name: f"s.{quote(name)}" for name, _ in measure.stored}
            whole = side == "s" and measure.read
            sql = measure.read.format(**stored) if whole else measure.sql.format(**components)
            columns[measure.name] = f"CAST({sql} AS {types.get(measure.name, 'numeric')})"
        return ",\n  ".join(f"{columns[name]} AS {quote(name)}" for name in self.taken.columns)

    def _view_part(self) -> Part:
        made = Statement(
            f"CREATE VIEW {self.qualified} AS\n{self._view_sql()}", f"read {self.spec.name}: sums and deltas"
        )
        dropped = Statement(
            f"DROP VIEW IF EXISTS {self.qualified}", f"drop {self.spec.name}", "ACCESS EXCLUSIVE", self.qualified
        )
        return Part(made, dropped, stands_as(self.qualified, "v"))

    def _analyze_part(self) -> Part:
        name = literal(f"{self.spec.name}_sums")
        size = f"pg_catalog.pg_relation_size(pg_catalog.to_regclass({literal(self._sums)}))"
        told = (
            f"SELECT coalesce({size} = 0, false) OR EXISTS (SELECT FROM pg_catalog.pg_stats "
            f"WHERE schemaname = {literal(self.schema)} AND tablename = {name})"
        )
        statement = Statement(
            f"ANALYZE {self._sums}", f"statistics of {self.spec.name}", "SHARE UPDATE EXCLUSIVE", self._sums, long=True
        )
        return Part(statement, None, told)

    def difference(self, connection: psycopg.Connection[Any]) -> str:
        """By what the server makes of both views."""
        ((stored,),) = connection.execute(
            "SELECT pg_catalog.pg_get_viewdef(pg_catalog.to_regclass(%s))", [self.qualified]
        ).fetchall()
        if equality.same_query(connection, self._view_sql(), stored.rstrip().rstrip(";")):
            return ""
        return stands_otherwise(self.spec.name, stored, self._view_sql())

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Also: triggers need the table's owner, and a table that is written by itself alone."""
        found = [*preflight_of_table(connection, self.table), *super().preflight(connection, execute=execute)]
        if any(each.concern in {"blocked", "privilege"} for each in found) or not self.taken.by_clock:
            return found
        if not execute:
            detail = "whether what depends on the clock moves in a straight line with it was not checked on rows"
            return [*found, Finding("not_checked", detail, "--measure checks it, and apply does before it begins")]
        return [*found, *self._straight(connection)]

    def _straight(self, connection: psycopg.Connection[Any]) -> list[Finding]:
        clock = self.query.clock
        for each in self.taken.by_clock:
            at = [
                f"CAST({each} AS numeric)".replace(clock, f"CAST('2026-01-01 {hour:02}:00:00+00' AS timestamptz)")
                for hour in (0, 1, 7)
            ]
            bent = f"abs(({at[2]}) - ({at[0]}) - 7 * (({at[1]}) - ({at[0]}))) > 0.000001"
            sql = (
                f"SELECT EXISTS (SELECT FROM (SELECT * FROM {self.table.qualified} LIMIT {CHECKED_ROWS}) "
                f"AS {self.taken.alias} WHERE {bent})"
            )
            with connection.transaction(force_rollback=True):
                connection.execute("SET TRANSACTION READ ONLY")
                if connection.execute(sql.encode()).fetchall() == [(True,)]:
                    detail = f"{' '.join(each.split())} does not move in a straight line with the clock"
                    return [Finding("blocked", detail, "keep it as a materialized_view")]
        return []

    def refresh(self, connection: psycopg.Connection[Any]) -> Refreshed:
        """Folds the deltas that are there into the sums."""
        changed = connection.execute(self._fold().encode()).rowcount
        connection.execute(f"DELETE FROM {self._sums} WHERE n = 0".encode())
        return Refreshed("folded", changed)

    def _fold(self) -> str:
        kept, noted = names(self._kept), ", ".join([*map(quote, self.taken.reads), SIGN])
        added = ", ".join(f"{quote(c.name)} = s.{quote(c.name)} + f.{quote(c.name)}" for c in self.taken.components)
        known = ", ".join(f"s.{quote(key.name)}" for key in self.taken.keys)
        return (
            f"WITH taken AS (DELETE FROM {self._deltas} RETURNING {noted}),\n"
            f"folded AS MATERIALIZED ({self._noted('taken')}),\n"
            f"changed AS (UPDATE {self._sums} AS s SET {added} FROM folded AS f WHERE {self._match('s', 'f')} "
            f"RETURNING {known}),\n"
            f"made AS (INSERT INTO {self._sums} ({kept}) SELECT {names(self._kept, 'f.')} FROM folded AS f\n"
            f"  WHERE NOT EXISTS (SELECT FROM {self._sums} AS s WHERE {self._match('s', 'f')}) RETURNING 1)\n"
            "SELECT FROM changed UNION ALL SELECT FROM made"
        )

    def is_filled(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether nothing waits to be folded."""
        return connection.execute(f"SELECT NOT EXISTS (SELECT FROM {self._deltas})".encode()).fetchall() == [(True,)]

    def job_body(self) -> str:
        """As `refresh`."""
        return (
            f"{self._fold().replace('SELECT FROM changed UNION ALL SELECT FROM made', '')}"
            "SELECT count(*) INTO changed FROM (SELECT FROM changed UNION ALL SELECT FROM made) AS each;\n"
            f"DELETE FROM {self._sums} WHERE n = 0;\nmanner := 'folded';"
        )

    def over_definition(self, sql: str) -> str | None:
        """There is no older answer."""
        return None

    def freshness(self) -> str:
        """Never older than the tables."""
        by = "pg_cron" if self.job else f"`playbook refresh --every {self.spec.refresh_every}`"
        return f"an answer is as fresh as the tables ({by} folds what writers appended)"

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """How many groups it holds."""
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {self.qualified}".encode()).fetchall()
        return f"{rows:,} groups kept"

    def makes(self) -> tuple[str, ...]:
        """The view, both tables, the function with its triggers, its job."""
        job = (self.job.object_name,) if self.job else ()
        return (self.qualified, self._sums, self._deltas, self._function, *job)

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """Of the function its text and where it is called from; else as of any summary."""
        if not name.endswith("()"):
            return view_definition(connection, name)
        row = connection.execute(_FUNCTION_DEFINITION, [name]).fetchone()
        return row[0] if row else None

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """Both tables and the index."""
        row = connection.execute(
            "SELECT pg_catalog.pg_total_relation_size(pg_catalog.to_regclass(%s)) "
            "+ pg_catalog.pg_total_relation_size(pg_catalog.to_regclass(%s))",
            [self._sums, self._deltas],
        ).fetchone()
        return row[0] if row else None


_FUNCTION_DEFINITION = """
SELECT pg_catalog.concat_ws(E'\\n', pg_catalog.pg_get_functiondef(p.oid),
  (SELECT pg_catalog.string_agg(
     pg_catalog.pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text, E'\\n' ORDER BY t.tgname)
   FROM pg_catalog.pg_trigger AS t WHERE t.tgfoid = p.oid))
FROM pg_catalog.pg_proc AS p WHERE p.oid = pg_catalog.to_regprocedure(%s)
"""


def preflight_of_table(connection: psycopg.Connection[Any], table: Table) -> list[Finding]:
    """Triggers by statement see what is written to the table itself, by its own statements."""
    found = [*preflight.ownership(connection, table), *preflight.long_transactions(connection, preflight.HOLDS_LOCK)]
    kind = {"p": "is partitioned", "v": "is a view", "m": "is a materialized view"}.get(table.kind)
    others = connection.execute(_WRITTEN_OTHERWISE, {"table": table.qualified}).fetchall()
    for why in [*([kind] if kind else []), *(row[0] for row in others)]:
        detail = f"{table.qualified} {why}: its writes cannot all be noted"
        found.append(Finding("blocked", detail, "keep it as a materialized_view"))
    return found


_WRITTEN_OTHERWISE = """
SELECT 'has child tables or is one' FROM pg_catalog.pg_inherits
WHERE pg_catalog.to_regclass(%(table)s)::oid IN (inhparent, inhrelid)
UNION
SELECT 'is written by a subscription' FROM pg_catalog.pg_subscription_rel
WHERE srrelid = pg_catalog.to_regclass(%(table)s)
"""
