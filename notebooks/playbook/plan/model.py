"""The plan file: phases, steps, priorities, targets and expected improvements, validated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from playbook.errors import PlanError, UsageError, one_line

Priority = Literal["critical", "high", "medium", "nice_to_have"]
Keep = Literal["if_faster", "always"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StepSpec(_Strict):
    """What every kind of step has; a kind's own module adds what that kind needs.

    `claims` are the workload queries that the step claims to speed up. `if_faster` drops a step that was shown to gain
    nothing; `always` keeps it whatever was measured.
    """

    name: str = Field(min_length=1)
    kind: str
    about: str = ""
    claims: tuple[str, ...] = ()
    keep: Keep = "if_faster"


class Phase(_Strict):
    """A section of the plan. Its steps are in the order they are walked; undo goes the other way."""

    id: str
    title: str
    week: int = Field(ge=1)
    priority: Priority
    notebook: str
    about: str = ""
    steps: tuple[Any, ...] = ()

    def step_id(self, step: StepSpec) -> str:
        """`1.1/idx_proposal_status_customer_created`: how users name a step."""
        return f"{self.id}/{step.name}"


class PriorityItem(_Strict):
    """One of the items of the priority matrix, and the phases or monitoring parts that carry it out."""

    priority: Priority
    week: int = Field(ge=1)
    item: str
    phases: tuple[str, ...] = ()
    notebooks: tuple[str, ...] = ()


class TargetFigure(_Strict):
    """A figure to hold. `below` means the value must stay under the limit, `above` over it."""

    name: str
    title: str
    limit: float
    unit: str
    bound: Literal["below", "above"]


class ExpectedImprovement(_Strict):
    """An improvement the plan promises, as a range in percent; more than `high` is met too."""

    name: str
    title: str
    low: float
    high: float


class Metric(_Strict):
    """A figure to track over time, under the plan's own name."""

    name: str
    title: str
    unit: str


class Plan(_Strict):
    """A whole plan. `path` is the file it was read from; its workload stands beside it."""

    name: str
    title: str
    workload: str
    about: str = ""
    map: dict[str, str] = {}
    controls: tuple[str, ...] = ()
    phases: tuple[Phase, ...]
    priorities: tuple[PriorityItem, ...] = ()
    metrics: tuple[Metric, ...] = ()
    targets: tuple[TargetFigure, ...] = ()
    expected: tuple[ExpectedImprovement, ...] = ()
    path: Path = Path()

    @property
    def workload_path(self) -> Path:
        """The file of named queries."""
        return self.path.parent / self.workload

    def phase(self, phase_id: str) -> Phase:
        """The phase of that id.

        Raises:
            UsageError: the plan has none; the message lists those there are.
        """
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        known = ", ".join(phase.id for phase in self.phases)
        raise UsageError(f"the plan {self.name} has no phase {phase_id}; it has {known}")

    def steps(self) -> Iterator[tuple[Phase, Any]]:
        """Every step with its phase, in the plan's order."""
        for phase in self.phases:
            for step in phase.steps:
                yield phase, step


def load(path: Path, kinds: Mapping[str, type[StepSpec]]) -> Plan:
    """Reads a plan file; `kinds` maps the kind of a step to the model of its fields.

    Raises:
        PlanError: the message starts with `file:line: field:` and says what is expected there.
    """
    try:
        data = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}; name an existing plan file") from None
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlanError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (YAMLError, ValueError) as error:
        raise PlanError(f"{path}: cannot be read as YAML in UTF-8: {one_line(error)}") from None
    if not isinstance(data, dict):
        raise PlanError(f"{path}:1: a plan is a mapping that starts with name:, title:, phases:")
    plain = _plain(data)
    _check_steps(path, data, plain, kinds)
    try:
        plan = Plan.model_validate(plain | {"path": path})
    except ValidationError as error:
        raise _plan_error(path, data, error) from None
    _check_references(path, data, plan)
    return plan


def _check_steps(path: Path, data: Any, plain: dict[str, Any], kinds: Mapping[str, type[StepSpec]]) -> None:
    """Replaces each step's mapping in `plain` by its validated spec."""
    for p, phase in enumerate(_list(plain, "phases")):
        steps = []
        for s, step in enumerate(_list(phase, "steps")):
            place: tuple[str | int, ...] = ("phases", p, "steps", s)
            kind = step.get("kind") if isinstance(step, dict) else None
            if kind not in kinds:
                raise _error(path, data, (*place, "kind"), f"{kind!r} is no kind of step; use one of {_listed(kinds)}")
            try:
                steps.append(kinds[kind].model_validate(step))
            except ValidationError as error:
                raise _plan_error(path, data, error, place) from None
        if isinstance(phase, dict):
            phase["steps"] = tuple(steps)


def _check_references(path: Path, data: Any, plan: Plan) -> None:
    seen: set[str] = set()
    for p, phase in enumerate(plan.phases):
        if phase.id in seen:
            raise _error(path, data, ("phases", p, "id"), f"the phase {phase.id} stands twice")
        seen.add(phase.id)
        names: set[str] = set()
        for s, step in enumerate(phase.steps):
            if step.name in names:
                raise _error(path, data, ("phases", p, "steps", s, "name"), f"the step {step.name} stands twice")
            names.add(step.name)
    for i, item in enumerate(plan.priorities):
        for phase_id in item.phases:
            if phase_id not in seen:
                raise _error(path, data, ("priorities", i, "phases"), f"there is no phase {phase_id}")


def _plan_error(path: Path, data: Any, error: ValidationError, place: tuple[str | int, ...] = ()) -> PlanError:
    errors = error.errors(include_url=False, include_input=False)
    # A misspelt field is also a missing one; the misspelling is what the author can see in the file.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        message = "there is no such field here; check its spelling"
    elif first["type"] == "missing":
        message = "this field is missing"
    return _error(path, data, (*place, *first["loc"]), message)


def _error(path: Path, data: Any, place: tuple[str | int, ...], message: str) -> PlanError:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return PlanError(f"{path}:{_line(data, place)}: {field}: {message}")


def _line(data: Any, place: tuple[str | int, ...]) -> int:
    """The line of the deepest part of `place` that the file holds."""
    line = 1
    for part in place:
        try:
            position = data.lc.key(part) if isinstance(data, dict) else data.lc.item(part)
            line, data = position[0] + 1, data[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _list(data: Any, key: str) -> tuple[Any, ...]:
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, tuple) else ()


def _plain(data: Any) -> Any:
    """ruamel's commented containers and scalars as plain Python; lists as tuples, since a plan never changes."""
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list):
        return tuple(_plain(value) for value in data)
    for plain in (bool, int, float, str):
        if isinstance(data, plain):
            return plain(data)
    return data


def _listed(kinds: Mapping[str, object]) -> str:
    return ", ".join(sorted(kinds))
