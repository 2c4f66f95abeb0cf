"""The command as a user has it: what it prints, what it exits with, and never a traceback for a mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from tests.waiting import until

from playbook import cli
from playbook.settings import DEFAULT_PLAN

COMMAND = str(Path(sys.executable).with_name("playbook"))


def playbook(*arguments, **environ):
    """Runs the command; returns what it did."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        env={**os.environ, "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def ran(server, tmp_path_factory):
    """One headless run of phase 3.2 on the embedded sample, as CI would have it; its folder, and the process."""
    folder = tmp_path_factory.mktemp("run")
    return folder, playbook("run", "--only", "3.2", "--baseline", "--out", folder)


class TestRun:
    def test_it_ends_well_and_says_where_the_report_is(self, ran):
        folder, done = ran
        assert done.returncode == 0, done.stderr
        assert f"report: {folder}/report.html" in done.stdout

    def test_it_leaves_the_files_of_the_contract(self, ran):
        folder, _ = ran
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert names == {
            "03_2_hypothesis_indexes.ipynb",
            "parts/03_2_hypothesis_indexes.json",
            "results.json",
            "report.html",
            "junit.xml",
            "undo.sql",
        }

    def test_results_json_has_the_schema_of_the_contract(self, ran):
        results = json.loads((ran[0] / "results.json").read_text())
        assert results["schema"] == 1
        assert results["mode"] == "apply"
        assert results["target"] == {"server_version": "18.6", "database": "proposals_0_02", "embedded": True}
        for name in ("steps", "comparisons", "findings", "targets", "expected"):
            assert isinstance(results[name], list)
        assert [(target["met"], target["value"]) for target in results["targets"]] == [(None, None)] * 4
        assert all("no notebook of this run measured it" in target["reason"] for target in results["targets"])
        assert [step["id"] for step in results["steps"]] == [
            "3.2/idx_hypothesis_validation_compound",
            "3.2/idx_performance_baseline_lookup",
        ]
        for step in results["steps"]:
            assert step["kind"] == "index"
            assert step["priority"] == "medium"
            assert step["statements"][0].startswith("CREATE INDEX CONCURRENTLY idx_")
            assert step["undo"][0].startswith("DROP INDEX CONCURRENTLY public.idx_")
            assert step["size_bytes"] > 8192
        for comparison in results["comparisons"]:
            assert comparison["bind"] in {"common", "rare"}
            assert comparison["same_rows"] is True
            assert comparison["before_nodes"]
            assert (comparison["speedup"] is None) == (comparison["ci95"] is None)

    def test_the_notebooks_output_holds_no_password(self, ran, server):
        for path in ran[0].rglob("*"):
            if path.is_file():
                assert server.password not in path.read_text(), path.name

    def test_junit_counts_the_steps(self, ran):
        root = ElementTree.parse(ran[0] / "junit.xml").getroot()
        assert not root.findall(".//failure")
        assert root.findall(".//testcase")

    def test_undo_sql_takes_back_what_is_applied(self, ran):
        text = (ran[0] / "undo.sql").read_text()
        assert "DROP INDEX CONCURRENTLY public.idx_hypothesis_validation_compound;" in text

    def test_it_is_kept_as_the_baseline_of_later_ones(self, ran):
        done = playbook("compare", "baseline", ran[0], "--gate", "--out", ran[0] / "compared")
        assert done.returncode == 0, done.stderr
        assert "no regression" in done.stdout

    def test_status_and_plan_tell_of_it(self, ran):
        assert "3.2/idx_hypothesis_validation_compound" in playbook("status").stdout
        planned = playbook("plan")
        assert planned.returncode == 0
        assert planned.stdout.count("nice_to_have") == 3
        assert "Add missing composite indexes for analytics queries" in planned.stdout
        assert "3.2/idx_hypothesis_validation_compound" in planned.stdout

    def test_undo_takes_everything_back_and_uninstall_the_journal(self, ran):
        assert playbook("uninstall").returncode in {0, 2}
        undone = playbook("undo")
        assert undone.returncode == 0, undone.stdout + undone.stderr
        assert "undone" in undone.stdout
        assert playbook("uninstall").returncode == 0
        assert "nothing was applied here yet" in playbook("status").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--only", "9.9"], "has no phase 9.9; it has 1.1"),
        (["run", "--out", "/proc/nowhere"], "--out /proc/nowhere"),
        (["run", "--plan", "missing.yaml"], "missing.yaml: cannot be read"),
        (["run", "--scale", "0"], "scale 0: must be above 0"),
        (["run", "--scale", "11"], "scale 11: must be above 0 and at most 10"),
        (["run", "--target", "env:NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        (["run", "--target", "postgresql://u@127.0.0.1:1/d"], "check host and port"),
        (["run", "--target", "postgresql://u:c4nary@127.0.0.1:1/d"], "check host and port"),
        (["run", "--map", "audit_logs"], "write PLAN_NAME=TARGET_NAME"),
        (["plan", "--target", "nothing"], "the target is none of: embedded"),
        (["undo", "1.1/never"], "not applied on this target: 1.1/never"),
        (["run", "--nonsense"], "No such option"),
        (["nonsense"], "No such command"),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(server, arguments, said):
    done = playbook(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "c4nary" not in done.stdout + done.stderr


def test_a_phase_whose_notebook_is_not_there_is_named(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(DEFAULT_PLAN.read_text().replace("04_2_partitioning", "04_9_nowhere"))
    shutil.copy(DEFAULT_PLAN.with_name("workload.sql"), tmp_path)
    done = playbook("run", "--plan", plan, "--only", "4.2")
    assert done.returncode == 2
    assert "there is no notebook 04_9_nowhere in this version" in done.stderr


def test_a_plan_with_a_wrong_field_names_file_and_line(tmp_path):
    (tmp_path / "plan.yaml").write_text("name: x\ntitel: y\n")
    done = playbook("plan", "--plan", tmp_path / "plan.yaml")
    assert done.returncode == 2
    assert f"{tmp_path}/plan.yaml:2: titel: there is no such field here" in done.stderr


def test_a_home_that_cannot_be_made_is_named():
    done = playbook("plan", PLAYBOOK_HOME="/proc/nowhere")
    assert done.returncode == 2
    assert "set PLAYBOOK_HOME to a folder" in done.stderr


def test_options_that_take_several_values_take_them_in_a_row():
    from playbook.arguments import spread

    assert spread(["run", "--only", "1.1", "3.2", "--scale", "1"]) == (
        ["run", "--only", "1.1", "--only", "3.2", "--scale", "1"]
    )


def test_a_foreign_target_is_only_planned_and_its_password_shows_nowhere(shop, monkeypatch, snapshot):
    """The shop's phase has no notebook, so the plan is shown; a URL with a password on the command line is taken."""
    as_found = snapshot(shop.target)
    done = playbook("plan", "--plan", shop.plan, "--target", shop.url())
    assert done.returncode == 0, done.stderr
    assert "2 planned" in done.stdout
    assert shop.target.conninfo["password"] not in done.stdout + done.stderr
    assert snapshot(shop.target) == as_found


def test_a_second_process_is_told_who_holds_the_target(shop):
    shop.playbook().step("1/orders_open").apply()
    first = shop.context()
    with first.hold("apply"):
        done = playbook("undo", "--plan", shop.plan, "--target", "env:SHOP_URL")
    assert done.returncode == 2
    assert f"is held by playbook {first.run_id} (backend " in done.stderr
    assert "orders_open" in str(shop.execute("SELECT indexname FROM pg_indexes"))


def test_ctrl_c_leaves_the_journal_right_and_says_how_to_go_on(server, tmp_path):
    process = subprocess.Popen(
        [COMMAND, "run", "--only", "3.2", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    parts = tmp_path / "parts" / "03_2_hypothesis_indexes.json"
    until(parts.exists, limit_s=60)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    again = playbook("run", "--only", "3.2", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert playbook("undo").returncode == 0


def test_a_server_that_is_gone_in_the_middle_of_a_command_is_one_clear_line(empty, monkeypatch, capsys):
    def ended(**_):
        with empty.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(cli, "app", ended)
    monkeypatch.setattr("sys.argv", ["playbook", "status"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.replace("\n", " ").startswith("error: the connection to the target failed: ")
    assert "Traceback" not in said.err


def test_lab_hands_its_options_to_jupyterlab():
    done = playbook("lab", "--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()[0].isdigit()
