"""The end of a copy: the old table stops following its successor, and goes."""

from __future__ import annotations

from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.change_log import ChangeLog
from playbook.changes.partitioning.conversion import EXCLUSIVE, is_gone, script
from playbook.changes.partitioning.copy import LATER, Copy
from playbook.changes.partitioning.names import fit
from playbook.target.sql import Statement, quote


def finish(parent: Attributes, key: str) -> tuple[Statement, ...]:
    """What ends the log by which the old table follows its successor, and gives that table up."""
    later = ChangeLog(parent, key, parent.qualified, LATER, by_pair=True)
    kept = quote(parent.schema, fit(parent.name, Copy.kept_suffix))
    return (
        Statement(
            script(later.silence()),
            "writers note nothing any more, so that the old table no longer follows",
            EXCLUSIVE,
            f"{parent.qualified} and its partitions",
            unless=later.is_deaf,
        ),
        Statement(script(later.drop()), "the log has served", unless=is_gone(later.name)),
        Statement(
            f"DROP TABLE {kept}",
            "the table as it was",
            EXCLUSIVE,
            kept,
            unless=is_gone(kept),
        ),
    )
