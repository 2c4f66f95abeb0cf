"""What statements have in common that differ in values alone, and in which of their places those values stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

Role = Literal["key", "list", "range", "page"]

_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<string>[eExXbBuU]?&?'(?:[^'\\]|''|\\.)*'|\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
    | (?P<placeholder>%\((?P<name>[^)]+)\)s|%s|\$\d+)
    | (?P<number>(?<![\w.])\d+(?:\.\d*)?(?:[eE][+-]?\d+)?\b)
    | (?P<word>"(?:[^"]|"")*"|[A-Za-z_][\w$]*)
    | (?P<operator><=|>=|<>|!=|::|[^\s])
    """,
    re.VERBOSE | re.DOTALL,
)
_ROLES: dict[str, Role] = {
    **dict.fromkeys(("<", ">", "<=", ">=", "between"), "range"),
    **dict.fromkeys(("limit", "offset", "fetch"), "page"),
    **dict.fromkeys(("in", "any"), "list"),
    **dict.fromkeys(("=", "<>", "!=", "like", "ilike", "~", "@", "where", "on", "and", "or", "select", "from"), "key"),
    **dict.fromkeys(("when", "then", "else", "group", "order", "having", "join", "values", "as"), "key"),
}
"""What a word or operator makes of the values behind it; the others change nothing."""


@dataclass(frozen=True)
class Value:
    """A value of a statement, or a list of them, and the place it stands in.

    `key`: compared with = or handed to something; `list`: behind IN or ANY, one or several that are asked for at once;
    `range`: a bound; `page`: behind LIMIT or OFFSET.
    """

    role: Role
    parts: tuple[str, ...]


@lru_cache(maxsize=2048)
def fingerprint(sql: str) -> str:
    """`sql` in one line with every value as `?`, a list of values as one, comments and case of keywords aside."""
    words = []
    for kind, text in _tokens(sql):
        if kind == "value":
            # A list of values, however long, is one.
            if words[-2:] == ["?", ","]:
                words.pop()
            else:
                words.append("?")
        else:
            words.append(text if text.startswith('"') else text.lower())
    return re.sub(r" ?(::|\.|\() ?| (,|\))", lambda match: match[1] or match[2], " ".join(words))


def reads_rows(sql: str) -> bool:
    """Whether it looks rows up: a SELECT or WITH that has a FROM, and does not take its rows off a queue."""
    words = [text.lower() for kind, text in _tokens(sql) if kind == "word"]
    return bool(words) and words[0] in {"select", "with"} and "from" in words and words[-2:] != ["skip", "locked"]


def values(sql: str, parameters: Any) -> list[Value]:
    """The values of a statement in the order they stand there: its parameters, and literals."""
    given = iter(parameters if isinstance(parameters, list | tuple) else ())
    named = parameters if isinstance(parameters, Mapping) else {}
    found: list[Value] = []
    outer: list[Role] = []
    role: Role = "key"
    before, between = "", False
    for kind, text in _tokens(sql):
        word = text.lower()
        if kind == "value":
            value = next(given, None) if text == "%s" else named.get(text[2:-2], text) if text[0] == "%" else text
            parts = tuple(map(str, value)) if isinstance(value, list | tuple | set) else (str(value),)
            if role == "list" and before == "," and found:
                parts = found.pop().parts + parts
            found.append(Value(role, parts))
        elif word == "(":
            outer.append(role)
        elif word == ")":
            role = outer.pop() if outer else "key"
        elif word == "and" and between:
            between = False
        else:
            role = _ROLES.get(word, role)
            between = between or word == "between"
        before = word
    return found


class Statements:
    """Statements that differ in their values alone: how many, and the values of the first of them."""

    KEPT = 8
    """Enough to see which values move."""

    def __init__(self) -> None:
        self.count = 0
        self._sent: list[tuple[str, Any]] = []

    def add(self, sql: str, parameters: Any) -> None:
        """One more."""
        self.count += 1
        if len(self._sent) < self.KEPT:
            self._sent.append((sql, parameters))

    def ask_row_by_row(self) -> bool:
        """Whether each asks for one row's sake.

        They do not when they ask for many at once (`IN` with several values), or walk through pages (`LIMIT`, and
        nothing but a bound or `OFFSET` moves on).
        """
        return _row_by_row([values(sql, parameters) for sql, parameters in self._sent])


def _row_by_row(sent: Sequence[list[Value]]) -> bool:
    moving = [places for places in zip(*sent, strict=False) if len({place.parts for place in places}) > 1]
    roles = {places[0].role for places in moving}
    if not moving or "key" in roles:
        return True
    if "list" in roles:
        return all(len(place.parts) == 1 for places in moving if places[0].role == "list" for place in places)
    return not (roles <= {"range", "page"} and any(value.role == "page" for value in sent[0]))


def _tokens(sql: str) -> Iterator[tuple[str, str]]:
    """Kind (`value`, `word` or `operator`) and text."""
    for match in _TOKEN.finditer(sql):
        if match["string"] or match["placeholder"] or match["number"]:
            yield "value", match[0]
        elif not match["skip"]:
            yield ("word" if match["word"] else "operator"), match[0]
