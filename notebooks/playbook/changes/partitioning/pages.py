"""The bulk of a copy: pages of one table into another, some at a time, with a checkpoint that commits with each."""

from __future__ import annotations

from dataclasses import dataclass

from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.conversion import script
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period
from playbook.target.sql import Statement, dollar_quoted, literal, quote

PAGES = 4096
"""Pages of the table that are copied in one transaction: 32 MB, some tenths of a second's work."""
STATE = "_copying"
"""How the name ends of the table that says how far a copy has come."""


@dataclass(frozen=True)
class Pages:
    """Those of `table`, or of `rows_of` with the same columns, into `destination` (both quoted names).

    What writers change meanwhile is in the `log`. A row that the log speaks of is left to the replay: its new version
    may lie on a page that is copied later, and as its twin it would be in the way of every unique index.

    Its halves may be copied at the same time: each has a row of its own in the state, and none waits for the other. It
    is begun anew where the table has got another file. No page is being copied then, since that takes a lock that its
    reader would be in the way of, and of the two only one does it: the first, unless that has come to its end; the
    other then takes the whole. A half that is at its end stays so.
    """

    table: Attributes
    destination: str
    log: ChangeLog
    rows_of: str = ""

    @property
    def source(self) -> str:
        """The quoted name of the table whose pages they are."""
        return self.rows_of or self.table.qualified

    @property
    def state(self) -> str:
        """The quoted name of the table that says how far the copy has come."""
        return quote(self.table.schema, state_name(self.table.name))

    def create(self, first: Period, last: Period) -> list[str]:
        """The commands that make it; it also keeps which periods the copy was begun for."""
        days = f"{literal(str(first.start))}, {literal(str(last.start))}"
        rows = [f"({days}, 1, NULL, 0, NULL)", f"({days}, 2, NULL, 0, {'NULL' if self._by_range else '0'})"]
        return [
            f"CREATE TABLE {self.state} (first date, last date, half int, filenode oid, page bigint, pages bigint)",
            f"INSERT INTO {self.state} VALUES {', '.join(rows)}",
        ]

    def drop(self) -> str:
        """The command that drops it."""
        return f"DROP TABLE IF EXISTS {self.state}"

    def copy(self) -> tuple[Statement, ...]:
        """One statement for each half; they repeat until every page that the table had at its beginning is copied."""
        return tuple(self._copy(half) for half in ((1, 2) if self._by_range else (1,)))

    def _copy(self, half: int) -> Statement:
        source = self.source
        same_file = f"filenode = pg_catalog.pg_relation_filenode({literal(source)})"
        commands = [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            f"LOCK TABLE {source} IN ACCESS SHARE MODE",
            "SET LOCAL row_security = off",
            "SET LOCAL jit = off",
            f"DO {dollar_quoted(self._round(half))}",
            f"SELECT coalesce({same_file} AND page >= pages, false) AS finished, "
            "CASE WHEN pages > 0 THEN page END AS done, coalesce(pages, 0) AS total, 'pages copied' AS unit\n"
            f"  FROM {self.state} WHERE half = {half}",
        ]
        which = f", the {'first' if half == 1 else 'second'} half" if self._by_range else ""
        return Statement(
            script(commands),
            f"copy the rows, {self._at_a_time:,} pages at a time{which}",
            "ACCESS SHARE",
            source,
            long=True,
            repeats=True,
            beside="pages",
        )

    def _round(self, half: int) -> str:
        table, columns = literal(self.source), ", ".join(recreate.column_list(self.table))
        copied = (
            f"INSERT INTO {self.destination} ({columns}){recreate.overriding(self.table)}\n"
            f"      SELECT {columns} FROM {self.source} r WHERE ctid >= $1 AND ctid < $2\n"
            f"        AND NOT {self.log.pending('r')}"
        )
        ended = f"EXISTS (SELECT FROM {self.state} WHERE half = {3 - half} AND page >= pages)"
        split = f"CASE WHEN {ended} THEN blocks ELSE blocks / 2 END" if half == 1 else "0"
        return (
            "\nDECLARE\n"
            f"  file oid := pg_catalog.pg_relation_filenode({table});\n"
            f"  blocks bigint := pg_catalog.pg_relation_size({table}) / current_setting('block_size')::int;\n"
            f"  low bigint; high bigint; split bigint := {split};\n"
            "BEGIN\n"
            f"  SELECT page, least(page + {self._at_a_time}, pages) INTO low, high FROM {self.state}\n"
            f"    WHERE half = {half} AND filenode = file;\n"
            "  IF FOUND THEN\n"
            f"    EXECUTE {dollar_quoted(copied)}\n"
            "      USING format('(%s,0)', low)::tid, format('(%s,0)', high)::tid;\n"
            f"    UPDATE {self.state} SET page = high WHERE half = {half};\n"
            f"  ELSIF {'true' if half == 1 else ended} THEN  -- at first, and where the table has got another file\n"
            f"    {self.log.clear()};\n"
            f"    IF EXISTS (SELECT FROM {self.state} WHERE filenode IS NOT NULL) THEN\n"
            f"      TRUNCATE {self.destination};\n"
            "    END IF;\n"
            f"    UPDATE {self.state} SET filenode = file, page = CASE half WHEN 1 THEN 0 ELSE split END,\n"
            "      pages = CASE half WHEN 1 THEN split ELSE blocks END;\n"
            "  ELSE\n"
            "    PERFORM pg_sleep(0.02);  -- the first half does that\n"
            "  END IF;\n"
            "END "
        )

    @property
    def _by_range(self) -> bool:
        """Before PostgreSQL 14 a range of pages is found by reading them all: there they are copied in one go."""
        return self.table.server_version >= 140000

    @property
    def _at_a_time(self) -> int:
        return PAGES if self._by_range else 2**32


def state_name(table: str) -> str:
    """The name of the table that says how far the copy of another has come."""
    return fit(table, STATE)
