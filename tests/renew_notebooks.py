"""Makes the committed outputs of the notebooks anew: `.venv/bin/python tests/renew_notebooks.py [NAME ...]`.

Each notebook runs on a sample of its own at the tests' scale, with no parameter, and is written back in place; what
belongs to the one run (times of execution, papermill's notes) is left out. Before the monitoring and the scorecard, the
plan's steps are applied and measured on its sample, briefly: they tell of them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

from playbook.context import open_context
from playbook.phase import Playbook
from playbook.run import MONITORING, SCORECARD
from playbook.settings import NOTEBOOKS, Settings

SCALE = "0.02"


def renew(path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="playbook-renew-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # as root, the server runs under an account that must get through
        os.environ |= {
            "PLAYBOOK_HOME": f"{folder}/home",
            "PLAYBOOK_OUT": f"{folder}/out",
            "PLAYBOOK_SCALE": SCALE,
            "PLAYBOOK_PROGRESS": os.devnull,
            "JUPYTER_PREFER_ENV_PATH": "1",
        }
        executed = Path(folder) / path.name
        if path.stem in {MONITORING, SCORECARD}:
            carry_out_the_plan(Path(folder) / "out")
        papermill.execute_notebook(
            str(path), str(executed), cwd=str(NOTEBOOKS), progress_bar=False, extra_arguments=["--log-level=ERROR"]
        )
        notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for transient in ("papermill", "execution"):
            cell.metadata.pop(transient, None)
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
    nbformat.write(notebook, path)


def carry_out_the_plan(out: Path) -> None:
    """Every phase, as its notebook walks it."""
    context = open_context(Settings(scale=float(SCALE), budget_s=3, out=out))
    for spec in context.plan.phases:
        phase = Playbook(context).phase(spec.id)
        for verb in (phase.check, phase.before, phase.apply, phase.after, phase.settle, phase.finish):
            verb()


if __name__ == "__main__":
    chosen = [NOTEBOOKS / f"{name}.ipynb" for name in sys.argv[1:]] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in chosen:
        renew(path)
        print(path.stem)
