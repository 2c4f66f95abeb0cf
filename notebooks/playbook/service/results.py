"""What stands between the endpoints and the database: nothing, or a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from playbook.service.cache import Cache
from playbook.service.parts import Change
from playbook.service.reads import ENDPOINTS, Endpoint


class Results(Protocol):
    """How requests are answered, and told of what was written."""

    def answer(self, endpoint: Endpoint, key: str, filters: Any, load: Callable[[], bytes]) -> bytes:
        """The answer to a request, by `load` or from what was kept of an earlier one."""

    def changed(self, changes: Iterable[Change]) -> None:
        """Called after a commit, with the rows that it changed."""


class Direct:
    """Every request is answered from the database."""

    def answer(self, endpoint: Endpoint, key: str, filters: Any, load: Callable[[], bytes]) -> bytes:
        """By `load`, always."""
        return load()

    def changed(self, changes: Iterable[Change]) -> None:
        """Nothing was kept."""


class Kept:
    """Answers from the cache where no row that they depend on has been written since.

    Each also holds the versions of whole tables, for writers that cannot say which rows they changed
    (`cache.bump("proposals")`, a notification).
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def answer(self, endpoint: Endpoint, key: str, filters: Any, load: Callable[[], bytes]) -> bytes:
        """The answer to a request, by `load` or as it was kept."""
        asked = {"key": key, "filters": None if filters is None else filters.model_dump()}
        return self.cache.get_or_load(endpoint.name.replace(" ", "-"), asked, load, tables=read(endpoint, key, filters))

    def changed(self, changes: Iterable[Change]) -> None:
        """Lets go what the rows may be part of."""
        if tags := {tag for change in changes for tag in written(change)}:
            self.cache.bump(*sorted(tags))


def read(endpoint: Endpoint, key: str, filters: Any) -> tuple[str, ...]:
    """What an answer depends on: its tables, and the parts of those that the service writes."""
    asked = {"key": key, **({} if filters is None else filters.model_dump())}
    return (*endpoint.tables, *(part.read(endpoint.name, asked) for part in endpoint.parts))


def written(change: Change) -> set[str]:
    """What depends on a row that was written."""
    return {
        tag
        for endpoint in ENDPOINTS
        for part in endpoint.parts
        if part.model is change.model
        for tag in part.written(endpoint.name, change)
    }
