"""Plan trees laid beside each other, with the nodes marked that stand on one side only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from markupsafe import Markup

from playbook.figures import NOT_MEASURED, count, milliseconds
from playbook.results import shown
from playbook.table import FRAME

# EXPLAIN's own text: figures in brackets after a node, and lines that hold nothing but figures.
_FIGURES = re.compile(
    r"\s*\((?:cost=|actual (?:time|rows)=|rows=|never executed).*$"
    r"|^(?:Buffers|Planning|Execution|Heap Fetches|Heap Blocks|I/O Timings|Rows Removed|Sort Method|Workers|Batches"
    r"|Buckets|Hits|Index Searches|Settings|WAL)[^:]*:.*$"
)
_STYLES = {
    "before": " background-color: #fbe0d0; color: #4a1c00;",
    "after": " background-color: #d9ecf9; color: #06304d;",
}
_SIGNS = {"before": "-", "after": "+"}


@dataclass(frozen=True)
class Line:
    """One line of a plan tree; `changed` when the other side has no such node there."""

    text: str
    changed: bool


Side = tuple[Line, ...]


def pair(before: Any, after: Any, *, figures: bool = True) -> tuple[Side, Side]:
    """Both plans line by line. A plan is its text, or an object with `text()` and `root`; None has no lines.

    A line has changed when its node, relation, index or conditions have; figures do not count. Without `figures` the
    lines hold none, so they are the same in every run.
    """
    sides = [_lines(plan, figures) for plan in (before, after)]
    keys = [[key for key, _ in side] for side in sides]
    changed: tuple[set[int], set[int]] = (set(), set())
    if all(keys):
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
            if tag != "equal":
                changed[0].update(range(i1, i2))
                changed[1].update(range(j1, j2))
    return _marked(sides[0], changed[0]), _marked(sides[1], changed[1])


def html(sides: tuple[Side, Side]) -> Markup:
    """Both sides for a notebook, beside each other where there is room."""
    columns = (_column(name, lines) for name, lines in zip(_SIGNS, sides, strict=True))
    return Markup('<div style="display: flex; flex-wrap: wrap; gap: 12px;">{}</div>').format(Markup("").join(columns))


def text(sides: tuple[Side, Side]) -> str:
    """Both sides below each other."""
    lines = []
    for name, side in zip(_SIGNS, sides, strict=True):
        lines += [f"{name}:", *(f"{_SIGNS[name] if line.changed else ' '} {line.text}" for line in side)]
        lines += [] if side else [f"  {NOT_MEASURED}"]
    return "\n".join(lines)


def _column(name: str, lines: Side) -> Markup:
    # A line too long for its column hangs: it goes on to the right of where it began.
    hanging = "display: block; padding-left: 3.6em; text-indent: -3.6em; white-space: pre-wrap;"
    marked = Markup('<mark style="{}{}">{} {}\n</mark>')
    plain = Markup('<span style="{}">  {}\n</span>')
    written = Markup("").join(
        marked.format(hanging, _STYLES[name], _SIGNS[name], line.text)
        if line.changed
        else plain.format(hanging, line.text)
        for line in lines
    )
    return Markup(
        '<div style="flex: 1 1 340px; min-width: 0; text-align: left;"><div style="font-size: 12px;">{}</div>'
        '<pre style="{}">{}</pre></div>'
    ).format(name, FRAME, written or NOT_MEASURED)


def _marked(lines: list[tuple[str, str]], changed: set[int]) -> Side:
    return tuple(Line(line, number in changed) for number, (_, line) in enumerate(lines))


def _lines(plan: Any, figures: bool) -> list[tuple[str, str]]:
    """Each line as what it is about, and as it is written."""
    if not plan:
        return []
    lines = shown(plan.text() if hasattr(plan, "text") else str(plan)).rstrip().split("\n")
    if hasattr(plan, "root"):
        nodes = list(_walk(plan.root))
        told = [_execution(node) for node in nodes] if figures and len(nodes) == len(lines) else [""] * len(lines)
        return [(line.strip(), line + figure) for line, figure in zip(lines, told, strict=True)]
    bare = [(_FIGURES.sub("", line.strip().removeprefix("->").strip()), line) for line in lines]
    if figures:
        return bare
    return [(key, line[: len(line) - len(line.lstrip())] + key) for key, line in bare if key]


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _execution(node: Any) -> str:
    """What the node did, where it was executed: rows and time are per loop; unclocked nodes have no time."""
    if node.rows is None:
        return ""
    clocked = f", {milliseconds(node.actual_ms)}" if node.actual_ms is not None else ""
    loops = f" in each of {count(node.loops)} loops" if node.loops and node.loops > 1 else ""
    return f"  ({count(node.rows)} row{'' if node.rows == 1 else 's'}{clocked}{loops})"
