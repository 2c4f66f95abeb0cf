"""`playbook status`: what the journal says."""

from __future__ import annotations

from playbook import arguments, terminal
from playbook.cli.options import JournalOption, PlanOption, ScaleOption, TargetOption
from playbook.terminal import out


def status(
    target: TargetOption = None, plan: PlanOption = None, scale: ScaleOption = None, journal: JournalOption = None
) -> None:
    """Show what the journal says was applied, dropped or undone on the target."""
    from playbook.context import open_context
    from playbook.tell import print_steps

    with terminal.status() as progress:
        context = open_context(arguments.settings(target, plan=plan, scale=scale, journal=journal), progress)
        entries = context.journal.entries()
    print_steps(out, context, entries)
