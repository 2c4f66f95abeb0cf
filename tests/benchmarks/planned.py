"""A plan of one step, and the settings under which the benchmarks carry it out."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fix_shop import Shop

from playbook.context import Context, open_context
from playbook.phase import Playbook
from playbook.settings import Settings
from playbook.target.connect import Target

_PLAN = """\
name: bench
title: One step
workload: workload.sql
phases:
  - id: "1"
    title: One step
    week: 1
    priority: nice_to_have
    notebook: bench
    steps:
      - {step}
"""


def planned(target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, table: str) -> Settings:
    """Writes the plan of `step` (a mapping in YAML) into `folder`; its workload asks for one row of `table`."""
    plan = folder / "plan.yaml"
    plan.write_text(_PLAN.format(step=step))
    (folder / "workload.sql").write_text(f"-- name: one\nSELECT id FROM {table} WHERE id = 1;\n")
    monkeypatch.setenv("BENCH_URL", Shop(target, plan, folder).url())
    return Settings(target="env:BENCH_URL", plan=plan, apply=True, out=folder / "out")


def opened(settings: Settings, refusals: list[str]) -> Context:
    """A new opening of that plan, in which each lock that is refused is told to `refusals`."""
    return open_context(settings, lambda text: refusals.append(text) if "next try" in text else None)


def apply(context: Context) -> None:
    """Applies its one step."""
    ((_, state, _),) = Playbook(context).phase("1").apply().steps
    assert state.status == "applied", state.reason
