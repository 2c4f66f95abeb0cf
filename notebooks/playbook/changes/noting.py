"""How writers tell an incremental summary what they changed: a trigger function and the triggers that call it.

Each statement appends the rows that it added and removed to a table of deltas. It updates none there, so writers never
meet in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playbook.changes.summary import Part
from playbook.target.catalog import Table
from playbook.target.sql import Statement, literal, quote

EVENTS = ("insert", "update", "delete", "truncate")
SIGN = "playbook_sign"
"""The column that tells how often a noted row is to be counted: 1, -1, or more of either."""
_SAME = (
    "SELECT coalesce((SELECT pg_catalog.md5(p.prosrc) = pg_catalog.md5({body}) AND p.prosecdef "
    "FROM pg_catalog.pg_proc AS p WHERE p.oid = pg_catalog.to_regprocedure({name})), false)"
)


@dataclass(frozen=True)
class Noting:
    """The function and triggers on `table` by which `summary` (its name) is told; all other names are quoted.

    What is noted is `reads`, the columns that the sums are made of, as they are: nothing is computed while a writer
    waits. The function runs with its owner's rights, since whoever may write the table need not be able to write
    `deltas`, and so with a search_path of its own. `comparable`: values of these columns can be told to be equal.
    """

    summary: str
    table: Table
    reads: Sequence[str]
    sums: str
    deltas: str
    function: str
    comparable: bool

    def parts(self) -> tuple[Part, ...]:
        """The function, a trigger for each event, that these fire in every session, and what keeps the columns."""
        return (
            self._function_part(),
            *(self._trigger_part(event) for event in EVENTS),
            self._always_part(),
            *((self._columns_part(),) if self.reads else ()),
        )

    def _function_part(self) -> Part:
        body = self._body()
        made = Statement(
            f"CREATE FUNCTION {self.function} RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
            f"  SET search_path = pg_catalog, pg_temp AS $note${body}$note$",
            "note what a statement changed",
        )
        dropped = Statement(f"DROP FUNCTION IF EXISTS {self.function}", "note nothing any more")
        return Part(made, dropped, _SAME.format(body=literal(body), name=literal(self.function)))

    def _body(self) -> str:
        columns = [quote(name) for name in self.reads]
        append = f"INSERT INTO {self.deltas} ({', '.join([*columns, SIGN])})"

        def rows(source: str, sign: int) -> str:
            return f"SELECT {', '.join([*columns, str(sign)])} FROM {source}"

        return (
            "\n#variable_conflict use_column\nBEGIN\n"
            f"  IF TG_OP = 'INSERT' THEN\n    {append}\n    {rows('added', 1)};\n"
            f"  ELSIF TG_OP = 'UPDATE' THEN\n    {append}\n    {self._changed()};\n"
            f"  ELSIF TG_OP = 'DELETE' THEN\n    {append}\n    {rows('removed', -1)};\n"
            f"  ELSE\n    TRUNCATE {self.sums}, {self.deltas};\n  END IF;\n  RETURN NULL;\nEND\n"
        )

    def _changed(self) -> str:
        """Rows as they became and as they were; those in which nothing that is noted has changed cancel out."""
        columns = [quote(name) for name in self.reads]
        both = " UNION ALL ".join(
            f"SELECT {', '.join([*columns, f'{sign} AS {SIGN}'])} FROM {source}"
            for source, sign in (("added", 1), ("removed", -1))
        )
        if not (columns and self.comparable):
            return both
        return (
            f"SELECT {', '.join(columns)}, sum({SIGN})\n    FROM ({both}) AS noted\n"
            f"    GROUP BY {', '.join(columns)} HAVING sum({SIGN}) <> 0"
        )

    def _trigger(self, event: str) -> str:
        return quote(f"{self.summary}_{event}")

    def _trigger_part(self, event: str) -> Part:
        new = " NEW TABLE AS added" if event in {"insert", "update"} else ""
        old = " OLD TABLE AS removed" if event in {"update", "delete"} else ""
        tables = f"\n  REFERENCING{old}{new}" if old or new else ""
        when = f"AFTER {event.upper()} ON {self.table.qualified}{tables}\n  FOR EACH STATEMENT"
        return self._made(event, when, f"note each {event.upper()}", f"note no {event.upper()}")

    def _columns_part(self) -> Part:
        """One that never fires: a trigger depends on the columns it names, a function does not on those it reads."""
        columns = ", ".join(map(quote, self.reads))
        when = f"AFTER UPDATE OF {columns} ON {self.table.qualified}\n  FOR EACH STATEMENT WHEN (false)"
        purpose = "let nobody drop a column that is noted, since then no writer could write"
        return self._made("columns", when, purpose, "the columns are needed no more")

    def _made(self, name: str, when: str, purpose: str, purpose_of_undo: str) -> Part:
        table = self.table.qualified
        make = f"CREATE TRIGGER {self._trigger(name)} {when} EXECUTE FUNCTION {self.function}"
        drop = f"DROP TRIGGER IF EXISTS {self._trigger(name)} ON {table}"
        return Part(
            Statement(make, purpose, "SHARE ROW EXCLUSIVE", table),
            Statement(drop, purpose_of_undo, "ACCESS EXCLUSIVE", table),
            f"SELECT EXISTS ({self._triggers(name)})",
        )

    def _triggers(self, *events: str) -> str:
        listed = ", ".join(literal(f"{self.summary}_{event}") for event in events)
        return (
            "SELECT FROM pg_catalog.pg_trigger AS t WHERE NOT t.tgisinternal "
            f"AND t.tgrelid = pg_catalog.to_regclass({literal(self.table.qualified)}) AND t.tgname IN ({listed})"
        )

    def _always_part(self) -> Part:
        """In sessions that switch ordinary triggers off, too: loaders and replication set session_replication_role."""
        each = ",\n  ".join(f"ENABLE ALWAYS TRIGGER {self._trigger(event)}" for event in EVENTS)
        made = Statement(
            f"ALTER TABLE {self.table.qualified}\n  {each}",
            "note writes of sessions that switch triggers off, too",
            "SHARE ROW EXCLUSIVE",
            self.table.qualified,
        )
        ours = self._triggers(*EVENTS)
        return Part(made, None, f"SELECT EXISTS ({ours}) AND NOT EXISTS ({ours} AND t.tgenabled <> 'A')")
