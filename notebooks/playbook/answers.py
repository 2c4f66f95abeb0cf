"""What the verbs answer: data, which a notebook shows and code reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playbook.evidence.compare import Case, Comparison, Decision
from playbook.evidence.hypothetical import Estimate
from playbook.evidence.measure import Measurement
from playbook.step import State
from playbook.target.sql import Statement

if TYPE_CHECKING:
    from playbook.service.n_plus_one import Pattern
    from playbook.service.suspects import Suspect
    from playbook.service.sweep import Recommendation


@dataclass(frozen=True)
class Preview:
    """What `apply` would run and what `undo` would, step by step; `journal` says what keeps the journal, and where."""

    steps: tuple[tuple[str, tuple[Statement, ...], tuple[Statement, ...]], ...]
    journal: str


@dataclass(frozen=True)
class Checked:
    """Each step with its state."""

    steps: tuple[tuple[str, State], ...]


@dataclass(frozen=True)
class Measured:
    """One phase of measuring. `values` are the binds', masked on a foreign target unless asked for.

    `kept` names the steps whose measurement before stands in the journal already. `estimates` are the planner's, of
    steps that do not stand.
    """

    when: str
    measurements: tuple[Measurement, ...]
    left_out: dict[str, str]
    values: dict[Case, str]
    kept: tuple[str, ...] = ()
    executed: bool = True
    estimates: tuple[Estimate, ...] = ()


@dataclass(frozen=True)
class Applied:
    """What `apply` did: each step's state and the seconds it took."""

    steps: tuple[tuple[str, State, float | None], ...]
    changes: bool


@dataclass(frozen=True)
class StepVerdict:
    """All there is to say of one step: its row of results, its comparisons and the decision."""

    row: dict[str, Any]
    comparisons: tuple[Comparison, ...]
    decision: Decision


@dataclass(frozen=True)
class Verdicts:
    """The verdict on each step, in the plan's order."""

    steps: tuple[StepVerdict, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The comparisons as results.json lists them."""
        return [comparison.to_json() for verdict in self.steps for comparison in verdict.comparisons]


@dataclass(frozen=True)
class Settled:
    """Which steps were taken back since they gained nothing; the rest was kept."""

    dropped: tuple[tuple[str, str], ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Refreshed:
    """Per summary what became of its refresh: step, word (`refreshed`, `skipped`, `failed`), how or why not."""

    summaries: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class UndoPreview:
    """What `undo` would run, in its order: the last step first."""

    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Plans:
    """Each comparison with the plan trees before and after."""

    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class SameRows:
    """What no machine's speed changes: per query, whether it returns the same rows with the change and without it."""

    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class NotApplicable:
    """An answer that this target cannot give; the reason, and what to do instead."""

    reason: str


@dataclass(frozen=True)
class Detected:
    """The N+1 patterns of each request: path, statements in all, patterns; `switches` says what was on."""

    switches: str
    requests: tuple[tuple[str, int, tuple[Pattern, ...]], ...]


@dataclass(frozen=True)
class Loaded:
    """What each service came to under the same load of `rate` requests a second; `asked` says what for."""

    services: tuple[tuple[str, Any], ...]
    rate: float
    asked: str


@dataclass(frozen=True)
class Strategy:
    """What one way of loading the same rows costs; `bytes` are those of the values that the database sent."""

    name: str
    statements: int
    rows: int
    bytes: int
    milliseconds: float


@dataclass(frozen=True)
class Strategies:
    """The ways of loading, side by side."""

    ways: tuple[Strategy, ...]


@dataclass(frozen=True)
class Suspected:
    """What the target's statistics of `seconds` let suspect; `reason` says what could not be seen."""

    suspects: tuple[Suspect, ...]
    seconds: float
    reason: str


@dataclass(frozen=True)
class Advised:
    """What follows from how a server's connections are used, in sentences."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class EnginePerRequest:
    """The median of a small query in milliseconds, with an engine for each request and with one for the process."""

    own_ms: float
    shared_ms: float


@dataclass(frozen=True)
class Swept:
    """Pool sizes under `rate` requests a second, and the one to take."""

    found: Recommendation
    rate: float


@dataclass(frozen=True)
class PoolUsed:
    """A load over HTTP, and what the service's pool came to under it."""

    load: Any
    pool: dict[str, Any]


@dataclass(frozen=True)
class Cached:
    """The same load without the cache and with it; `counts` are the cache's, `spared_pct` the database's time.

    `asked_before` is how many requests the cache had seen.
    """

    without: Any
    with_it: Any
    counts: dict[str, Any]
    spared_pct: float | None
    rate: float
    keys: int
    asked_before: int


@dataclass(frozen=True)
class WithoutServer:
    """Requests while there was no cache server: all were answered; what each waited longer for, in milliseconds."""

    requests: int
    longest_ms: float
    median_ms: float
    tried: int
