"""What a run was asked for, from options and from the environment; this is how the CLI tells the notebooks' kernels."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playbook.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
"""The project's checkout: notebooks and data are found from here, never from the working folder."""
NOTEBOOKS = ROOT / "notebooks"
DEFAULT_PLAN = ROOT / "data" / "proposals" / "plan.yaml"
DEFAULT_SCALE = 0.2
FULL_BUDGET_S = 24.0


def new_run_id() -> str:
    """`20260131T101500-3f2a`: sorts by time, unique enough for two runs in one second."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class Settings:
    """One run's settings. `apply` None: yes on the embedded sample, no elsewhere. `budget_s` is for each phase."""

    target: str = "embedded"
    plan: Path = DEFAULT_PLAN
    scale: float = DEFAULT_SCALE
    apply: bool | None = None
    measure: bool = False
    measure_writes: bool = False
    show_values: bool = False
    budget_s: float = FULL_BUDGET_S
    journal: Path | None = None
    saved: Path | None = None
    out: Path | None = None
    map: Mapping[str, str] = field(default_factory=dict)
    run_id: str = field(default_factory=new_run_id)
    progress: Path | None = None
    api_url: str | None = None
    api_paths: tuple[str, ...] = ("/",)
    api_rate: float = 5.0
    metrics_url: str | None = None

    @property
    def share(self) -> float:
        """How much of a load of fixed length a service is put under: all with the full budget, an eighth at least."""
        return max(min(1.0, self.budget_s / FULL_BUDGET_S), 0.125)

    @property
    def embedded(self) -> bool:
        """Whether the target is the embedded sample."""
        return self.target == "embedded"

    @property
    def applies(self) -> bool:
        """Whether steps may be applied: a foreign target is production until shown otherwise."""
        return self.embedded if self.apply is None else self.apply

    @property
    def measures(self) -> bool:
        """Whether queries may be executed for measuring."""
        return self.embedded or self.applies or self.measure

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return self.out or Path.cwd() / "out" / self.run_id

    def to_environ(self) -> dict[str, str]:
        """As environment variables, for the kernels of a run. No password is in them but in the one `env:` names."""
        texts = {f.name: _to_text(getattr(self, f.name)) for f in fields(self)}
        return {_variable(name): text for name, text in texts.items() if text is not None}

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, **given: Any) -> Settings:
        """Settings from the environment; what is given and not None wins.

        Raises:
            UsageError: a variable or a value does not fit; the message names it.
        """
        values: dict[str, Any] = {}
        for f in fields(cls):
            if (value := given.get(f.name)) is not None:
                values[f.name] = value
            elif text := environ.get(_variable(f.name)):
                values[f.name] = _from_text(f.name, text)
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        if not 0 < self.scale <= 10:
            raise UsageError(f"scale {self.scale:g}: must be above 0 and at most 10; 0.02 is for tests, 1 is 4 M rows")
        if not 1 <= self.budget_s <= 86_400:
            raise UsageError(f"budget {self.budget_s:g}: seconds for measuring each phase, from 1 to 86400")
        if self.api_url and not re.match(r"https?://[^/?#]+(/[^?#]*)?\Z", self.api_url):
            raise UsageError("the URL of your service must be like http://127.0.0.1:8000, with no ? or # in it")
        if self.metrics_url and not re.match(r"https?://[^/?#@]+/[^?#]*\Z", self.metrics_url):
            raise UsageError(
                "the URL of your metrics must be like http://127.0.0.1:8000/metrics, with no @, ? or # in it"
            )
        if wrong := [path for path in self.api_paths if not path.startswith("/")]:
            raise UsageError(f"path {wrong[0]} of your service: it must start with /")
        if not 0 < self.api_rate <= 1000:
            raise UsageError(f"rate {self.api_rate:g}: requests a second on your service, above 0 and at most 1000")


def writable_folder(folder: Path) -> Path:
    """Makes `folder` where needed.

    Raises:
        UsageError: it cannot be made or written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--out {folder}: {error.strerror}; name a folder that can be written into") from None
    return folder


def _variable(name: str) -> str:
    return f"PLAYBOOK_{name.upper()}"


def _to_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, Path):
        return str(value.absolute())  # a kernel works in the notebooks' folder
    if isinstance(value, tuple):
        return json.dumps(value)
    return json.dumps(dict(value)) if isinstance(value, Mapping) else str(value)


def _from_text(name: str, text: str) -> Any:
    if name in {"apply", "measure", "measure_writes", "show_values"}:
        if text.lower() not in {"0", "1", "true", "false", "yes", "no"}:
            raise UsageError(f"{_variable(name)}={text}: write 1 or 0")
        return text.lower() in {"1", "true", "yes"}
    if name in {"scale", "budget_s", "api_rate"}:
        try:
            return float(text)
        except ValueError:
            raise UsageError(f"{_variable(name)}={text}: not a number") from None
    if name == "map":
        try:
            return dict(json.loads(text))
        except ValueError:
            raise UsageError(f"{_variable(name)}: not a JSON object of names") from None
    if name == "api_paths":
        return _paths_from_text(text)
    return Path(text) if name in {"plan", "journal", "saved", "out", "progress"} else text


def _paths_from_text(text: str) -> tuple[str, ...]:
    """A JSON list, or paths parted by spaces."""
    if not text.startswith("["):
        return tuple(text.split())
    try:
        return tuple(map(str, json.loads(text)))
    except ValueError:
        raise UsageError("PLAYBOOK_API_PATHS: neither a JSON list nor paths parted by spaces") from None
