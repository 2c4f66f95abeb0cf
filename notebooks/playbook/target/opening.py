"""From the name of a target to a target that answered once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from playbook.target import embedded, sample
from playbook.target.connect import Target, identify, parse


def open_target(spec: str, scale: float, progress: Callable[[str], None]) -> Target:
    """Connects to the target that `spec` names; `embedded` starts the server and makes the sample where needed.

    Raises:
        UsageError: `spec` is none of the known forms.
        TargetError: it cannot be reached, or its version is not supported.
    """
    return identify(_sample(scale, progress) if spec == "embedded" else parse(spec))


def _sample(scale: float, progress: Callable[[str], None]) -> Target:
    lease = embedded.acquire(progress=progress)

    def connect(dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**lease.server.conninfo(dbname), autocommit=True)

    made = sample.provision(
        connect,
        scale,
        lambda step, share: progress(f"sample: {step} {100 * share:.0f} %"),
        data_dir=lease.server.home,
    )
    conninfo = lease.server.conninfo(made.working)
    return Target(spec="embedded", conninfo=conninfo, embedded=True, scale=scale, lease=lease)
