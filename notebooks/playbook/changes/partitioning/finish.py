"""What is left to do once a table is partitioned: its history is split into periods, what is kept for undo given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from playbook.changes.change import Finding
from playbook.changes.conditions import is_gone, is_there
from playbook.changes.partitioning import history
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.conversion import EXCLUSIVE, new_name, script
from playbook.changes.partitioning.copy import LATER, Copy
from playbook.changes.partitioning.periods import Every
from playbook.changes.partitioning.split import Split
from playbook.target.sql import Statement, quote


@dataclass(frozen=True)
class Finish:
    """What `finish` would run. With `undo` the step can be taken back afterwards as before, else it is final.

    `said` tells why there is nothing to do, `obstacles` what speaks against it, `notes` what is to be known; `split` is
    what the statements are of.
    """

    statements: tuple[Statement, ...] = ()
    undo: tuple[Statement, ...] = ()
    said: str = ""
    obstacles: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    split: Split | None = None


def read(connection: psycopg.Connection[Any], whole: Attributes, key: str, every: Every, user: str) -> Finish | None:
    """Of a table that a step has partitioned; None where nothing is left to do."""
    kept = quote(whole.schema, Copy.old_name(whole.name))
    row = connection.execute(f"SELECT {is_there(kept)}".encode()).fetchone()
    if row and row[0]:
        log = ChangeLog(whole, key, whole.qualified, LATER, by_pair=True)
        return Finish(_given_up(log, kept, "the table as it was"))
    found = history.read(connection, whole, key, every, user)
    if found is None:
        return None
    partition, state = found
    if state.kept:
        log = ChangeLog(partition, key, quote(whole.schema, new_name(partition.name)), LATER, by_pair=True)
        return Finish(_given_up(log, partition.qualified, "the history as it was"))
    if state.split is None:
        return Finish(said=state.said, obstacles=state.obstacles)
    statements, undo = state.split.statements(), state.split.undo()
    return Finish(statements, undo, obstacles=state.obstacles, notes=state.notes, split=state.split)


def _given_up(later: ChangeLog, kept: str, what: str) -> tuple[Statement, ...]:
    """What ends the log by which `kept` follows its successor, and gives it up."""
    return (
        Statement(
            script(later.silence()),
            f"writers note nothing any more, so that {kept} no longer follows",
            EXCLUSIVE,
            f"{later.on} and its partitions",
            unless=later.is_deaf,
        ),
        Statement(script(later.drop()), "the log has served", unless=is_gone(later.name)),
        Statement(f"DROP TABLE {kept}", what, EXCLUSIVE, kept, unless=is_gone(kept)),
    )
