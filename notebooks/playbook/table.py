"""What notebooks display: HTML that survives JupyterLab's sanitizer, with the same content as plain text beside it.

In an untrusted notebook JupyterLab keeps neither style sheets nor SVG nor ARIA, and of an inline style only the
properties and values it knows: no variables, no `inherit`. So everything here is inline, the text's own colour is left
to the theme, and where a ground is tinted its text colour is set with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from playbook.figures import NOT_MEASURED
from playbook.outcome import tone

_GROUNDS = {
    "good": ("#d9ecf9", "#063a63"),
    "warn": ("#fbeec2", "#5c4300"),
    "bad": ("#fbe0d0", "#7a2e00"),
    "neutral": ("#e6e9ec", "#343b42"),
}
_LINE = "rgba(128, 128, 128, 0.35)"
_CELL = f"padding: 4px 12px 4px 0; vertical-align: top; border-bottom: 1px solid {_LINE};"
_UPPER = "padding: 4px 12px 4px 0; vertical-align: top; border-bottom: 0;"
_LOWER = f"padding: 0 0 5px; vertical-align: top; border-bottom: 1px solid {_LINE};"
_HEAD = f"padding: 4px 12px 4px 0; vertical-align: bottom; border-bottom: 1px solid {_LINE}; font-weight: 600;"
# JupyterLab's stripes would part a row from what stands below it.
_TR = Markup('<tr style="background-color: transparent;">{}</tr>')
FRAME = (
    f"margin: 4px 0; padding: 8px 10px; overflow-x: auto; border: 1px solid {_LINE}; font-family: monospace; "
    "font-size: 12px; line-height: 1.5;"
)
"""The style of a block of code."""


_NAME_LETTERS = 30
_LETTER_PX = 8


@dataclass(frozen=True)
class Shown:
    """Something to display: HTML where the front end can, plain text in terminals and for nbval."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        # JupyterLab sets what stands between two dollar signs as a formula, `$1` and `$2` of a statement too.
        return f'<div class="mathjax_ignore tex2jax_ignore">{self.html}</div>'

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a remark under it, its HTML where that is more than the text, over how many columns it goes."""

    text: str
    note: str = ""
    html: Markup | None = None
    numeric: bool = False
    span: int = 1
    head: bool = False

    def markup(self, style: str) -> Markup:
        """The cell as a table cell; a `head` names its row."""
        align = "text-align: right;" if self.numeric else "text-align: left;"
        if self.numeric and self.text != NOT_MEASURED:
            align += " white-space: nowrap;"
        tag = Markup('th scope="row"') if self.head else Markup("td")
        reach = Markup(' colspan="{}"').format(self.span) if self.span > 1 else Markup("")
        content = (escape(self.text) if self.html is None else self.html) + small(self.note)
        # Wide enough that a name is broken once at most.
        width = f" min-width: {min(len(self.text), _NAME_LETTERS) * _LETTER_PX}px;" if self.span == 1 else ""
        weight = f" font-weight: 400;{width}" if self.head else ""
        return Markup('<{}{} style="{}">{}</{}>').format(tag, reach, style + align + weight, content, tag[:2])


@dataclass(frozen=True)
class Row:
    """A row, and what stands below it over the whole width, as HTML and as lines of text."""

    cells: tuple[Cell, ...]
    below: Markup | None = None
    lines: tuple[str, ...] = ()


def number(text: str) -> Cell:
    """A cell with a figure in it."""
    return Cell(text, numeric=True)


def code(text: str, *, head: bool = False) -> Cell:
    """A cell with a name out of the database."""
    html = Markup('<code style="background: none; padding: 0;">{}</code>').format(breakable(text))
    return Cell(text, html=html, head=head)


def judged(word: str, note: str = "", *, meaning: str = "") -> Cell:
    """A cell with a word that says how a thing is to be taken; `meaning` is that word where the text is another."""
    return Cell(word, note, chip(word, meaning or word))


def chip(text: str, meaning: str) -> Markup:
    """A word on a tinted ground."""
    if not text:
        return Markup("")
    ground, ink = _GROUNDS[tone(meaning)]
    style = f"background-color: {ground}; color: {ink}; padding: 0 6px; border-radius: 3px; white-space: nowrap;"
    return Markup('<span style="{}">{}</span>').format(style, text)


def breakable(name: str) -> Markup:
    """`name` that a narrow column may break where its words end."""
    return Markup("<wbr>").join(re.split(r"(?<=[_/])|(?<=[a-z])(?=[A-Z])", name))


def small(text: str) -> Markup:
    """A remark on a line of its own."""
    return Markup('<div style="opacity: 0.8; font-size: 12px;">{}</div>').format(text) if text else Markup("")


def folded(summary: str, content: Markup) -> Markup:
    """Content that opens on a click."""
    return Markup(
        '<details style="margin: 0;"><summary style="cursor: pointer; font-size: 12px;">{}</summary>{}</details>'
    ).format(summary, content)


def table(columns: Sequence[str], rows: Sequence[Row], *, numeric: Sequence[str] = (), note: str = "") -> Shown:
    """A table with a line under it for a `note`; `numeric` names the columns that hold figures."""
    heads = Markup("").join(_heading(column, column in numeric) for column in columns)
    body = Markup("").join(_row(row, len(columns)) for row in rows)
    html = Markup(
        '<div style="overflow-x: auto;"><table style="border-collapse: collapse; margin: 0; font-size: 13px; '
        'line-height: 1.45;"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>{}'
    ).format(heads, body, small(note))
    return Shown(str(html), "\n".join([*_aligned(columns, rows), *([note] if note else [])]))


def _heading(column: str, numeric: bool) -> Markup:
    align = "text-align: right;" if numeric else "text-align: left;"
    return Markup('<th scope="col" style="{}">{}</th>').format(_HEAD + align, column)


def _row(row: Row, columns: int) -> Markup:
    if row.below is None:
        return _TR.format(Markup("").join(cell.markup(_CELL) for cell in row.cells))
    upper = _TR.format(Markup("").join(cell.markup(_UPPER) for cell in row.cells))
    return upper + _TR.format(Cell("", html=row.below, span=columns).markup(_LOWER))


def _aligned(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The table in columns parted by two spaces; remarks stand on lines of their own, below their row."""
    widths = [len(column) for column in columns]
    for row in rows:
        for place, cell in _placed(row):
            if cell.span == 1:
                widths[place] = max(widths[place], len(_line(cell.text)))
    right = {place for row in rows for place, cell in _placed(row) if cell.numeric}
    heads = Row(tuple(Cell(column, numeric=place in right) for place, column in enumerate(columns)))
    lines = [_padded(heads, widths), "  ".join("-" * width for width in widths)]
    for row in rows:
        lines.append(_padded(row, widths))
        lines += [f"    {_line(note)}" for note in (*(cell.note for cell in row.cells), *row.lines) if note]
    return lines


def _placed(row: Row) -> Iterator[tuple[int, Cell]]:
    place = 0
    for cell in row.cells:
        yield place, cell
        place += cell.span


def _padded(row: Row, widths: Sequence[int]) -> str:
    texts = []
    for place, cell in _placed(row):
        width = sum(widths[place : place + cell.span]) + 2 * (cell.span - 1)
        texts.append(_line(cell.text).rjust(width) if cell.numeric else _line(cell.text).ljust(width))
    return "  ".join(texts).rstrip()


def _line(text: str) -> str:
    return " ".join(text.split())
