"""One step of the plan on one target: preview, check, apply, undo, for every kind of change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import psycopg

from playbook.apply import apply_step, undo_step
from playbook.changes import carried_out, kinds
from playbook.changes.change import Change, Finding
from playbook.context import Context
from playbook.errors import Ambiguous, NamesError, PlanError, UsageError
from playbook.journal import APPLIED, Entry
from playbook.plan.model import Phase, StepSpec
from playbook.saved import SavedStep
from playbook.target.catalog import LOCK_TIMEOUT_MS
from playbook.target.sql import Statement

Status = Literal["planned", "applied", "exists", "covered", "not_applicable", "blocked", "dropped", "failed", "undone"]


@dataclass(frozen=True)
class State:
    """Where a step stands on the target, in one status and the reason for it."""

    status: Status
    reason: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the preflight found and the reason does not say."""
        return tuple(str(each) for each in self.findings if each.concern in {"warn", "not_checked", "note"})

    @property
    def lacks(self) -> tuple[str, ...]:
        """The statements that give this role the privileges that apply needs, for whoever may run them."""
        return tuple(each.grant or each.remedy for each in self.findings if each.concern == "privilege")


class Step:
    """One step. `change` is None where it does not apply to this target or is only planned; `state` says why."""

    def __init__(self, spec: StepSpec, phase: Phase, context: Context) -> None:
        self.spec = spec
        self.phase = phase
        self.id = phase.step_id(spec)
        self._context = context
        self.change: Change | None = None
        self._hindrance: State | None = None
        self.resolve()

    def resolve(self) -> None:
        """Finds the change's names in the catalog as it was last read."""
        self.change, self._hindrance = None, None
        kind = kinds()[self.spec.kind]
        if not carried_out(kind):
            self._hindrance = State("planned", f"this version plans steps of kind {kind.kind} and carries none out")
            return
        try:
            change = kind(self.spec, self._context.names, self._context.catalog)
            if kind.ask is not Change.ask:
                with self._context.connect() as connection, connection.transaction(force_rollback=True):
                    connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}".encode())
                    change.ask(connection)
        except (Ambiguous, PlanError) as error:
            self._hindrance = State("blocked", str(error))
        except NamesError as error:
            self._hindrance = State("not_applicable", str(error))
        else:
            self._place(change)

    def _place(self, change: Change) -> None:
        if change.of_service and not self._context.target.embedded:
            reason = (
                "it changes an application, and the playbook's own runs on the embedded sample only; there the step "
                "shows what it does, and its tools work in your application as well"
            )
            self._hindrance = State("not_applicable", reason)
        else:
            self.change = change

    def entry(self) -> Entry | None:
        """What the journal knows of the step."""
        return self._context.journal.entry(self.id)

    def statements(self) -> tuple[Statement, ...]:
        """What `apply` would run, in order; empty where the step does not apply, or another object serves already."""
        return () if self.change is None or self._is_covered() else self.change.statements()

    def undo_statements(self) -> tuple[Statement, ...]:
        """What `undo` would run: from the journal when the step was applied, else from the plan."""
        entry = self.entry()
        if entry and entry.status in APPLIED:
            return entry.undo
        return () if self.change is None or self._is_covered() else self.change.undo()

    def _is_covered(self) -> bool:
        return self.change is not None and self.change.stands().standing == "covered"

    def check(self) -> State:
        """Where the step stands, from the journal, the catalog and the preflight; changes nothing.

        Where the run is held to a saved plan, what was not reviewed as it is now is blocked.
        """
        state = self._check()
        if state.status == "planned" and self.change is not None and (reason := self.moved()):
            return State("blocked", f"{reason}; review it: playbook plan --save", state.findings)
        return state

    def _check(self) -> State:
        if self.change is None:
            assert self._hindrance is not None
            return self._hindrance
        with self._context.connect() as connection:
            stands = self.change.stands()
            if (remembered := self._remembered(connection)) and stands.standing != "begun":
                return remembered
            match stands.standing:
                case "exists" if self._owns_unfinished():
                    pass  # the backend of an interrupted run went on and finished it: apply adopts its work
                case "exists" | "covered":
                    return State(stands.standing, stands.reason)
                case "other":
                    return State("blocked", f"{stands.reason}; rename one of the two")
                case "unfinished" if not self._owns_unfinished():
                    return State("blocked", f"{stands.reason} and was not begun by this playbook; drop or rebuild it")
            return self._preflight(connection)

    def _remembered(self, connection: psycopg.Connection[Any]) -> State | None:
        entry = self.entry()
        if entry is None or self.change is None:
            return None
        if entry.status == "dropped":
            return State("dropped", entry.reason)
        if entry.status == "applied" and self.change.objects(connection):
            return State("applied", self._by(entry))
        if entry.status == "undoing" and self.change.objects(connection):
            return State("applied", f"by run {entry.run_id}; its undo was interrupted, `playbook undo` finishes it")
        return None

    def _owns_unfinished(self) -> bool:
        entry = self.entry()
        return entry is not None and entry.status in APPLIED

    def _preflight(self, connection: psycopg.Connection[Any]) -> State:
        assert self.change is not None
        findings = tuple(self._shown(finding) for finding in self._findings(self.change, connection))
        entry = self.entry()
        applies = self._context.settings.applies
        blocking = {"blocked", "privilege"} if applies else {"blocked"}
        if blockers := [finding for finding in findings if finding.concern in blocking]:
            reason = _told(blockers)
            if entry and (entry.status == "applied" or (entry.status == "applying" and self.change.serves_in_part())):
                return State("applied", f"{self._by(entry)}; not validated yet: {reason}")
            if entry and entry.status == "applying":
                reason += f"; run {entry.run_id} was interrupted here, `playbook undo {self.id}` takes back its part"
            return State("blocked", reason, findings)
        if entry and entry.status == "applying":
            return State("planned", f"run {entry.run_id} was interrupted here; apply resumes it", findings)
        if entry and entry.status == "applied" and self.change.stands().standing == "begun":
            return State("planned", f"run {entry.run_id} applied a part of it; {self.change.stands().reason}", findings)
        if entry and entry.status == "applied":
            return State("planned", f"run {entry.run_id} applied it, and others have dropped it since", findings)
        lacks = [finding for finding in findings if finding.concern == "privilege"]
        needs = f"this role cannot apply it: {_told(lacks)}" if lacks else ""
        return State("planned", "; ".join(filter(None, (self.change.stands().reason, needs))), findings)

    def _findings(self, change: Change, connection: psycopg.Connection[Any]) -> list[Finding]:
        found = change.preflight(connection, execute=self._context.settings.measures)
        return found if change.of_service else [*found, *self._context.journal.store.obstacles()]

    def _by(self, entry: Entry) -> str:
        """By whom it was applied, and what that showed."""
        remark = self.change.remark() if self.change else ""
        return "; ".join(filter(None, (f"by run {entry.run_id}", entry.evidence.get("proof"), remark)))

    def _shown(self, finding: Finding) -> Finding:
        """The finding with the keys of the rows that it speaks of, masked on a foreign target unless asked for."""
        if not finding.keys:
            return finding
        keys = ", ".join(finding.keys) if self._context.shows_values else "masked, --show-values shows them"
        return replace(finding, detail=f"{finding.detail} ({keys})", keys=())

    def as_reviewed(self) -> SavedStep | None:
        """What a saved plan holds of the step; None where it has nothing to run."""
        if self.change is None:
            return None
        return SavedStep.of(self.statements(), self.undo_statements(), self.change.relations)

    def moved(self) -> str:
        """What has changed since the saved plan was reviewed, the playbook's own work aside; empty where nothing has,
        or the run is held to none."""
        if (saved := self._context.saved) is None:
            return ""
        if (reviewed := saved.steps.get(self.id)) is None:
            return f"not in the saved plan {saved.path}"
        if (now := self.as_reviewed()) is None:
            assert self._hindrance is not None
            return self._hindrance.reason
        entries = [entry for entry in self._context.journal.entries() if entry.status in APPLIED]
        ours = {name for entry in entries for name in entry.objects}
        return reviewed.moved(now, ours, begun=self.id in {entry.step for entry in entries})

    def stands_now(self) -> bool:
        """Whether what the step makes is there and usable, asked of the target at this moment."""
        if self.change is None:
            return False
        with self._context.connect() as connection:
            return all(self.change.outcome(connection, st) == "done" for st in self.change.statements())

    def apply(self, evidence: dict[str, Any]) -> State:
        """Applies the step when nothing speaks against it; see `apply_step`.

        Raises:
            StepError: a statement failed; the journal says where, and the next call resumes there.
        """
        state = self.check()
        if state.status != "planned" or self.change is None:
            return state
        apply_step(self._context, self.id, self.change, evidence)
        entry = self.entry()
        assert entry is not None
        return State("applied", self._by(entry), state.findings)

    def undo(self, *, status: Status = "undone", reason: str = "") -> State:
        """Takes the step back; see `undo_step`. `dropped` is the status of a step that gained nothing.

        Raises:
            Drifted: an object was changed by others since.
            StepError: a statement failed; the next call resumes there.
        """
        entry = self.entry()
        if entry is None or entry.status not in APPLIED:
            return State("undone", "nothing of it is applied")
        undo_step(self._context, entry, status=status, reason=reason)
        return State(status, reason)


def _told(findings: Sequence[Finding]) -> str:
    """What was found, each with its remedy."""
    return "; ".join(f"{finding.detail}: {finding.remedy.rstrip(';')}" for finding in findings)


def missing_grants(context: Context, notebooks: Collection[str]) -> list[str]:
    """What this role lacks for the steps of these notebooks, as statements for whoever may run them, each once."""
    steps = (step for step in planned_steps(context) if step.phase.notebook in notebooks)
    return list(dict.fromkeys(grant for step in steps for grant in step.check().lacks))


def planned_step(context: Context, step_id: str) -> Step:
    """The step of that id (`1.1/idx_proposal_status_customer_created`).

    Raises:
        UsageError: the plan has no such step.
    """
    for phase, spec in context.plan.steps():
        if phase.step_id(spec) == step_id:
            return Step(spec, phase, context)
    known = ", ".join(phase.step_id(spec) for phase, spec in context.plan.steps())
    raise UsageError(f"the plan {context.plan.name} has no step {step_id}; it has {known}")


def planned_steps(context: Context) -> list[Step]:
    """Every step of the plan, in its order."""
    return [Step(spec, phase, context) for phase, spec in context.plan.steps()]
