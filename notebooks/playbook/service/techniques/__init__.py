"""One module a technique of the plan. A new one, with its switch, is a new module: found by its `Technique` class."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from playbook.service.techniques.technique import Read, Technique

__all__ = ["Read", "Technique", "techniques"]


@cache
def techniques() -> dict[str, type[Technique]]:
    """Every technique by its name, which is that of the kind of step that turns it on."""
    found: dict[str, type[Technique]] = {}
    for module in pkgutil.iter_modules(__path__):
        members = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        found |= {
            member.name: member
            for member in members
            if isinstance(member, type) and issubclass(member, Technique) and "name" in vars(member)
        }
    return found
