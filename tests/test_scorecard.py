"""The scorecard: every item of the plan with its evidence, every promise judged, every empty cell with its reason."""

from __future__ import annotations

import json
import re

import pytest

from playbook.outcome import VERDICTS
from playbook.plan.model import ExpectedImprovement
from playbook.promises import judged
from playbook.run import SCORECARD, chosen_notebooks
from playbook.scorecard import Scorecard
from playbook.service.whole import Reduction
from playbook.views import VIEWS


def shown(answer):
    return VIEWS[type(answer)](answer).text


def part(context):
    return json.loads((context.settings.folder / "parts" / f"{SCORECARD}.json").read_text())


def test_on_somebodys_database_what_needs_the_service_says_so_and_the_rest_is_told(snake):
    playbook = snake.playbook(apply=False)
    card = Scorecard(playbook)
    items = card.matrix().items
    assert len(items) == 12
    assert all(item.status and (item.evidence or item.why) for item in items)
    assert "embedded sample only" in shown(card.measure())
    promises = card.expected().promises
    assert len(promises) == 4
    assert {(each.value, each.met) for each in promises} == {(None, None)}
    assert all(each.reason.startswith("not applicable: ") for each in promises)
    card.finish()
    rows = part(playbook.context)["expected"]
    assert [(row["low"], row["high"]) for row in rows] == [(20, 40), (50, 70), (60, 80), (90, 100)]
    assert all(set(row) >= {"name", "low", "high", "value", "met", "reason"} for row in rows)


def test_it_tells_what_the_journal_has_kept_and_what_to_do_next(shop):
    shop.plan.write_text(shop.plan.read_text() + '  - {priority: high, week: 2, item: "Make tea"}\n')
    phase = shop.playbook(budget_s=1).phase("1")
    phase.check()
    phase.before()
    shop.execute("DELETE FROM orders WHERE id < 0")
    phase.apply()
    phase.after()
    context = shop.context(apply=False, out=shop.folder / "another")
    card = Scorecard(type(shop.playbook(apply=False))(context))
    index, tea = card.matrix().items
    assert index.status == "2 applied"
    assert sum(map(int, re.findall(rf"(\d+) (?:{'|'.join(VERDICTS)})", index.evidence))) == 3
    assert (tea.status, tea.why) == ("not in the plan", "the plan names no phase and no notebook for it")
    outcomes = card.outcomes()
    assert {each.decision.word for each in outcomes.steps} == {"keep"}
    assert outcomes.size_bytes > 8192
    assert outcomes.dearest is None, "writes are not measured on a foreign target unless asked for"
    assert "What writers pay was not measured." in shown(outcomes)
    shop.execute("DROP INDEX orders_open")
    waiting = Scorecard(type(shop.playbook(apply=False))(shop.context(apply=False, out=shop.folder / "third")))
    assert ("apply", "1/orders_open") in {(each.what, each.step) for each in waiting.next().actions}


@pytest.mark.parametrize(
    ("pct", "ci95", "met"),
    [
        (35.0, (25.0, 45.0), True),
        (60.0, (50.0, 70.0), True),
        (10.0, (5.0, 15.0), False),
        (25.0, (15.0, 35.0), None),
        (-5.0, (-9.0, -1.0), False),
        (None, None, None),
    ],
)
def test_a_promise_is_met_or_missed_only_with_its_whole_interval(pct, ci95, met):
    expected = ExpectedImprovement(name="api_response_reduction_pct", title="API", low=20, high=40)
    found = judged(expected, Reduction(pct, ci95), "median time")
    assert (found.value, found.met) == (pct, met)
    assert ("unproven" in found.reason) == (met is None and pct is not None)


def test_it_runs_last_in_a_run_of_the_whole_plan(shop):
    context = shop.context(apply=False)
    assert chosen_notebooks(context, ())[-1] == SCORECARD
    assert SCORECARD not in chosen_notebooks(context, ("0",))
