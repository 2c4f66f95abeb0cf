"""Kind `cache`: query results kept in Redis for a bounded time."""

from __future__ import annotations

from pydantic import Field

from playbook.changes.change import Change
from playbook.plan.model import StepSpec


class CacheSpec(StepSpec):
    """`prefix` starts the key of every entry of `endpoint`; `ttl_s` is in seconds."""

    endpoint: str
    prefix: str
    ttl_s: int = Field(gt=0)
    url_env: str


class Cache(Change):
    """Planned, not carried out yet: its verbs are still abstract."""

    kind = "cache"
    Spec = CacheSpec
