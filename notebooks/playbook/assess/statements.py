"""The statements that take the most time: two snapshots of pg_stat_statements, for this database only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from playbook import figures
from playbook.assess.activity import HIDDEN, Activity, Usage
from playbook.assess.check import CALLS, TOP, Answer, Check, counted, needs_role, not_checked, ok, warn
from playbook.assess.session import Session
from playbook.results import cut

SLOW_MS = 50.0
"""The plan's own limit for a database query ("Database Query Time: <50ms average")."""
LARGE_SHARE = 0.1
"""A slow statement that takes less of the time than this is not what to begin with."""
TURNOVERS_A_DAY = 20
"""Each deallocation evicts 5 % of the statements (USAGE_DEALLOC_PERCENT in pg_stat_statements.c): this many replace
them all, so that what is seen is not a day's work."""

LONGEST_TEXT = 300
"""Characters of a statement that are shown: enough to know it by."""

_GET_IT = """\
-- add it to what stands there already; takes a restart
ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements';
-- then, in this database:
CREATE EXTENSION pg_stat_statements;"""
_LOOK = """\
-- with real values in place of $1, $2, … or ?:
EXPLAIN (ANALYZE, BUFFERS, SETTINGS) …;
-- a filter and sort that read much more than they return want an index: a step of kind `index` that claims the query"""


def now(session: Session) -> Iterator[Answer]:
    """What took the time between the two snapshots."""
    if (activity := session.activity) is None:
        yield _absent()
        return
    if not activity.window:
        within = figures.duration(activity.seconds)
        yield not_checked(f"no statement ended in this database within the {within} between the two snapshots")
        return
    yield from _slow(activity.window, f"of the {figures.duration(activity.seconds)} between two snapshots")


def since_reset(session: Session) -> Iterator[Answer]:
    """What took the time since pg_stat_statements was reset: seldom work is seen here only."""
    if (activity := session.activity) is None:
        yield _absent()
    elif not activity.total:
        yield not_checked(f"no statement of this database is recorded {_since(activity)}")
    else:
        yield from _slow(activity.total, _since(activity))


def coverage(session: Session) -> Iterator[Answer]:
    """Whether pg_stat_statements sees all there is to see."""
    activity = session.activity
    if activity is None:
        yield _absent()
        return
    if activity.hidden_ms or not session.sees_all:
        whole = sum(usage.ms for usage in activity.total)
        hidden = f"the texts of statements that took {figures.percent(100 * activity.hidden_ms / whole)} of the time"
        yield needs_role(session, "pg_read_all_stats", f"{hidden if whole else 'texts of statements'} are hidden")
    if activity.dealloc is None or activity.reset_at is None:
        yield not_checked(
            "evictions are counted from version 1.9 of the extension on", "ALTER EXTENSION pg_stat_statements UPDATE;"
        )
        return
    days = max((session.since.now - activity.reset_at).total_seconds() / 86_400, 1.0)
    if activity.dealloc > TURNOVERS_A_DAY * days:
        yield warn(
            f"statements were evicted {activity.dealloc:,} times {_since(activity)}: less than a day's work is seen",
            "-- takes a restart\nALTER SYSTEM SET pg_stat_statements.max = 20000;",
        )
    else:
        yield ok(f"statements were evicted {activity.dealloc:,} times {_since(activity)}")


def _slow(usages: Sequence[Usage], when: str) -> Iterator[Answer]:
    whole = sum(usage.ms for usage in usages)
    slow = [usage for usage in usages if usage.mean_ms > SLOW_MS and usage.ms >= LARGE_SHARE * whole]
    for usage in slow[:TOP]:
        yield warn(
            f"{_told(usage, whole)} {when}: {cut(usage.text, LONGEST_TEXT)}", "" if usage.text == HIDDEN else _LOOK
        )
    if not slow:
        first = usages[0]
        yield ok(
            f"{len(usages):,} statements took {figures.duration(whole / 1000)} {when}; the first took "
            f"{_told(first, whole)}: {cut(first.text, LONGEST_TEXT)}"
        )


def _told(usage: Usage, whole: float) -> str:
    share = figures.percent(100 * usage.ms / whole) if whole else "all"
    return f"{share} of the time in {counted(usage.calls, CALLS)} of {figures.milliseconds(usage.mean_ms)}"


def _since(activity: Activity) -> str:
    return f"since the reset of {activity.reset_at:%Y-%m-%d %H:%M} UTC" if activity.reset_at else "since the last reset"


def _absent() -> Answer:
    return not_checked(
        "pg_stat_statements is not in this database: nothing tells which statements take the time", _GET_IT
    )


CHECK = Check(
    2,
    "statements",
    "Statements that take the time",
    {"now": now, "since reset": since_reset, "coverage": coverage},
    late=True,
)
