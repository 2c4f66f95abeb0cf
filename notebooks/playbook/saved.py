"""A saved plan: the statements that were reviewed, with hashes of what they depend on, in a file that a person reads.

It holds names and SQL, no address, no password and no row. A run that is held to it runs these statements and nothing
else, and nothing at all of a step whose relations have changed since, but by the playbook itself.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import LiteralScalarString

from playbook.errors import UsageError, one_line
from playbook.target.catalog import digest
from playbook.target.relations import Table
from playbook.target.sql import Statement, quote

FORMAT = 1
_HEAD = """\
# Reviewed statements, with hashes of the relations that they depend on. `playbook run --apply --saved` with this file
# runs exactly these, and refuses once one of the hashes has changed.
"""


@dataclass(frozen=True)
class SavedStep:
    """One step as it was reviewed. `catalog` maps each relation to its parts, and each part to its hash."""

    statements: tuple[str, ...]
    undo: tuple[str, ...]
    catalog: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, statements: tuple[Statement, ...], undo: tuple[Statement, ...], tables: tuple[Table, ...]) -> SavedStep:
        """As the target is now."""
        return cls(
            tuple(map(str, statements)), tuple(map(str, undo)), {each.qualified: _parts(each) for each in tables}
        )

    def moved(self, now: SavedStep, ours: Set[str], *, begun: bool) -> str:
        """What differs from `now`, in words; empty where nothing does.

        `ours` are the objects that the journal says the playbook made, and `begun` whether the step was begun: then
        the end of its statements is what is left to run.
        """
        changes = [change for name in sorted({*self.catalog, *now.catalog}) for change in self._change(name, now, ours)]
        if changes:
            return "; ".join(changes)
        left = self.statements[-len(now.statements) :] if begun else self.statements
        return "" if left == now.statements else "the plan's statements are no longer those that were reviewed"

    def _change(self, relation: str, now: SavedStep, ours: Set[str]) -> Iterator[str]:
        if relation not in now.catalog:
            yield f"{relation} is gone"
        elif relation not in self.catalog:
            yield f"{relation} has appeared"
        else:
            then, present = self.catalog[relation], now.catalog[relation]
            for part in sorted({*then, *present} - ours):
                if then.get(part) != present.get(part):
                    what = "has changed" if part in then and part in present else "has appeared"
                    yield f"{part} {what if part in present else 'is gone'}"


@dataclass(frozen=True)
class SavedPlan:
    """The steps of one file by their ids; `left_out` says why a step of the plan is not among them."""

    plan: str
    database: str
    steps: Mapping[str, SavedStep]
    left_out: Mapping[str, str]
    path: Path = Path()

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all.

        Raises:
            UsageError: it cannot be written.
        """
        yaml = YAML()
        yaml.width = 4096
        text = io.StringIO()
        yaml.dump(
            {
                "saved": FORMAT,
                "plan": self.plan,
                "database": self.database,
                "steps": {name: _shown(step) for name, step in self.steps.items()},
                "left_out": dict(self.left_out),
                "catalog": {name: dict(parts) for step in self.steps.values() for name, parts in step.catalog.items()},
            },
            text,
        )
        draft = path.with_name(f"{path.name}.new")
        try:
            draft.write_text(_HEAD + text.getvalue(), encoding="utf-8")
            os.replace(draft, path)
        except OSError as error:
            raise UsageError(f"--save {path}: {error.strerror}; name a file that can be written") from None


def read(path: Path) -> SavedPlan:
    """The saved plan in `path`.

    Raises:
        UsageError: there is none, or it is not a saved plan of this format.
    """
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        if data["saved"] != FORMAT:
            raise ValueError(f"format {data['saved']!r}, and this version reads {FORMAT}")
        steps = {name: _step(step, data["catalog"]) for name, step in data["steps"].items()}
        return SavedPlan(str(data["plan"]), str(data["database"]), steps, dict(data["left_out"]), path)
    except OSError as error:
        raise UsageError(f"--saved {path}: {error.strerror}; make it with `playbook plan --save`") from None
    except (YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        cause = one_line(error)
        raise UsageError(f"--saved {path} is no saved plan: {cause}; make it with `playbook plan --save`") from None


def _step(data: Any, catalog: Mapping[str, Mapping[str, str]]) -> SavedStep:
    relations = {name: catalog[name] for name in data["relations"]}
    return SavedStep(tuple(data["statements"]), tuple(data["undo"]), relations)


def _shown(step: SavedStep) -> dict[str, Any]:
    def lines(statements: tuple[str, ...]) -> list[str]:
        return [LiteralScalarString(each) if "\n" in each else each for each in statements]

    return {"statements": lines(step.statements), "undo": lines(step.undo), "relations": list(step.catalog)}


def _parts(table: Table) -> dict[str, str]:
    """The relation itself, its columns, indexes and constraints, each by the name that the journal has for it.

    A NOT NULL is its column's, whatever constraint PostgreSQL 18 keeps it in.
    """
    return {
        table.qualified: _hash(replace(table, columns=(), indexes=(), constraints=())),
        **{f"{table.qualified}.{quote(column.name)}": _hash(column) for column in table.columns},
        **{index.qualified: _hash(index) for index in table.indexes},
        **{f"{quote(each.name)} ON {table.qualified}": _hash(each) for each in table.constraints if each.kind != "n"},
    }


def _hash(value: Any) -> str:
    """64 of the digest's bits: somebody reads the file, and nobody attacks it who could not write to it."""
    return digest(value)[:16]
