"""The workflow that is ready to use: its commands do what its steps say, from an empty database to the gate."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import fix_results
from playbook.settings import ROOT

JOB = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "playbook.yml").read_text())["jobs"]["measure"]
STEPS = {step["name"]: step for step in JOB["steps"] if "name" in step}


def step(name, folder, **environ):
    """Runs the shell lines of a step as the runner does (bash, stops at the first error)."""
    text = STEPS[name]["run"].replace(".venv/bin/", f"{Path(sys.executable).parent}/").replace("data/", f"{ROOT}/data/")
    given = {key: value for key, value in STEPS[name].get("env", {}).items() if "${{" not in value}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, **given, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_its_images_and_actions_are_pinned_and_it_may_only_read():
    workflow = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "playbook.yml").read_text())
    assert set(workflow["permissions"].values()) == {"read"}
    service = JOB["services"]["postgres"]
    assert service["image"] == "postgres:18.6-bookworm"
    assert "--health-cmd" in service["options"]
    assert all("@v" in each["uses"] for each in JOB["steps"] if "uses" in each)
    assert all("--apply" not in each.get("run", "") for each in JOB["steps"])


@pytest.mark.parametrize("worse", [False, True])
def test_the_comparison_lands_in_the_summary_and_closes_the_gate(tmp_path, worse):
    sides = {"old": fix_results.good(), "new": fix_results.failing() if worse else fix_results.good()}
    for name, results in sides.items():
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "results.json").write_text(json.dumps(results))
    done = step("Compare", tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    assert done.returncode == (3 if worse else 0), done.stderr
    assert (tmp_path / "summary.md").read_text().startswith("## PostgreSQL playbook: ")


@pytest.mark.parametrize("last", ["", "4711"])
def test_the_last_run_of_main_is_fetched_where_there_is_one(tmp_path, last):
    """Against a `gh` that lists what it is told to: GitHub itself is out of reach here."""
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(f'#!/bin/sh\n[ "$2" = list ] && echo "{last}" && exit\nshift 2\nprintf "%s\\n" "$@" > downloaded\n')
    gh.chmod(gh.stat().st_mode | stat.S_IEXEC)
    done = step("Fetch the last run of main", tmp_path, PATH=f"{gh.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    fetched = tmp_path / "downloaded"
    wanted = [last, "--name", "playbook", "--dir", "out/old"] if last else None
    assert (fetched.read_text().split() if fetched.exists() else None) == wanted


@pytest.mark.exhaustive
@pytest.mark.skipif(not shutil.which("psql"), reason="psql, which GitHub's runners have, is not installed")
def test_it_fills_a_database_and_measures_it_and_changes_nothing(empty, tmp_path):
    c = empty.conninfo
    url = f"postgresql://{c['user']}:{c['password']}@/{c['dbname']}?host={c['host']}&port={c['port']}"
    filled = step("Fill the database", tmp_path, DATABASE_URL=url)
    assert filled.returncode == 0, filled.stderr
    measured = step("Measure, changing nothing", tmp_path, DATABASE_URL=url, PLAYBOOK_BUDGET_S="2")
    assert measured.returncode in {0, 3}, measured.stderr + measured.stdout
    results = json.loads((tmp_path / "out" / "new" / "results.json").read_text())
    assert results["mode"] == "dry-run"
    assert any(each["rounds_ms"] for each in results["measured"])
    with empty.connect() as connection:
        assert connection.execute("SELECT count(*) FROM proposals").fetchone()[0] > 1000
        assert connection.execute("SELECT to_regnamespace('playbook')").fetchone() == (None,)
