"""The record of refreshes, beside the journal: when each summary was refreshed, at what cost, and what failed."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime

from playbook.stores import Store

KEPT = 1000
"""Records kept of each relation; the oldest go first."""

_TABLE = """
CREATE TABLE {prefix}refresh (
  relation text NOT NULL,
  started_at text NOT NULL,
  checked_at text NOT NULL,
  seconds double precision NOT NULL,
  manner text NOT NULL,
  rows_changed bigint,
  wal_bytes bigint,
  marker text NOT NULL,
  error text NOT NULL
)"""


@dataclass(frozen=True)
class Refresh:
    """One refresh of `relation` (its quoted name). Moments are ISO texts in UTC.

    `manner` is `plain`, `concurrently`, `folded`, `by pg_cron` (which kept the record) or, of a failure, empty.
    `checked_at` is when it was last seen that nothing had changed since. `wal_bytes` is what the whole server wrote
    meanwhile. `marker` is that of the tables.
    """

    relation: str
    started_at: str
    checked_at: str = ""
    seconds: float = 0.0
    manner: str = ""
    rows_changed: int | None = None
    wal_bytes: int | None = None
    marker: str = ""
    error: str = ""

    @property
    def age_s(self) -> float:
        """Seconds for which the relation may be out of date."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.checked_at or self.started_at)).total_seconds()


_COLUMNS = ", ".join(field.name for field in fields(Refresh))


class Refreshes:
    """The record where the journal stands, made at the first refresh."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def on_target(self) -> bool:
        """Whether a job of the server can write there."""
        return bool(self._store.prefix)

    def announcement(self, *, jobs: bool) -> str:
        """What it makes, and where, for `preview`; with `jobs`, also what these cannot do there."""
        said = f"{self._store.prefix}refresh, the record of refreshes, beside them"
        if jobs and not self.on_target:
            said += (
                "; a pg_cron job cannot write into a file: it refreshes each time, whether anything has changed or "
                "not, and cron.job_run_details tells when"
            )
        return said

    def record(self, refresh: Refresh) -> None:
        """Adds one, and forgets the oldest."""
        self._make()
        table = f"{self._store.prefix}refresh"
        with self._store.session() as execute:
            execute(
                f"INSERT INTO {table} ({_COLUMNS}) VALUES ({', '.join('?' * len(fields(Refresh)))})", astuple(refresh)
            )
            old = f"SELECT started_at FROM {table} WHERE relation = ? ORDER BY started_at DESC LIMIT 1 OFFSET {KEPT}"
            execute(
                f"DELETE FROM {table} WHERE relation = ? AND started_at <= ({old})",
                (refresh.relation, refresh.relation),
            )

    def checked(self, refresh: Refresh, at: str) -> None:
        """Notes that nothing had changed since `refresh` when it was looked at."""
        with self._store.session() as execute:
            execute(
                f"UPDATE {self._store.prefix}refresh SET checked_at = ? WHERE relation = ? AND started_at = ?",
                (at, refresh.relation, refresh.started_at),
            )

    def of(self, relation: str) -> list[Refresh]:
        """Those of a relation, the latest first, failures among them."""
        if not self._store.has("refresh"):
            return []
        query = f"SELECT {_COLUMNS} FROM {self._store.prefix}refresh WHERE relation = ? ORDER BY started_at DESC"
        with self._store.session() as execute:
            return [Refresh(*row) for row in execute(query, (relation,))]

    def latest(self) -> dict[str, Refresh]:
        """Of each relation that is on record the latest one that did not fail."""
        if not self._store.has("refresh"):
            return {}
        table = f"{self._store.prefix}refresh"
        newest = f"SELECT max(started_at) FROM {table} AS other WHERE other.relation = r.relation AND error = ''"
        query = f"SELECT {_COLUMNS} FROM {table} AS r WHERE error = '' AND started_at = ({newest})"
        with self._store.session() as execute:
            return {row[0]: Refresh(*row) for row in execute(query)}

    def last(self, relation: str) -> Refresh | None:
        """The latest one that did not fail."""
        return next((each for each in self.of(relation) if not each.error), None)

    def _make(self) -> None:
        if not self._store.has("refresh"):
            if not self._store.exists():
                self._store.create()
            with self._store.session() as execute:
                execute(_TABLE.format(prefix=self._store.prefix).strip())
