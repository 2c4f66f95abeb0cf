"""The health check: what stands on a target today.

One module a check. A new check is a new module here: it is found by its `CHECK`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from playbook.assess.check import Check


@cache
def checks() -> tuple[Check, ...]:
    """Every check, in the order they are shown."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return tuple(sorted((m.CHECK for m in modules if hasattr(m, "CHECK")), key=lambda check: check.place))
