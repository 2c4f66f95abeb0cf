"""The options that several commands take, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TargetOption = Annotated[
    str | None,
    typer.Option("--target", help="embedded (default), env:NAME, service:NAME or a URL. [env: PLAYBOOK_TARGET]"),
]
PlanOption = Annotated[Path | None, typer.Option("--plan", help="The plan file. [env: PLAYBOOK_PLAN]")]
ScaleOption = Annotated[
    float | None, typer.Option("--scale", help="Size of the embedded sample; 1 is 4 M rows. [env: PLAYBOOK_SCALE]")
]
MapOption = Annotated[
    list[str] | None, typer.Option("--map", help="A plan's name and the target's: audit_logs=AuditTrail.")
]
JournalOption = Annotated[
    Path | None, typer.Option("--journal", help="Keep the journal in this file, not on the target.")
]

EveryOption = Annotated[str, typer.Option("--every", help="An interval: 30s, 5m, 1h.")]
MetricsOption = Annotated[
    str | None,
    typer.Option("--metrics-url", help="Where your service answers its metrics. [env: PLAYBOOK_METRICS_URL]"),
]
SavedOption = Annotated[
    Path | None, typer.Option("--saved", help="Run exactly what `plan --save` wrote there, on the target as it was.")
]
