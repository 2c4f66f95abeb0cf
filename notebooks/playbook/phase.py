"""The seven verbs on a phase of the plan, or on one of its steps, as notebooks, the CLI and code use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from playbook import parts, refreshing
from playbook.alternatives import Alternatives, alternatives
from playbook.answers import (
    Applied,
    Checked,
    Measured,
    Plans,
    Preview,
    Refreshed,
    SameRows,
    Settled,
    StepVerdict,
    UndoPreview,
    Verdicts,
)
from playbook.assess.assessment import WINDOW_S, Assessment, assess
from playbook.changes import kinds
from playbook.changes.summary import Summary
from playbook.context import Context
from playbook.errors import PlaybookError, RunError, UsageError, one_line
from playbook.evidence.compare import Case, Comparison, steadiest
from playbook.evidence.hypothetical import Estimate
from playbook.evidence.measure import Measurement
from playbook.judging import judge_step, kept_comparisons, kept_measurements, seconds_applied
from playbook.plan import model
from playbook.refreshes import Refreshes
from playbook.results import IN_PLACE
from playbook.standing import rows_of
from playbook.step import State, Step, planned_step
from playbook.target.server_errors import masked
from playbook.trial import Trial

if TYPE_CHECKING:
    from playbook.request_trial import RequestTrial


class Phase:
    """The verbs on some steps of one phase. Each answers with data that a notebook shows; only three change the target.

    The order is the story's: preview, check, before, apply, after, verdict, settle; undo takes everything back.
    """

    def __init__(self, context: Context, spec: model.Phase, steps: list[Step]) -> None:
        self.spec = spec
        self.steps = steps
        self._context = context
        self._trial = _trial(context, steps)
        self._states: dict[str, State] = {}
        self._before: dict[Case, Measurement] = {}
        self._after: dict[Case, Measurement] = {}
        self._measured_before: dict[Case, Measurement] = {}  # by this run, where _before may hold what one before kept
        self._estimates: list[Estimate] = []
        self._found: dict[str, StepVerdict] = {}
        self._metrics: dict[str, float | None] = {}
        self._part = parts.Part(context, spec.notebook)

    def preview(self) -> Preview:
        """The exact SQL, in order, with its undo and the lock each statement takes. Changes nothing."""
        steps = tuple((step.id, step.statements(), step.undo_statements()) for step in self.steps)
        journal = self._context.journal.store.announcement
        if summaries := [step.change for step in self.steps if isinstance(step.change, Summary)]:
            jobs = any(summary.job for summary in summaries)
            journal += f"; {Refreshes(self._context.journal.store).announcement(jobs=jobs)}"
        return Preview(steps, journal)

    def check(self) -> Checked:
        """Whether each step applies here, stands already, and is safe now. Changes nothing."""
        self._resolve_anew()
        self._states = {step.id: step.check() for step in self.steps}
        self._write_part()
        return Checked(tuple(self._states.items()))

    def before(self) -> Measured:
        """Measures the claimed queries of the steps that are yet to be applied. Changes nothing.

        A dry run does so for blocked steps too: a role that may only read gets the whole picture.
        """
        open_steps = [step for step in self.steps if self._is_open(step) and not step.stands_now()]
        kept = tuple(step.id for step in self.steps if step not in open_steps and kept_measurements(step, "before"))
        self._before = self._trial.measure(open_steps)
        self._measured_before = dict(self._before)
        if not self._context.settings.applies:
            self._estimates = [each for step in open_steps for each in self._trial.estimates(step)]
        for step in self.steps:
            for each in kept_measurements(step, "before") if step.id in kept else ():
                self._before.setdefault((each.query, each.bind), each)
        self._context.progress("")
        return Measured(
            "before",
            tuple(self._before.values()),
            dict(self._trial.left_out),
            self._trial.values(),
            kept,
            executed=self._context.settings.measures,
            estimates=tuple(self._estimates),
        )

    def apply(self) -> Applied:
        """Runs what `preview` showed for the steps that `check` found ready, one after the other, into the journal.

        A step that fails is reported with its reason and the next goes on. Does nothing unless steps may be applied.

        Raises:
            Busy: another process is applying on this target.
        """
        if not self._context.settings.applies:
            return Applied(tuple((step.id, self._state(step), None) for step in self.steps), changes=False)
        self._resolve_anew()
        ready = [step for step in self.steps if self._state(step).status == "planned"]
        if ready:
            with self._context.hold("apply"):
                for step in ready:
                    self._states[step.id] = self._apply(step)
        self._write_part()
        return Applied(tuple((step.id, self._state(step), seconds_applied(step)) for step in self.steps), changes=True)

    def _apply(self, step: Step) -> State:
        self._context.progress(f"apply {step.id}")
        before = [self._before[case] for case in self._trial.cases(step) if case in self._before]
        try:
            return step.apply({"before": [each.to_json() for each in before]})
        except PlaybookError as error:
            return State("failed", one_line(error) if self._context.shows_values else masked(error))

    def after(self) -> Measured:
        """The same measurement again, the rows with and without the change, and what writers pay. Changes no table."""
        standing = [step for step in self.steps if self._state(step).status in IN_PLACE]
        if any(step.change.answers for step in standing if step.change):
            self._context.refresh()  # what answers the claims reads relations that were made just now
        to_judge = [step for step in standing if not kept_comparisons(step)]
        if to_judge:
            self._after = steadiest(
                lambda: self._trial.measure(standing, applied=True),
                lambda after: self._trial.drift(self._before, after),
            )
        else:
            self._after = self._trial.measure(standing, applied=True)
        for step in self.steps:
            self._found[step.id] = self._judge(step)
        self._context.progress("")
        self._write_part()
        return Measured(
            "after",
            tuple(self._after.values()),
            dict(self._trial.left_out),
            self._trial.values(),
            executed=self._context.settings.measures,
        )

    def verdict(self) -> Verdicts:
        """Each step's comparisons and whether it is kept; a step applied by an earlier run shows the evidence kept."""
        for step in self.steps:
            if step.id not in self._found:
                self._found[step.id] = self._judge(step)
        return Verdicts(tuple(self._found[step.id] for step in self.steps))

    def plans(self) -> Plans:
        """The plan of each query before and after."""
        return Plans(tuple(self._comparisons()))

    def same_rows(self) -> SameRows:
        """Whether each query returns the same rows with the change and without it."""
        return SameRows(tuple(self._comparisons()))

    def refresh(self) -> Refreshed:
        """Brings what the steps keep up to date where the tables have changed; nothing unless steps may be applied."""
        if not self._context.settings.applies:
            return Refreshed(())
        ours = {step.id for step in self.steps}
        there = tuple(each.step for each in refreshing.kept(self._context) if each.step in ours)
        done = refreshing.refresh(self._context, there) if there else []
        return Refreshed(tuple((one.step, one.word, one.said) for one in done))

    def alternatives(self) -> Alternatives:
        """Three ways to answer the queries of the phase's first summary, tried on copies. Changes no table."""
        step = next((step for step in self.steps if isinstance(step.change, Summary)), None)
        if step is None:
            return Alternatives(self.spec.id, 0, reason="it keeps no summary here")
        return alternatives(self._context, step)

    def preview_undo(self) -> UndoPreview:
        """What `undo` would run. Changes nothing."""
        return UndoPreview(tuple(st for step in reversed(self.steps) for st in step.undo_statements()))

    @property
    def context(self) -> Context:
        """What the phase works with."""
        return self._context

    def record(self, metrics: Mapping[str, float | None]) -> None:
        """Adds figures, named with their units, to the notebook's part of the results."""
        self._metrics |= {name: None if value is None else round(value, 4) for name, value in metrics.items()}
        self._write_part()

    @property
    def tables(self) -> list[str]:
        """The quoted names, with their schemas, of the target's relations that the steps touch."""
        names = [name for step in self.steps if step.change for name in step.change.tables]
        return list(dict.fromkeys(names))

    def _comparisons(self) -> list[Comparison]:
        return [comparison for found in self.verdict().steps for comparison in found.comparisons]

    def settle(self) -> Settled:
        """Takes back the steps that the verdict drops, and remembers it; keeps the others."""
        drops = [found for found in self.verdict().steps if not found.decision.keep]
        if drops and self._context.settings.applies:
            with self._context.hold("apply"):
                for found in drops:
                    self._drop(next(step for step in self.steps if step.id == found.row["id"]), found)
        self._write_part()
        kept = [step.id for step in self.steps if self._state(step).status == "applied"]
        return Settled(tuple((found.row["id"], found.decision.reason) for found in drops), tuple(kept))

    def _drop(self, step: Step, found: StepVerdict) -> None:
        self._context.progress(f"drop {step.id}")
        state = step.undo(status="dropped", reason=found.decision.reason)
        self._states[step.id] = state
        row = {**found.row, "status": state.status, "reason": state.reason}
        self._found[step.id] = replace(found, row=row)

    def undo(self) -> Checked:
        """Takes the steps back, the last one first.

        Raises:
            Drifted: an object was changed by others since it was applied.
            StepError: a statement failed; the next call resumes there.
            UsageError: steps may not be applied here, and so not undone either.
        """
        if not self._context.settings.applies:
            raise UsageError("nothing is changed without apply=True; `playbook undo` takes applied steps back")
        with self._context.hold("apply"):
            for step in reversed(self.steps):
                self._states[step.id] = step.undo()
        self._found.clear()
        return Checked(tuple((step.id, self._states[step.id]) for step in self.steps))

    def finish(self) -> None:
        """The last call of a notebook: a run that failed must not end green.

        Raises:
            RunError: a step failed, or a query returns other rows with the change than without.
        """
        self._write_part()
        self._context.close()
        failed = [step.id for step in self.steps if self._state(step).status == "failed"]
        differ = [c.query for found in self._found.values() for c in found.comparisons if c.same_rows is False]
        if failed or differ:
            said = [f"failed: {', '.join(failed)}"] if failed else []
            said += [f"other rows than without the change: {', '.join(differ)}; undo it"] if differ else []
            raise RunError("; ".join(said))

    def _resolve_anew(self) -> None:
        """Others change the target too, and a notebook may stay open for days."""
        self._context.refresh()
        for step in self.steps:
            step.resolve()

    def _state(self, step: Step) -> State:
        if step.id not in self._states:
            self._states[step.id] = step.check()
        return self._states[step.id]

    def _is_open(self, step: Step) -> bool:
        statuses = {"planned"} if self._context.settings.applies else {"planned", "blocked"}
        return step.change is not None and self._state(step).status in statuses

    def _judge(self, step: Step) -> StepVerdict:
        return judge_step(self._context, self._trial, step, self._state(step), self._before, self._after)

    def _write_part(self) -> None:
        """The notebook's part of the results, anew after each verb, so that a killed notebook leaves what it knew."""
        found = [self._found.get(step.id) for step in self.steps]
        rows = [
            verdict.row if verdict else parts.step_row(step, self._state(step))
            for step, verdict in zip(self.steps, found, strict=True)
        ]
        self._part.write(
            steps=rows,
            comparisons=[each.to_json() for verdict in found if verdict for each in verdict.comparisons],
            estimates=[each.to_json() for each in self._estimates],
            measured=self._standing(),
            metrics=self._metrics,
        )

    def _standing(self) -> list[dict[str, Any]]:
        """The queries as this run leaves them."""
        if not self._measured_before and not self._after:
            return []
        steps = [(step, self._state(step).status in IN_PLACE) for step in self.steps]
        return rows_of(self._trial, self.spec.id, steps, self._measured_before, self._after)


def _trial(context: Context, steps: list[Step]) -> Trial | RequestTrial:
    """Steps that change the target are tried by queries, those that change an application by requests."""
    if not steps or not all(kinds()[step.spec.kind].of_service for step in steps):
        return Trial(context)
    # Imported here: only such phases need an ORM and an HTTP client.
    from playbook.request_trial import RequestTrial

    return RequestTrial(context)


class Playbook:
    """A plan opened on a target."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._assessed = False

    def __repr__(self) -> str:
        return f"Playbook({self.context.plan.name} on {self.context.target.label})"

    def assess(self, window_s: float = WINDOW_S) -> Assessment:
        """The health check of the target: every check looked at once. Changes nothing.

        What the target does is seen between two snapshots, `window_s` seconds apart or more.
        """
        if self._assessed:  # a notebook may stay open for days
            self.context.refresh()
        self._assessed = True
        return assess(self.context, window_s)

    def phase(self, phase_id: str) -> Phase:
        """The verbs on every step of a phase.

        Raises:
            UsageError: the plan has no such phase.
        """
        spec = self.context.plan.phase(phase_id)
        return Phase(self.context, spec, [Step(step, spec, self.context) for step in spec.steps])

    def step(self, step_id: str) -> Phase:
        """The verbs on one step, named `1.1/idx_proposal_status_customer_created`.

        Raises:
            UsageError: the plan has no such step.
        """
        step = planned_step(self.context, step_id)
        return Phase(self.context, step.phase, [step])
