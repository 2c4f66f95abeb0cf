"""Sessions that are used again: many short pieces of work need not cost the server a new process each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from playbook.errors import Interrupted
from playbook.target.connect import Target

CANCEL_S = 5.0
"""How long a server may take to hear that it is to cancel something; it is told again."""


class KeptConnection(psycopg.Connection[Any]):
    """Closed outside of a transaction, it is given back to those who keep it, and serves the next who asks."""

    give_back: Callable[[KeptConnection], bool] | None = None

    def close(self) -> None:
        """Ends it, unless it is kept."""
        idle = not self.closed and self.info.transaction_status == TransactionStatus.IDLE
        if not (idle and self.give_back and self.give_back(self)):
            super().close()


class Sessions:
    """Those of one process on one target, each named `application_name`.

    While they are `kept`, a session that was closed serves the next `connect`: nothing of what was set on it is left,
    and one that the server has ended since is never handed out. Threads may share this, each with sessions of its own.
    """

    def __init__(self, target: Target, application_name: str) -> None:
        self._target = target
        self._name = application_name
        self._all: list[KeptConnection] = []
        self._idle: deque[KeptConnection] = deque()
        self._keepers = 0
        self._stopped = False

    def connect(self) -> psycopg.Connection[Any]:
        """A session as a new one would be.

        Raises:
            Unreachable: no connection; the message says why and holds no password.
            Interrupted: they were stopped.
        """
        if not self._keepers:
            return self._target.connect(application_name=self._name)
        if self._stopped:
            raise Interrupted("it was stopped; run again to resume")
        while self._idle:
            connection = self._idle.pop()
            if self._is_as_new(connection):
                return connection
        connection = self._target.connect(application_name=self._name, kind=KeptConnection)
        assert isinstance(connection, KeptConnection)
        connection.give_back = self._take_back
        self._all.append(connection)
        return connection

    @contextmanager
    def kept(self) -> Iterator[None]:
        """For as long as this lasts, sessions are used again; none of them outlives it unused."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            if not self._keepers:
                while self._idle:
                    self._end(self._idle.pop())
                self._all.clear()
                self._stopped = False

    def have(self, backend_pid: int) -> bool:
        """Whether a session that is kept is that backend: what it was last sent has come to its end."""
        return any(each.info.backend_pid == backend_pid for each in self._all if not each.closed)

    def stop(self) -> None:
        """Cancels what threads have the server do; until `go_on` nothing more can be begun."""
        self._stopped = True
        for each in list(self._all):
            if not each.closed and each.info.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):  # a server that is gone has nothing at work any more
                    each.cancel_safe(timeout=CANCEL_S)

    def go_on(self) -> None:
        """Ends the stop, once those threads have ended."""
        self._stopped = False

    def _is_as_new(self, connection: KeptConnection) -> bool:
        try:
            connection.execute("DISCARD ALL")
            self._target.settle(connection)
        except psycopg.Error:
            self._end(connection)
            return False
        return True

    def _take_back(self, connection: KeptConnection) -> bool:
        if self._keepers:
            self._idle.append(connection)
        return self._keepers > 0

    @staticmethod
    def _end(connection: KeptConnection) -> None:
        connection.give_back = None
        connection.close()
