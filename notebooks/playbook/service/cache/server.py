"""The cache server as the cache asks it: short waits, a breaker, and what it is owed after an outage."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError, ResponseError

from playbook.service.cache.breaker import Breaker
from playbook.service.cache.connections import Connections, Exhausted
from playbook.service.cache.counts import Counts
from playbook.service.cache.keys import ALL


class Unavailable(Exception):
    """The cache server could not be asked; it has been counted why."""


class Server:
    """A Redis-compatible server behind a bounded number of connections.

    After every outage the version that all entries share is bumped before anything is read, and after a bump that
    failed those that it was for: meanwhile others may have written, and a restarted server may hold what had been let
    go.
    """

    def __init__(
        self, connections: Connections, *, counts: Counts, breaker: Breaker, version_key: Callable[[str], str]
    ) -> None:
        self._connections, self.counts, self._breaker = connections, counts, breaker
        self._version_key = version_key
        self._owed: set[str] = set()
        self._owing = threading.Lock()
        self._outages = 0
        self._unique = itertools.count()
        self._token = os.urandom(9).hex()

    def fresh(self) -> str:
        """A text that was never used before, by nobody."""
        return f"{self._token}{os.getpid():x}.{next(self._unique):x}"

    def bump(self, tables: Iterable[str]) -> bool:
        """Let go everything that was read from `tables`; False when it cannot be done now, and is owed.

        While it is owed this process reads nothing from the cache; others may, until the entries' time is over.
        """
        with self._owing:
            self._owed.update(tables)
        try:
            self._exchange(None)
        except Unavailable:
            return False
        return True

    def run(self, script: bytes, keys: Sequence[bytes], *arguments: bytes) -> bytes:
        """What `script` answers.

        Raises:
            Unavailable: no answer came, or it was an error.
        """
        command = packed(b"EVALSHA", _digest(script), b"%d" % len(keys), *keys, *arguments)
        try:
            return self._exchange(command)
        except NoScriptError:
            return self._exchange(packed(b"EVAL", script, b"%d" % len(keys), *keys, *arguments))

    def fetch(self, versions: Sequence[bytes], key: bytes, limit: int) -> tuple[list[bytes | None], bytes, int]:
        """The versions; what stands at `key`, `limit` bytes of it at most; and the milliseconds it has left.

        What stands there is read after the versions, so that it is no older than these. It is empty where nothing does,
        or something of another type.

        Raises:
            Unavailable: no answer came.
        """
        commands = packed(b"MGET", *versions), packed(b"GETRANGE", key, b"0", b"%d" % (limit - 1)), packed(b"PTTL", key)
        found, stands, left_ms = self._exchange(b"".join(commands), len(commands))
        return found, stands if isinstance(stands, bytes) else b"", left_ms

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._connections.close_idle()

    def _exchange(self, command: bytes | None, answers: int = 1) -> Any:
        """The answer to `command`, after what is owed; None is for paying only. Of several, all answers or errors.

        Raises:
            Unavailable: no answer came, or it was an error.
            NoScriptError: EVALSHA names a script that the server does not know.
        """
        if not self._breaker.allows():
            raise Unavailable
        try:
            connection = self._connections.take()
        except Exhausted:
            self.counts.add(exhausted=1)
            raise Unavailable from None
        try:
            answer = self._ask(connection, command, answers)
        except NoScriptError:
            self._breaker.succeeded()
            raise
        except ResponseError as error:  # it is not down, but out of memory, say, or a read-only replica
            self._breaker.succeeded()
            self.counts.add(errors=1)
            raise Unavailable from error
        except (RedisError, OSError) as error:
            self._breaker.failed()
            self.counts.add(errors=1)
            raise Unavailable from error
        finally:
            self._connections.give(connection)
        self._breaker.succeeded()
        return answer

    def _ask(self, connection: Any, command: bytes | None, answers: int) -> Any:
        seen = getattr(connection, "seen", None)  # how many outages there had been when it was connected
        connection.seen = None
        try:
            try:
                answer = self._talk(connection, command, answers)
            except Disconnected:
                if seen is None:
                    raise
                # It had stood: the server ended it, or was ended itself. A new socket tells whether one is there.
                self._note_outage(seen)
                seen = None
                answer = self._talk(connection, command, answers)
        except ResponseError:
            connection.seen = self._outages if seen is None else seen
            raise
        except BaseException:
            connection.disconnect()  # or an answer that nobody read would be taken for the next one
            raise
        connection.seen = self._outages if seen is None else seen
        return answer

    def _talk(self, connection: Any, command: bytes | None, answers: int) -> Any:
        if self._owed:
            self._pay(connection)
        if command is None:
            return None
        connection.send_packed_command((command,), check_health=False)
        if answers == 1:
            return connection.read_response()
        return [_answer_or_error(connection) for _ in range(answers)]

    def _pay(self, connection: Any) -> None:
        with self._owing:
            if not (owed := sorted(self._owed)):
                return
            versions = [self._version_key(table).encode() for table in owed]
            # The next to read makes new ones; so what nobody has read since leaves nothing behind.
            connection.send_packed_command((packed(b"DEL", *versions),), check_health=False)
            connection.read_response()
            self._owed.clear()
        self.counts.add(bumps=len(owed))

    def _note_outage(self, seen: int) -> None:
        """Once an outage, however many connections it broke."""
        with self._owing:
            if seen != self._outages:
                return
            self._outages += 1
            self._owed.add(ALL)
        self._connections.close_idle()


def _answer_or_error(connection: Any) -> Any:
    """One of several answers: those that come after an error have to be read too."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def packed(*parts: bytes) -> bytes:
    """A command as it is sent."""
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


@lru_cache
def _digest(script: bytes) -> bytes:
    return sha1(script, usedforsecurity=False).hexdigest().encode()
