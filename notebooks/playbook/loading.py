"""Writers beside a step that is being applied: on the embedded sample, where a table of one's own may be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playbook.evidence import live
from playbook.evidence.live import Timeline
from playbook.phase import Phase, Playbook


@contextmanager
def under_load(playbook: Playbook, phase: Phase) -> Iterator[Timeline]:
    """Has writers work on the table of the phase's first step while the block runs, and takes their rows back.

    On any target but the sample, and where nothing is applied, nothing is written, and the timeline stays empty.
    """
    context = playbook.context
    change = phase.steps[0].change
    table, key = getattr(change, "table", None), getattr(change, "key", None)
    if not (context.target.embedded and context.settings.applies) or table is None or key is None:
        yield Timeline(table.qualified if table else "")
        return
    context.progress(f"writers on {table.qualified}")
    with live.under_load(context.connect, context.target.conninfo, table, key, restore=True) as timeline:
        yield timeline
    context.progress("")
