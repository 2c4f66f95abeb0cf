"""The bulk of a copy: pages of one table into another, some at a time, with a checkpoint that commits with each."""

from __future__ import annotations

from dataclasses import dataclass

from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.change_log import ChangeLog, dollar_quoted
from playbook.changes.partitioning.conversion import script
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Period
from playbook.target.sql import Statement, literal, quote

PAGES = 4096
"""Pages of the table that are copied in one transaction: 32 MB, some tenths of a second's work."""
STATE = "_copying"
"""How the name ends of the table that says how far a copy has come."""
COPIED = "copied by the playbook"
"""The comment of the state's table once every page was copied."""


@dataclass(frozen=True)
class Pages:
    """Those of `table`, into the quoted `destination`; what writers change meanwhile is in the `log`."""

    table: Attributes
    destination: str
    log: ChangeLog

    @property
    def state(self) -> str:
        """The quoted name of the table that says how far the copy has come."""
        return quote(self.table.schema, state_name(self.table.name))

    def create(self, first: Period, last: Period) -> list[str]:
        """The commands that make it; it also keeps which periods the copy was begun for."""
        days = f"{literal(str(first.start))}, {literal(str(last.start))}"
        return [
            f"CREATE TABLE {self.state} (first date, last date, filenode oid, page bigint, pages bigint)",
            f"INSERT INTO {self.state} VALUES ({days}, NULL, 0, 0)",
        ]

    def drop(self) -> str:
        """The command that drops it."""
        return f"DROP TABLE IF EXISTS {self.state}"

    def copy(self) -> Statement:
        """Repeats until every page that the table had at its beginning is copied."""
        columns, source = ", ".join(recreate.column_list(self.table)), self.table.qualified
        page = "(SELECT format('(%s,0)', {})::tid FROM {})"
        commands = [
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            f"LOCK TABLE {source} IN ACCESS SHARE MODE",
            "SET LOCAL row_security = off",
            "SET LOCAL jit = off",
            f"DO {dollar_quoted(self._begun())}",
            f"INSERT INTO {self.destination} ({columns}){recreate.overriding(self.table)}\n"
            f"  SELECT {columns} FROM {source}\n"
            f"  WHERE ctid >= {page.format('page', self.state)}\n"
            f"    AND ctid < {page.format(f'least(page + {self._at_a_time}, pages)', self.state)}",
            f"UPDATE {self.state} SET page = least(page + {self._at_a_time}, pages)",
            f"DO {dollar_quoted(self._ended())}",
            f"SELECT page >= pages, page, pages, 'pages copied' FROM {self.state}",
        ]
        return Statement(
            script(commands),
            f"copy the rows, {self._at_a_time:,} pages at a time",
            "ACCESS SHARE",
            source,
            long=True,
            repeats=True,
            unless=f"obj_description(to_regclass({literal(self.state)}), 'pg_class') "
            f"IS NOT DISTINCT FROM {literal(COPIED)}",
        )

    def _begun(self) -> str:
        table = literal(self.table.qualified)
        return (
            "\nBEGIN  -- with the first page, and anew where the table has got another file\n"
            f"  IF (SELECT filenode FROM {self.state}) IS DISTINCT FROM pg_catalog.pg_relation_filenode({table}) THEN\n"
            f"    {self.log.clear()};\n"
            f"    TRUNCATE {self.destination};\n"
            f"    UPDATE {self.state} SET filenode = pg_catalog.pg_relation_filenode({table}), page = 0,\n"
            f"      pages = pg_catalog.pg_relation_size({table}) / current_setting('block_size')::int;\n"
            "  END IF;\n"
            "END "
        )

    def _ended(self) -> str:
        return (
            f"\nBEGIN\n  IF (SELECT page >= pages FROM {self.state}) THEN\n"
            f"    COMMENT ON TABLE {self.state} IS {literal(COPIED)};\n  END IF;\nEND "
        )

    @property
    def _at_a_time(self) -> int:
        """Before PostgreSQL 14 a range of pages is found by reading them all: there it is copied in one go."""
        return PAGES if self.table.server_version >= 140000 else 2**32


def state_name(table: str) -> str:
    """The name of the table that says how far the copy of another has come."""
    return fit(table, STATE)
