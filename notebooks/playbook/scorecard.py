"""The plan's scorecard: its priority matrix with evidence, what it promised against what came of it, what it cost.

The evidence is that of this run's parts, where its notebooks have written them, else what the journal has kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playbook import figures, outcome, parts
from playbook.answers import NotApplicable
from playbook.application import applied_switches
from playbook.balance import Actions, Outcomes, actions, outcomes_of
from playbook.context import Context
from playbook.plan.model import ExpectedImprovement, PriorityItem
from playbook.promises import Expected, Promise, Promises, judged
from playbook.results import IN_PLACE, SCHEMA, Comparison, Results, read
from playbook.settings import NOTEBOOKS
from playbook.step import planned_steps

if TYPE_CHECKING:
    from playbook.phase import Playbook
    from playbook.service.whole import WholeComparison

NOTEBOOK = "06_scorecard"
"""It comes last; no plan has to name it."""
ROUNDS = 6
ROUND_S = 1.7
KEYS, ASKED_BEFORE = 1200, 6000
"""What is asked for, and how often before the load: 20 requests a second in the five minutes that a cache keeps. Under
a smaller budget for a phase all this is cut down (`Settings.share`)."""
FIGURES = {
    "api_response_reduction_pct": ("p50_ms", "", "median time of all requests"),
    "dashboard_load_reduction_pct": ("p50_ms", "analytics dashboard", "median time of the dashboard's requests"),
    "database_load_reduction_pct": ("database_ms", "", "database time of a request, by all that is applied"),
}
"""By the name of what the plan expects: the figure of the load, its endpoint (all, where empty), and its words."""
N_PLUS_ONE = "n_plus_one_eliminated_pct"


@dataclass(frozen=True)
class Item:
    """One item of the priority matrix with its status and evidence; `why` stands where there is none."""

    item: PriorityItem
    status: str
    evidence: str
    why: str


@dataclass(frozen=True)
class Matrix:
    """The items in the plan's order."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Whole:
    """The whole service as found against all that is applied."""

    found: WholeComparison


class Scorecard:
    """The scorecard of an opened playbook. Its figures go into the notebook's part of the results."""

    def __init__(self, playbook: Playbook) -> None:
        self.context = playbook.context
        self._part = parts.Part(self.context, NOTEBOOK)
        self._found = _evidence(self.context)
        self._metrics: dict[str, float | None] = {}
        self._whole: Whole | NotApplicable | None = None
        self._promises: tuple[Promise, ...] = ()

    def record(self, metrics: dict[str, float | None]) -> None:
        """Adds figures to the notebook's part of the results."""
        self._metrics |= {name: None if value is None else round(value, 4) for name, value in metrics.items()}
        self._write()

    def promised(self) -> Promises:
        """What the plan expects."""
        return Promises(self.context.plan.expected)

    def matrix(self) -> Matrix:
        """The priority matrix, with what became of each item."""
        return Matrix(tuple(self._item(item) for item in self.context.plan.priorities))

    def measure(self) -> Whole | NotApplicable:
        """The whole service as found, on a pristine copy, against all that is applied, under the same load.

        Its writes change a few rows of the sample.
        """
        self._whole = NotApplicable(reason) if (reason := self._hindrance()) else self._measured()
        return self._whole

    def _measured(self) -> Whole:
        from playbook.service.whole import compare_whole

        share = self.context.settings.share
        whole = compare_whole(
            self.context.target,
            applied_switches(self.context),
            rounds=ROUNDS,
            round_s=ROUND_S * share,
            keys=round(KEYS * share),
            asked_before=round(ASKED_BEFORE * share),
            progress=self.context.progress,
        )
        self.context.progress("")
        self.record(whole.metrics())
        return Whole(whole)

    def expected(self) -> Expected:
        """The plan's promises against what was measured."""
        if self._whole is None:
            self.measure()
        self._promises = tuple(self._promise(each) for each in self.context.plan.expected)
        self._write()
        return Expected(self._promises)

    def outcomes(self) -> Outcomes:
        """Kept, dropped, covered, blocked, unproven; and what it costs."""
        return outcomes_of(self._found)

    def next(self) -> Actions:
        """What to do next, by gain per cost: first what costs nothing, then by the plan's priority."""
        return Actions(tuple(actions(self._found, self._promises)))

    def finish(self) -> None:
        """The last call of the notebook."""
        if not self._promises:
            self.expected()
        self._write()

    def _item(self, item: PriorityItem) -> Item:
        steps = [step for step in self._found.steps if step.phase in item.phases]
        if not steps:
            return self._of_notebooks(item)
        own = [each for step in steps for each in self._found.of(step)]
        words = [outcome.status(step.status) for step in steps]
        status = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        best = max((each for each in own if each.verdict == "faster"), key=lambda each: each.speedup or 0, default=None)
        evidence = "; ".join(filter(None, (outcome.tally(each.verdict for each in own), _best(best))))
        waiting = [step for step in steps if step.status not in IN_PLACE]
        why = "; ".join(dict.fromkeys(step.reason or f"{step.id} is not applied" for step in waiting))
        return Item(item, status, evidence, why or ("" if evidence else "nothing of it was measured before and after"))

    def _of_notebooks(self, item: PriorityItem) -> Item:
        there = [name for name in item.notebooks if (NOTEBOOKS / f"{name}.ipynb").exists()]
        if missing := [name for name in item.notebooks if name not in there]:
            return Item(item, "missing", "", f"not in this version: {', '.join(missing)}")
        if not there:
            return Item(item, "not in the plan", "", "the plan names no phase and no notebook for it")
        written = [name for name in there if parts.read_part(self.context.settings.folder, name)]
        others = [name for name in there if name not in (*written, NOTEBOOK)]
        status = "measured in this run" if not others else "there, not run"
        return Item(item, status, ", ".join(there), f"not run in this run: {', '.join(others)}" if others else "")

    def _promise(self, expected: ExpectedImprovement) -> Promise:
        if expected.name == N_PLUS_ONE:
            return self._eliminated(expected)
        if expected.name not in FIGURES:
            return Promise(expected, None, None, None, "no notebook measures it")
        if not isinstance(self._whole, Whole):
            return Promise(expected, None, None, None, self._whole.reason if self._whole else figures.NOT_MEASURED)
        figure, endpoint, words = FIGURES[expected.name]
        return judged(expected, self._whole.found.reduction(figure, endpoint), words)

    def _eliminated(self, expected: ExpectedImprovement) -> Promise:
        """Statements that N+1 patterns send, counted exactly: with every technique off, and with those applied."""
        if reason := self._hindrance():
            return Promise(expected, None, None, None, reason)
        from playbook.application import Application

        names = ("n_plus_one_statements_as_found", "n_plus_one_statements_optimized")
        if any(self._found.metrics.get(name) is None for name in names):
            application = Application(self)
            application.detect_as_found()
            application.detect()
        as_found, now = (self._found.metrics.get(name, self._metrics.get(name)) for name in names)
        if not as_found or now is None:
            return Promise(expected, None, None, None, "the step that mends them is not applied")
        value = 100 * (1 - now / as_found)
        told = f"{as_found:,.0f} statements in N+1 patterns became {now:,.0f}, counted exactly"
        return Promise(expected, value, (value, value), value >= expected.low, told)

    def _hindrance(self) -> str:
        if not self.context.target.embedded:
            return (
                "not applicable: it is measured on the reference service, which runs on the embedded sample only; "
                "`playbook run --api-url` loads your own"
            )
        if not any(step.status in IN_PLACE for step in self._found.steps):
            return "nothing is applied, so there is nothing to hold the service as found against"
        return ""

    def _write(self) -> None:
        self._part.write(expected=[each.to_json() for each in self._promises], metrics=self._metrics)


def _evidence(context: Context) -> Results:
    """The steps with their comparisons: from this run's parts, else from the journal.

    Raises:
        UsageError: a part in the folder cannot be read.
    """
    found: list[dict[str, Any]] = []
    for path in sorted((context.settings.folder / "parts").glob("*.json")):
        if path.stem != NOTEBOOK:
            found.append(json.loads(path.read_text(encoding="utf-8")))
    told = {row["id"]: row for part in found for row in part.get("steps", ())}
    compared = [row for part in found for row in part.get("comparisons", ())]
    metrics = {name: value for part in found for name, value in part.get("metrics", {}).items()}
    rows = []
    for step in planned_steps(context):
        if row := told.get(step.id):
            rows.append(row)
            continue
        entry = step.entry()
        kept = entry.evidence if entry else {}
        rows.append(parts.step_row(step, step.check(), **{name: kept.get(name) for name in parts.COSTS}))
        compared += kept.get("comparisons", ())
    return read({"schema": SCHEMA, "steps": rows, "comparisons": compared, "metrics": metrics})


def _best(comparison: Comparison | None) -> str:
    return f"best: {comparison.label}, {comparison.change}" if comparison else ""
