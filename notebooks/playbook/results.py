"""results.json as objects: read with care, every string safe to show, a figure not measured as None."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from statistics import median
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from playbook import figures
from playbook.errors import UsageError

SCHEMA = 1

# What a terminal, a browser or an XML parser would act upon instead of showing: control characters, surrogates,
# and the marks that turn the reading direction and so make SQL look like other SQL.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def shown(text: str) -> str:
    """`text` with every character that would not be shown written as its escape, line feeds and tabs aside."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSHOWABLE.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def cut(text: str, longest: int) -> str:
    """`text`, or its first `longest` characters with a mark that there is more."""
    return text if len(text) <= longest else f"{text[:longest]}\N{HORIZONTAL ELLIPSIS}"


def _text(value: Any) -> Any:
    return "" if value is None else shown(value) if isinstance(value, str) else value


def _figure(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bounds(value: Any) -> Any:
    unknown = value is None or len(value) == 0 or any(_figure(bound) is None for bound in value)
    return None if unknown else tuple(value)


Text = Annotated[str, BeforeValidator(_text)]
Figure = Annotated[float | None, BeforeValidator(_figure)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(lambda value: () if value is None else value)]
Bounds = Annotated[tuple[float, float] | None, BeforeValidator(_bounds)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)


class Facts(_Part):
    """The database that was worked on."""

    server_version: Text = ""
    database: Text = ""
    embedded: bool | None = None

    def __str__(self) -> str:
        kind = {True: ", embedded sample", False: ", not embedded", None: ""}[self.embedded]
        return f"{self.database} on PostgreSQL {self.server_version}".rstrip() + kind


IN_PLACE = ("applied", "exists")
"""The statuses of a step whose object stands and serves."""


class Step(_Part):
    """One step of the plan as the run left it.

    `locks` are those of its `statements`, one each. `notes` is what its preflight found beside the reason, and `lacks`
    what would give the role of a dry run the privileges that apply needs.
    """

    id: Text
    phase: Text = ""
    kind: Text = ""
    priority: Text = ""
    status: Text = ""
    reason: Text = ""
    statements: Texts = ()
    undo: Texts = ()
    locks: Texts = ()
    notes: Texts = ()
    lacks: Texts = ()
    seconds: Figure = None
    size_bytes: Figure = None
    write_overhead_pct: Figure = None
    write_overhead_ci95: Bounds = None


class Comparison(_Part):
    """One query before and after a step. A plan is its text, or an object whose `text()` gives that."""

    step: Text = ""
    query: Text = ""
    bind: Text = ""
    rounds: Figure = None
    before_ms: Figure = None
    after_ms: Figure = None
    speedup: Figure = None
    ci95: Bounds = None
    before_buffers: Figure = None
    after_buffers: Figure = None
    before_nodes: Texts = ()
    after_nodes: Texts = ()
    same_rows: bool | None = None
    same_rows_reason: Text = ""
    verdict: Text = "not measured"
    reason: Text = ""
    before_plan: Any = None
    after_plan: Any = None
    now_ms: Figure = None

    @property
    def label(self) -> str:
        """`events_of_user (rare)`."""
        return f"{self.query} ({self.bind})" if self.bind else self.query

    @property
    def change(self) -> str:
        """Before, after, speed-up and its interval in one line."""
        times = f"{figures.milliseconds(self.before_ms)} {figures.ARROW} {figures.milliseconds(self.after_ms)}"
        within = f" {figures.interval(self.ci95)}" if self.ci95 else ""
        return f"{times}, {figures.times(self.speedup)}{within}"

    @property
    def unmeasured(self) -> bool:
        """Whether there is neither a time nor a buffer on either side."""
        measured = (self.before_ms, self.after_ms, self.speedup, self.before_buffers, self.after_buffers)
        return all(figure is None for figure in measured)

    @property
    def planned_only(self) -> bool:
        """Whether its plan is known and nothing of it was executed."""
        return self.unmeasured and bool(self.before_nodes)

    @property
    def nodes(self) -> str:
        """The plan's node types before and after, in words that claim no more than is known."""
        before, after = (", ".join(nodes) or figures.NOT_MEASURED for nodes in (self.before_nodes, self.after_nodes))
        if before != after:
            return f"{before} {figures.ARROW} {after}"
        if not self.before_nodes:
            return figures.NOT_MEASURED
        plans = [plan.text() if hasattr(plan, "text") else plan for plan in (self.before_plan, self.after_plan)]
        if not all(plans):
            return f"same nodes: {before}"
        return f"{'unchanged' if plans[0] == plans[1] else 'same nodes, other indexes or conditions'}: {before}"

    @property
    def rows(self) -> str:
        """`same`, `differ` or `not compared`."""
        return {True: "same", False: "differ", None: "not compared"}[self.same_rows]


class Measured(_Part):
    """One query as the run left it: its rounds (ms, block by block), warm median buffers and plan.

    `when` tells whether it was measured `before` the phase's steps or `after` them; a control (`control`) ran beside.
    `nodes` are a plan's, or in one word the statements of a request.
    """

    phase: Text = ""
    when: Text = ""
    step: Text = ""
    query: Text = ""
    bind: Text = ""
    control: bool = False
    rounds_ms: tuple[tuple[float, ...], ...] = ()
    buffers: Figure = None
    nodes: Texts = ()
    plan_hash: Text = ""
    indexes: Texts = ()
    error: Text = ""

    @property
    def rounds(self) -> int:
        """The rounds of all blocks."""
        return sum(map(len, self.rounds_ms))

    @property
    def median_ms(self) -> float | None:
        """The median over all rounds."""
        return median(ms for block in self.rounds_ms for ms in block) if self.rounds else None


class Estimate(_Part):
    """What the planner expects of a step for one query, by HypoPG; `used` tells whether it would read the index."""

    step: Text = ""
    query: Text = ""
    bind: Text = ""
    cost_before: Figure = None
    cost_after: Figure = None
    used: bool | None = None
    reason: Text = ""

    @property
    def label(self) -> str:
        """`events_of_user (rare)`."""
        return f"{self.query} ({self.bind})"

    @property
    def told(self) -> str:
        """The costs and the planner's choice in one line."""
        if self.used is None:
            return f"not estimated: {self.reason}"
        choice = "the planner would use it" if self.used else "the planner would not use it"
        return f"cost {figures.count(self.cost_before)} {figures.ARROW} {figures.count(self.cost_after)}, {choice}"


class Finding(_Part):
    """One answer of a health check, to one of its topics.

    `remedy` is SQL to copy; `step` is YAML to paste under the steps of a plan's phase, where one mends it.
    """

    check: Text
    topic: Text = ""
    status: Text = ""
    detail: Text = ""
    remedy: Text = ""
    step: Text = ""

    @property
    def label(self) -> str:
        """`indexes: redundant`."""
        return f"{self.check}: {self.topic}" if self.topic else self.check


class _Held(_Part):
    """A figure that the plan names, held against what was measured."""

    name: Text
    title: Text = ""
    unit: Text = ""
    value: Figure = None
    ci95: Bounds = None
    met: bool | None = None
    reason: Text = ""

    @property
    def measured(self) -> str:
        """The value with its unit."""
        return figures.named(self.name, self.value, self.unit)

    @property
    def wanted(self) -> str:
        """What the value is held against, with its unit."""
        raise NotImplementedError


class Slowest(_Part):
    """A statement that took much of the time, without its literals; `plan` is a tree, or says why there is none."""

    text: Text = ""
    calls: Figure = None
    mean_ms: Figure = None
    share_pct: Figure = None
    plan: Text = ""

    @property
    def head(self) -> str:
        """`41.0 % of the time in 1,200 calls of 12.3 ms`."""
        mean = figures.milliseconds(self.mean_ms)
        return f"{figures.percent(self.share_pct)} of the time in {figures.count(self.calls, 'calls')} of {mean}"


class Limit(_Held):
    """A target of the plan. `bound` (`below`, `above`), where given, says on which side of it the value must lie.

    `slowest` are the statements that took the most time meanwhile, told where it was missed.
    """

    limit: Figure = None
    bound: Text = ""
    slowest: tuple[Slowest, ...] = ()

    @property
    def wanted(self) -> str:
        """The limit with its unit."""
        return f"{self.bound} {figures.named(self.name, self.limit, self.unit)}".lstrip()


class Promise(_Held):
    """An improvement that the plan expects, as a range."""

    low: Figure = None
    high: Figure = None

    @property
    def wanted(self) -> str:
        """The range with its unit."""
        low, high = (figures.named(self.name, bound, self.unit) for bound in (self.low, self.high))
        if self.high is None:
            return f"{low} or more"
        return f"up to {high}" if self.low is None else f"{low} to {high}"


class Notebook(_Part):
    """One executed notebook."""

    name: Text
    status: Text = ""
    seconds: Figure = None
    error: Text = ""

    @property
    def failed(self) -> bool:
        """Whether it did not run to its end."""
        return bool(self.error) or self.status in {"failed", "error"}


class Results(_Part):
    """All that results.json holds."""

    run_id: Text = ""
    started_at: Text = ""
    seconds: Figure = None
    mode: Text = ""
    target: Facts = Facts()
    steps: tuple[Step, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    measured: tuple[Measured, ...] = ()
    findings: tuple[Finding, ...] = ()
    metrics: dict[Text, Figure] = {}
    targets: tuple[Limit, ...] = ()
    expected: tuple[Promise, ...] = ()
    notebooks: tuple[Notebook, ...] = ()

    @property
    def only_planned(self) -> bool:
        """Whether this was a dry run in which no query was executed."""
        return self.mode == "dry-run" and all(each.unmeasured for each in self.comparisons)

    def of(self, step: Step) -> tuple[Comparison, ...]:
        """The comparisons of one step."""
        return tuple(each for each in self.comparisons if each.step == step.id)

    def estimated(self, step: Step) -> tuple[Estimate, ...]:
        """The planner's estimates of one step."""
        return tuple(each for each in self.estimates if each.step == step.id)

    @property
    def elsewhere(self) -> tuple[Comparison, ...]:
        """The comparisons whose step is not in the list of steps."""
        known = {step.id for step in self.steps}
        return tuple(each for each in self.comparisons if each.step not in known)


def read(results: Mapping[str, Any]) -> Results:
    """results.json as objects: optional keys may be missing, unknown ones are passed over.

    Raises:
        UsageError: not schema 1, or a value of the wrong type; the message names the field.
    """
    schema = results.get("schema") if isinstance(results, Mapping) else None
    if type(schema) is not int or schema != SCHEMA:
        raise UsageError(
            f"the results are of schema {schema!r} and this version reads schema {SCHEMA}: "
            "use the version of the playbook that wrote them, or run again"
        )
    try:
        return Results.model_validate({key: value for key, value in results.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise UsageError(f"the results cannot be read: {field}: {first['msg']}; run again") from None
