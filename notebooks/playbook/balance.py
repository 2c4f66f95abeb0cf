"""The balance of the plan's steps: what each came to, what it costs, and what to do next by gain per cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import mean

from playbook import figures, outcome
from playbook.promises import Promise
from playbook.results import IN_PLACE, Results, Step

_RANK = {"critical": 0, "high": 1, "medium": 2, "nice_to_have": 3}


@dataclass(frozen=True)
class Outcome:
    """What became of one step. `gain` is the geometric mean of its proven speed-ups, None without any."""

    step: Step
    decision: outcome.Decision
    verdicts: str
    gain: float | None


@dataclass(frozen=True)
class Outcomes:
    """Every step of the plan, and what those in place take of disk and of writers."""

    steps: tuple[Outcome, ...]
    size_bytes: float | None
    unsized: int
    dearest: Step | None
    unpaid: int


@dataclass(frozen=True)
class Action:
    """One thing to do next: what, with which step, what it may gain, and what it costs."""

    what: str
    step: str
    gain: str
    cost: str


@dataclass(frozen=True)
class Actions:
    """What to do next, the surest gain for the least cost first."""

    actions: tuple[Action, ...]


def outcomes_of(found: Results) -> Outcomes:
    """Kept, dropped, covered, blocked, unproven; and what it costs."""
    steps = tuple(_outcome(step, found) for step in found.steps)
    standing = [each.step for each in steps if each.step.status in IN_PLACE]
    sizes = [step.size_bytes for step in standing if step.size_bytes is not None]
    paid = [step for step in standing if step.write_overhead_pct is not None]
    return Outcomes(
        steps,
        sum(sizes) if sizes else None,
        len(standing) - len(sizes),
        max(paid, key=lambda step: step.write_overhead_pct or 0, default=None),
        len(standing) - len(paid),
    )


def _outcome(step: Step, found: Results) -> Outcome:
    own = found.of(step)
    proven = [each.speedup for each in own if each.verdict == "faster" and each.speedup]
    gain = exp(mean(map(log, proven))) if proven else None
    return Outcome(step, outcome.decide(step, own), outcome.tally(each.verdict for each in own), gain)


def actions(found: Results, promises: Sequence[Promise]) -> Iterator[Action]:
    """What to do next: first what costs nothing, then by the plan's priority, then what is not proven."""
    steps = outcomes_of(found).steps
    yield from _undo_slower(steps)
    yield from _missing(found.steps)
    yield from _unproven(steps)
    for each in promises:
        if each.met is False:
            yield Action("look into it", "", f"{each.expected.title}: {each.reason}", figures.NOT_MEASURED)


def _undo_slower(outcomes: Sequence[Outcome]) -> Iterable[Action]:
    for each in outcomes:
        if each.decision.word == "undo":
            yield Action("undo", each.step.id, each.decision.why, "none: `playbook undo` takes it back")


def _missing(steps: Sequence[Step]) -> Iterable[Action]:
    """Steps that wait for a person, by the plan's priority; what they would gain is not known before."""
    waiting = [step for step in steps if step.status in {"blocked", "planned", "failed"}]
    for step in sorted(waiting, key=lambda step: (step.status == "planned", _RANK.get(step.priority, len(_RANK)))):
        what = {"blocked": "unblock", "planned": "apply", "failed": "mend"}[step.status]
        yield Action(what, step.id, "not known before it is applied", step.reason or figures.size(step.size_bytes))


def _unproven(outcomes: Sequence[Outcome]) -> Iterable[Action]:
    """Steps that are kept without proof, those that take most room first: what they cost is known."""
    kept = [
        each for each in outcomes if each.step.status == "applied" and not each.gain and "unproven" in each.verdicts
    ]
    for each in sorted(kept, key=lambda each: -(each.step.size_bytes or 0)):
        cost = f"{figures.size(each.step.size_bytes)}, writes {_paid(each.step)}"
        yield Action("measure with more rows", each.step.id, f"so far: {each.verdicts}", cost)


def _paid(step: Step) -> str:
    return figures.write_cost(step.write_overhead_pct, step.write_overhead_ci95)
