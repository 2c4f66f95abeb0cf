"""Two runs held against each other: what got worse, by evidence; what only changed; what cannot be compared, and why.

What is exact is compared exactly: the statuses of steps, plans, the number of statements of a request, rows, whether a
target is met. A time is compared by its rounds, beside the controls of both runs, by the rules of
`playbook.evidence.statistics`; and since two runs differ by more than their rounds show (other processes, other places
in memory and on disk: Kalibera & Jones 2013), a slow-down has to reach `SLOWER` before it is called a regression.

Which machine a run was made on is not asked: the controls show it. Where they differ by more than one machine would
from itself, times are not compared. In another database, or in one of another size, nor are buffers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from playbook import figures
from playbook.results import IN_PLACE, Measured, Results, Step

if TYPE_CHECKING:
    from playbook.evidence.statistics import Drift

Word = Literal["regression", "changed", "better", "same", "not compared"]
WORDS: tuple[Word, ...] = ("regression", "changed", "better", "not compared", "same")
"""In the order they are told."""

FELT_MS = 0.2
"""Two runs of a query that takes a tenth of a millisecond differ by more than a quarter where nothing was changed: what
is less apart than this is the machine's. A changed plan, buffers and counts are judged all the same."""
SLOWER = 1.25
"""By how much a query has to be slower than in the old run, by the statistics and beside the controls."""
LEAST = 1.10
"""A time that differs by less is the same: the effect that the statistics ask for (`statistics.EFFECT`)."""
BUFFERS = 1.5
"""Warm median buffers that grew by this factor are a regression, whatever the time says today."""
FEWEST_BUFFERS = 16
"""And by so many at least (128 kB): a page split or a hint bit is no regression."""
STATEMENTS = 1.5
"""Statements a request under a mixed load: an average over what happened to be asked."""
HIT_RATE_PCT = 20
"""Percentage points that a hit rate has to fall by: it depends on which keys were asked for."""

_SERVED = (*IN_PLACE, "covered")
_BUDGET = re.compile(r"\bbudget of\b")
_COUNT = re.compile(r"([\d,]+) statements?")


@dataclass(frozen=True)
class Difference:
    """One thing that both runs speak of: what it was, what it is, and what that means.

    `topic` is one of rows, step, query, target, expected, metric.
    """

    topic: str
    name: str
    word: Word
    old: str = ""
    new: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Compared:
    """Two runs compared. `notes` say what the reader has to know first: where the runs are not alike."""

    old: Results
    new: Results
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]

    def of(self, word: Word) -> list[Difference]:
        """The differences of one word."""
        return [each for each in self.differences if each.word == word]

    @property
    def missed(self) -> list[Difference]:
        """The targets that the new run missed, whatever the old one did."""
        missed = {each.name for each in self.new.targets if each.met is False}
        return [each for each in self.differences if each.topic == "target" and each.name in missed]

    @property
    def passes(self) -> bool:
        """Whether a gate lets the new run through: no regression and no missed target."""
        return not self.of("regression") and not self.missed


def compare(old: Results, new: Results) -> Compared:
    """Holds `new` against `old`."""
    alike = old.target.database == new.target.database and old.target.embedded == new.target.embedded
    found = [
        *_rows(old, new),
        *_steps(old, new),
        *_Queries(old, new, same_data=alike).differences(),
        *_targets(old, new),
        *_expected(old, new),
        *_metrics(old, new),
    ]
    return Compared(old, new, tuple(_notes(old, new, alike)), tuple(found))


def _notes(old: Results, new: Results, alike: bool) -> Iterator[str]:
    if not alike:
        yield (
            f"the runs are of different databases ({old.target}; {new.target}): times and buffers are not compared, "
            "and a changed plan is told, not held against the new run"
        )
    elif old.target.server_version != new.target.server_version:
        yield f"the server was PostgreSQL {old.target.server_version} and is {new.target.server_version}"
    if old.mode != new.mode:
        yield f"the old run was {_mode(old)} and the new one {_mode(new)}"
    if not old.measured:
        yield "the old run kept no rounds, so times are not compared"
    if not new.measured:
        yield "the new run kept no rounds, so times are not compared"
    gone = [step.id for step in old.steps if step.id not in {each.id for each in new.steps}]
    if gone:
        yield f"not looked at in the new run: {', '.join(gone)}"


def _mode(results: Results) -> str:
    return {"apply": "made with --apply", "dry-run": "a dry run"}.get(results.mode, results.mode or "of unknown mode")


def _rows(old: Results, new: Results) -> Iterator[Difference]:
    """Rows that differ fail, whatever they did before."""
    before = {(each.step, each.label): each for each in old.comparisons}
    for each in new.comparisons:
        if each.same_rows is False:
            was = before.get((each.step, each.label))
            reason = each.same_rows_reason or "before and after return different rows"
            yield Difference("rows", each.label, "regression", was.rows if was else "", each.rows, reason)


def _steps(old: Results, new: Results) -> Iterator[Difference]:
    before = {step.id: step for step in old.steps}
    for step in new.steps:
        if was := before.get(step.id):
            yield Difference("step", step.id, _of_step(was, step), was.status, step.status, step.reason)
        else:
            yield Difference("step", step.id, "changed", "not looked at", step.status, step.reason)


def _of_step(old: Step, new: Step) -> Word:
    """A step that stood and stands no more is a regression, unless the playbook dropped it itself for gaining nothing.

    One that was dropped gained nothing then, so its coming and going says nothing.
    """
    if new.status == "failed":
        return "regression"
    if old.status == new.status or {old.status, new.status} <= {*IN_PLACE}:
        return "same"
    if old.status in _SERVED and new.status not in (*_SERVED, "dropped"):
        return "regression"
    return "better" if new.status in _SERVED and old.status not in (*_SERVED, "dropped") else "changed"


class _Queries:
    """The queries that both runs measured, or at least planned."""

    def __init__(self, old: Results, new: Results, *, same_data: bool) -> None:
        self._same_data = same_data
        self._old, self._new = old, new
        self._beside = cache(self._drift)
        dropped = [step.id for results in (old, new) for step in results.steps if step.status == "dropped"]
        self._dropped = set(dropped)

    def differences(self) -> Iterator[Difference]:
        before = {(each.phase, each.query, each.bind): each for each in self._old.measured if not each.control}
        for new in self._new.measured:
            if new.control:
                continue
            label = f"{new.query} ({new.bind})" if new.bind else new.query
            if old := before.get((new.phase, new.query, new.bind)):
                yield self._of(label, old, new)

    def _of(self, label: str, old: Measured, new: Measured) -> Difference:
        """The worst of what plan, buffers and time say, with all the reasons for it."""
        if new.error and not old.error and not _BUDGET.search(new.error):
            return Difference("query", label, "regression", _shown(old), _shown(new), new.error)
        slower, time = self._time(old, new) if self._same_data else ("not compared", "")
        more, buffers = self._buffers(old, new) if self._same_data else ("not compared", "")
        other, plan = self._plan(old, new, slower, more)
        said = [(other, plan), (more, buffers), (slower, time)]
        words = [each for each, _ in said]
        word = next((each for each in WORDS[:3] if each in words), "same")
        if word == "same" and slower == "not compared" and (time or not new.nodes):
            word = "not compared"
        reasons = [reason for each, reason in said if reason and each in {word, "not compared"}]
        return Difference("query", label, word, _shown(old), _shown(new), "; ".join(reasons))

    def _plan(self, old: Measured, new: Measured, slower: Word, more: Word) -> tuple[Word, str]:
        """Another number of statements is judged as it stands, another plan by what it costs.

        A plan that reads a table whole where it did not, or that reads an index less, is a regression even where the
        figures do not show it yet; and so is any other where they do. A step that a run dropped had gained nothing.
        """
        if old.plan_hash == new.plan_hash and old.nodes == new.nodes:
            return "same", ""
        sent = [_COUNT.fullmatch(each.nodes[0]) if len(each.nodes) == 1 else None for each in (old, new)]
        if sent[0] and sent[1]:
            then, now = (int(each[1].replace(",", "")) for each in sent if each)
            return ("regression" if now > then else "better"), f"{then:,} statements became {now:,}"
        if not old.nodes or not new.nodes:
            return "same", ""
        lost = [index for index in old.indexes if index not in new.indexes]
        scans = new.nodes.count("Seq Scan") - old.nodes.count("Seq Scan")
        text = f"another plan: {', '.join(old.nodes)} {figures.ARROW} {', '.join(new.nodes)}"
        text += f", no longer by {', '.join(lost)}" if lost else ""
        dropped = bool({old.step, new.step} & self._dropped)
        if not self._same_data or dropped:
            return "changed", text + (", of a step that gained nothing" if dropped else "")
        reads_less = bool(lost) and len(new.indexes) < len(old.indexes)
        if scans > 0 or reads_less or "regression" in (slower, more):
            return "regression", text
        return ("better" if scans < 0 or "better" in (slower, more) else "changed"), text

    def _buffers(self, old: Measured, new: Measured) -> tuple[Word, str]:
        if old.buffers is None or new.buffers is None:
            return "not compared", ""
        text = f"buffers {figures.count(old.buffers)} {figures.ARROW} {figures.count(new.buffers)}"
        if new.buffers >= BUFFERS * old.buffers and new.buffers - old.buffers >= FEWEST_BUFFERS:
            return "regression", text
        if old.buffers >= BUFFERS * new.buffers and old.buffers - new.buffers >= FEWEST_BUFFERS:
            return "better", text
        return "same", text

    def _time(self, old: Measured, new: Measured) -> tuple[Word, str]:
        if not old.median_ms or not new.median_ms or old.error or new.error:
            # What only did not fit into the budget of its run is planned all the same.
            told = "no rounds on both sides" if old.rounds or new.rounds else ""
            return "not compared", new.error or (f"in the old run: {old.error}" if old.error else told)
        if 1 / LEAST < new.median_ms / old.median_ms < LEAST or abs(new.median_ms - old.median_ms) < FELT_MS:
            return "same", ""
        from playbook.evidence.statistics import judge  # here, since NumPy takes a while to import

        drift = self._beside((old.phase, old.when), (new.phase, new.when))
        found = judge(old.rounds_ms, new.rounds_ms, buffers=(None, None), drift=drift)
        if found.verdict in {"unstable", "not measured"} or drift.ratio is None:
            return "not compared", f"times are not compared: {found.reason}"
        apart = (found.speedup or 1) / drift.ratio
        within = f" {figures.interval(found.ci95)}" if found.ci95 else ""
        text = f"{figures.times(found.speedup)}{within} as fast; {drift.reason}"
        if found.verdict == "slower" and apart <= 1 / SLOWER:
            return "regression", text
        if found.verdict == "faster" and apart >= SLOWER:
            return "better", text
        return "same", f"{text}; {SLOWER:g} times by the statistics are asked"

    def _drift(self, old: tuple[str, str], new: tuple[str, str]) -> Drift:
        """What the controls of the two runs say, each beside the queries in question."""
        from playbook.evidence.statistics import drift

        sides = [
            {(each.query, each.bind): each.rounds_ms for each in results.measured if _is_beside(each, place)}
            for results, place in ((self._old, old), (self._new, new))
        ]
        return drift([(sides[0][case], sides[1][case]) for case in sides[0] if case in sides[1]])


def _is_beside(measured: Measured, place: tuple[str, str]) -> bool:
    return measured.control and not measured.error and (measured.phase, measured.when) == place


def _shown(measured: Measured) -> str:
    if measured.median_ms is not None:
        return f"{figures.milliseconds(measured.median_ms)}, {measured.rounds} rounds"
    return ", ".join(measured.nodes) or figures.NOT_MEASURED


def _targets(old: Results, new: Results) -> Iterator[Difference]:
    before = {each.name: each for each in old.targets}
    for each in new.targets:
        was = before.get(each.name)
        yield Difference(
            "target",
            each.name,
            _held(was.met if was else None, each.met),
            _met(was) if was else "",
            _met(each),
            each.reason,
        )


def _expected(old: Results, new: Results) -> Iterator[Difference]:
    """What the plan expects of itself is told; a gate holds on to the targets."""
    before = {each.name: each for each in old.expected}
    for each in new.expected:
        if was := before.get(each.name):
            word: Word = "same" if was.met == each.met else "changed"
            yield Difference("expected", each.name, word, _met(was), _met(each), each.reason)


def _held(old: bool | None, new: bool | None) -> Word:
    if new is None:
        return "not compared" if old is None else "changed"
    if old == new:
        return "same"
    return "better" if new else ("regression" if old else "changed")


def _met(held: Any) -> str:
    word = {True: "met", False: "missed", None: "not judged"}[held.met]
    return f"{held.measured}, {word}"


def _metrics(old: Results, new: Results) -> Iterator[Difference]:
    """Single figures have no rounds, so of most only the figures are told. Those that are counted are judged."""
    for name, now in new.metrics.items():
        then = old.metrics.get(name)
        if then is None or now is None or name.endswith("_as_found"):
            continue
        word, reason = _of_metric(name, then, now)
        yield Difference("metric", name, word, figures.named(name, then), figures.named(name, now), reason)


def _of_metric(name: str, then: float, now: float) -> tuple[Word, str]:
    """By what its name says that it counts."""
    if "n_plus_one" in name:
        return _more(now > then, then > now, "more of it than there was")
    if "statements_per_request" in name:
        return _more(now >= STATEMENTS * then, then >= STATEMENTS * now, f"{STATEMENTS:g} times as many or more")
    if "hit_rate" in name:
        return _more(then - now >= HIT_RATE_PCT, now - then >= HIT_RATE_PCT, f"down by {HIT_RATE_PCT} points or more")
    return "same", ""


def _more(worse: bool, better: bool, reason: str) -> tuple[Word, str]:
    return ("regression", reason) if worse else ("better" if better else "same", "")


def count(differences: Iterable[Difference]) -> str:
    """`2 regressions, 1 better, 40 same`."""
    words = [each.word for each in differences]
    plural = {"regression": "regressions"}
    told = [(word, words.count(word)) for word in WORDS if word in words]
    return ", ".join(f"{number} {plural.get(word, word) if number != 1 else word}" for word, number in told)
