"""What the service's endpoints can be asked for, and what can be written."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_ROWS = 500
"""Rows of a page at most."""


class Filters(BaseModel):
    """What every list endpoint takes: a page of the rows that match, the newest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(default=20, ge=1, le=MAX_ROWS)
    offset: int = Field(default=0, ge=0, le=1_000_000)


class ProposalFilters(Filters):
    """Which proposals to list."""

    status: str | None = None
    customer_id: str | None = None
    priority: str | None = None
    min_value: Decimal | None = None


class ContentFilters(Filters):
    """Which content to search; `text` is looked for in titles, whatever its case."""

    type: str | None = None
    category: str | None = None
    is_active: bool = True
    text: str | None = Field(default=None, max_length=200)


class ApprovalFilters(Filters):
    """Whose approval queue to show."""

    status: str = "IN_PROGRESS"
    workflow_id: str | None = None


class IssueFilters(Filters):
    """Which validation issues to show."""

    entity_type: str = "PROPOSAL"
    severity: str | None = None
    status: str = "OPEN"


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

    status: str | None = Field(default=None, min_length=1, max_length=40)
    priority: Literal["LOW", "MEDIUM", "HIGH", "URGENT"] | None = None
    due_date: datetime | None = None


class Decision(BaseModel):
    """What an approver decided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["APPROVED", "REJECTED", "CANCELLED", "IN_PROGRESS"]
    comments: str | None = Field(default=None, max_length=2000)


class Resolution(BaseModel):
    """How an issue was settled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["RESOLVED", "DISMISSED", "OPEN"]
