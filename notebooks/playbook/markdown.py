"""A comparison of two runs in Markdown, for a pull request or the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from playbook import figures
from playbook.regressions import BUFFERS, SLOWER, Compared, Difference, count
from playbook.results import Results, cut

MOST_ROWS = 40
"""Rows of one table; a pull request takes 65,536 characters in one comment."""
_LONGEST = 300
_MEANT = re.compile(r"([\\`*_{}\[\]()#+!|~@:$])")


def document(compared: Compared) -> str:
    """The verdict first, then what it rests on; what got better or is as it was, folded."""
    lines = [f"## {headline(compared)}", "", _runs(compared), ""]
    lines += [f"> {text(note)}" for note in compared.notes] + ([""] if compared.notes else [])
    lines += _table("Regressions", compared.of("regression"))
    lines += _table("Targets missed", [each for each in compared.missed if each.word != "regression"])
    lines += _table("Changed", compared.of("changed"), folded=True)
    lines += _table("Better", compared.of("better"), folded=True)
    lines += _table("Not compared", compared.of("not compared"), folded=True)
    lines += [f"Compared: {count(compared.differences) or 'nothing that both runs speak of'}.", "", _RULES, ""]
    return "\n".join(lines)


def headline(compared: Compared) -> str:
    """The verdict in a few words."""
    regressed, missed = len(compared.of("regression")), len(compared.missed)
    said = [f"{regressed} regression{'s' if regressed != 1 else ''}"] if regressed else []
    said += [f"{missed} target{'s' if missed != 1 else ''} missed"] if missed else []
    return f"PostgreSQL playbook: {', '.join(said) or 'no regression'}"


_RULES = (
    f"<sub>A time counts by its rounds, beside the controls of both runs: slower by the statistics (95 % interval, "
    f"p &lt; 0.002) and {SLOWER:g}{figures.TIMES} or more. Warm median buffers count from {BUFFERS:g}{figures.TIMES}. "
    "Plans, statements, statuses and rows are compared exactly.</sub>"
)


def _runs(compared: Compared) -> str:
    return f"Old: {_run(compared.old)}. New: {_run(compared.new)}."


def _run(results: Results) -> str:
    when, where = figures.moment(results.started_at), str(results.target)
    return f"{code(results.run_id or 'a run')} of {text(when)} on {text(where)}"


def _table(title: str, rows: Sequence[Difference], *, folded: bool = False) -> list[str]:
    if not rows:
        return []
    cells = [(each.topic, code(each.name), text(each.old), text(each.new), text(each.reason)) for each in rows]
    table = ["| | what | was | is | why |", "| --- | --- | --- | --- | --- |"]
    table += [f"| {' | '.join(row)} |" for row in cells[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        table += ["", f"and {len(rows) - MOST_ROWS} more."]
    if folded:
        return [f"<details><summary>{title} ({len(rows)})</summary>", "", *table, "", "</details>", ""]
    return [f"### {title}", "", *table, ""]


def text(words: str) -> str:
    """Words that stand as they are: neither Markdown nor HTML, on one line."""
    line = " ".join(cut(words, _LONGEST).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MEANT.sub(r"\\\1", line)


def code(words: str) -> str:
    """Words as code, whatever they hold; a bar would end the cell of a table."""
    line = " ".join(cut(words, _LONGEST).split()) or " "
    fence = "`" * (1 + max(map(len, _ticks(line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _ticks(line: str) -> Iterable[str]:
    return re.findall("`+", line)
