"""What people ask the reference service for: a few things all the time, most things now and then, and some writes."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any, Literal
from urllib.parse import urlencode

import psycopg

KEYS = 5000
"""Different requests that there are."""
SKEW = 1.0
"""Zipf's exponent: of 5,000 keys the first ten are a third of all requests."""
WRITE_SHARE = 0.05

ENTITIES = (None, "CONTENT", "PRODUCT", "CUSTOMER")
SEVERITIES = (None, "CRITICAL", "HIGH", "MEDIUM")


@dataclass(frozen=True)
class Request:
    """One request. `body` is JSON."""

    path: str
    method: Literal["GET", "POST", "PATCH"] = "GET"
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Traffic:
    """Reads in the order of how wanted they are, and writes of which each is as likely as another.

    The r-th read comes with a share in proportion to 1 / r ** `skew`.
    """

    reads: tuple[Request, ...]
    writes: tuple[Request, ...] = ()
    write_share: float = WRITE_SHARE
    skew: float = SKEW

    def requests(self, seed: int = 1) -> Iterator[Request]:
        """Requests without end, the same ones for the same seed."""
        draw = random.Random(seed)  # noqa: S311
        weights = list(accumulate(1 / rank**self.skew for rank in range(1, len(self.reads) + 1)))
        while True:
            if self.writes and draw.random() < self.write_share:
                yield draw.choice(self.writes)
            else:
                yield self.reads[bisect(weights, draw.random() * weights[-1])]


def of_paths(paths: Sequence[str]) -> Traffic:
    """Traffic of somebody's own service: only reads, each path as likely as another."""
    return Traffic(tuple(Request(path) for path in paths), write_share=0.0, skew=0.0)


def of_sample(connection: psycopg.Connection[Any], keys: int = KEYS) -> Traffic:
    """Traffic of the reference service, made of values that its database holds: the same on equal copies of it.

    Lists of proposals by status, customer and priority are the greater part, as the plan has it; the writes change
    what is read.
    """
    every = {
        name: [row[0] for row in connection.execute(sql).fetchall()]
        for name, sql in {
            "status": "SELECT status FROM proposals GROUP BY 1 ORDER BY count(*) DESC, 1",
            "customer": "SELECT customer_id FROM proposals GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 150",
            "priority": "SELECT priority FROM proposals GROUP BY 1 ORDER BY 1",
            "proposal": "SELECT id FROM proposals ORDER BY created_at DESC, id LIMIT 800",
            "content": "SELECT type || '/' || category FROM content GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 60",
            "workflow": "SELECT workflow_id FROM approval_executions GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 60",
            "issue": "SELECT id FROM validation_issues WHERE status = 'OPEN' ORDER BY detected_at DESC, id LIMIT 200",
            "approval": "SELECT id FROM approval_executions WHERE status = 'IN_PROGRESS'"
            " ORDER BY started_at DESC, id LIMIT 200",
            "hypothesis": "SELECT DISTINCT hypothesis FROM hypothesis_validation_events ORDER BY 1",
        }.items()
    }
    return Traffic(_reads(every, keys), _writes(every))


def _reads(every: dict[str, list[str]], keys: int) -> tuple[Request, ...]:
    """Every endpoint in turn as long as it has something new; lists of proposals fill up the rest."""
    lists = (
        _path("/proposals", status=status, customer_id=customer, priority=priority, offset=offset)
        for offset, priority, customer, status in product(
            (0, 20, 40), (None, *every["priority"]), (None, *every["customer"]), (None, *every["status"])
        )
    )
    others = [
        iter([_path("/dashboard", days=days) for days in (30, 7, 90, 365)]),
        (f"/proposals/{key}" for key in every["proposal"]),
        (
            _path("/content", **dict(zip(("type", "category"), pair.split("/"), strict=True)))
            for pair in every["content"]
        ),
        (_path("/approvals", workflow_id=workflow) for workflow in (None, *every["workflow"])),
        (
            _path("/validation-issues", severity=severity, entity_type=kind)
            for kind, severity in product(
                (None, "CONTENT", "PRODUCT", "CUSTOMER"), (None, "CRITICAL", "HIGH", "MEDIUM")
            )
        ),
        (f"/hypotheses/{hypothesis}/results" for hypothesis in every["hypothesis"]),
    ]
    paths: dict[str, None] = {}
    for path in lists:
        paths.setdefault(path)
        for other in others:
            if (found := next(other, None)) is not None:
                paths.setdefault(found)
        if len(paths) >= keys:
            break
    return tuple(Request(path) for path in list(paths)[:keys])


def _writes(every: dict[str, list[str]]) -> tuple[Request, ...]:
    return (
        *(
            Request(f"/proposals/{key}", "PATCH", {"priority": priority})
            for key, priority in product(every["proposal"][:100], ("LOW", "HIGH"))
        ),
        *(
            Request(f"/approvals/{key}/decision", "POST", {"status": "IN_PROGRESS", "comments": "seen"})
            for key in every["approval"]
        ),
        *(Request(f"/validation-issues/{key}/resolution", "POST", {"status": "OPEN"}) for key in every["issue"]),
    )


def _pair(text: str) -> tuple[str, str]:
    first, _, second = text.partition("/")
    return first, second


def _path(path: str, **parameters: str | int | None) -> str:
    given = {name: value for name, value in parameters.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
