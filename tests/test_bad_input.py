"""What can be wrong with a target or a workload: one clear line, exit code 2 or a status, nothing changed, no password."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote as percent

import papermill
import psycopg
import pytest
from papermill.exceptions import PapermillExecutionError

from playbook import cli
from playbook.settings import NOTEBOOKS

CANARY = "c4nary:p@ss/w'or%d"
PLAIN = "c4nary"
"""A part of it that no encoding changes."""
COMMANDS = ["run", "plan", "status", "undo", "uninstall"]


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs the command in this process; returns its exit code and all that it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PLAYBOOK_OUT")
    monkeypatch.delenv("PLAYBOOK_TARGET_URL", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["playbook", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        os.environ.pop("PLAYBOOK_TARGET_URL", None)
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said
        assert PLAIN not in said
        assert [
            path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size and "out" in path.parts
        ] == []
        return ended.value.code, said

    return run


def url(target, password=CANARY, **more):
    c = {**target.conninfo, **more}
    return (
        f"postgresql://{c['user']}:{percent(str(password), safe='')}@/{c['dbname']}?host={c['host']}&port={c['port']}"
    )


def error_of(said):
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    return lines[0]


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_server_that_is_not_there(command, monkeypatch, verb):
    monkeypatch.setenv("DB", f"postgresql://app:{percent(CANARY, safe='')}@127.0.0.1:1/shop")
    code, said = command(verb, "--target", "env:DB")
    assert code == 2
    assert "cannot connect to env:DB (app@127.0.0.1:1/shop)" in error_of(said)
    assert "check host and port, and that the server runs" in said


class TestAWrongPassword:
    """It shows nowhere, wherever it came from."""

    def check(self, command, *arguments):
        code, said = command("run", *arguments)
        assert code == 2
        assert "password authentication failed" in error_of(said)
        assert "check user and password (~/.pgpass works too)" in said

    def test_in_a_variable(self, command, empty, monkeypatch):
        monkeypatch.setenv("DB", url(empty))
        self.check(command, "--target", "env:DB")

    def test_as_an_argument(self, command, empty):
        self.check(command, "--target", url(empty))

    def test_as_an_argument_with_an_equals_sign(self, command, empty):
        self.check(command, f"--target={url(empty)}")

    def test_in_the_query_of_a_url(self, command, empty):
        c = empty.conninfo
        place = f"host={c['host']}&port={c['port']}&user={c['user']}&password={percent(CANARY, safe='')}"
        self.check(command, "--target", f"postgresql:///{c['dbname']}?{place}")

    def test_in_the_default_target(self, command, empty, monkeypatch):
        monkeypatch.setenv("PLAYBOOK_TARGET", url(empty))
        self.check(command)

    def test_in_a_service_file(self, command, empty, monkeypatch, tmp_path):
        c = {**empty.conninfo, "password": CANARY}
        lines = [f"{key}={c[key]}" for key in ("host", "port", "user", "password", "dbname")]
        (tmp_path / "services").write_text("\n".join(["[shop]", *lines]) + "\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        self.check(command, "--target", "service:shop")

    def test_in_a_password_file(self, command, empty, monkeypatch, tmp_path):
        (tmp_path / "pgpass").write_text(f"*:*:*:*:{CANARY.replace(':', chr(92) + ':')}\n")
        (tmp_path / "pgpass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        c = empty.conninfo
        self.check(command, "--target", f"postgresql://{c['user']}@/{c['dbname']}?host={c['host']}&port={c['port']}")

    def test_in_a_notebook(self, empty, monkeypatch, tmp_path):
        """Its traceback stands in the executed notebook."""
        monkeypatch.setenv("DB", url(empty))
        with pytest.raises(PapermillExecutionError) as caught:
            papermill.execute_notebook(
                str(NOTEBOOKS / "03_2_hypothesis_indexes.ipynb"),
                str(tmp_path / "executed.ipynb"),
                {"out": str(tmp_path), "target": "env:DB"},
                cwd=str(NOTEBOOKS),
                progress_bar=False,
            )
        executed = (tmp_path / "executed.ipynb").read_text()
        assert "password authentication failed" in executed
        assert "Traceback" in executed
        assert PLAIN not in executed + str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "postgresql://app:c4nary@db/shop"],
        ["run", "--only", "postgresql://app:c4nary@db/shop"],
        ["run", "--map", "audit_logs=postgresql://app:c4nary@db/shop"],
        ["run", "--scale", "postgresql://app:c4nary@db/shop"],
        ["postgresql://app:c4nary@db/shop"],
        ["plan", "--target", "postgresql://app:c4nary@[db/shop"],
        ["plan", "--target", "postgresql://app:c4na?ry@db:x/c4nary"],
        ["plan", "--target", "mysql://app:c4nary@db/shop"],
    ],
)
def test_a_url_where_none_belongs_is_not_repeated(command, arguments):
    code, _ = command(*arguments)
    assert code == 2


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("audit_logz={table}", "nothing in the plan .* is called audit_logz; near names: audit_logs"),
        ("audit_logs.user_idd={table}", "nothing in the plan .* is called user_idd; near names: user_id"),
    ],
)
def test_a_mapping_that_nothing_in_the_plan_asks_for(command, empty, monkeypatch, pair, expected):
    with empty.connect() as connection:
        connection.execute("CREATE TABLE trail (user_idd int)")
    monkeypatch.setenv("DB", url(empty, password=empty.conninfo["password"]))
    mapped = ["--map", "audit_logs=trail"] if "." in pair else []
    code, said = command(
        "plan", "--target", "env:DB", *mapped, "--map", pair.format(table="user_idd" if mapped else "trail")
    )
    assert code == 2
    assert re.search(expected, error_of(said).replace("\n", " "))


def test_a_database_that_is_not_there(command, empty, monkeypatch):
    monkeypatch.setenv("DB", url(empty, password=empty.conninfo["password"], dbname="nowhere"))
    code, said = command("run", "--target", "env:DB")
    assert code == 2
    assert 'database "nowhere" does not exist; check the database name in the URL' in error_of(said)


def test_a_version_that_is_not_supported(command, empty15, monkeypatch):
    monkeypatch.setattr("playbook.target.connect.SUPPORTED", range(16, 19))
    monkeypatch.setenv("DB", url(empty15, password=empty15.conninfo["password"]))
    code, said = command("run", "--target", "env:DB")
    assert code == 2
    assert "runs PostgreSQL 15." in error_of(said)
    assert "supported is PostgreSQL 16 to 18" in said


def test_a_version_that_the_tests_do_not_cover_is_named(empty15, monkeypatch, tmp_path):
    monkeypatch.setattr("playbook.target.connect.TESTED", (18,))
    from playbook.context import open_context
    from playbook.settings import Settings
    from playbook.views import banner

    monkeypatch.setenv("DB", url(empty15, password=empty15.conninfo["password"]))
    shown = banner(open_context(Settings(target="env:DB", out=tmp_path)))
    assert "PostgreSQL 15 is accepted, but the playbook's own tests do not cover it." in shown.text


def test_an_expired_certificate(command, tls, monkeypatch):
    monkeypatch.setenv("DB", tls.url(sslmode="verify-full", sslrootcert=str(tls.root)))
    with tls.expired():
        code, said = command("run", "--target", "env:DB")
    assert code == 2
    assert "certificate verify failed; the server's certificate has expired, or" in error_of(said)
    assert tls.server.password not in said


def test_applying_to_a_standby(command, postgres15, standby15, monkeypatch):
    with postgres15.connect() as primary:
        (wanted,) = primary.execute("SELECT current_database()").fetchone()
    monkeypatch.setenv("DB", standby15.url(wanted))
    code, said = command("run", "--target", "env:DB", "--apply")
    assert code == 2
    assert "is a standby, which is read-only; name the primary to apply anything" in error_of(said)


def test_applying_through_a_pooler(command, pooled, monkeypatch):
    monkeypatch.setenv("DB", url(pooled, password=pooled.conninfo["password"]))
    code, said = command("run", "--target", "env:DB", "--apply")
    assert code == 2
    assert "through a transaction pooler" in error_of(said)
    assert "name the database's direct URL" in said


WORKLOAD = """\
-- name: latest_orders
-- about: a query like any other
SELECT id FROM orders ORDER BY created_at DESC, id LIMIT 3;
"""


NO_QUERIES = {
    "SELECT 1; DELETE FROM orders": "several statements; write one SELECT",
    "DELETE FROM orders RETURNING id": "a SELECT is expected, not DELETE",
    "COPY orders TO PROGRAM 'touch /tmp/owned'": "a SELECT is expected, not COPY",
    "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone": "a SELECT that only reads is expected",
    "SELECT id INTO stolen FROM orders": "a SELECT that only reads is expected",
}


def test_a_workload_that_is_no_query_stops_the_run_with_its_line(command, shop, snapshot):
    as_found = snapshot(shop.target), shop.execute("SELECT count(*) FROM orders")
    for sql, said in NO_QUERIES.items():
        (shop.folder / "workload.sql").write_text(f"{WORKLOAD}\n-- name: hostile\n{sql};\n")
        code, told = command("run", "--plan", shop.plan, "--target", f"env:{shop.variable}", "--measure")
        assert code == 2
        assert f"{shop.folder}/workload.sql:6: hostile: " in error_of(told)
        assert said in told
    assert (snapshot(shop.target), shop.execute("SELECT count(*) FROM orders")) == as_found


HOSTILE = {
    "counting": "SELECT nextval('drawn') AS n FROM orders LIMIT 1",
    "reaching": "SELECT * FROM dblink('dbname=' || current_database(), 'DELETE FROM orders RETURNING id') AS t(id bigint)",
    "reading": "SELECT pg_read_file('/etc/hostname') AS f",
    "unlinking": "SELECT lo_unlink(1) AS n",
    "hidden": "SELECT n FROM innocent",
    "ending": "SELECT pg_terminate_backend(pid) AS n FROM pg_stat_activity",
}


@pytest.fixture
def guest_url(shop):
    """The shop's URL for a superuser whose password is the canary."""
    name = psycopg.sql.Identifier("hostile_guest")
    with shop.target.connect() as admin:
        admin.execute(psycopg.sql.SQL("DROP ROLE IF EXISTS {}").format(name))
        admin.execute(psycopg.sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(name, CANARY))
    yield url(shop.target, user="hostile_guest")
    with shop.target.connect() as admin:
        admin.execute(psycopg.sql.SQL("DROP ROLE {}").format(name))


def run_notebook(shop, guest_url, claims, out):
    """The command with one notebook of the project's, which walks one step of the shop's; returns what it did."""
    text = shop.plan.read_text().replace("controls: [customers_by_city]", "controls: []")
    text = text.replace('id: "1"', 'id: "3.2"').replace("notebook: indexes", "notebook: 03_2_hypothesis_indexes")
    text = text.replace('phases: ["1"]', 'phases: ["3.2"]').replace("claims: [latest_orders]", f"claims: [{claims}]")
    shop.plan.write_text(text.partition("      - name: orders_open\n")[0] + text[text.index("priorities:") :])
    command = [Path(sys.executable).with_name("playbook"), "run", "--plan", shop.plan, "--target", "env:DB"]
    return subprocess.run(
        [*command, "--only", "3.2", "--measure", "--budget", "1", "--out", out],
        env={**os.environ, "DB": guest_url},
        capture_output=True,
        text=True,
        check=False,
    )


def told(out, done):
    """All that anybody can read of a run."""
    files = {path.name: path.read_text() for path in out.rglob("*") if path.is_file()}
    assert set(files) >= {"results.json", "report.html", "junit.xml", "undo.sql", "03_2_hypothesis_indexes.ipynb"}
    return files | {"stdout": done.stdout, "stderr": done.stderr}


@pytest.mark.exhaustive
def test_hostile_queries_are_left_out_with_the_reason_and_change_nothing(shop, guest_url, snapshot):
    shop.execute("CREATE SEQUENCE drawn")
    shop.execute("CREATE VIEW innocent AS SELECT nextval('drawn') AS n")
    shop.execute("CREATE EXTENSION dblink")
    as_found = snapshot(shop.target), shop.execute("SELECT count(*) FROM orders")
    workload = "\n".join(f"-- name: {name}\n{sql};\n" for name, sql in HOSTILE.items())
    (shop.folder / "workload.sql").write_text(f"{WORKLOAD}\n{workload}")
    out = shop.folder / "run"
    done = run_notebook(shop, guest_url, ", ".join(HOSTILE), out)
    assert done.returncode == 0, done.stdout + done.stderr
    comparisons = json.loads((out / "results.json").read_text())["comparisons"]
    reasons = {each["query"]: each["reason"] for each in comparisons}
    assert set(reasons) == set(HOSTILE)
    assert "dblink" in reasons["reaching"]
    assert "in the view innocent is volatile" in reasons["hidden"]
    assert [name for name, reason in reasons.items() if "is volatile" not in reason] == []
    assert {each["verdict"] for each in comparisons} == {"not measured"}
    assert shop.execute("SELECT is_called FROM drawn") == [(False,)]
    assert (snapshot(shop.target), shop.execute("SELECT count(*) FROM orders")) == as_found
    assert [name for name, text in told(out, done).items() if PLAIN in text] == []


@pytest.mark.exhaustive
def test_a_notebook_that_fails_with_a_traceback_tells_no_password(shop, guest_url):
    out = shop.folder / "run"
    done = run_notebook(shop, guest_url, "nowhere", out)
    assert done.returncode == 2, done.stdout + done.stderr
    (failed,) = json.loads((out / "results.json").read_text())["notebooks"]
    assert "no query is named nowhere" in failed["error"]
    texts = told(out, done)
    assert "Traceback" in texts["03_2_hypothesis_indexes.ipynb"]
    assert "no query is named nowhere" in texts["junit.xml"]
    assert "no query is named nowhere" in texts["report.html"]
    assert [name for name, text in texts.items() if PLAIN in text] == []
