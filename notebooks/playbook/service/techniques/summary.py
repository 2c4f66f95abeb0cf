"""Switches `materialized_view` and `incremental_summary`: the dashboard is read from the plan's summary.

Where no summary stands, the dashboard is read as without the switch. An answer says how old it may be: a materialized
view holds what stood in its tables at the last refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, cast, column, func, select, table, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from playbook.service import views
from playbook.service.filters import DashboardFilters
from playbook.service.techniques.technique import AS_OF, Read, Technique

SUMMARY = table("proposal_analytics_summary", *map(column, ("date", "status", "count", "avg_value", "total_value")))
"""Proposals by day and status, as phase 3.1 of the plan keeps them."""
_HOW = text(
    "SELECT c.relkind::text, c.relispopulated, to_regclass('playbook.refresh') IS NOT NULL AS recorded "
    "FROM pg_class AS c WHERE c.oid = to_regclass('proposal_analytics_summary')"
)
_REFRESHED = text(
    "SELECT max(greatest(started_at, checked_at)) FROM playbook.refresh "
    "WHERE error = '' AND to_regclass(relation) = to_regclass('proposal_analytics_summary')"
)
_UNKNOWN = "unknown"


class MaterializedView(Technique):
    """Refreshed as a whole."""

    name = "materialized_view"

    @property
    def reads(self) -> Mapping[str, Read]:
        """The dashboard alone."""
        return {"/dashboard": read_dashboard}


class IncrementalSummary(MaterializedView):
    """Kept by triggers, and never older than the tables."""

    name = "incremental_summary"


def read_dashboard(session: Session, filters: DashboardFilters, _: str, otherwise: Callable[[], Any]) -> Any:
    """The dashboard from the summary, and in `session.info` how old it may be; `otherwise` where none stands."""
    how = session.execute(_HOW).one_or_none()
    if how is None or not how.relispopulated:
        return otherwise()
    try:
        if how.relkind == "m":
            session.info[AS_OF] = session.scalar(_REFRESHED) if how.recorded else _UNKNOWN
        return _dashboard(session, filters.days)
    except ProgrammingError:  # dropped between one statement and the other
        session.rollback()
        session.info.pop(AS_OF, None)
        return otherwise()


def _dashboard(session: Session, days: int) -> Any:
    day, status, count, average, value = SUMMARY.columns
    newest = session.scalar(select(func.max(day)))
    since = select(day, status, count, value, func.round(average, 2)).where(day >= newest - timedelta(days=days - 1))
    daily = session.execute(since.order_by(day.desc(), status)) if newest else []
    proposals = cast(func.sum(count), BigInteger)
    totals = session.execute(select(status, proposals, func.sum(value)).group_by(status).order_by(status))
    return {"totals": [views.total(row) for row in totals], "daily": [views.daily(row) for row in daily]}
