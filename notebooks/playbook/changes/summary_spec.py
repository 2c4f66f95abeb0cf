"""What a plan says of a summary: its query, its zones, what tells its rows apart, how often it is refreshed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from playbook.changes.covering import WantedKey
from playbook.changes.index import KeySpec
from playbook.errors import UsageError
from playbook.plan import schedule
from playbook.plan.model import StepSpec


class ViewIndex(BaseModel):
    """The unique index by which a refresh tells one row from another; `include` are columns that it holds besides.

    A query of which it holds every column is answered from it alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1, max_length=63)
    columns: tuple[KeySpec, ...] = Field(min_length=1)
    include: tuple[str, ...] = ()

    @field_validator("columns")
    @classmethod
    def _whole_columns(cls, keys: tuple[KeySpec, ...]) -> tuple[KeySpec, ...]:
        if any(key.column is None for key in keys):
            raise ValueError("REFRESH CONCURRENTLY needs whole columns, no expressions")
        return keys

    @property
    def keys(self) -> tuple[WantedKey, ...]:
        """The keys as CREATE INDEX has them."""
        return tuple(
            WantedKey(
                column=key.column,
                descending=key.descending,
                nulls_first=None if key.nulls is None else key.nulls == "first",
                opclass=key.opclass,
                collation=key.collation,
            )
            for key in self.columns
        )


class SummarySpec(StepSpec):
    """The step's name is the summary's name. `query` is the plan's SELECT; its days are cut in `time_zone`.

    Timestamps without a zone are taken for moments in `stored_time_zone`. It is refreshed every `refresh_every`, once a
    day or seldomer at `refresh_at` in `time_zone`.
    """

    name: str = Field(min_length=1, max_length=63)
    query: str
    time_zone: str = "UTC"
    stored_time_zone: str = "UTC"
    unique_index: ViewIndex | None = None
    refresh_every: str
    refresh_at: str = "03:10"

    @field_validator("time_zone", "stored_time_zone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        return schedule.check_zone(zone)

    @field_validator("refresh_at")
    @classmethod
    def _time(cls, at: str) -> str:
        return schedule.check_time(at)

    @field_validator("refresh_every")
    @classmethod
    def _interval(cls, text: str) -> str:
        try:
            return schedule.every(text).text
        except UsageError as error:
            raise ValueError(str(error)) from None
