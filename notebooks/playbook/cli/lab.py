"""`playbook lab`: the notebooks in JupyterLab."""

from __future__ import annotations

import os
import subprocess
import sys

import typer

from playbook import arguments
from playbook.cli.options import ScaleOption, TargetOption
from playbook.settings import NOTEBOOKS


def lab(context: typer.Context, target: TargetOption = None, scale: ScaleOption = None) -> None:
    """Open the notebooks in JupyterLab; what follows is handed to it (--no-browser, --port 8889)."""
    settings = arguments.settings(target, scale=scale)
    chosen = {"PLAYBOOK_TARGET": settings.target, "PLAYBOOK_SCALE": str(settings.scale)}
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={NOTEBOOKS}", *context.args]
    raise typer.Exit(subprocess.call(command, env={**os.environ, **chosen, "JUPYTER_PREFER_ENV_PATH": "1"}))
