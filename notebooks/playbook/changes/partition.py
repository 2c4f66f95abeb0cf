"""Kind `partition`: a table in use becomes one partitioned by range."""

from __future__ import annotations

from typing import Literal

from playbook.changes.change import Change
from playbook.plan.model import StepSpec


class PartitionSpec(StepSpec):
    """`key` is the timestamp or date column; `accept` says in so many words which loss the plan accepts."""

    table: str
    key: str
    every: Literal["day", "week", "month", "quarter", "year"]
    accept: str = ""


class Partition(Change):
    """Planned, not carried out yet: its verbs are still abstract."""

    kind = "partition"
    Spec = PartitionSpec
