"""The command on somebody's database in Prisma's manner, as that person would use it; nothing leaks from it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.fix_prisma import CANARY, MAP, MOMENT, OWNER, PASSWORDS, READER

from playbook import undoing

COMMAND = str(Path(sys.executable).with_name("playbook"))
CHOSEN = ["--apply", "--budget", "2", "--only", "1.1", "4.1"]
MAPPED = [part for pair in MAP.items() for part in ("--map", "=".join(pair))]


def playbook(prisma, *arguments, role=OWNER):
    """Runs the command on the database as `role`; returns what it did, all that it said in one text."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments), "--target", f"env:{prisma.variable}"],
        env={**os.environ, prisma.variable: prisma.url_of(role), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout
    holds_no_secret(done.stdout, "what the command says")
    return done


def holds_no_secret(text, where):
    """Neither a password nor anything of a row: every text of them holds a canary, every moment reads alike."""
    for password in PASSWORDS.values():
        assert password not in text, where
    assert CANARY not in text.lower(), where
    assert not re.search(rf"202[45]-\d\d-\d\d[ T]\d\d:\d\d:00{re.escape(MOMENT)}", text), where
    assert "31415.926" not in text, where


def leaves_no_secret(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"results.json", "report.html", "junit.xml", "undo.sql"} <= {path.name for path in files}
    for path in files:
        holds_no_secret(path.read_text(encoding="utf-8"), path.name)


def statuses(folder):
    return {step["id"]: step["status"] for step in json.loads((folder / "results.json").read_text())["steps"]}


@pytest.mark.exhaustive
def test_a_role_that_may_only_read_gets_the_whole_report_of_a_dry_run_at_the_first_try(prisma, snapshot):
    as_found = snapshot(prisma.target)
    folder = prisma.folder / "run"
    done = playbook(prisma, "run", "--only", "1.1", "--out", folder, role=READER)
    assert done.returncode == 0, done.stdout
    assert "Dry run: nothing was changed, no query was executed." in done.stdout
    assert "run again with --map approval_executions=ApprovalExecution" in done.stdout
    assert f"privileges: 3 steps cannot be applied by this role: GRANT {OWNER} TO {READER}" in done.stdout
    assert set(statuses(folder).values()) == {"planned", "covered", "not_applicable"}
    report = (folder / "report.html").read_text()
    assert "-- lock: SHARE UPDATE EXCLUSIVE on public.proposals" in report
    assert "(status, &#34;customerId&#34;, &#34;createdAt&#34; DESC)" in report
    leaves_no_secret(folder)
    assert snapshot(prisma.target) == as_found


def test_names_that_cannot_be_placed_are_one_clear_line_or_the_status_of_their_step(prisma, snapshot):
    prisma.execute('ALTER TABLE content RENAME TO "Content"')
    prisma.execute('CREATE TABLE "CONTENT" (LIKE "Content")')
    as_found = snapshot(prisma.target)
    done = playbook(prisma, "plan", *MAPPED, "--map", "proposals.value=currency")
    assert done.returncode == 0
    told = " ".join(done.stdout.split())
    assert 'public."CONTENT" and public."Content" may be meant by content; choose one: --map content=NAME' in told
    for mapping, why in {
        "audit_logs=AuditTrial": 'the target has no relation AuditTrial; near names: public."AuditTrail"; map it: --map',
        "proposals.value=valu": "public.proposals has no column valu; near names: value; map it: --map proposals.value=",
    }.items():
        done = playbook(prisma, "run", "--map", mapping, "--out", prisma.folder / "none")
        assert done.returncode == 2
        assert len(done.stdout.splitlines()) == 1, done.stdout
        assert f"error: --map {mapping}: {why}" in done.stdout
    assert not list((prisma.folder / "none").rglob("*.*"))
    assert snapshot(prisma.target) == as_found


@pytest.mark.exhaustive
def test_its_owner_applies_the_plan_is_killed_half_way_resumes_and_undoes_and_the_catalog_is_the_same(prisma, snapshot):
    as_found = snapshot(prisma.target)
    folder = prisma.folder / "killed"
    command = [
        COMMAND,
        "run",
        "--apply",
        "--budget",
        "2",
        *MAPPED,
        "--target",
        f"env:{prisma.variable}",
        "--out",
        folder,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as run:
        begun = "SELECT count(*) FROM pg_class WHERE relname = 'idx_content_search_optimization'"
        while prisma.execute(begun) == [(0,)]:
            assert run.poll() is None
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
    resumed = prisma.folder / "resumed"
    done = playbook(prisma, "run", *CHOSEN, *MAPPED, "--out", resumed)
    assert done.returncode == 0, done.stdout
    found = statuses(resumed)
    assert found["1.1/idx_content_search_optimization"] in {"applied", "dropped"}
    assert found["4.1/check_quantity_positive"] == "applied"
    leaves_no_secret(resumed)
    for path in folder.rglob("*.*"):
        holds_no_secret(path.read_text(encoding="utf-8"), path.name)
    assert playbook(prisma, "status").returncode == 0
    assert playbook(prisma, "undo").returncode == 0
    assert playbook(prisma, "uninstall").returncode == 0
    assert snapshot(prisma.target) == as_found
    assert undoing.undo(prisma.context()) == []
