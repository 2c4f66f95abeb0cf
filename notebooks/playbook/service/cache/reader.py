"""What stands in the cache server for a question: an entry that is valid now, or who is to load it."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from playbook.service.cache.codec import Unreadable
from playbook.service.cache.entry import OVERHEAD_BYTES, Entry
from playbook.service.cache.keys import Keys
from playbook.service.cache.scripts import ENTRY, LARGE, TAIL_BYTES, TAKEN, read_script
from playbook.service.cache.server import Server

_PREFIXES = 1000  # pairs of prefix and tables that are remembered
_log = logging.getLogger(__name__)


class Asked:
    """What the questions of one prefix have in common: the start of their keys, and the keys of the versions.

    `last` is how the versions were when a large answer was found: with them the next one is asked for.
    """

    def __init__(self, head: bytes, versions: list[bytes]) -> None:
        self.head, self.versions = head, versions
        self.last = b""


class Found(NamedTuple):
    """An entry, with its value and the milliseconds it has left, or else its key.

    `token` holds the load, where it is the caller's to do.
    """

    entry: Entry | None
    value: Any
    left_ms: int
    key: bytes = b""
    token: bytes = b""


class Reader:
    """Reads entries. One of more than `max_bytes` is none; who is to load one has `load_limit_s` for it."""

    def __init__(self, server: Server, keys: Keys, *, max_bytes: int, load_limit_s: float) -> None:
        self._server, self._keys = server, keys
        self._limit = max_bytes + OVERHEAD_BYTES
        self._script = read_script(self._limit, round(1000 * load_limit_s))
        self._asked: dict[tuple[str, tuple[str, ...]], Asked] = {}

    def asked(self, prefix: str, tables: tuple[str, ...]) -> Asked:
        """The same few at every call, unless the tables are named very finely."""
        if (asked := self._asked.get((prefix, tables))) is None:
            asked = Asked(self._keys.head(prefix), self._keys.versions(tables))
            if len(self._asked) < _PREFIXES:
                self._asked[prefix, tables] = asked
        return asked

    def read(self, asked: Asked, tail: bytes, *, anew: bool = False) -> Found:
        """The entry whose key ends in `tail`, or, with `anew`, none in any case.

        Raises:
            Unavailable: the server cannot be asked.
        """
        try:
            if asked.last and not anew and (found := self._fetch(asked, tail)):
                return found
            token = self._server.fresh().encode()
            answer = self._server.run(self._script, asked.versions, asked.head, tail, token, b"anew" if anew else b"")
            mark, left_ms = answer[-TAIL_BYTES : 1 - TAIL_BYTES], int(answer[1 - TAIL_BYTES :])
            answer = answer[:-TAIL_BYTES]
            if mark == ENTRY:
                return _found(answer, left_ms)
            if mark != LARGE:
                return Found(None, None, 0, answer, token if mark == TAKEN else b"")
            asked.last = answer[len(asked.head) : -len(tail)]
        except Unreadable as why:
            self._server.counts.add(rejected=1)
            _log.debug("unreadable entry of %s: %s", asked.head, why)
            return self.read(asked, tail, anew=True)
        return self.read(asked, tail)

    def _fetch(self, asked: Asked, tail: bytes) -> Found | None:
        """The entry by the versions that were valid last; None where they are no more, or nothing stands there.

        Raises:
            Unreadable: what stands there is no entry.
        """
        last = asked.last
        versions, stands, left_ms = self._server.fetch(asked.versions, asked.head + last + tail, self._limit + 1)
        if not stands or None in versions or b".".join(versions) != last:  # type: ignore[arg-type]
            asked.last = b""
            return None
        return _found(stands, left_ms)


def _found(stored: bytes, left_ms: int) -> Found:
    entry = Entry.from_bytes(stored)
    if left_ms < 0:
        raise Unreadable("an entry without an end is not ours")
    return Found(entry, entry.value, left_ms)
