"""One list of proposals loaded in four ways, to see what each costs: joining two lists multiplies their rows."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from playbook.service.models import Proposal

PROPOSALS = 100
_OPTIONS: dict[str, tuple[ORMOption, ...]] = {
    "lazy, as found": (),
    "joinedload of the to-one": (joinedload(Proposal.customer, innerjoin=True),),
    "joinedload of everything": (
        joinedload(Proposal.customer, innerjoin=True),
        joinedload(Proposal.products),
        joinedload(Proposal.sections),
    ),
    "joinedload of the to-one, selectinload of the lists": (
        joinedload(Proposal.customer, innerjoin=True),
        selectinload(Proposal.products),
        selectinload(Proposal.sections),
    ),
}


def compare(session: Session) -> list[tuple[str, int, int, int, float]]:
    """Name, statements, rows, bytes of their values, and milliseconds (the best of three) of each way."""
    return [(name, *min((_once(session, options) for _ in range(3)), key=_time)) for name, options in _OPTIONS.items()]


def _time(cost: tuple[int, int, int, float]) -> float:
    return cost[3]


def _once(session: Session, options: tuple[ORMOption, ...]) -> tuple[int, int, int, float]:
    statements = rows = size = 0

    def count(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        nonlocal statements, rows, size, counting
        started = time.perf_counter()
        statements, rows, size = statements + 1, rows + max(cursor.rowcount, 0), size + _size(cursor.pgresult)
        counting += time.perf_counter() - started

    counting = 0.0
    session.expunge_all()
    engine = session.get_bind()
    event.listen(engine, "after_cursor_execute", count)
    try:
        started = time.perf_counter()
        query = select(Proposal).order_by(Proposal.created_at.desc(), Proposal.id).limit(PROPOSALS)
        for proposal in session.scalars(query.options(*options)).unique():
            _touch(proposal)
        return statements, rows, size, 1000 * (time.perf_counter() - started - counting)
    finally:
        event.remove(engine, "after_cursor_execute", count)


def _touch(proposal: Proposal) -> None:
    """What a list shows of a proposal."""
    _ = proposal.customer.name, len(proposal.products), len(proposal.sections)


def _size(result: Any) -> int:
    columns = range(result.nfields)
    return sum(len(result.get_value(row, column) or b"") for row in range(result.ntuples) for column in columns)
