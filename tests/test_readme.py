"""The README says what the program does: its commands run, its help texts are the program's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile

import psycopg
import pytest
from ruamel.yaml import YAML

import fix_results
from playbook.settings import DEFAULT_PLAN, NOTEBOOKS, ROOT
from playbook.target import sample

README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()]
SETUP, TEST = COMMANDS[:2]


def bash(command, seconds=300, **environ):
    done = subprocess.run(
        ["bash", "-c", command.replace(".venv/bin/", f"{os.path.dirname(__import__('sys').executable)}/")],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def foreign(server):
    """A copy of the sample that is not the sample: somebody's database, as far as the playbook knows."""

    def connect(dbname):
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    sample.provision(connect, 0.02)
    sample.copy(connect, 0.02, "proposals_scratch_readme")
    c = server.conninfo("proposals_scratch_readme")
    yield f"postgresql://{c['user']}:{c['password']}@/{c['dbname']}?host={c['host']}&port={c['port']}"
    sample.drop(connect, "proposals_scratch_readme")


@pytest.fixture(scope="module")
def indexes_only(tmp_path_factory):
    """The plan with one phase of indexes alone: what the others do to a foreign database has tests of its own."""
    folder = tmp_path_factory.mktemp("plan")
    yaml = YAML()
    plan = yaml.load(DEFAULT_PLAN)
    plan["phases"] = [phase for phase in plan["phases"] if phase["id"] == "3.2"]
    plan["priorities"] = [item for item in plan["priorities"] if set(item.get("phases", ())) <= {"3.2"}]
    yaml.dump(plan, folder / "plan.yaml")
    shutil.copy(DEFAULT_PLAN.with_name(plan["workload"]), folder)
    return str(folder / "plan.yaml")


def test_ci_runs_the_command_of_the_tests_as_it_stands_here():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    install, _, tests = TEST.rpartition(" && ")
    assert SETUP.startswith(f"{install} && "), "both commands set up in the same way"
    assert lines.index(install) < lines.index(tests)


@pytest.mark.exhaustive
def test_the_first_command_carries_the_whole_plan_out_and_ends_with_the_scorecard(tmp_path):
    """From an empty cache. Whatever the machine makes of the figures, each is judged, or says why it is not."""
    run = SETUP.rpartition(" && ")[2]
    with tempfile.TemporaryDirectory(prefix="playbook-whole-") as home:
        os.chmod(home, 0o755)  # the account that runs the server has to get in
        done = bash(f"{run} --out {tmp_path}/out", seconds=900, PLAYBOOK_HOME=f"{home}/home")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    print(f"{results['seconds']:.0f} s")
    assert [each["name"] for each in results["notebooks"]] == sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    assert {each["status"] for each in results["notebooks"]} == {"ok"}
    assert {step["status"] for step in results["steps"]} == {"applied", "blocked"}
    assert all(each["same_rows"] is not False for each in results["comparisons"])
    for judged in ("targets", "expected"):
        assert len(results[judged]) == 4
        assert all(each["met"] is not None or each["reason"] for each in results[judged])


def test_ci_installs_the_debian_packages_that_are_named_here():
    (packages,) = re.findall(r"(?m)^packages=\((.*)\)$", (ROOT / ".ci" / "run").read_text())
    assert f"need the Debian packages `{packages}`" in README


def test_the_commands_for_ones_own_database_run(foreign, indexes_only, tmp_path):
    environ = {"DATABASE_URL": foreign, "PLAYBOOK_PLAN": indexes_only, "PLAYBOOK_OUT": str(tmp_path)}
    start = COMMANDS.index("export DATABASE_URL=postgresql://me:secret@db.example.com:5432/shop")
    for command in COMMANDS[start + 1 : start + 4]:
        done = bash(command, PLAYBOOK_BUDGET_S="3", **environ)
        assert done.returncode == 0, (command, done.stderr, done.stdout)
    assert "2 applied" in done.stdout or "dropped" in done.stdout
    (save,) = (command for command in COMMANDS if "--save " in command)
    done = bash(save.replace("reviewed.yaml", f"{tmp_path}/reviewed.yaml"), DATABASE_URL=foreign)
    assert done.returncode == 0, done.stderr
    for path in tmp_path.rglob("*.*"):
        assert foreign.partition("@")[0].rpartition(":")[2] not in path.read_text(), path


def test_the_commands_of_undo_run(foreign, indexes_only):
    start = COMMANDS.index(".venv/bin/playbook status")
    for command in COMMANDS[start : start + 4]:
        done = bash(command, PLAYBOOK_TARGET="env:DATABASE_URL", DATABASE_URL=foreign, PLAYBOOK_PLAN=indexes_only)
        assert done.returncode == 0 or "undo 1.1/" in command, (command, done.stderr)


def test_the_commands_of_refreshing_run(foreign):
    start = COMMANDS.index(".venv/bin/playbook refresh")
    for command in COMMANDS[start : start + 3]:
        done = bash(command, PLAYBOOK_TARGET="env:DATABASE_URL", DATABASE_URL=foreign)
        assert done.returncode == 0, (command, done.stderr)


def test_the_commands_of_comparing_run(tmp_path):
    start = COMMANDS.index(".venv/bin/playbook compare out/monday out/tuesday")
    for name in ("monday", "tuesday"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "results.json").write_text(json.dumps(fix_results.good()))
    for command in COMMANDS[start : start + 2]:
        done = bash(command.replace("out/", f"{tmp_path}/out/"))
        assert done.returncode == 0, (command, done.stderr)


HELPS = {block.split()[2]: block for block in re.findall(r"```text\n(Usage: playbook .*?)```", README, re.S)}


@pytest.mark.parametrize("command", sorted(HELPS))
def test_the_help_text_is_the_programs_own(command):
    done = bash(f".venv/bin/playbook {command} --help", COLUMNS="100", NO_COLOR="1", TERM="dumb")
    assert HELPS[command].strip() == "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def test_the_commands_that_others_rely_on_show_their_help_here():
    assert {"plan", "run", "monitor", "watch", "dashboard"} <= set(HELPS)


def test_every_command_of_the_program_is_in_the_readme():
    listed = bash(".venv/bin/playbook --help", COLUMNS="100", NO_COLOR="1", TERM="dumb").stdout
    commands = re.findall(r"(?m)^  (\w+)  ", listed.partition("Commands:")[2])
    assert commands
    assert [command for command in commands if f"playbook {command}" not in README] == []


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_commands_of_monitoring_run(foreign):
    start = COMMANDS.index(".venv/bin/playbook monitor --every 30s --for 1h")
    monitor, _, watch = COMMANDS[start : start + 3]
    for command in (monitor.replace("30s", "1s").replace("1h", "2s"), f"{watch.replace('7d', '2s')} --every 1s"):
        done = bash(command, PLAYBOOK_TARGET="env:DATABASE_URL", DATABASE_URL=foreign)
        assert done.returncode == 0, (command, done.stderr)
    assert "1.1/idx_content_search_optimization: not measured, by real traffic" in done.stdout
    assert bash(".venv/bin/playbook undo", PLAYBOOK_TARGET="env:DATABASE_URL", DATABASE_URL=foreign).returncode == 0
