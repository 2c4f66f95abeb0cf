"""A log of the keys that writers touch, and its replay: how a second table follows one that is being written to.

A trigger on the source notes the primary key and the partition key of each row that is inserted, updated (as it was
and as it is) or deleted; TRUNCATE is noted by a row of NULLs. The replay takes keys out of the log and gives the
destination the source's present rows of these keys in place of those that it has.

Why nothing is lost, doubled or reordered:

* *Nothing is missing from the log.* CREATE TRIGGER takes SHARE ROW EXCLUSIVE, and each writer keeps ROW EXCLUSIVE until
  its transaction has ended: once the trigger stands, every transaction that wrote without it has ended, and is seen by
  each later snapshot. ENABLE ALWAYS has it fire under `session_replication_role = replica` as well. A row of the log
  commits together with what it tells of.
* *The order does not matter, and twice is once.* The log holds keys, not contents. A replay takes one snapshot
  (REPEATABLE READ), and under it all of a key's entries at once. Whatever the destination held of that key, it then
  holds what the source held at that moment; a change that this snapshot does not see has an entry that it does not see
  either, and so will be replayed. When the log is empty while nobody may write, both tables are equal.
* *No unique index stands in the way.* Before a batch of keys is inserted, the rows of all keys in the log leave the
  destination. What it then holds are rows that the source holds in the same snapshot, and so are those that are added.
* *A key's row is found where it lies.* The destination holds it under the partition key that it had when it was last
  copied. The next change of the row notes that very value (OLD), so the pair to be deleted is always among the key's
  entries, however often the row has moved between partitions.
* *The bulk copy may go in pieces, each with a snapshot of its own, several at a time.* A row that no entry speaks of
  has not changed since the trigger stood, lies on the same page all the time, and is copied once, with its page. A
  piece leaves out every row of which its snapshot sees an entry; so what is copied of a row is what it was when the
  trigger stood, at most once, and no two of them are in each other's way in a unique index. The key of a row that was
  left out, or that was changed after its piece, is in the log.
  Pages are moved or thrown away only by what gives the table a new file (VACUUM FULL, CLUSTER, TRUNCATE, a rewriting
  ALTER TABLE), which no piece goes on beside; each looks whether the file is still the one that the first was read
  from, and where it is not the copy is begun anew.
* *A row without a primary key cannot be told from its twin*, so such a table is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.recreate import column_list, overriding
from playbook.target.execute import BACK_OFF
from playbook.target.sql import dollar_quoted, literal, quote

BATCH = 100_000
"""Entries that a replay takes at once: about a second's work, and some 10 MB of the server's memory."""
SHORT = 5_000
"""Entries of a round after which another is not worth it: busy writers add as many during each."""
BOUND = 1_000
"""The most that are replayed while nobody may write; with more, the swap is tried again later."""
_TAKEN = "playbook.taken"
"""The setting that says, for the rest of the transaction, how many entries were replayed in it."""


@dataclass(frozen=True)
class ChangeLog:
    """The log of one table: the table `on` which the triggers are, and where the log and its function stand.

    `table` tells columns and keys; `by_pair` says that a row of the table is told by primary key and partition key
    together, which is all that a partitioned table keeps unique.
    """

    table: Attributes
    key: str
    on: str
    suffix: str
    by_pair: bool = False

    @property
    def trigger(self) -> str:
        """The name of the trigger for rows, and of the log."""
        return fit(self.table.name, self.suffix)

    @property
    def truncate_trigger(self) -> str:
        """The name of the trigger for TRUNCATE."""
        return fit(self.table.name, f"{self.suffix}_truncate")

    @property
    def name(self) -> str:
        """The log's quoted name, and its function's."""
        return quote(self.table.schema, self.trigger)

    @property
    def _keys(self) -> tuple[str, ...]:
        primary = self.table.primary_key
        assert primary
        return primary.columns

    @property
    def _numbers(self) -> list[str]:
        """The log's own columns for the primary key; they bear no name of the table's."""
        return [f"k{number}" for number, _ in enumerate(self._keys, 1)]

    def create(self) -> list[str]:
        """The commands that make the log and the function that writes it."""
        names = [*zip(self._numbers, self._keys, strict=True), ("moment", self.key)]
        columns = ", ".join(f"{name} {self._type(column)}" for name, column in names)
        others = [grantee for grantee in self.table.default_grantees if grantee != "PUBLIC"]
        withheld = [f"REVOKE ALL ON TABLE {self.name} FROM {', '.join(others)}"] if others else []
        return [
            f"CREATE TABLE {self.name} ({columns})",
            *withheld,
            f"CREATE INDEX ON {self.name} ({', '.join(self._numbers)})",
            f"CREATE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog, pg_temp AS {dollar_quoted(self._body())}",
            f"REVOKE ALL ON FUNCTION {self.name}() FROM PUBLIC",
        ]

    def _type(self, column: str) -> str:
        found = self.table.column(column)
        return f"{found.type} COLLATE {found.collation}" if found.collation else found.type

    def _body(self) -> str:
        old, new = (self._row(version) for version in ("OLD", "NEW"))
        return (
            "\nBEGIN\n"
            "  IF TG_OP = 'TRUNCATE' THEN\n"
            f"    INSERT INTO {self.name} DEFAULT VALUES;\n"
            "    RETURN NULL;\n"
            "  END IF;\n"
            "  IF TG_OP <> 'DELETE' THEN\n"
            f"    INSERT INTO {self.name} VALUES ({new});\n"
            "  END IF;\n"
            f"  IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND ({old}) IS DISTINCT FROM ({new}) THEN\n"
            f"    INSERT INTO {self.name} VALUES ({old});\n"
            "  END IF;\n"
            "  RETURN NULL;\n"
            "END "
        )

    def _row(self, version: str) -> str:
        return ", ".join(f"{version}.{quote(column)}" for column in (*self._keys, self.key))

    def listen(self) -> list[str]:
        """The commands that have writers of the table fill the log, whatever their `session_replication_role` is."""
        commands = []
        for name, event in ((self.trigger, "INSERT OR UPDATE OR DELETE"), (self.truncate_trigger, "TRUNCATE")):
            each = "STATEMENT" if event == "TRUNCATE" else "ROW"
            what = f"AFTER {event} ON {self.on} FOR EACH {each}"
            commands += [
                f"CREATE TRIGGER {quote(name)} {what} EXECUTE FUNCTION {self.name}()",
                f"ALTER TABLE {self.on} ENABLE ALWAYS TRIGGER {quote(name)}",
            ]
        return commands

    @property
    def listens(self) -> str:
        """The condition that both triggers stand."""
        return self._triggers("= 2")

    @property
    def is_deaf(self) -> str:
        """The condition that neither stands."""
        return self._triggers("= 0")

    def _triggers(self, number: str) -> str:
        names = f"{literal(self.trigger)}, {literal(self.truncate_trigger)}"
        return (
            f"(SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = to_regclass({literal(self.on)}) "
            f"AND tgname IN ({names})) {number}"
        )

    def silence(self) -> list[str]:
        """The commands that end it."""
        return [f"DROP TRIGGER IF EXISTS {quote(name)} ON {self.on}" for name in (self.trigger, self.truncate_trigger)]

    def drop(self) -> list[str]:
        """The commands that drop log and function once nobody writes the log any more."""
        return [f"DROP FUNCTION IF EXISTS {self.name}()", f"DROP TABLE IF EXISTS {self.name}"]

    def clear(self) -> str:
        """The command that forgets what is in it."""
        return f"DELETE FROM {self.name}"

    def replay(self, source: str, destination: str) -> str:
        """One round: it takes a batch, in a snapshot of its own, and says whether the log is short by then."""
        start = (
            f"  IF EXISTS (SELECT FROM {self.name} WHERE k1 IS NULL) THEN  -- the table was emptied\n"
            f"    {self.clear()};\n"
            f"    TRUNCATE {destination};\n"
            f"    INSERT INTO {self.name} SELECT {self._row('s')} FROM {source} s;\n"
            "  END IF;\n"
        )
        taken = f" WHERE ({self._k()}) IN (SELECT {self._k()} FROM {self.name} LIMIT {BATCH})"
        left = f"(SELECT count(*) FROM {self.name})"
        return ";\n".join(
            [
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                f"LOCK TABLE {source} IN ACCESS SHARE MODE",
                *ROW_BY_ROW,
                f"DO {dollar_quoted(self._replayed(start, taken, source, destination))}",
                f"SELECT current_setting('{_TAKEN}')::int < {SHORT} AND {left} = 0 AS finished, "
                f"NULL AS done, {left} AS total, 'changes to be replayed' AS unit",
            ]
        )

    def holds_at_most(self, entries: int) -> str:
        """The command that fails, so that it is tried again later, where more is left or the table was emptied."""
        body = (
            f"\nBEGIN\n  IF (SELECT count(*) > {entries} OR bool_or(k1 IS NULL) FROM {self.name}) THEN\n"
            f"    RAISE EXCEPTION '{BACK_OFF}more was written than can be replayed at once' USING ERRCODE = '55P03';\n"
            "  END IF;\nEND "
        )
        return f"DO {dollar_quoted(body)}"

    def catch_up(self, source: str, destination: str) -> str:
        """One statement, and so one snapshot, that replays all that the log holds, in the midst of a transaction.

        Nobody may be able to empty the table by then; the rows that leave do so before others come.
        """
        columns, there = column_list(self.table), ", ".join(f"s.{column}" for column in column_list(self.table))
        return (
            f"WITH taken AS (DELETE FROM {self.name} RETURNING *), gone AS (\n"
            f"  DELETE FROM {destination} d USING taken b WHERE {self._matches('b', 'd', pair=True)} RETURNING 1)\n"
            f"INSERT INTO {destination} ({', '.join(columns)}){overriding(self.table)}\n"
            f"  SELECT {there} FROM (SELECT DISTINCT {self._told_by()} FROM taken) b\n"
            f"  JOIN {source} s ON {self._matches('b', 's', pair=self.by_pair)}\n"
            "  WHERE (SELECT count(*) FROM gone) >= 0"
        )

    def _told_by(self) -> str:
        return ", ".join([*self._numbers, "moment"] if self.by_pair else self._numbers)

    def _replayed(self, start: str, taken: str, source: str, destination: str) -> str:
        columns = ", ".join(column_list(self.table))
        return (
            f"\nDECLARE batch {self.name}[];\nBEGIN\n{start}"
            f"  DELETE FROM {destination} d USING {self.name} b WHERE {self._matches('b', 'd', pair=True)};\n"
            f"  WITH taken AS (DELETE FROM {self.name} l{taken} RETURNING l AS entry)\n"
            "  SELECT array_agg(entry) INTO batch FROM taken;\n"
            f"  INSERT INTO {destination} ({columns}){overriding(self.table)}\n"
            f"  SELECT {', '.join(f's.{column}' for column in column_list(self.table))}\n"
            f"  FROM (SELECT DISTINCT {self._told_by()} FROM unnest(batch)) b\n"
            f"  JOIN {source} s ON {self._matches('b', 's', pair=self.by_pair)};\n"
            f"  PERFORM set_config('{_TAKEN}', coalesce(cardinality(batch), 0)::text, true);\n"
            "END "
        )

    def _matches(self, entry: str, row: str, *, pair: bool) -> str:
        columns = [*zip(self._numbers, self._keys, strict=True)]
        columns += [("moment", self.key)] if pair and self.key not in self._keys else []
        return " AND ".join(f"{row}.{quote(column)} = {entry}.{name}" for name, column in columns)

    def _k(self) -> str:
        return ", ".join(self._numbers)

    def pending(self, row: str) -> str:
        """The condition that the log speaks of that row."""
        return f"EXISTS (SELECT FROM {self.name} b WHERE {self._matches('b', row, pair=False)})"


ROW_BY_ROW = (
    "SET LOCAL row_security = off",
    "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_hashjoin = off",
    "SET LOCAL enable_mergejoin = off",
    "SET LOCAL jit = off",
)
"""Rows are looked up by their keys, however many there are, and none is hidden. What is forbidden costs so much in the
planner's eyes, before PostgreSQL 18, that it would compile the plan first, for seconds."""
