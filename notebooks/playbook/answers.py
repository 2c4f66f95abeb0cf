"""What the verbs answer: data, which a notebook shows and code reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playbook.evidence.compare import Case, Comparison, Decision
from playbook.evidence.hypothetical import Estimate
from playbook.evidence.measure import Measurement
from playbook.step import State
from playbook.target.sql import Statement


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
