"""A notebook's part of the results, written by the notebook itself, and the parts of a run merged into results.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playbook.context import Context
from playbook.results import SCHEMA
from playbook.step import State, Step
from playbook.target.connect import Target

COSTS = ("size_bytes", "write_overhead_pct", "write_overhead_ci95")
"""What stands beside every gain: disk, and what writers pay with its 95 % interval."""
LISTS = ("steps", "comparisons", "estimates", "findings", "targets", "expected", "measured")


def step_row(step: Step, state: State, **measured: Any) -> dict[str, Any]:
    """A step as results.json lists it; a figure that was not measured is None."""
    return {
        "id": step.id,
        "phase": step.phase.id,
        "kind": step.spec.kind,
        "priority": step.phase.priority,
        "status": state.status,
        "reason": state.reason,
        "statements": [str(statement) for statement in step.statements()],
        "undo": [str(statement) for statement in step.undo_statements()],
        "locks": [f"{each.lock or 'none'} on {each.relation}" for each in step.statements() if each.language == "sql"],
        "notes": list(state.notes),
        "lacks": list(state.lacks),
        "seconds": measured.get("seconds"),
        **{name: measured.get(name) for name in COSTS},
    }


class Part:
    """A notebook's part of the results, which counts its time from here on."""

    def __init__(self, context: Context, notebook: str) -> None:
        self._context, self._notebook = context, notebook
        self._started_at, self._started = datetime.now(UTC), time.monotonic()

    def write(self, **content: Any) -> None:
        """Writes it anew with this content; see `write_part`."""
        head = {
            "run_id": self._context.run_id,
            "started_at": self._started_at.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._started, 3),
        }
        write_part(self._context.settings.folder, self._notebook, head | content)


def write_part(folder: Path, notebook: str, part: dict[str, Any]) -> None:
    """Writes `parts/<notebook>.json` whole or not at all, so that a killed notebook leaves its last good part.

    Lists that `part` leaves out are written empty.
    """
    lists: dict[str, Any] = {name: [] for name in LISTS}
    path = folder / "parts" / f"{notebook}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".json.new")
    draft.write_text(
        json.dumps({"notebook": notebook, **lists, "metrics": {}, **part}, indent=2, allow_nan=False) + "\n",
        encoding="utf-8",
    )
    os.replace(draft, path)


def read_part(folder: Path, notebook: str) -> dict[str, Any] | None:
    """The part that a notebook wrote, None where it did not come that far."""
    path = folder / "parts" / f"{notebook}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def merge(
    parts: Iterable[dict[str, Any]],
    *,
    run_id: str,
    started_at: str,
    seconds: float,
    mode: str,
    target: Target,
    also: Iterable[Step],
    order: Sequence[str],
    notebooks: list[dict[str, Any]],
) -> dict[str, Any]:
    """results.json from the notebooks' parts, and the steps that no notebook spoke of; `order` is the plan's."""
    parts = list(parts)
    assert target.server is not None
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": run_id,
        "started_at": started_at,
        "seconds": round(seconds, 3),
        "mode": mode,
        "target": {
            "server_version": target.server.version,
            "database": target.server.database,
            "embedded": target.embedded,
        },
        **{name: [row for part in parts for row in part.get(name, [])] for name in LISTS},
        "metrics": {name: value for part in parts for name, value in part.get("metrics", {}).items()},
        "notebooks": notebooks,
    }
    results["steps"] += [step_row(step, step.check()) for step in also]
    results["steps"].sort(key=lambda row: order.index(row["id"]))
    return results
