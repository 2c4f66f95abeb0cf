"""Kind `pool`: one connection pool per process, sized by measurement."""

from __future__ import annotations

from pydantic import Field

from playbook.changes.change import Change
from playbook.plan.model import StepSpec


class PoolSpec(StepSpec):
    """`url_env` names the environment variable with the database URL; the peak is checked out / (size + overflow)."""

    url_env: str
    peak_utilization_pct: float = Field(gt=0, le=100)


class Pool(Change):
    """Planned, not carried out yet: its verbs are still abstract."""

    kind = "pool"
    Spec = PoolSpec
