"""What a run came to: the decision on each step, and the whole in plain words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from playbook import figures
from playbook.results import IN_PLACE, Comparison, Finding, Limit, Promise, Results, Step, cut

STATUSES = {
    "planned": "planned",
    "applied": "applied",
    "exists": "in place already",
    "dropped": "dropped",
    "covered": "covered already",
    "undone": "undone",
    "not_applicable": "not applicable",
    "blocked": "blocked",
    "failed": "failed",
}
"""The statuses of a step, in the order they are counted, with the words for them."""

VERDICTS = ("faster", "slower", "no gain", "unproven", "unstable", "not measured")
"""The verdicts on a comparison, in the order they are counted."""

_LONGEST_REASON = 150
"""Characters of a reason on the first screen; the whole stands below."""
_MAP = re.compile(r"--map (?:'[^']*'|\S+)")
_UNKNOWN = ("=NAME", "=SCHEMA.NAME", "=COLUMN")
_FINDINGS = ("warn", "not_checked", "ok")
_TONES = {
    "good": ("applied", "exists", "faster", "keep", "ok", "same", "met"),
    "warn": ("blocked", "unstable", "warn", "missed"),
    "bad": ("failed", "slower", "undo", "differ"),
}


@dataclass(frozen=True)
class Decision:
    """What follows for a step: a word (`keep`, `drop`, `undo`, or its status) and why."""

    word: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word}: {self.why}" if self.why else self.word


@dataclass(frozen=True)
class Notice:
    """One thing that needs a person's eye; `step` is the id of the step it belongs to, if it does to one."""

    head: str
    text: str
    step: str = ""
    tone: str = "bad"


def tone(word: str) -> str:
    """How a status, verdict or decision is to be taken: `good`, `warn`, `bad`, or else `neutral`."""
    return next((tone for tone, words in _TONES.items() if word in words), "neutral")


def status(word: str) -> str:
    """A step's status in words; one this version does not know comes back as it is."""
    return STATUSES.get(word, word)


def decide(step: Step, comparisons: Iterable[Comparison]) -> Decision:
    """Whether the step is to be kept, from its status and what its queries showed.

    A step that was never applied, or is applied no more, has its status for the word.
    """
    own = list(comparisons)
    if step.status == "dropped":
        return Decision("drop", step.reason or "no gain")
    if step.status not in IN_PLACE:
        return Decision(status(step.status))
    if any(each.same_rows is False for each in own):
        return Decision("undo", "rows differ")
    if slower := [each.label for each in own if each.verdict == "slower"]:
        return Decision("undo", f"made slower: {', '.join(slower)}")
    return Decision("keep", tally(each.verdict for each in own) or "no speed claim")


def gains(results: Results) -> list[Comparison]:
    """The comparisons judged faster, the biggest gain first."""
    return sorted(_judged(results, "faster"), key=lambda each: -(each.speedup or 0))


def losses(results: Results) -> list[Comparison]:
    """The comparisons judged slower, the biggest loss first."""
    return sorted(_judged(results, "slower"), key=lambda each: each.speedup or 0)


def counts(results: Results) -> list[tuple[str, int]]:
    """How many steps have each status, in a fixed order; statuses that no step has are left out."""
    return _counted((step.status for step in results.steps), STATUSES)


def tally(verdicts: Iterable[str]) -> str:
    """`3 faster, 1 no gain`."""
    return ", ".join(f"{number} {verdict}" for verdict, number in _counted(verdicts, VERDICTS))


def sentences(results: Results) -> list[str]:
    """The run in plain words: steps, gains, rows. Nothing is claimed of what was not measured."""
    lines = []
    if results.mode == "dry-run":
        lines.append(f"Dry run: nothing was changed{', no query was executed' if results.only_planned else ''}.")
    steps = ", ".join(f"{number} {status(word)}" for word, number in counts(results))
    lines.append(f"{_plural(len(results.steps), 'step')}: {steps}." if steps else "No step of the plan was walked.")
    if results.comparisons and results.only_planned:
        lines.append(_planned(results.comparisons))
    elif results.comparisons:
        verdicts = tally(each.verdict for each in results.comparisons)
        lines.append(f"{_plural(len(results.comparisons), 'comparison')} of a query before and after: {verdicts}.")
        rows = _counted((each.rows for each in results.comparisons), ("same", "differ", "not compared"))
        lines.append(f"Rows: {', '.join(f'{word} in {number}' for word, number in rows)}.")
    if results.findings:
        found = _counted((each.status for each in results.findings), _FINDINGS)
        counted = ", ".join(f"{number} {word}" for word, number in found).replace("_", " ")
        lines.append(f"Health check: {counted}.")
    if in_place := [step for step in results.steps if step.status in IN_PLACE]:
        lines.append(_disk(in_place))
    return lines


@dataclass(frozen=True)
class Verdict:
    """The run for somebody who reads no further: what was gained, what was not, what is blocked and by what."""

    gained: tuple[str, ...]
    not_gained: tuple[str, ...]
    blocked: tuple[str, ...]


def verdict(results: Results) -> Verdict:
    """Each line with its figure and what it rests on; a promise that is unproven counts among what was not gained."""
    held = [*results.expected, *results.targets]
    met = [_held(each) for each in held if each.met]
    open_ = [_held(each) for each in held if not each.met]
    blocked = [f"{step.id}: {cut(step.reason or 'no reason was given', _LONGEST_REASON)}" for step in _blocked(results)]
    return Verdict((*met, *_proven(results)), (*open_, *_unproven(results)), tuple(blocked))


def _held(held: Limit | Promise) -> str:
    name, within = held.title or held.name, ""
    if held.value is None:
        return f"{name}: not measured, {cut(held.reason or 'no reason was given', _LONGEST_REASON)}"
    if isinstance(held, Promise) and held.ci95 and held.ci95[0] != held.ci95[1]:
        within = f" [{', '.join(figures.named(held.name, end, held.unit) for end in held.ci95)}]"
    word = {True: "met", False: "missed", None: "unproven"}[held.met]
    wanted = "expected" if isinstance(held, Promise) else "target"
    return f"{name}: {held.measured}{within}, {wanted} {held.wanted}: {word}"


def _proven(results: Results) -> list[str]:
    if not (faster := gains(results)):
        return []
    best = faster[0]
    judged = _plural(len(results.comparisons), "comparison")
    return [f"{len(faster)} of {judged} proven faster, the most {best.label}: {best.change}, {_rounds(best)}"]


def _unproven(results: Results) -> list[str]:
    if results.only_planned:
        return ["nothing was measured: this was a dry run"]
    told = []
    if slower := losses(results):
        worst = slower[0]
        said = f"{_plural(len(slower), 'comparison')} proven slower, the most {worst.label}: {worst.change}"
        told.append(f"{said}, {_rounds(worst)}, with {worst.step or 'no listed step'}")
    rest = [each.verdict for each in results.comparisons if each.verdict not in {"faster", "slower"}]
    told += [f"{_plural(len(rest), 'comparison')} neither faster nor slower: {tally(rest)}"] if rest else []
    dropped = [step.id for step in results.steps if step.status == "dropped"]
    return told + ([f"dropped for gaining nothing: {', '.join(dropped)}"] if dropped else [])


def _blocked(results: Results) -> list[Step]:
    return [step for step in results.steps if step.status in {"failed", "blocked"}]


def _rounds(comparison: Comparison) -> str:
    return f"{figures.count(comparison.rounds)} rounds"


def findings(results: Results) -> list[Finding]:
    """What the health check found: the warnings first, then what was not checked, then what is ok."""
    rank = {status: place for place, status in enumerate(_FINDINGS)}
    return sorted(results.findings, key=lambda each: rank.get(each.status, len(rank)))


def notices(results: Results) -> list[Notice]:
    """What needs a person's eye, the worst first."""
    found = [Notice("notebook failed", f"{each.name}: {each.error}") for each in results.notebooks if each.failed]
    found += [_stopped("step failed", step, "bad") for step in results.steps if step.status == "failed"]
    found += [_differing(each) for each in results.comparisons if each.same_rows is False]
    found += [Notice("slower", f"{each.label}: {each.change}", each.step) for each in losses(results)]
    found += [_missed("target missed", "the limit is", each) for each in results.targets if each.met is False]
    found += [_missed("less than expected", "expected was", each) for each in results.expected if each.met is False]
    found += [_stopped("step blocked", step, "warn") for step in results.steps if step.status == "blocked"]
    found += _options(results) + _privileges(results)
    found += [_stopped("not applicable", step, "neutral") for step in results.steps if step.status == "not_applicable"]
    if results.only_planned:
        unplanned = [each for each in results.comparisons if not each.planned_only]
        found += [Notice("not planned", f"{each.query}: {each.reason}", each.step, "neutral") for each in unplanned]
    return found


def _options(results: Results) -> list[Notice]:
    """The mappings that the reasons suggest, as one line to copy."""
    reasons = [step.reason for step in results.steps] + [each.reason for each in results.comparisons]
    found = [option for reason in reasons for option in _MAP.findall(reason)]
    options = " ".join(dict.fromkeys(option for option in found if not option.rstrip("'").endswith(_UNKNOWN)))
    text = f"if these are the tables that the plan means, run again with {options}"
    return [Notice("names", text, tone="neutral")] if options else []


def _privileges(results: Results) -> list[Notice]:
    """What the role of a dry run could not apply, said once."""
    lacking = [step for step in results.steps if step.lacks and step.status == "planned"]
    remedies = "; ".join(dict.fromkeys(remedy.rstrip(";") for step in lacking for remedy in step.lacks))
    text = f"{_plural(len(lacking), 'step')} cannot be applied by this role: {remedies}"
    return [Notice("privileges", text, tone="neutral")] if lacking else []


def _planned(comparisons: Collection[Comparison]) -> str:
    queries = {each.query for each in comparisons}
    planned = {each.query for each in comparisons if each.planned_only}
    rest = f", {len(queries - planned)} could not be" if queries - planned else ""
    return f"Queries: {len(planned)} planned as they run today{rest}."


def _judged(results: Results, verdict: str) -> list[Comparison]:
    return [each for each in results.comparisons if each.verdict == verdict]


def _counted(words: Iterable[str], order: Iterable[str]) -> list[tuple[str, int]]:
    found = Counter(words)
    known = [(word, found.pop(word)) for word in order if word in found]
    return known + sorted(found.items())


def _stopped(head: str, step: Step, tone: str) -> Notice:
    return Notice(head, f"{step.id}: {step.reason or 'no reason was given'}", step.id, tone)


def _disk(steps: list[Step]) -> str:
    known = [step.size_bytes for step in steps if step.size_bytes is not None]
    if not known:
        return "Disk taken by the steps in place: not measured."
    rest = f", not measured for {len(steps) - len(known)}" if len(known) < len(steps) else ""
    return f"Disk taken by the steps in place: {figures.size(sum(known))}{rest}."


def _differing(comparison: Comparison) -> Notice:
    reason = comparison.same_rows_reason or "before and after return different rows"
    return Notice("rows differ", f"{comparison.label}: {reason}", comparison.step)


def _missed(head: str, against: str, held: Limit | Promise) -> Notice:
    reason = f"; {held.reason}" if held.reason else ""
    return Notice(head, f"{held.title or held.name}: {held.measured}, {against} {held.wanted}{reason}", tone="warn")


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
