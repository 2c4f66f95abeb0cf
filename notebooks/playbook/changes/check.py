"""Kind `check`: a CHECK constraint on a table in use."""

from __future__ import annotations

from playbook.changes.change import Change
from playbook.plan.model import StepSpec


class CheckSpec(StepSpec):
    """`expression` stands inside CHECK ( ); with `enforce_new_rows` it is added although old rows violate it."""

    table: str
    expression: str
    enforce_new_rows: bool = False


class Check(Change):
    """Planned, not carried out yet: its verbs are still abstract."""

    kind = "check"
    Spec = CheckSpec
