"""Kind `materialized_view`: an aggregate kept as a table, refreshed on a schedule."""

from __future__ import annotations

from typing import Any

import psycopg

from playbook.changes.change import Finding
from playbook.changes.equality import same_query
from playbook.changes.summary import Part, Refreshed, Summary, stands_as, stands_otherwise, view_definition
from playbook.changes.summary_spec import SummarySpec
from playbook.target.sql import Statement, literal, quote

_CHANGED = """
SELECT greatest(pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid), pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid))
FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass({})"""
_POPULATED = "SELECT c.relispopulated FROM pg_catalog.pg_class AS c WHERE c.oid = pg_catalog.to_regclass({})"

_INDEX = (
    "SELECT pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index AS i WHERE i.indexrelid = to_regclass(%s)"
)


class MaterializedView(Summary):
    """A materialized view with a unique index, made empty and then filled."""

    kind = "materialized_view"
    Spec = SummarySpec
    relkind = "m"

    def parts(self) -> tuple[Part, ...]:
        """The view WITH NO DATA, its index, its rows, its statistics."""
        view, name, lit = self.qualified, self.spec.name, literal(self.qualified)
        read = ", ".join(table.qualified for table in self.query.tables)
        made = Statement(
            f"CREATE MATERIALIZED VIEW {view} AS\n{self.query.sql}\nWITH NO DATA",
            f"make {name}, without rows yet",
            "ACCESS SHARE",
            read,
        )
        filled = Statement(
            f"REFRESH MATERIALIZED VIEW {view}",
            f"fill {name}, which nobody can read before",
            "ACCESS EXCLUSIVE",
            view,
            long=True,
        )
        analysed = Statement(
            f"VACUUM (ANALYZE) {view}",
            f"statistics of {name}, and that its index alone tells every row",
            "SHARE UPDATE EXCLUSIVE",
            view,
            transactional=False,
            long=True,
        )
        emptied = Statement(
            f"REFRESH MATERIALIZED VIEW {view} WITH NO DATA", f"leave {name} empty, as it was", "ACCESS EXCLUSIVE", view
        )
        dropped = Statement(f"DROP MATERIALIZED VIEW IF EXISTS {view}", f"drop {name}", "ACCESS EXCLUSIVE", view)
        told = (
            f"SELECT pg_catalog.pg_relation_size(pg_catalog.to_regclass({lit})) = 0 OR EXISTS (SELECT FROM "
            f"pg_catalog.pg_stats WHERE schemaname = {literal(self.schema)} AND tablename = {literal(name)})"
        )
        return (
            Part(made, dropped, stands_as(view, "m")),
            *self._index(),
            Part(filled, emptied, _POPULATED.format(lit)),
            Part(analysed, None, told),
        )

    def _index(self) -> tuple[Part, ...]:
        if (index := self.spec.unique_index) is None:
            return ()
        keys = f"({', '.join(key.key_sql() for key in index.keys)})"
        keys += f" INCLUDE ({', '.join(map(quote, index.include))})" if index.include else ""
        name = quote(self.schema, index.name)
        made = Statement(
            f"CREATE UNIQUE INDEX {quote(index.name)}\n  ON {self.qualified} {keys}",
            f"tell its rows apart, for REFRESH CONCURRENTLY ({index.name})",
            "SHARE",
            self.qualified,
        )
        dropped = Statement(f"DROP INDEX IF EXISTS {name}", f"drop {index.name}", "ACCESS EXCLUSIVE", self.qualified)
        wanted = f"CREATE UNIQUE INDEX {quote(index.name)} ON {self.qualified} USING btree {keys}"
        probe = f"SELECT pg_catalog.pg_get_indexdef(pg_catalog.to_regclass({literal(name)})) = {literal(wanted)}"
        return (Part(made, dropped, probe),)

    def undo(self) -> tuple[Statement, ...]:
        """DROP takes its index and rows along."""
        made = {part.statement.sql for part in self._open()}
        whole = self.parts()[0]
        if whole.statement.sql not in made:
            return super().undo()
        job = (self.job.remove(),) if self.job else ()
        return (whole.undo, *job) if whole.undo else job

    def difference(self, connection: psycopg.Connection[Any]) -> str:
        """By what the server makes of both queries."""
        ((stored,),) = connection.execute(
            "SELECT pg_catalog.pg_get_viewdef(pg_catalog.to_regclass(%s))", [self.qualified]
        ).fetchall()
        if not same_query(connection, self.query.sql, stored.rstrip().rstrip(";")):
            return stands_otherwise(self.spec.name, stored, self.query.sql)
        return self._other_index(connection)

    def _other_index(self, connection: psycopg.Connection[Any]) -> str:
        """What stands under the index's name, where that is not the plan's."""
        for part in self._index():
            assert self.spec.unique_index is not None
            index = quote(self.schema, self.spec.unique_index.name)
            stored = connection.execute(_INDEX, [index]).fetchone()
            if stored and not self._stands(connection, part):
                return stands_otherwise(index, stored[0], part.statement.sql)
        return ""

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Also: keys that may be NULL, and the refresh that readers wait for where nothing is unique."""
        found = super().preflight(connection, execute=execute)
        if any(each.concern == "blocked" for each in found):
            return found
        return [*found, *self._uniqueness()]

    def _uniqueness(self) -> list[Finding]:
        if self.spec.unique_index is None:
            detail = "without a unique index it is refreshed under a lock, and readers wait as long as that takes"
            remedy = f"keep refresh_at ({self.spec.refresh_at} {self.spec.time_zone}) in a quiet hour"
            return [Finding("warn", detail, remedy)]
        known = {name for name, _ in self.columns}
        named = [*(key.column for key in self.spec.unique_index.columns), *self.spec.unique_index.include]
        if missing := [column for column in named if column not in known]:
            return [Finding("blocked", f"the query returns no column {missing[0]}", "mend unique_index in the plan")]
        return []

    def refresh(self, connection: psycopg.Connection[Any]) -> Refreshed:
        """CONCURRENTLY once it has rows and an index; plain the first time."""
        lit = literal(self.qualified)
        concurrently = self.is_filled(connection) and self.spec.unique_index is not None
        if not concurrently:
            connection.execute(f"REFRESH MATERIALIZED VIEW {self.qualified}".encode())
            ((rows,),) = connection.execute(f"SELECT count(*) FROM {self.qualified}".encode()).fetchall()
            return Refreshed("plain", rows)
        count = _CHANGED.format(lit).encode()
        ((before,),) = connection.execute(count).fetchall()  # of this session's earlier transactions, not yet reported
        connection.execute(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {self.qualified}".encode())
        ((after,),) = connection.execute(count).fetchall()
        return Refreshed("concurrently", after - before)

    def is_filled(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether it may be read."""
        return connection.execute(_POPULATED.format(literal(self.qualified)).encode()).fetchall() == [(True,)]

    def job_body(self) -> str:
        """As `refresh`."""
        lit = literal(self.qualified)
        plain = (
            f"REFRESH MATERIALIZED VIEW {self.qualified};\n  manner := 'plain';\n"
            f"  changed := (SELECT count(*) FROM {self.qualified});"
        )
        if self.spec.unique_index is None:
            return plain
        return (
            f"IF ({_POPULATED.format(lit)}) THEN\n"
            f"  REFRESH MATERIALIZED VIEW CONCURRENTLY {self.qualified};\n  manner := 'concurrently';\n"
            f"  changed := ({_CHANGED.format(lit).strip()});\n"
            f"ELSE\n  {plain}\nEND IF;"
        )

    def freshness(self) -> str:
        """Also: that readers wait, where no index can tell its rows apart."""
        waits = "" if self.spec.unique_index else "; readers wait while it is refreshed"
        return super().freshness() + waits

    def proof(self, connection: psycopg.Connection[Any]) -> str:
        """How many rows it holds."""
        ((rows,),) = connection.execute(f"SELECT count(*) FROM {self.qualified}".encode()).fetchall()
        return f"{rows:,} rows kept"

    def makes(self) -> tuple[str, ...]:
        """The view, and its job."""
        return (self.qualified, *((self.job.object_name,) if self.job else ()))

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """Its query, columns, indexes and comment; of a job, schedule and command."""
        return view_definition(connection, name)

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int | None:
        """Rows and index."""
        row = connection.execute(
            "SELECT pg_catalog.pg_total_relation_size(pg_catalog.to_regclass(%s))", [self.qualified]
        ).fetchone()
        return row[0] if row else None
