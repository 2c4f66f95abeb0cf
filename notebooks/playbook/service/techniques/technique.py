"""What a technique may change of the service; what it leaves out stays as the plan found it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from playbook.service.pool import PoolSettings
    from playbook.service.results import Results

Read = Callable[..., Any]
"""`read(session, filters, key, otherwise)` answers what JSON can hold; `otherwise()` does so without the technique."""
AS_OF = "as of"
"""In a session's `info`: the moment as of which what it read is true, in ISO 8601, where that is not the present."""


class Technique:
    """One technique, made of its settings when a service starts.

    What the ORM loads with its rows is decided where they are read (`reads`), which asks for the switch `eager_load`.
    """

    name: ClassVar[str]

    @property
    def pool(self) -> PoolSettings | None:
        """The pool of the process, where it decides about that."""
        return None

    def results(self, loaders: int) -> Results | None:
        """What stands between the endpoints and the database; `loaders` requests can be in the database at once."""
        return None

    @property
    def reads(self) -> Mapping[str, Read]:
        """Other ways to read endpoints, by their path."""
        return {}
