"""Kind `materialized_view`: an aggregate kept as a table, refreshed on a schedule."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from playbook.changes.change import Change
from playbook.plan.model import StepSpec


class ViewIndex(BaseModel):
    """The unique index that REFRESH CONCURRENTLY needs."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    columns: tuple[str, ...]


class MaterializedViewSpec(StepSpec):
    """`query` is the plan's SELECT; its days are cut in `time_zone`."""

    query: str
    time_zone: str
    unique_index: ViewIndex
    refresh_every: str


class MaterializedView(Change):
    """Planned, not carried out yet: its verbs are still abstract."""

    kind = "materialized_view"
    Spec = MaterializedViewSpec
