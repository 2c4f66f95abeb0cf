"""How the project is built: one list of dependencies, imports that point down, packages that stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib

import pytest

from playbook.changes import carried_out, kinds
from playbook.settings import NOTEBOOKS, ROOT

PACKAGE = NOTEBOOKS / "playbook"
# From the bottom up; a module may import from its own floor and those before it. A package stands on one floor, but for
# those of its modules that are named on another.
FLOORS = [
    {"errors"},
    {"target"},
    {"settings"},
    {"service", "monitor.metrics", "monitor.latencies", "monitor.reading", "monitor.exposition", "monitor.meter"},
    {"plan"},
    {"evidence"},
    {"changes"},
    {"stores"},
    {"target_store", "file_store"},
    {"journal"},
    {"saved"},
    {"refreshes", "detachments"},
    {"context"},
    {"backends"},
    {"apply", "step"},
    {"standing"},
    {"finishing", "matrix", "refreshing", "reviewing", "trial", "undoing"},
    {"retiring"},
    {"maintaining"},
    {"alternatives"},
    {"answers", "figures", "outcome", "results", "axis", "templates"},
    {"regressions"},
    {"application"},
    {"request_trial", "request_load", "connections", "caching"},
    {"parts", "psql"},
    {"assess"},
    {"monitor"},
    {"judging"},
    {"phase"},
    {"promises"},
    {"balance"},
    {"scorecard"},
    {"table", "charts", "bars", "junit", "loading", "markdown"},
    {"trees", "timeline", "latency_chart"},
    {"show", "report", "comparing"},
    {"health"},
    {"application_views", "service_views", "monitoring_views", "scorecard_views", "views", "tell"},
    {"notebook", "run"},
    {"arguments", "terminal"},
    {"cli"},
]


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def floor_of(name):
    whole, package = ".".join(name.split(".")[:2]), name.split(".")[0]
    for known in (whole, package):
        for number, floor in enumerate(FLOORS):
            if known in floor:
                return number
    return None


def imports(path):
    """What a module imports when it is loaded or called, by its name below `playbook`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and f"{node.module}.".startswith("playbook."):
            below = node.module.removeprefix("playbook").lstrip(".")
            yield from (f"{below}.{alias.name}".lstrip(".") for alias in node.names)


def test_imports_point_down():
    wrong = []
    for path in modules():
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if name == "__init__":
            continue
        here = floor_of(name)
        assert here is not None, f"{name} has no place in the house: add it to FLOORS"
        wrong += [f"{name} imports {other}" for other in imports(path) if (floor_of(other) or 0) > here]
    assert wrong == []


def test_every_module_says_what_it_is_for():
    silent = [path.name for path in modules() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def requirements(text):
    return {line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")}


def test_pyproject_and_requirements_hold_the_same_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    }
    listed = requirements((ROOT / "requirements.txt").read_text())
    assert listed == {*declared, "-e ."}


def test_requirements_end_in_the_project_itself():
    assert (ROOT / "requirements.txt").read_text().splitlines()[-1] == "-e ."


def test_environment_yml_installs_that_list():
    assert "- -r requirements.txt" in (ROOT / "environment.yml").read_text()


def test_a_kind_that_can_only_be_planned_says_so():
    assert {name for name, kind in kinds().items() if carried_out(kind)} == {
        "index",
        "check",
        "not_null",
        "foreign_key",
        "eager_load",
        "pool",
        "cache",
        "materialized_view",
        "partition",
        "incremental_summary",
    }
    assert set(kinds()) >= {"partition", "eager_load", "pool", "cache"}


@pytest.mark.parametrize(
    "module",
    [
        "playbook",
        "playbook.target.connect",
        "playbook.target.embedded",
        "playbook.service.cache",
        "playbook.monitor.metrics",
        "playbook.monitor.meter",
    ],
)
def test_what_users_import_elsewhere_loads_neither_ipython_nor_pandas(module):
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"IPython", "pandas", "matplotlib"} & set(loaded)


def test_no_file_names_a_folder_of_somebodys_machine():
    texts = [*ROOT.glob("*.[mty]*"), *NOTEBOOKS.glob("*.ipynb"), *modules()]
    found = [path.name for path in texts if re.search(r"/(root|home/\w+|Users/\w+|tmp)/\w", path.read_text())]
    assert found == []
