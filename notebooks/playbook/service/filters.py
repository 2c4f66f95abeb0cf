"""What the service's endpoints can be asked for, and what can be written."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_ROWS = 500
"""Rows of a page at most."""


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("a text with a NUL or half a surrogate pair, which PostgreSQL cannot store")
    return text


def _in_calendar(moment: datetime) -> datetime:
    # The ends of Python's calendar lie outside of it in another zone.
    if not 1900 <= moment.year <= 2999:
        raise ValueError("a moment before 1900 or after 2999")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Text = Annotated[str, AfterValidator(_storable)]
Amount = Annotated[Decimal, Field(max_digits=18, decimal_places=4)]
Moment = Annotated[datetime, AfterValidator(_in_calendar)]


class Filters(BaseModel):
    """What every list endpoint takes: a page of the rows that match, the newest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=20, ge=1, le=MAX_ROWS)
    offset: int = Field(default=0, ge=0, le=1_000_000)


class ProposalFilters(Filters):
    """Which proposals to list."""

    status: Text | None = None
    customer_id: Text | None = None
    priority: Text | None = None
    min_value: Amount | None = None


class ContentFilters(Filters):
    """Which content to search; `text` is looked for in titles, whatever its case."""

    type: Text | None = None
    category: Text | None = None
    is_active: bool = True
    text: Text | None = Field(default=None, max_length=200)


class ApprovalFilters(Filters):
    """Whose approval queue to show."""

    status: Text = "IN_PROGRESS"
    workflow_id: Text | None = None


class IssueFilters(Filters):
    """Which validation issues to show."""

    entity_type: Text = "PROPOSAL"
    severity: Text | None = None
    status: Text = "OPEN"


class DashboardFilters(BaseModel):
    """Over how many days, counted from the newest proposal, the daily figures go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: int = Field(default=30, ge=1, le=731)


class ResultFilters(BaseModel):
    """How many users' results for a hypothesis to show, the busiest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: int = Field(default=10, ge=1, le=100)


class ProposalChange(BaseModel):
    """What may be changed of a proposal; a field that is not given stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Text | None = Field(default=None, min_length=1, max_length=40)
    priority: Literal["LOW", "MEDIUM", "HIGH", "URGENT"] | None = None
    due_date: Moment | None = None


class Decision(BaseModel):
    """What an approver decided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["APPROVED", "REJECTED", "CANCELLED", "IN_PROGRESS"]
    comments: Text | None = Field(default=None, max_length=2000)


class Resolution(BaseModel):
    """How an issue was settled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["RESOLVED", "DISMISSED", "OPEN"]
