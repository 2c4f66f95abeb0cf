"""The reference service's results, kept in a cache: what an answer was read from, and what a write changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from playbook.service.cache import Cache
from playbook.service.models import ApprovalExecution, Proposal
from playbook.service.reads import PROPOSAL, PROPOSALS, Endpoint


class Kept:
    """Answers from the cache where nothing that they were read from has been written since.

    Finer than tables: a proposal's page and the lists of one customer stay when another proposal is written.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def answer(self, endpoint: Endpoint, key: str, filters: Any, load: Callable[[], bytes]) -> bytes:
        """The answer to a request, by `load` or as it was kept."""
        asked = {"key": key, "filters": None if filters is None else filters.model_dump()}
        return self.cache.get_or_load(endpoint.name.replace(" ", "-"), asked, load, tables=read(endpoint, key, filters))

    def changed(self, tables: Iterable[str]) -> None:
        """Called after a commit, with what `written` named."""
        self.cache.bump(*tables)


def read(endpoint: Endpoint, key: str, filters: Any) -> tuple[str, ...]:
    """The tables that an answer is read from, or the part of one that its key or filters leave."""
    parts: dict[str, str] = {}
    if endpoint is PROPOSAL:
        parts = {"proposals": f"proposals/id/{key}", "approval_executions": f"approval_executions/proposal/{key}"}
    elif endpoint is PROPOSALS and filters.customer_id:
        parts = {"proposals": f"proposals/customer/{filters.customer_id}"}
    return tuple(parts.get(table, table) if _nameable(parts.get(table, table)) else table for table in endpoint.tables)


def written(row: Any) -> set[str]:
    """The table of a row that is written, and the parts of it that the row belongs to."""
    names = {row.__tablename__}
    if isinstance(row, Proposal):
        names |= {f"proposals/id/{row.id}", f"proposals/customer/{row.customer_id}"}
    elif isinstance(row, ApprovalExecution):
        names.add(f"approval_executions/proposal/{row.proposal_id}")
    return {name for name in names if _nameable(name)}


def _nameable(name: str) -> bool:
    """Whether a name made of a client's text may stand in a key; if not, the whole table stands there."""
    return len(name) <= 100 and name.replace("/", "").replace("_", "").replace("-", "").isalnum() and name.isascii()
