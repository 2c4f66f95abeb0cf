"""One module a kind of change. A new kind is a new module here: it is found by its `Change` class."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from playbook.changes.change import Change


@cache
def kinds() -> dict[str, type[Change]]:
    """Every kind of change by its name. A class that is still abstract can be planned but not carried out."""
    found: dict[str, type[Change]] = {}
    for module in pkgutil.iter_modules(__path__):
        members = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        found |= {member.kind: member for member in members if _is_kind(member)}
    return found


def carried_out(kind: type[Change]) -> bool:
    """Whether this version can carry the kind out, and not only plan it."""
    return not inspect.isabstract(kind)


def _is_kind(member: object) -> bool:
    return isinstance(member, type) and issubclass(member, Change) and "kind" in vars(member)
