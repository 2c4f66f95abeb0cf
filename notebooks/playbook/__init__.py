"""A PostgreSQL optimization plan, carried out with evidence on the target it is pointed at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playbook.phase import Playbook


def open(
    target: str | None = None,
    plan: str | None = None,
    apply: bool | None = None,
    scale: float | None = None,
    out: str | None = None,
    *,
    takes_s: float | None = None,
    changes: str = "",
) -> Playbook:
    """The first call of every notebook; None means the environment's default (`PLAYBOOK_TARGET`, `PLAYBOOK_SCALE`, …).

    `target` is `embedded`, `env:NAME`, `service:NAME` or a URL without a password. Steps are applied on the embedded
    sample unless `apply` is False, and elsewhere only when it is True. `out` is the folder of the run's parts.
    `takes_s` is about how long the notebook takes, for its first output; None: as long as a phase is measured.
    `changes` says there what it changes, where that is not the plan's steps.

    Raises:
        PlaybookError: each with its cause and remedy; see `playbook.errors`.
    """
    # Imported here: users put playbook.service and playbook.monitor into applications that have no IPython.
    from playbook.notebook import open_playbook

    return open_playbook(target=target, plan=plan, apply=apply, scale=scale, out=out, takes_s=takes_s, changes=changes)
