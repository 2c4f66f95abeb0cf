"""The journal in a file: SQLite, beside the engineer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playbook import stores
from playbook.changes.change import Finding
from playbook.errors import UsageError
from playbook.target.sql import Statement
from playbook.target.watchdog import Connect


class FileStore:
    """A SQLite file beside the engineer, for targets on which nothing but the change itself may be made."""

    prefix = ""

    def __init__(self, path: Path, connect: Connect | None = None) -> None:
        self.path = path
        self._connect = connect
        self._database = ""
        self.place = f"file {path}"
        self.announcement = f"the file {path}, and nothing on the target"

    def statements(self) -> tuple[Statement, ...]:
        """Nothing is made on the target."""
        return ()

    def exists(self) -> bool:
        """Whether the file holds a journal."""
        return self.has("statement")

    def has(self, table: str) -> bool:
        """Asked of the file, which is not made by that."""
        if not self.path.exists():
            return False
        with self.session() as execute:
            return bool(execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)))

    def create(self) -> None:
        """Makes the file with its tables, for this database alone."""
        with self.session() as execute:
            for ddl in stores.DEFINITIONS:
                execute(ddl.format(prefix=""))
            execute("CREATE TABLE target (database text NOT NULL)")
            execute("INSERT INTO target VALUES (?)", (self._identity(),))

    def _identity(self) -> str:
        """The database's name in its cluster, which has a number of its own."""
        if self._connect and not self._database:
            with self._connect() as connection:
                row = connection.execute(
                    "SELECT current_database() || ' of cluster ' || system_identifier FROM pg_control_system()"
                ).fetchone()
            self._database = row[0] if row else ""
        return self._database

    def obstacles(self) -> list[Finding]:
        """Nothing on the target; what is wrong with the file is said when it is opened."""
        return []

    def drop(self) -> str:
        """Removes the file.

        Raises:
            UsageError: it is no journal, or that of another database.
        """
        if self.path.exists():
            with self.session():
                pass
        self.path.unlink(missing_ok=True)
        return self.place

    @contextmanager
    def session(self) -> Iterator[Callable[..., list[Any]]]:
        """Executes in one transaction, fsynced at its end.

        Raises:
            UsageError: the file cannot be opened, is no journal, or is that of another database.
        """
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                self._check(connection)
                yield lambda sql, values=(): connection.execute(sql, tuple(values)).fetchall()
                connection.execute("COMMIT")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise UsageError(f"the journal file {self.path} cannot be used: {error}; name a writable file") from error

    @contextmanager
    def reading(self) -> Iterator[Callable[..., list[Any]] | None]:
        """The same for what is only read; None where there is no journal."""
        if not self.exists():
            yield None
            return
        with self.session() as execute:
            yield execute

    def _check(self, connection: sqlite3.Connection) -> None:
        known = connection.execute("SELECT name FROM sqlite_master WHERE name = 'target'").fetchall()
        kept = connection.execute("SELECT database FROM target").fetchone() if known else None
        if kept and self._connect and kept[0] != self._identity():
            raise UsageError(
                f"{self.path} is the journal of {kept[0]}, and the target is {self._identity()}: name another file"
            )
