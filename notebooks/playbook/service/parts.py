"""Which rows an answer was read from, and which answers a written row may change: finer than by table.

A list that was asked for by status depends on the rows of that status alone, and of these on the columns that it shows
or sorts by. So an answer holds a tag for the filters that it was asked with, and a write lets go the tags of the rows
that it changed, by what they were before and by what they are now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from playbook.service.cache.codec import canonical
from playbook.service.models import Base


@dataclass(frozen=True)
class Part:
    """Of the table of `model`, what an endpoint's answers depend on.

    `by` maps columns to the filters (or `key`, that of the path) that they have to equal; a filter that is None leaves
    its column free. `shown` are the other columns that an answer shows, sorts or selects by; None is all of them.
    """

    model: type[Base]
    by: Mapping[str, str]
    shown: frozenset[str] | None = None

    @property
    def table(self) -> str:
        """The table's name."""
        return self.model.__tablename__

    def read(self, endpoint: str, asked: Mapping[str, Any]) -> str:
        """The tag of the rows that are asked for."""
        return self._tag(endpoint, [asked[name] for name in self.by.values()])

    def written(self, endpoint: str, change: Change) -> set[str]:
        """The tags of all that a changed row was, or is now, an answer to."""
        if self.shown is not None and not change.columns & (self.shown | self.by.keys()):
            return set()
        return {
            self._tag(endpoint, list(chosen))
            for row in change.images
            for chosen in product(*((row[column], None) for column in self.by))
        }

    def _tag(self, endpoint: str, values: list[Any]) -> str:
        told = sha256(canonical([endpoint, [None if value is None else str(value) for value in values]]))
        return f"{self.table}/{told.hexdigest()[:32]}"


@dataclass(frozen=True)
class Change:
    """One row that is written: the columns that changed, and its values before and after, as far as it was there."""

    model: type[Base]
    columns: frozenset[str]
    images: tuple[Mapping[str, Any], ...]


def changes(session: Session) -> Iterator[Change]:
    """What a flush has written; to be asked for in `after_flush`, which still knows what was there before.

    Rows have to be loaded before they are changed, as `session.get` does.
    """
    for row in (*session.new, *session.deleted):
        values = {each.key: each.value for each in inspect(row).attrs if each.key in _columns(row)}
        yield Change(type(row), frozenset(values), (values,))
    for row in session.dirty:
        histories = {each.key: each.history for each in inspect(row).attrs if each.key in _columns(row)}
        changed = frozenset(key for key, history in histories.items() if history.has_changes())
        if changed:
            now = {key: getattr(row, key) for key in histories}
            before = {key: histories[key].deleted[0] for key in changed}
            yield Change(type(row), changed, ({**now, **before}, now))


def _columns(row: Any) -> set[str]:
    return set(inspect(row).mapper.column_attrs.keys())
