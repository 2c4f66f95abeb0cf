"""The notebooks keep their contract: one story, typed parameters, outputs that hold no secret, runs of every sort."""

from __future__ import annotations

import json
import re

import nbformat
import papermill
import psycopg
import pytest
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.utils import find_first_tagged_cell_index

from playbook.changes import kinds
from playbook.plan.model import load
from playbook.run import CURRENT_STATE, MONITORING, SCORECARD
from playbook.settings import DEFAULT_PLAN, NOTEBOOKS

STORY = ["Why", "Before", "Change", "After", "Verdict", "Undo", "Next"]
PARAMETERS = ["target: str = None", "apply: bool = None", "plan: str = None", "scale: float = None", "out: str = None"]
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
PLAN = load(DEFAULT_PLAN, {name: kind.Spec for name, kind in kinds().items()})


def read(path):
    return nbformat.read(path, as_version=4)


def headings(notebook, level):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(rf"(?m)^#{{{level}}} (.+)$", text)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def run(path, tmp_path, **parameters):
    """Runs a notebook as a user of papermill alone would; returns it and the part it wrote."""
    tmp_path.mkdir(exist_ok=True)
    out = tmp_path / "executed.ipynb"
    papermill.execute_notebook(
        str(path), str(out), {"out": str(tmp_path), **parameters}, cwd=str(NOTEBOOKS), progress_bar=False
    )
    return read(out), json.loads((tmp_path / "parts" / f"{path.stem}.json").read_text())


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
class TestContract:
    def test_it_tells_the_story_in_order(self, path):
        notebook = read(path)
        assert len(headings(notebook, 1)) == 1
        assert headings(notebook, 2) == STORY

    def test_it_starts_with_its_purpose_and_its_parameters(self, path):
        first, second = read(path).cells[:2]
        assert first.cell_type == "markdown"
        assert second.metadata.tags == ["parameters"]
        declared = [line.split("  #") for line in second.source.splitlines()]
        assert [line[0] for line in declared] == PARAMETERS
        assert all(len(line) == 2 and line[1].strip() for line in declared), "every parameter has a comment"

    def test_papermill_knows_its_parameters(self, path):
        assert find_first_tagged_cell_index(load_notebook_node(str(path)), "parameters") == 1
        assert set(papermill.inspect_notebook(str(path))) == {"target", "apply", "plan", "scale", "out"}

    def test_a_phase_of_the_plan_names_it_or_every_plan_has_it(self, path):
        assert path.stem in {CURRENT_STATE, MONITORING, SCORECARD, *(phase.notebook for phase in PLAN.phases)}

    def test_it_holds_calls_and_no_logic(self, path):
        code = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
        assert max(len(source.splitlines()) for source in code) <= 8
        assert not any(re.search(r"(?m)^\s*(def|for|while|class|try)\b", source) for source in code)

    def test_it_is_committed_with_outputs_and_without_errors(self, path):
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        assert any(cell.outputs for cell in code)
        assert not [output for cell in code for output in cell.outputs if output.output_type in {"error", "stream"}]

    def test_checked_cells_hold_no_figure_of_a_machine(self, path):
        cells = tagged(read(path), "nbval-check-output")
        assert cells
        for cell in cells:
            text = json.dumps(cell.outputs)
            assert not re.search(r"\d (ms|s|MB|kB|min)\b|×|faster|slower|unproven|no gain", text), cell.source


@pytest.fixture
def fresh(server):
    """The sample's working copy as it was found, whatever other tests did to it."""
    from playbook.target import sample

    def connect(dbname):
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    sample.provision(connect, 0.02)
    sample.reset(connect, 0.02, force=True)


def test_a_notebook_runs_alone_and_then_again(fresh, tmp_path):
    path = NOTEBOOKS / "03_2_hypothesis_indexes.ipynb"
    _, first = run(path, tmp_path / "first")
    assert {step["status"] for step in first["steps"]} <= {"applied", "dropped"}
    assert {row["same_rows"] for row in first["comparisons"]} == {True}
    _, again = run(path, tmp_path / "again")
    assert [step["status"] for step in again["steps"]] == [step["status"] for step in first["steps"]]
    applied = {step["id"] for step in first["steps"] if step["status"] == "applied"}
    kept = [
        [row[k] for k in ("query", "bind", "before_ms", "verdict")]
        for row in first["comparisons"]
        if row["step"] in applied
    ]
    assert [
        [row[k] for k in ("query", "bind", "before_ms", "verdict")]
        for row in again["comparisons"]
        if row["step"] in applied
    ] == kept


def test_a_dry_run_plans_everything_and_changes_nothing(fresh, tmp_path):
    _, part = run(NOTEBOOKS / "01_1_composite_indexes.ipynb", tmp_path, apply=False)
    assert {step["status"] for step in part["steps"]} == {"planned"}
    assert [len(step["statements"]) for step in part["steps"]] == [1] * 5


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"aply": True}, "UsageError: unknown parameter aply; there are target, plan, apply, scale, out"),
        ({"apply": "yes"}, "UsageError: parameter apply is 'yes'; it must be bool, or None"),
        ({"scale": "big"}, "UsageError: parameter scale is 'big'; it must be int or float"),
        ({"target": "env:NOT_SET_ANYWHERE"}, "the environment variable NOT_SET_ANYWHERE is not set"),
        ({"target": "postgresql://app:c4nary@db/shop"}, "delete that file, change the password"),
    ],
)
def test_a_wrong_parameter_stops_the_run_with_its_reason(tmp_path, parameters, said):
    with pytest.raises(PapermillExecutionError) as caught:
        run(NOTEBOOKS / "03_2_hypothesis_indexes.ipynb", tmp_path, **parameters)
    assert said in f"{caught.value.ename}: {caught.value.evalue}"
    assert "c4nary" not in caught.value.evalue


def test_constraints_are_blocked_by_rows_and_added_once_these_are_mended(fresh, server, tmp_path):
    path = NOTEBOOKS / "04_1_constraints.ipynb"
    with psycopg.connect(**server.conninfo("proposals_0_02"), autocommit=True) as connection:
        connection.execute("UPDATE proposal_products SET quantity = 1 WHERE NOT (quantity > 0)")
    _, part = run(path, tmp_path)
    assert [step["status"] for step in part["steps"]] == ["blocked", "applied", "blocked"]
    assert "7 rows violate it (id = p0000001, " in part["steps"][0]["reason"]
    assert re.search(r"by run \S+; [\d,]+ rows verified", part["steps"][1]["reason"])
    assert part["steps"][1]["write_overhead_pct"] is not None
