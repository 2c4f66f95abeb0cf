"""Kind `eager_load`: code that is shown is code that runs, and the journal is its switch in the reference service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy.orm
from sqlalchemy.dialects import postgresql

from playbook.application import applied_switches
from playbook.changes.eager_load import EagerLoad, EagerLoadSpec
from playbook.context import open_context
from playbook.errors import NotFound, PlanError
from playbook.phase import Playbook
from playbook.psql import undo_sql
from playbook.service import models, reads
from playbook.service.switches import Switches
from playbook.settings import Settings
from playbook.show import statements
from playbook.target import sample

STEP = "1.2/proposals_with_customer_products_sections"


@pytest.fixture
def opened(server, tmp_path):
    """Opens the plan on the sample as it was found, each time as a new process would."""

    def connect(dbname):
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    sample.provision(connect, 0.02)
    sample.reset(connect, 0.02, force=True)
    return lambda **settings: Playbook(open_context(Settings(scale=0.02, out=tmp_path, **settings)))


def change(**fields):
    spec = EagerLoadSpec(name="x", kind="eager_load", **{"endpoint": "/proposals", "root": "proposals", **fields})
    return EagerLoad(spec, None, None)


def test_the_preview_shows_the_code_with_it_and_without_it(opened):
    phase = opened().step(STEP)
    text = repr(statements(phase.preview().steps[0][1]))
    assert text.splitlines() == [
        "# 1. switches eager_load on in the reference service; in your application:",
        "select(Proposal).options(",
        "    joinedload(Proposal.customer, innerjoin=True),",
        "    selectinload(Proposal.products).options(joinedload(ProposalProduct.product, innerjoin=True)),",
        "    selectinload(Proposal.sections).options(defer(ProposalSection.body, raiseload=True)),",
        '    raiseload("*", sql_only=True),',
        ")",
    ]
    assert "row.customer  # SELECT … FROM customers for each Proposal" in repr(
        statements(phase.preview_undo().statements)
    )


def test_the_code_shown_is_the_code_that_runs():
    shown = eval(
        change(relationships=("customer", "products.product", "sections"), leave_out=("sections.body",)).with_it(),
        {**vars(sqlalchemy), **vars(sqlalchemy.orm), **vars(models)},
    )
    run = sqlalchemy.select(models.Proposal).options(*reads.PROPOSAL_LIST_OPTIONS)
    assert str(shown.compile(dialect=postgresql.dialect())) == str(run.compile(dialect=postgresql.dialect()))


def test_apply_switches_it_on_and_undo_off_with_nothing_sent_but_the_journal(opened, snapshot):
    pb = opened()
    as_found = snapshot(pb.context.target)
    assert applied_switches(pb.context) == Switches()
    assert pb.phase("1.2").apply().steps[0][1].status == "applied"
    again = opened()
    assert again.phase("1.2").check().steps[0][1].status == "applied"
    assert applied_switches(again.context) == Switches.of(["eager_load"])
    assert "-- for row in session.scalars(select(Proposal)):" in undo_sql(again.context).splitlines()
    assert snapshot(pb.context.target) == as_found
    assert again.phase("1.2").apply().steps[0][1].status == "applied"
    assert again.phase("1.2").undo().steps[0][1].status == "undone"
    assert applied_switches(opened().context) == Switches()
    assert opened().phase("1.2").check().steps[0][1].status == "planned"


def test_a_dry_run_switches_nothing(opened):
    assert opened(apply=False).phase("1.2").apply().steps[0][1].status == "planned"
    assert not opened().context.journal.store.exists()


def test_the_switch_is_kept_in_a_journal_file_as_well(opened, tmp_path):
    path = tmp_path / "journal.sqlite"
    opened(journal=path).phase("1.2").apply()
    assert applied_switches(opened(journal=path).context) == Switches.of(["eager_load"])
    assert applied_switches(opened().context) == Switches()
    command = str(Path(sys.executable).with_name("playbook"))
    undone = subprocess.run([command, "undo", "--journal", str(path)], capture_output=True, text=True, check=True)
    assert f"{STEP}: undone" in undone.stdout


def test_it_is_not_applicable_where_the_reference_service_does_not_run(shop):
    shop.plan.write_text(
        shop.plan.read_text().replace(
            "    steps:\n",
            "    steps:\n      - {name: lists, kind: eager_load, endpoint: /p, root: proposals, relationships: [customer]}\n",
        )
    )
    phase = shop.playbook().step("1/lists")
    phase.before()
    phase.after()
    assert phase.verdict().rows == []
    name, state = phase.check().steps[0]
    assert (name, state.status) == ("1/lists", "not_applicable")
    assert "runs on the embedded sample only" in state.reason


def test_a_relationship_or_table_that_is_not_there_is_told_with_those_there_are():
    with pytest.raises(PlanError, match="ProposalProduct has no relationship prodct; it has product"):
        change(relationships=("products.prodct",))
    with pytest.raises(PlanError, match="ProposalSection has no relationship boddy"):
        change(relationships=("sections",), leave_out=("sections.boddy",))
    with pytest.raises(NotFound, match="has no model of offers; it has approval_executions, "):
        change(root="offers", relationships=())
