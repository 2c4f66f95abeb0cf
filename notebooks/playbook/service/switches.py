"""Which of the plan's techniques the reference service uses: one switch each, so that each one's share is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from playbook.errors import UsageError


@dataclass(frozen=True)
class Switches:
    """All off is the service as the plan found it; a switch is named like the kind of step that turns it on."""

    eager_load: bool = False
    pool: bool = False
    cache: bool = False

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The switches there are."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def of(cls, names: Iterable[str]) -> Switches:
        """These switches on, the others off.

        Raises:
            UsageError: there is no switch of a name.
        """
        chosen = list(names)
        if unknown := [name for name in chosen if name not in cls.names()]:
            raise UsageError(f"the service has no switch {unknown[0]}; it has {', '.join(cls.names())}")
        return cls(**dict.fromkeys(chosen, True))

    @classmethod
    def optimized(cls) -> Switches:
        """Every technique on."""
        return cls.of(cls.names())

    def on(self) -> tuple[str, ...]:
        """The names of the switches that are on."""
        return tuple(name for name in self.names() if getattr(self, name))

    def __str__(self) -> str:
        return ", ".join(self.on()) or "as found"
