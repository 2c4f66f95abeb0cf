"""What people ask the reference service for: a few things all the time, most things now and then, and some writes."""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, product
from typing import Any, Literal
from urllib.parse import urlencode

import psycopg

from playbook.service.reads import ENDPOINTS

KEYS = 5000
"""Different requests that there are."""
SKEW = 1.0
"""Zipf's exponent: of 5,000 keys the first ten are a third of all requests."""
WRITE_SHARE = 0.05
WRITES_EACH = 600
"""Different writes of each kind, to the newest rows."""

ENTITIES = (None, "CONTENT", "PRODUCT", "CUSTOMER")
SEVERITIES = (None, "CRITICAL", "HIGH", "MEDIUM")


@dataclass(frozen=True)
class Request:
    """One request. `body` is JSON; `name` says what it is about, where a service has names for that."""

    path: str
    method: Literal["GET", "POST", "PATCH"] = "GET"
    body: dict[str, Any] | None = None
    name: str = ""


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

    def settled(self, number: int, seed: int = 1) -> list[Request]:
        """Of the first `number` requests those after which a cache holds what it would hold after all of them.

        These are all writes, and of the reads of one thing the last: an earlier one was answered from the cache, or
        what it left there was let go by a write or found again by the last.
        """
        asked = list(islice(self.requests(seed), number))
        last = {request.path: place for place, request in enumerate(asked) if request.method == "GET"}
        return [
            request for place, request in enumerate(asked) if request.method != "GET" or last[request.path] == place
        ]


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
    return tuple(Request(path, name=_name(path)) for path in list(paths)[:keys])


def _name(path: str) -> str:
    """The name of the endpoint that answers it."""
    shape = re.sub(r"^(/\w+)/[^/?]+", r"\1/{key}", path).partition("?")[0]
    return next(endpoint.name for endpoint in ENDPOINTS if endpoint.path == shape)


def _writes(every: dict[str, list[str]]) -> tuple[Request, ...]:
    """A third each changes proposals, decides approvals and settles issues; each of them changes what is shown."""
    days = [f"2027-01-{day:02}T12:00:00Z" for day in (4, 11, 18, 25)]
    changes = [
        *({"priority": priority, "due_date": day} for priority, day in zip(every["priority"], days, strict=False)),
        *({"status": status} for status in every["status"][:2]),
    ]
    decisions = [
        {"status": status, "comments": comment}
        for status, comment in (("IN_PROGRESS", "seen"), ("APPROVED", "agreed"), ("REJECTED", "too dear"))
    ]
    settlements = [{"status": status} for status in ("OPEN", "RESOLVED", "DISMISSED")]
    return (
        *_each(every["proposal"][:100], changes, "/proposals/{}", "PATCH"),
        *_each(every["approval"], decisions, "/approvals/{}/decision", "POST"),
        *_each(every["issue"], settlements, "/validation-issues/{}/resolution", "POST"),
    )


def _each(
    keys: Sequence[str], bodies: Sequence[dict[str, Any]], path: str, method: Literal["POST", "PATCH"]
) -> Iterator[Request]:
    for number in range(WRITES_EACH if keys else 0):
        key, body = keys[number % len(keys)], bodies[number // len(keys) % len(bodies)]
        yield Request(path.format(key), method, body, "writes")


def _path(path: str, **parameters: str | int | None) -> str:
    given = {name: value for name, value in parameters.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
