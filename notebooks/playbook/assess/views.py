"""Materialized views: whether they can be read, and how old what they answer is."""

from __future__ import annotations

from collections.abc import Iterator

from playbook import figures, refreshing
from playbook.assess.check import TOP, Answer, Check, counted, judged, not_checked, warn
from playbook.assess.session import Session
from playbook.errors import PlaybookError
from playbook.plan import schedule
from playbook.refreshes import Refreshes
from playbook.refreshing import Kept
from playbook.target.sql import quote

OVERDUE = 1.5
"""Times the interval at which the plan has a view refreshed: by then one refresh did not come."""

_VIEW = ("materialized view", "materialized views")
_VIEWS = """
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relispopulated AS filled
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'm' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
ORDER BY c.relpages DESC, 1, 2
"""


def filled(session: Session) -> Iterator[Answer]:
    """Views that were made WITH NO DATA, or emptied: whoever reads one gets an error."""
    views = session.rows(_VIEWS)
    found = [
        warn(
            f"{name} was never filled, or emptied: whoever reads it gets an error",
            f"REFRESH MATERIALIZED VIEW {name};",
        )
        for name in (quote(view.schema, view.name) for view in views if not view.filled)
    ]
    yield from judged(found, len(views), _VIEW, "each can be read")


def age(session: Session) -> Iterator[Answer]:
    """How old answers are, by the playbook's record and the plan's interval: PostgreSQL notes no time of a refresh."""
    views = [quote(view.schema, view.name) for view in session.rows(_VIEWS) if view.filled]
    try:
        kept = {each.summary.qualified: each for each in refreshing.kept(session.context)} if views else {}
        recorded = Refreshes(session.context.journal.store).latest() if views else {}
    except PlaybookError as error:
        yield not_checked(f"the record of refreshes cannot be read: {error}")
        return
    last = {name: kept[name].last if name in kept else recorded.get(name) for name in views}
    if unknown := [name for name in views if last[name] is None]:
        names = ", ".join(unknown[:TOP]) + (", …" if len(unknown) > TOP else "")
        yield not_checked(
            f"{counted(len(unknown), _VIEW)} of which the playbook has no refresh on record, and PostgreSQL notes none"
            f": {names}"
        )
    for name in views:
        if name not in kept and (known := last[name]) is not None:
            told = f"{name} was refreshed {figures.duration(known.age_s)} ago"
            yield not_checked(f"{told}; this plan does not say how often it is to be")
    due = [kept[name] for name in views if name in kept and last[name] is not None]
    if due or not views:
        stale = [answer for each in due for answer in _stale(session, each)]
        yield from judged(stale, len(due), _VIEW, "each is as fresh as the plan asks for")


def _stale(session: Session, each: Kept) -> Iterator[Answer]:
    summary, last = each.summary, each.last
    assert last is not None
    concurrently = "CONCURRENTLY " if summary.spec.unique_index else ""
    by_hand = f"REFRESH MATERIALIZED VIEW {concurrently}{summary.qualified};"
    old = f"what {summary.qualified} answers is {figures.duration(last.age_s)} old"
    every = schedule.every(summary.spec.refresh_every)
    if each.history[0].error:
        remedy = f"-- playbook refresh --list shows why\n{by_hand}"
        yield warn(f"{old}, since its last refresh, at {each.history[0].started_at}, failed", remedy)
    elif last.age_s > OVERDUE * every.seconds and not _unchanged(session, each):
        remedy = f"-- who sees to it? playbook refresh --timers; this once, and on record: playbook refresh {each.step}"
        yield warn(f"{old} and is to be refreshed every {every}", f"{remedy}\n{by_hand}")


def _unchanged(session: Session, each: Kept) -> bool:
    """Whether nothing was committed to its tables since: then it is as right as on its first day."""
    marker = session.row(f"SELECT ({each.summary.marker}) AS now").now
    return marker is not None and each.last is not None and marker == each.last.marker


CHECK = Check(11, "views", "Materialized views and how old they are", {"filled": filled, "age": age})
