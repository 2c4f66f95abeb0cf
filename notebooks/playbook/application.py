"""The reference application beside a plan: which of its techniques are on."""

from __future__ import annotations

from playbook.context import Context
from playbook.service.switches import Switches


def applied_switches(context: Context) -> Switches:
    """The switches of the steps that are applied, as the journal has it."""
    applied = {entry.kind for entry in context.journal.entries() if entry.status == "applied"}
    return Switches.of(name for name in Switches.names() if name in applied)
