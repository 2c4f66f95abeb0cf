"""Letting go what was read from a table once a write to it is committed: SQLAlchemy's events, NOTIFY as a hint."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from playbook.service.cache.cache import Cache
from playbook.service.cache.keys import ALL

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.orm import ORMExecuteState, Session

CHANNEL = "playbook_cache"
_WRITES = re.compile(r"\b(insert|update|delete|merge|truncate|copy|call|do|refresh|drop|alter)\b", re.IGNORECASE)
_PAYLOAD_BYTES = 7000  # NOTIFY takes 8000
_log = logging.getLogger(__name__)


def watch(sessions: Any, cache: Cache, *, channel: str | None = None) -> Watch:
    """Bumps the tables that a session wrote, after its commit. `sessions` is a `sessionmaker`, or a Session class.

    Seen are flushes, `session.execute` of insert, update and delete, and text that writes (which counts as a write to
    every table, since it is not parsed). Not seen is what the database does by itself (cascades, triggers): name such
    tables with `touch`. With `channel` they are notified too, in the same transaction, for a `Listener` elsewhere.
    """
    from sqlalchemy import event

    watching = Watch(cache, channel)
    event.listen(sessions, "after_flush", watching.flushed)
    event.listen(sessions, "do_orm_execute", watching.executed)
    event.listen(sessions, "after_commit", watching.committed)
    event.listen(sessions, "after_rollback", watching.rolled_back)
    return watching


class Watch:
    """What sessions have written and not committed yet; it stands in each session's `info`."""

    def __init__(self, cache: Cache, channel: str | None) -> None:
        self._cache, self._channel = cache, channel

    def touch(self, session: Session, *tables: str) -> None:
        """Says that `session` writes these tables."""
        written = session.info.setdefault(self, set())
        new = set(tables) - written
        written |= new
        if self._channel and new:
            from sqlalchemy import func, select

            names = ",".join(sorted(new))
            payload = names if len(names) <= _PAYLOAD_BYTES else ALL
            session.connection().execute(select(func.pg_notify(self._channel, payload)))

    def flushed(self, session: Session, _: Any) -> None:
        """SQLAlchemy's `after_flush`."""
        changed = [*session.new, *(one for one in session.dirty if session.is_modified(one))]
        tables = {table for one in changed for table in _tables(one, gone=False)}
        self.touch(session, *tables.union(*(_tables(one, gone=True) for one in session.deleted)))

    def executed(self, state: ORMExecuteState) -> None:
        """SQLAlchemy's `do_orm_execute`."""
        from sqlalchemy import TextClause

        if state.is_insert or state.is_update or state.is_delete:
            self.touch(state.session, state.statement.table.fullname)
        elif isinstance(state.statement, TextClause) and _WRITES.search(state.statement.text):
            self.touch(state.session, ALL)

    def committed(self, session: Session) -> None:
        """SQLAlchemy's `after_commit`; the release of a savepoint is none."""
        if session.in_nested_transaction():
            return
        if written := session.info.pop(self, None):
            _bump(self._cache, written)

    def rolled_back(self, session: Session) -> None:
        """SQLAlchemy's `after_rollback`; after that of a savepoint, more is let go than was written."""
        if not session.in_nested_transaction():
            session.info.pop(self, None)


class Listener:
    """Bumps the tables that other programs notify, on a connection and a thread of its own, until `close`.

    A hint: PostgreSQL keeps no notification for one who is away, so every table is bumped at each (re)connect.
    `connect` opens a psycopg connection; the payload is table names with commas in between, or `*`.
    """

    def __init__(
        self,
        cache: Cache,
        connect: Callable[[], psycopg.Connection[Any]],
        *,
        channel: str = CHANNEL,
        retry_s: float = 1.0,
    ) -> None:
        self._cache, self._connect, self._channel, self._retry_s = cache, connect, channel, retry_s
        self._closing = threading.Event()
        self.listening = threading.Event()
        """Set while it listens."""
        self._thread = threading.Thread(target=self._run, name="cache listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it, within a second."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        import psycopg

        while not self._closing.is_set():
            try:
                with self._connect() as connection:
                    for payload in self._notified(connection):
                        _bump(self._cache, set(payload.split(",")))
            except psycopg.Error as error:
                _log.warning("notifications of %s are not heard: %s", self._channel, type(error).__name__)
            self.listening.clear()
            self._closing.wait(self._retry_s)

    def _notified(self, connection: psycopg.Connection[Any]) -> Iterator[str]:
        from psycopg.sql import SQL, Identifier

        connection.autocommit = True
        connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
        yield ALL
        self.listening.set()
        while not self._closing.is_set():
            for heard in connection.notifies(timeout=0.5, stop_after=1):
                yield heard.payload


def _bump(cache: Cache, tables: set[str]) -> None:
    cache.bump(*(() if ALL in tables else sorted(tables)))


def _tables(one: Any, *, gone: bool) -> set[str]:
    """The tables that a flush of a mapped object writes: its own, and those between it and others it was linked to."""
    from sqlalchemy import inspect

    state = inspect(one)
    found = {table.fullname for table in state.mapper.tables}
    for relationship in state.mapper.relationships:
        between = relationship.secondary
        if between is not None and (gone or state.attrs[relationship.key].history.has_changes()):
            found.add(between.fullname)
    return found
