"""A dry run of the plan on somebody's database, by a role that may only read: what was executed, written and told.

One run of the command serves all of these tests. The database is in Prisma's manner, on PostgreSQL 15 with HypoPG; every
text in its rows holds a canary.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fix_prisma import CANARY, MAP, MOMENT, OWNER, PASSWORDS, READER, TEMPLATE, make_template
from tests.fix_shop import Shop
from tests.servers import DEBIAN_SHARE_15, required
from tests.waiting import until

from playbook.settings import DEFAULT_PLAN
from playbook.target.connect import Target, identify

COUNTERS = """
SELECT relname, seq_scan, seq_tup_read, n_tup_ins, n_tup_upd, n_tup_del, n_tup_hot_upd, n_live_tup, n_dead_tup,
       last_vacuum, last_analyze
FROM pg_stat_user_tables ORDER BY schemaname, relname
"""
FETCHED = "SELECT sum(idx_tup_fetch) FROM pg_stat_user_indexes"
STATEMENTS = """
SELECT s.query FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid JOIN pg_roles r ON r.oid = s.userid
WHERE d.datname = %s AND r.rolname = %s
"""
REPORTING = """
SELECT 1 FROM pg_stat_activity WHERE application_name ~ '^(playbook |pg_dump$)' AND datname = current_database()
"""
LOOKS = re.compile(r"(EXPLAIN|SELECT|WITH|SHOW|SET|BEGIN|ROLLBACK|COMMIT|RESET|SAVEPOINT|RELEASE|DEALLOCATE)\b", re.I)
LEAKED_MOMENT = re.compile(rf":\d\d{re.escape(MOMENT)}(?!\d)")  # not a time of day of our own, with its microseconds
PARTS = {"one phase": ["--only", "1.1"], "the whole plan": []}


@dataclass
class Ran:
    """What a run of the command did: its folder, its words, and the server's own account of before and after."""

    folder: Path
    done: subprocess.CompletedProcess[str]
    before: dict[str, Any]
    after: dict[str, Any]
    statements: list[str]
    tables: list[str]

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.folder / "results.json").read_text())

    def texts(self) -> dict[str, str]:
        """All that anybody can read of it."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        told = {"stdout": self.done.stdout, "stderr": self.done.stderr}
        return told | {str(path.relative_to(self.folder)): path.read_text() for path in files}


@dataclass
class Watched:
    """The database, as its superuser sees it."""

    target: Target
    database: str
    dump: Any

    def role(self, name: str) -> Target:
        conninfo = {**self.target.conninfo, "user": name, "password": PASSWORDS[name]}
        return identify(Target(spec="env:READER_URL", conninfo=conninfo))

    def account(self) -> dict[str, Any]:
        """Counters and full contents, once every session of a run or of pg_dump has gone and so has reported."""
        with self.target.connect() as connection:
            until(lambda: not connection.execute(REPORTING).fetchone(), limit_s=60)
            return {
                "counters": connection.execute(COUNTERS).fetchall(),
                "fetched": connection.execute(FETCHED).fetchone(),
            }

    def run(self, folder: Path, *options: str) -> Ran:
        """The command as that role, in a process of its own."""
        with self.target.connect(dbname="postgres") as connection:
            connection.execute("SELECT pg_stat_statements_reset()")
        dumped = self.dump(self.target)
        before = self.account()  # the dump has read the tables, so the counters come after it
        url = Shop(self.role(READER), DEFAULT_PLAN, folder).url()
        maps = [part for name, target in MAP.items() for part in ("--map", f"{name}={target}")]
        command = [Path(sys.executable).with_name("playbook"), "run", "--target", "env:READER_URL", *maps]
        done = subprocess.run(
            [*command, *options, "--out", folder],
            env={**os.environ, "READER_URL": url, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        after = self.account()
        with self.target.connect(dbname="postgres") as connection:
            statements = [row[0] for row in connection.execute(STATEMENTS, [self.database, READER])]
        with self.target.connect() as connection:
            tables = [row[0] for row in connection.execute("SELECT relname FROM pg_stat_user_tables")]
        return Ran(
            folder, done, before | {"dump": dumped}, after | {"dump": self.dump(self.target)}, statements, tables
        )


@pytest.fixture(scope="module")
def database(postgres15, dump15):
    """The database, for all tests of this module."""
    if not (DEBIAN_SHARE_15 / "hypopg.control").exists():
        required("hypopg", "apt-get install postgresql-15-hypopg")
    with postgres15.connect() as server:
        make_template(server, postgres15.connect)
        server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        server.execute(f"CREATE DATABASE dry TEMPLATE {TEMPLATE} OWNER {OWNER}")
    target = identify(Target(spec="env:DB", conninfo=postgres15.conninfo("dry")))
    with target.connect() as connection:
        connection.execute("CREATE EXTENSION hypopg")
    yield Watched(target, "dry", dump15)
    with postgres15.connect() as server:
        server.execute("DROP DATABASE dry WITH (FORCE)")


@pytest.fixture(scope="module", params=["one phase", pytest.param("the whole plan", marks=pytest.mark.exhaustive)])
def dry(request, database, tmp_path_factory):
    return database.run(tmp_path_factory.mktemp("dry"), *PARTS[request.param])


def test_it_gives_a_full_report_at_the_first_try(dry):
    assert dry.done.returncode == 0, dry.done.stderr
    assert dry.results["mode"] == "dry-run"
    statuses = {step["id"]: step["status"] for step in dry.results["steps"]}
    assert statuses["1.1/idx_proposal_status_customer_created"] == "planned"
    assert statuses["1.1/idx_validation_issues_entity_severity_status"] == "covered"
    planned = [each["query"] for each in dry.results["comparisons"] if each["before_nodes"]]
    assert len(set(planned)) >= 11
    assert "GRANT prisma_owner TO prisma_reader" in dry.texts()["report.html"]


def test_no_query_was_executed(dry):
    explained = [text for text in dry.statements if text.startswith("EXPLAIN")]
    assert len(explained) >= 11
    assert not [text for text in explained if "ANALYZE" in text.partition(")")[0].upper()]
    named = re.compile("|".join(rf"\b{re.escape(table)}\b" for table in dry.tables))
    from_clause = re.compile(r"(?i)\b(?:FROM|JOIN)\s+(\S+)")
    touched = [
        text
        for text in dry.statements
        if not text.startswith("EXPLAIN") and any(named.search(each) for each in from_clause.findall(text))
    ]
    assert touched == []


def test_every_statement_only_looked(dry):
    assert dry.statements
    assert [text for text in dry.statements if not LOOKS.match(text.lstrip("( \n"))] == []


def test_no_row_was_read_and_none_written(dry):
    assert dry.after["counters"] == dry.before["counters"]
    assert dry.after["fetched"] == dry.before["fetched"]


def test_catalog_rows_and_sequences_are_as_they_were(dry):
    assert dry.after["dump"] == dry.before["dump"]
    assert "CREATE SCHEMA playbook" not in dry.after["dump"]


def test_no_value_of_a_row_is_in_any_output(dry):
    held = [name for name, text in dry.texts().items() if CANARY in text.lower() or LEAKED_MOMENT.search(text)]
    assert held == []


def test_no_password_is_in_any_output(dry):
    assert [name for name, text in dry.texts().items() if PASSWORDS[READER] in text] == []


def test_the_estimates_are_in_the_notebook_the_results_and_the_report(dry):
    found = {(each["step"], each["used"]) for each in dry.results["estimates"]}
    assert ("1.1/idx_proposal_status_customer_created", True) in found
    assert not [step for step, _ in found if step.startswith("4.1/")]
    texts = dry.texts()
    assert "Estimates, by HypoPG" in texts["report.html"]
    assert "Estimates, by HypoPG" in texts["01_1_composite_indexes.ipynb"]
    assert {each["verdict"] for each in dry.results["comparisons"]} == {"not measured"}


def test_values_are_shown_to_those_who_ask(database, tmp_path, monkeypatch):
    """That the canary is where it is looked for."""
    shop = Shop(database.role(READER), DEFAULT_PLAN, tmp_path, map=MAP)
    monkeypatch.setenv(shop.variable, shop.url())
    for shows in (True, False):
        values = shop.playbook(apply=False, show_values=shows).phase("1.1").before().values
        assert any(CANARY in text.lower() for text in values.values()) is shows


def test_measuring_executes_and_writes_nothing(database, tmp_path, monkeypatch):
    shop = Shop(database.role(READER), DEFAULT_PLAN, tmp_path, map=MAP)
    monkeypatch.setenv(shop.variable, shop.url())
    as_found = database.dump(database.target)
    phase = shop.playbook(apply=False, measure=True, budget_s=2).phase("1.1")
    measured = phase.before()
    assert measured.executed
    assert any(each.rounds for each in measured.measurements)
    assert CANARY not in repr(measured).lower()
    phase.after()
    phase.finish()
    assert database.dump(database.target) == as_found
    assert CANARY not in (tmp_path / "out" / "parts" / "01_1_composite_indexes.json").read_text().lower()


@pytest.mark.exhaustive
def test_a_measured_run_of_the_command_writes_nothing_and_tells_no_value(database, tmp_path):
    measured = database.run(tmp_path, "--only", "1.1", "--measure", "--budget", "3")
    assert measured.done.returncode == 0, measured.done.stderr
    assert any(each["rounds"] or each["before_ms"] for each in measured.results["comparisons"])
    assert measured.after["dump"] == measured.before["dump"]
    written = [[row[0], *row[3:7]] for row in measured.after["counters"]]
    assert written == [[row[0], *row[3:7]] for row in measured.before["counters"]]
    assert [text for text in measured.statements if not LOOKS.match(text.lstrip("( \n"))] == []
    held = [name for name, text in measured.texts().items() if CANARY in text.lower() or PASSWORDS[READER] in text]
    assert held == []
