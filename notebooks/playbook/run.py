"""One headless run: papermill over the notebooks, their parts merged into results.json, the report, the exit code."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from playbook import report, scorecard
from playbook.assess.assessment import NOTEBOOK
from playbook.context import Context, Progress, open_context, silent
from playbook.errors import EXIT_FAILED, EXIT_GATE, EXIT_OK, PlaybookError, UsageError, one_line
from playbook.monitor import observation, targets
from playbook.monitor.history import open_history
from playbook.parts import merge, read_part
from playbook.plan.workload import load
from playbook.psql import undo_sql
from playbook.reviewing import verify
from playbook.settings import NOTEBOOKS, Settings, writable_folder
from playbook.step import Step, missing_grants, planned_steps
from playbook.target.connect import scrub

CURRENT_STATE = NOTEBOOK
"""The health check, which no plan has to name: it comes first, on any target. `--only 0` runs it alone."""


MONITORING = observation.NOTEBOOK
"""The monitoring, which no plan has to name: it comes after the plan's own. `--only 5` runs it alone."""
SCORECARD = scorecard.NOTEBOOK
"""The scorecard, which no plan has to name: it comes last, in a run of the whole plan. `--only 6` runs it alone."""


@dataclass(frozen=True)
class NotebookRun:
    """How one notebook ended: `ok` or `failed`, with the one line that says why."""

    name: str
    status: str
    seconds: float
    error: str = ""
    exit_code: int = EXIT_OK

    def to_json(self) -> dict[str, Any]:
        """As `results.json` lists it."""
        return {"name": self.name, "status": self.status, "seconds": round(self.seconds, 3), "error": self.error}


@dataclass(frozen=True)
class RunResult:
    """A finished run: what the results say, where they stand, and the exit code they call for."""

    results: dict[str, Any]
    folder: Path
    exit_code: int


def run(
    settings: Settings,
    *,
    only: tuple[str, ...] = (),
    gate: bool = False,
    baseline: bool = False,
    progress: Progress,
    watch: Watch | None = None,
    say: Callable[[str], None] = silent,
) -> RunResult:
    """Runs the plan's notebooks against the target, one after the other; a failed one does not stop the next.

    `say` is told, a line at a time, what a person should know before anything is changed. With `gate` the exit code of
    a run that went well is 3 when a target of the plan was missed; one that was not measured is not missed. With
    `baseline` later runs are held against this one.

    Raises:
        PlaybookError: before the first notebook starts: a wrong plan, phase or folder, a target that cannot be reached
            or is held by another run.
    """
    started_at, started = datetime.now(UTC), time.monotonic()
    settings = replace(settings, out=writable_folder(settings.folder.resolve()))
    context = open_context(settings, progress)
    load(context.plan.workload_path)  # a query that is no SELECT stops the run before its first notebook
    notebooks = chosen_notebooks(context, only)
    verify(context)
    with context.hold("run") if settings.applies else nullcontext():
        if settings.applies and (missing := missing_grants(context, notebooks)):
            say("This role lacks privileges, and steps that need them stay blocked. For whoever may grant them:")
            for grant in missing:
                say(f"  {grant}")
        ended = [_run_notebook(name, settings, context, watch or quiet_watch) for name in notebooks]
    parts = [part for name in notebooks if (part := read_part(settings.folder, name))]
    results = merge(
        parts,
        run_id=settings.run_id,
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=time.monotonic() - started,
        mode="apply" if settings.applies else "dry-run",
        target=context.target,
        also=[] if only else _planned_only(context, parts),
        order=[phase.step_id(spec) for phase, spec in context.plan.steps()],
        notebooks=[run.to_json() for run in ended],
    )
    results["targets"] = targets.complete(context.plan.targets, results["targets"], results["metrics"])
    _write(settings.folder, results, context)
    _keep(results, context, say, baseline=baseline)
    code = _exit_code(results, ended)
    missed = any(target["met"] is False for target in results["targets"])
    return RunResult(results, settings.folder, EXIT_GATE if gate and missed and code == EXIT_OK else code)


def chosen_notebooks(context: Context, only: tuple[str, ...]) -> list[str]:
    """The notebooks to run: health check, the plan's in its order, monitoring, scorecard; as far as there are any.

    Raises:
        UsageError: `only` names a phase that the plan does not have, or one without a notebook.
    """
    first = [CURRENT_STATE] if "0" in only or not only else []
    last = [name for number, name in (("5", MONITORING), ("6", SCORECARD)) if number in only or not only]
    of_plan = {each.id for each in context.plan.phases}
    named = [phase_id for phase_id in only if phase_id not in {"0", "5", "6"} or phase_id in of_plan]
    phases = [context.plan.phase(phase_id) for phase_id in named] if only else context.plan.phases
    names = list(dict.fromkeys([*first, *(phase.notebook for phase in phases), *last]))
    there = [name for name in names if (NOTEBOOKS / f"{name}.ipynb").exists()]
    if only and (missing := [name for name in names if name not in there]):
        raise UsageError(f"--only {' '.join(only)}: there is no notebook {', '.join(missing)} in this version")
    return there


Watch = Callable[[str], Any]
"""A context manager around one notebook, given its name: shows its progress; yields the file that progress goes to."""


@contextmanager
def quiet_watch(name: str) -> Iterator[Path | None]:
    """No progress."""
    yield None


def _run_notebook(name: str, settings: Settings, context: Context, watch: Watch) -> NotebookRun:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.getLogger("papermill").setLevel(logging.ERROR)
    started = time.monotonic()
    with watch(name) as progress_file, _environment(replace(settings, progress=progress_file)):
        try:
            papermill.execute_notebook(
                str(NOTEBOOKS / f"{name}.ipynb"),
                str(settings.folder / f"{name}.ipynb"),
                parameters={"out": str(settings.folder)},
                cwd=str(NOTEBOOKS),
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--log-level=CRITICAL"],
                log_output=False,
            )
        except PapermillExecutionError as error:
            text = scrub(one_line(f"{error.ename}: {error.evalue}"), context.target.conninfo)
            code = _exit_code_of(str(error.ename))
            return NotebookRun(name, "failed", time.monotonic() - started, text, code)
    return NotebookRun(name, "ok", time.monotonic() - started)


@contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    """The settings in the environment of the kernel that papermill starts, and only while it runs.

    JUPYTER_PREFER_ENV_PATH keeps a kernel spec in the user's home from shadowing this environment's.
    """
    new: Mapping[str, str] = {**settings.to_environ(), "JUPYTER_PREFER_ENV_PATH": "1", "MPLBACKEND": "Agg"}
    old = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in old.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _planned_only(context: Context, parts: list[dict[str, Any]]) -> list[Step]:
    """The plan's steps that no notebook of this run spoke of: they are listed with their status all the same."""
    told = {step["id"] for part in parts for step in part["steps"]}
    return [step for step in planned_steps(context) if step.id not in told]


def _write(folder: Path, results: dict[str, Any], context: Context) -> None:
    (folder / "results.json").write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "undo.sql").write_text(undo_sql(context), encoding="utf-8")
    report.write_html(results, folder / "report.html")
    report.write_junit(results, folder / "junit.xml")


def _keep(results: dict[str, Any], context: Context, say: Callable[[str], None], *, baseline: bool) -> None:
    """Into the target's history; a run that cannot be kept is none the worse."""
    try:
        history = open_history(context)
        history.keep_run(results, context.plan.name, baseline=baseline)
        for line in history.said:
            say(line)
    except (PlaybookError, psycopg.Error, OSError) as error:
        say(f"the run is not kept in the history: {one_line(error)}")


def _exit_code(results: dict[str, Any], ended: list[NotebookRun]) -> int:
    differ = any(comparison["same_rows"] is False for comparison in results["comparisons"])
    failed = any(step["status"] == "failed" for step in results["steps"])
    return max([EXIT_FAILED if differ or failed else EXIT_OK, *(run.exit_code for run in ended)])


def _exit_code_of(error_name: str) -> int:
    """The exit code of an error that a kernel reported by name."""
    tree = [PlaybookError]
    for error in tree:
        tree.extend(error.__subclasses__())
    return next((error.exit_code for error in tree if error.__name__ == error_name), EXIT_FAILED)
