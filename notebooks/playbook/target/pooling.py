"""Sessions through a transaction pooler: each transaction sets what it needs for itself, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


class PooledConnection(psycopg.Connection[Any]):
    """A connection whose server session belongs to somebody else after each transaction.

    What is SET on the session would be inherited by the next client, so `local` is set in every transaction instead.
    """

    local: str = ""

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A transaction that begins with the settings."""
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.local:
                psycopg.Cursor(self).execute(self.local.encode(), prepare=False)
            yield transaction


class ReadingCursor(psycopg.Cursor[Any]):
    """Every statement in a READ ONLY transaction of its own: what `default_transaction_read_only` is to a session."""

    def execute(self, *arguments: Any, **options: Any) -> ReadingCursor:
        """One statement; its rows have all arrived when this returns."""
        with self.connection.transaction():
            psycopg.Cursor(self.connection).execute("SET TRANSACTION READ ONLY", prepare=False)
            super().execute(*arguments, **options)
        return self


def local_settings(connection: psycopg.Connection[Any]) -> str:
    """SET LOCAL statements with which a transaction begun by hand has to begin; empty where the session has them."""
    return connection.local if isinstance(connection, PooledConnection) else ""
