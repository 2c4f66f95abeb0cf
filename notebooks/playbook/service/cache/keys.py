"""The names under which a cache keeps things: entries by prefix, versions and filters; versions by table."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from playbook.service.cache.codec import canonical

ALL = "*"
"""The version that every entry's key holds: bumped, it lets go of them all."""
_NAME = re.compile(r"[A-Za-z0-9_.\-/]{1,100}\Z")


class Keys:
    """The keys of one namespace, all in one slot of a cluster."""

    def __init__(self, namespace: str) -> None:
        self._head = f"{{{_checked('namespace', namespace)}}}"

    def version(self, table: str) -> str:
        """Where the version of a table stands."""
        return f"{self._head}:version:{table if table == ALL else _checked('table', table)}"

    def versions(self, tables: Iterable[str]) -> list[bytes]:
        """Where the versions of tables stand, each once and in one order, after the one that all share."""
        return [self.version(table).encode() for table in (ALL, *sorted(set(tables)))]

    def head(self, prefix: str) -> bytes:
        """What stands in an entry's key before the versions of its tables."""
        return f"{self._head}:{_checked('prefix', prefix)}:".encode()

    @staticmethod
    def tail(filters: Any) -> bytes:
        """What stands in it after them.

        Raises:
            NotCacheable: a filter is of a type that has no canonical form.
        """
        return b":" + sha256(canonical(filters)).hexdigest().encode()


def _checked(what: str, name: str) -> str:
    if not _NAME.match(name):
        raise ValueError(f"the {what} {name!r}: use 1 to 100 letters, digits or _ . - /")
    return name
