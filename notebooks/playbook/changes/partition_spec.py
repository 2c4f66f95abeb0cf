"""What a plan says of a partition step."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field, field_validator, model_validator

from playbook.changes.partitioning.periods import Every, Span
from playbook.changes.partitioning.routes import Route
from playbook.plan.model import StepSpec
from playbook.target.repeating import LAG_S


class PartitionSpec(StepSpec):
    """The step's name is the parent's while it is built; it then takes the table's name.

    `key` is a timestamp or date column. `route` says whether the table itself becomes a partition (`attach`) or its
    rows are copied into theirs (`copy`); left out, the habits of its writers decide. `accept` says in so many words
    which losses the plan accepts; a preflight that is blocked by one gives the words. `cutoff` (the first day of a
    period) overrides where the history ends; `ahead` is how many periods get a partition at once; rows past them go
    into a default partition, or are refused. `brin` adds a BRIN index on the key, a thousandth of a btree's size, for
    rows that come in the order of the key. Without `retention` nothing is ever removed; with it `playbook maintain`
    detaches the partitions that lie wholly before it (`24 months`), and drops what it detached once `grace` (`7 days`)
    has passed and nothing in it has changed.

    A copy rests while a standby is more than `max_lag_s` behind, as long as the server writes more than `max_wal_mb_s`
    (no limit unless given), and so that it works `duty_pct` of the time.
    """

    name: str = Field(min_length=1, max_length=63)
    table: str
    key: str
    every: Every
    accept: tuple[str, ...] = ()
    cutoff: date | None = None
    ahead: int = Field(default=3, ge=1, le=3000)
    beyond: Literal["default_partition", "refuse"] = "default_partition"
    brin: bool = False
    retention: Span | None = None
    grace: Span = Span(7, "day")
    route: Route | None = None
    max_lag_s: float = Field(default=LAG_S, gt=0)
    max_wal_mb_s: float | None = Field(default=None, gt=0)
    duty_pct: float = Field(default=100.0, ge=1, le=100)

    @field_validator("accept", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) and value else value or ()

    @field_validator("retention", "grace", mode="before")
    @classmethod
    def _a_span(cls, value: object) -> object:
        return Span.parse(value) if isinstance(value, str) else value

    @field_validator("cutoff", mode="before")
    @classmethod
    def _a_date(cls, value: object) -> object:
        return date.fromisoformat(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_copy_has_no_cutoff(self) -> PartitionSpec:
        if self.route == "copy" and self.cutoff:
            raise ValueError("`cutoff` says where the history ends that is attached; with `route: copy` there is none")
        return self
