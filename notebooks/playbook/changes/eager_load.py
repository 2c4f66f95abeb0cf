"""Kind `eager_load`: relationships loaded with their parents instead of row by row."""

from __future__ import annotations

from playbook.changes.change import Change
from playbook.plan.model import StepSpec


class EagerLoadSpec(StepSpec):
    """Which relationships of `root` an endpoint needs, as dotted paths."""

    endpoint: str
    root: str
    relationships: tuple[str, ...]


class EagerLoad(Change):
    """Planned, not carried out yet: its verbs are still abstract."""

    kind = "eager_load"
    Spec = EagerLoadSpec
