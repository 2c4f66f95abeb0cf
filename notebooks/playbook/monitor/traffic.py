"""A step's verdict from real traffic: what the same statements took before it was applied and afterwards.

Nothing is replayed. pg_stat_statements tells for each statement, slot by slot, how many calls there were and how long
they took together. A *round* is the mean time of a call in some slots in a row; rounds before and after are held
against each other as measured rounds are (`evidence.statistics`): block bootstrap and rank test, an effect of 10 %,
between every block before and every block after, beyond what the controls show. Controls are the statements of the same
target that read none of the step's tables. A block is a day, or where less was watched, half of it: successive slots
resemble each other, days less so.

What this cannot know, and a replay can: the values differ from call to call, and so from week to week. Where the calls
of a statement return other amounts of rows than before, they ask for something else, and the verdict is `unstable`.
Buffers have their say as elsewhere: a gain is not denied where they fell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from playbook.errors import NotAnalysed
from playbook.evidence.noise import Blocks
from playbook.evidence.statistics import Drift, Verdict, drift, judge
from playbook.monitor.history import Slot, Took
from playbook.plan.lexing import lex
from playbook.target.catalog import Catalog

MIN_CALLS = 5
"""Calls of a round: the mean of fewer is that of a few values."""
MOST_ROUNDS = 84
"""Rounds a side: over a week, two hours each."""
MOST_STATEMENTS = 20
"""Statements that are judged, those that took the most time before and after."""
MOST_CONTROLS = 12
ROWS_SHIFT = 1.25
"""Rows a call that changed by more: the calls ask for something else."""
_DAY_S = 86_400.0


@dataclass(frozen=True)
class StatementVerdict:
    """One statement before and after; times are medians of the rounds' means, in milliseconds a call."""

    text: str
    calls: tuple[int, int]
    before_ms: float | None
    after_ms: float | None
    buffers: tuple[float | None, float | None]
    speedup: float | None
    ci95: tuple[float, float] | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class TrafficVerdict:
    """What real traffic shows of a step, from so many seconds that were watched before and after."""

    step: str
    seconds: tuple[float, float]
    statements: tuple[StatementVerdict, ...]
    controls: int
    source: str = field(default="real traffic", init=False)

    @property
    def verdict(self) -> Verdict:
        """`slower` where one statement is, else the first of faster, unstable, unproven, no gain that one has."""
        found = {each.verdict for each in self.statements}
        order: tuple[Verdict, ...] = ("slower", "faster", "unstable", "unproven", "no gain")
        return next((word for word in order if word in found), "not measured")

    @property
    def advice(self) -> str:
        """What follows, in words."""
        slower = sum(each.verdict == "slower" for each in self.statements)
        faster = sum(each.verdict == "faster" for each in self.statements)
        if slower:
            return f"{slower} of {len(self.statements)} statements became slower: playbook undo {self.step}"
        if faster:
            return f"keep it: {faster} of {len(self.statements)} statements became faster"
        if self.verdict == "no gain":
            return f"it gained nothing: playbook undo {self.step}"
        return "nothing is proven by it; watch for longer, or measure the plan's own queries"


def judge_traffic(
    step: str, before: Sequence[Slot], after: Sequence[Slot], texts: dict[str, str], affected: Affected
) -> TrafficVerdict:
    """The verdict on the statements that read the step's tables, held against those that do not."""
    sides = (before, after)
    watched = tuple(sum(slot.seconds for slot in side) for side in sides)
    totals = [_total(side) for side in sides]
    ranked = sorted(texts, key=lambda key: -sum(total.get(key, _NONE).ms for total in totals))
    ours = [key for key in ranked if affected(texts[key]) is True and any(key in total for total in totals)]
    controls = [key for key in ranked if affected(texts[key]) is False and all(key in total for total in totals)]
    moved = drift([(_blocks(before, key), _blocks(after, key)) for key in controls[:MOST_CONTROLS]])
    judged = tuple(_judged(texts[key], key, sides, moved) for key in ours[:MOST_STATEMENTS])
    return TrafficVerdict(step, (watched[0], watched[1]), judged, moved.controls)


Affected = Callable[[str], bool | None]
"""Whether a statement reads a table of the step; None where that is not known, so that it is no control either."""


def affected_by(tables: Iterable[str], catalog: Catalog) -> Affected:
    """By the names that stand in a statement; `tables` are the step's, quoted with their schemas.

    A statement that names a view may read anything, so it is judged by nothing.
    """
    wanted = set(tables)
    ours = {table.name for table in catalog.tables if table.qualified in wanted}
    known = {table.name for table in catalog.tables if table.kind in "rp"}
    views = {table.name for table in catalog.tables if table.kind in "vmf"}

    def affected(text: str) -> bool | None:
        try:
            named = {lexeme.text for lexeme in lex(text) if lexeme.kind in {"word", "quoted"}}
        except NotAnalysed:
            return None
        if named & ours:
            return True
        return None if named & views or not named & known else False

    return affected


def _judged(text: str, key: str, sides: tuple[Sequence[Slot], Sequence[Slot]], moved: Drift) -> StatementVerdict:
    took = [_total(side).get(key, _NONE) for side in sides]
    blocks = [_blocks(side, key) for side in sides]
    buffers = tuple(each.blocks / each.calls if each.calls else None for each in took)
    rounded = tuple(None if each is None else round(each) for each in buffers)
    found = judge(blocks[0], blocks[1], buffers=(rounded[0], rounded[1]), drift=moved)
    verdict, reason = found.verdict, found.reason
    if verdict in {"faster", "slower", "no gain"} and (shift := _other_rows(*took)):
        verdict, reason = "unstable", shift
    times = [median(ms for block in side for ms in block) if any(map(len, side)) else None for side in blocks]
    return StatementVerdict(
        text,
        (took[0].calls, took[1].calls),
        times[0],
        times[1],
        (buffers[0], buffers[1]),
        found.speedup,
        found.ci95,
        verdict,
        reason,
    )


def _other_rows(before: Took, after: Took) -> str:
    rows = [each.rows / each.calls for each in (before, after)]
    least, most = sorted(rows)
    if most <= max(ROWS_SHIFT * least, least + 0.5):
        return ""
    return f"its calls returned {rows[0]:,.1f} rows each before and {rows[1]:,.1f} after: they ask for something else"


def _blocks(slots: Sequence[Slot], key: str) -> Blocks:
    """The rounds of one statement on one side, block by block; rounds with too few calls are left out."""
    days = sum(slot.seconds for slot in slots) / _DAY_S
    number = min(7, max(2, int(days)))
    each = max(1, -(-len(slots) // MOST_ROUNDS))
    rounds = [slots[start : start + each] for start in range(0, len(slots), each)]
    blocks: list[list[float]] = [[] for _ in range(number)]
    for place, together in enumerate(rounds):
        took = sum((slot.took.get(key, _NONE) for slot in together), _NONE)
        if took.calls >= MIN_CALLS:
            blocks[place * number // len(rounds)].append(took.mean_ms)
    return [block for block in blocks if block]


def _total(slots: Iterable[Slot]) -> dict[str, Took]:
    sums: dict[str, Took] = {}
    for slot in slots:
        for key, took in slot.took.items():
            sums[key] = sums.get(key, _NONE) + took
    return sums


_NONE = Took()
