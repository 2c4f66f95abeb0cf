"""The record of partitions detached for their age, beside the journal: what each held, and what became of it."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Literal

from playbook.stores import Store

State = Literal["detaching", "detached", "dropping", "dropped"]

_TABLE = """
CREATE TABLE {prefix}detached (
  oid text PRIMARY KEY,
  relation text NOT NULL,
  parent text NOT NULL,
  low text NOT NULL,
  high text NOT NULL,
  state text NOT NULL,
  detached_at text NOT NULL,
  rows bigint NOT NULL,
  digest text NOT NULL,
  definition text NOT NULL,
  dropped_at text NOT NULL,
  exported text NOT NULL
)"""


@dataclass(frozen=True)
class Detachment:
    """One partition of `parent` from `low` to `high` (days of UTC); names are quoted, moments ISO texts in UTC.

    `detaching` and `dropping` are written before the statement is sent, for a run that is killed. `rows`, `digest` and
    `definition` are what it held when it was detached, `exported` the file that its rows were written to.
    """

    oid: str
    relation: str
    parent: str
    low: str
    high: str
    state: State
    detached_at: str = ""
    rows: int = 0
    digest: str = ""
    definition: str = ""
    dropped_at: str = ""
    exported: str = ""


_COLUMNS = ", ".join(field.name for field in fields(Detachment))


class Detachments:
    """The record where the journal stands, made at the first detachment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stands = False

    def write(self, one: Detachment) -> None:
        """Adds it, or replaces what was known of it; committed when this returns."""
        self._make()
        table = f"{self._store.prefix}detached"
        with self._store.session() as execute:
            execute(f"DELETE FROM {table} WHERE oid = ?", (one.oid,))
            execute(
                f"INSERT INTO {table} ({_COLUMNS}) VALUES ({', '.join('?' * len(fields(Detachment)))})", astuple(one)
            )

    def of(self, parent: str) -> list[Detachment]:
        """Those of the table with that quoted name, the oldest rows first."""
        if not self._store.has("detached"):
            return []
        query = f"SELECT {_COLUMNS} FROM {self._store.prefix}detached WHERE parent = ? ORDER BY high, low, oid"
        with self._store.session() as execute:
            return [Detachment(*row) for row in execute(query, (parent,))]

    def _make(self) -> None:
        if not self._stands and not self._store.has("detached"):
            if not self._store.exists():
                self._store.create()
            with self._store.session() as execute:
                execute(_TABLE.format(prefix=self._store.prefix).strip())
        self._stands = True
