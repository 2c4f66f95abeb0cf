"""The queries that some steps claim to speed up, measured before and after, and what the two say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import psycopg

from playbook.changes.change import Change
from playbook.context import Context
from playbook.errors import NamesError, NotAnalysed, PlanError
from playbook.evidence.compare import Case, Comparison, compare, machine_drift
from playbook.evidence.hypothetical import Estimate, estimates
from playbook.evidence.measure import Measurement, measure, yardsticks
from playbook.evidence.reading import Select, reading
from playbook.evidence.rows import SameRows, same_rows
from playbook.evidence.statistics import Drift
from playbook.plan.admission import admit
from playbook.plan.binds import bind, rebind
from playbook.plan.workload import Bound, load
from playbook.standing import Shape
from playbook.step import Step

BLOCKS = 2
"""Blocks of rounds in each phase: what two blocks of the same phase differ by is the machine's own drift."""
PLAIN = ", plain"
"""Added to the name of a query that is asked as before beside what answers it now."""


class Trial:
    """The claimed queries of some steps and the plan's controls, on one target.

    Values are sampled once, so that before and after run the same statements. A query that must not or cannot be
    executed is left out, with the reason.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._workload = load(context.plan.workload_path)
        self._bounds: dict[str, tuple[Bound, ...]] = {}
        self.left_out: dict[str, str] = {}

    def claims(self, step: Step) -> list[Bound]:
        """The step's own queries on the target, each with its values."""
        return [bound for name in step.spec.claims for bound in self._bind(name)]

    def answers(self, step: Step) -> list[Bound]:
        """How the step's own queries are asked once it stands: mostly as before, else by what answers them."""
        return [self._answer(step, bound) for bound in self.claims(step) if bound.query not in self.left_out]

    def _answer(self, step: Step, bound: Bound) -> Bound:
        """Under the name and with the values of the query that it answers."""
        other = next((each for each in self._workload.values() if each.answers == bound.query), None)
        if other is None or step.change is None or not step.change.answers:
            return bound
        return rebind(other, bound, self._context.names)

    def _asked_plainly(self, step: Step) -> list[Bound]:
        """Those of the step's own queries that another one answers once it stands: it cannot make them faster."""
        asked = [bound for bound in self.claims(step) if bound.query not in self.left_out]
        answered = [bound for bound in asked if self._answer(step, bound) is not bound]
        return [replace(bound, query=bound.query + PLAIN) for bound in answered]

    def controls(self) -> list[Bound]:
        """The plan's controls, with a common value each, and those that any target has."""
        return [bound for name in self._context.plan.controls for bound in self._bind(name)[:1]] + list(yardsticks())

    def _bind(self, name: str) -> tuple[Bound, ...]:
        if name not in self._bounds:
            try:
                self._bounds[name] = self._resolve(name)
            except (NamesError, NotAnalysed) as error:
                self._bounds[name] = ()
                self.left_out[name] = str(error)
        return self._bounds[name]

    def _resolve(self, name: str) -> tuple[Bound, ...]:
        if name not in self._workload:
            raise PlanError(f"{self._context.plan.workload_path}: no query is named {name}, which the plan claims")
        with self._context.connect() as connection:
            bounds = bind(
                self._workload[name],
                self._context.names,
                connection,
                execute=self._context.settings.measures,
            )
            admit(connection, bounds[0].sql)
        return bounds

    def measure(self, steps: Iterable[Step], *, applied: bool = False) -> dict[Case, Measurement]:
        """One phase of measuring: the claims of `steps` and the controls, interleaved round by round.

        Once they are `applied`, what answers the claims is measured in their place, under their names. The claims are
        then asked as before as well: as controls that take as long as what was measured before, and so that the rounds
        of both phases are of one kind. Without them the phase after would be over in a moment, and whatever the machine
        did in that moment would be found in all that was measured. Where nothing may be executed, each query is only
        planned.
        """
        steps = list(steps)
        asked = self.answers if applied else self.claims
        bounds = {_case(bound): bound for step in steps for bound in asked(step)}
        if not bounds:
            return {}
        settings = self._context.settings
        if settings.measures:
            plain = [bound for step in steps for bound in self._asked_plainly(step)] if applied else []
            bounds |= {_case(bound): bound for bound in [*self.controls(), *plain]}
        measured = measure(
            self._context.connect,
            list(bounds.values()),
            blocks=BLOCKS,
            budget_s=settings.budget_s / 2,
            execute=settings.measures,
            progress=self._context.progress,
        )
        return {(each.query, each.bind): each for each in measured}

    def play(self, steps: Iterable[Step], timeout_s: float = 5.0) -> None:
        """Executes the claimed queries of `steps` once each, read-only, and cancels what takes over `timeout_s`."""
        with self._context.connect() as connection:
            for bound in {_case(bound): bound for step in steps for bound in self.claims(step)}.values():
                with suppress(psycopg.Error), reading(connection, timeout_s=timeout_s):
                    Select(connection).run(bound.sql, bound.values)

    def cases(self, step: Step) -> list[Case]:
        """What is measured for the step: its claims, then the controls."""
        return [_case(bound) for bound in [*self.claims(step), *self.controls()]]

    def claimed(self, step: Step) -> list[Case]:
        """What the step claims to speed up."""
        return [_case(bound) for bound in self.claims(step)]

    def beside(self, found: Mapping[Case, Measurement]) -> list[Measurement]:
        """The controls among what was measured."""
        return [found[case] for case in map(_case, self.controls()) if case in found]

    def shape(self, found: Measurement, when: str) -> Shape:
        """The query's plan."""
        return (found.plan.nodes, found.plan.hash, found.plan.indexes) if found.plan else ((), None, ())

    def compare(
        self, step: Step, before: Mapping[Case, Measurement], after: Mapping[Case, Measurement]
    ) -> list[Comparison]:
        """The step's queries before and after, beside the controls; one that was left out says why."""
        if step.change is None:
            return []
        before, controls = _with_plain(before, after), {bound.query for bound in self.controls()}
        plain = [case for case in before if case[0].endswith(PLAIN)]
        cases = [*self.cases(step), *plain]
        out = [name for name in step.spec.claims if name in self.left_out]
        missing = [Measurement(name, "common", error=self.left_out[name]) for name in out]
        return list(
            compare(
                [*(before[case] for case in cases if case in before), *missing],
                [after[case] for case in cases if case in after] + missing,
                controls=controls | {query for query, _ in plain},
                step_of=dict.fromkeys(step.spec.claims, step.id),
                by_plan=step.change is not None and step.change.by_plan,
            )
        )

    def estimates(self, step: Step) -> list[Estimate]:
        """What the planner expects of the step, where HypoPG stands; behind a pooler no session is ours alone."""
        server = self._context.target.server
        indexes = step.change.hypothetical() if step.change else ()
        if not indexes or (server is not None and server.pooled):
            return []
        self._context.progress(f"estimating {step.id}")
        return list(estimates(self._context.connect, step.id, indexes, self.claims(step)))

    def values(self) -> dict[Case, str]:
        """The values of every bound query, as text; those sampled from a foreign target are masked unless asked for."""
        shows = self._context.shows_values
        bounds = (bound for bounds in self._bounds.values() for bound in bounds)
        return {_case(bound): bound.shown() if shows else bound.masked() for bound in bounds}

    def drift(self, before: Mapping[Case, Measurement], after: Mapping[Case, Measurement]) -> Drift:
        """What the controls say of the machine between the two."""
        before, controls = _with_plain(before, after), {bound.query for bound in self.controls()}
        controls |= {query for query, _ in before if query.endswith(PLAIN)}
        return machine_drift(before.values(), after.values(), controls=controls)

    def check_rows(self, step: Step, comparison: Comparison) -> Comparison:
        """The comparison with the answer to: does the query return the same rows with and without the change?"""
        assert step.change is not None
        bound = next((b for b in self._bind(comparison.query) if b.bind == comparison.bind), None)
        if bound is None or not self._context.settings.measures:
            return comparison
        self._context.progress(f"same rows: {bound.query} ({bound.bind})")
        if step.change.answers:
            return comparison.with_rows(self._same_as_kept(step.change, bound, self._answer(step, bound)))
        return comparison.with_rows(same_rows(self._context.connect, bound, bound, without=step.change.without))

    def _same_as_kept(self, change: Change, asked: Bound, answer: Bound) -> SameRows:
        """The plain query against what answers it, in one snapshot.

        What is kept may be older than the tables. Where the rows differ, the answer is therefore computed over the
        definition as well: if that gives the plain query's rows, those that were kept are right for their time.
        """
        found = same_rows(self._context.connect, asked, answer)
        if found.equal:
            return replace(found, reason=change.remark())
        sql = change.over_definition(answer.sql) if found.equal is False else None
        if sql is None:
            return found
        now = same_rows(self._context.connect, asked, replace(answer, sql=sql))
        if now.equal is False:
            return found
        reason = f"the tables were written to since it was refreshed ({found.reason}); {change.remark()}"
        return replace(now, reason="; ".join(filter(None, (now.reason, reason))))


def _case(bound: Bound) -> Case:
    return bound.query, bound.bind


def _with_plain(before: Mapping[Case, Measurement], after: Mapping[Case, Measurement]) -> dict[Case, Measurement]:
    """The phase before with the other half of what was asked as before in the phase after: the claims themselves."""
    halves = {case: before.get((case[0].removesuffix(PLAIN), case[1])) for case in after if case[0].endswith(PLAIN)}
    return {**before, **{case: replace(half, query=case[0]) for case, half in halves.items() if half is not None}}
