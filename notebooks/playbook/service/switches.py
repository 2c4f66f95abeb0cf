"""Which of the plan's techniques the reference service uses: one switch each, so that each one's share is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from playbook.errors import UsageError
from playbook.service.techniques import Technique, techniques


class Switches(Mapping[str, Mapping[str, Any]]):
    """The techniques that are on, each with its settings; none of them is the service as the plan found it.

    A switch is named like the kind of step that turns it on.
    """

    def __init__(self, on: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """These on, with their settings, the others off.

        Raises:
            UsageError: there is no switch of a name.
        """
        on = on or {}
        if unknown := [name for name in on if name not in techniques()]:
            raise UsageError(f"the service has no switch {unknown[0]}; it has {', '.join(self.names())}")
        self._on = {name: dict(on[name]) for name in self.names() if name in on}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The switches there are."""
        return tuple(techniques())

    @classmethod
    def of(cls, names: Iterable[str]) -> Switches:
        """These switches on, without settings.

        Raises:
            UsageError: there is no switch of a name.
        """
        return cls({name: {} for name in names})

    @classmethod
    def optimized(cls) -> Switches:
        """Every technique on."""
        return cls.of(cls.names())

    def having(self, *names: str) -> Switches:
        """These on too."""
        return Switches({name: self.get(name, {}) for name in (*names, *self)})

    def without(self, *names: str) -> Switches:
        """These off."""
        return Switches({name: settings for name, settings in self._on.items() if name not in names})

    def techniques(self) -> tuple[Technique, ...]:
        """What is on, made of its settings."""
        return tuple(techniques()[name](**settings) for name, settings in self._on.items())

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        return self._on[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._on)

    def __len__(self) -> int:
        return len(self._on)

    def __str__(self) -> str:
        return ", ".join(self._on) or "as found"

    def __repr__(self) -> str:
        return f"Switches({self._on})"
