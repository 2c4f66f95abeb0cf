"""Switches `materialized_view` and `incremental_summary`: the dashboard is read from the plan's summary.

Where no summary stands, the dashboard is read as without the switch. An answer says how old it may be: a materialized
view holds what stood in its tables at the last refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from playbook.service import views
from playbook.service.filters import DashboardFilters
from playbook.service.techniques.technique import AS_OF, Read, Technique

_STANDS = """
SELECT c.relkind::text AS kind, {as_of} AS as_of
FROM pg_class AS c WHERE c.oid = to_regclass('proposal_analytics_summary') AND c.relispopulated
"""
_REFRESHED = """(
  SELECT max(greatest(started_at, checked_at)) FROM playbook.refresh
  WHERE error = '' AND to_regclass(relation) = c.oid
)"""
_WITH_RECORD, _WITHOUT = (text(_STANDS.format(as_of=sql)) for sql in (_REFRESHED, "CAST(NULL AS text)"))
_DAILY = text("""
SELECT date, status, count, total_value, round(avg_value, 2)
FROM proposal_analytics_summary
WHERE date >= (SELECT max(date) FROM proposal_analytics_summary) - make_interval(days => :days - 1)
ORDER BY date DESC, status
""")
_TOTALS = text("""
SELECT status, CAST(sum(count) AS bigint), sum(total_value)
FROM proposal_analytics_summary GROUP BY status ORDER BY status
""")
UNKNOWN = "unknown"
"""How old an answer is where the refreshes are recorded elsewhere, in a file."""


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
    try:
        if (stands := _stands(session)) is None:
            return otherwise()
        daily = session.execute(_DAILY, {"days": filters.days})
        totals = session.execute(_TOTALS)
    except ProgrammingError:  # dropped between one statement and the other
        session.rollback()
        return otherwise()
    if stands.kind == "m":
        session.info[AS_OF] = stands.as_of or UNKNOWN
    return {"totals": [views.total(row) for row in totals], "daily": [views.daily(row) for row in daily]}


def _stands(session: Session) -> Any:
    try:
        return session.execute(_WITH_RECORD).one_or_none()
    except ProgrammingError:  # nothing is recorded there, or not for this role
        session.rollback()
        return session.execute(_WITHOUT).one_or_none()
