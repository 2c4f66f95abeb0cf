"""The edits of one statement: spans of its text and what replaces them; all else stays byte for byte."""

from __future__ import annotations

from bisect import bisect_left

from sqlglot import exp
from sqlglot.tokens import TokenType

from playbook.plan.parsing import Parsed, meant, span
from playbook.target.sql import quote

_ITEM_ENDS = frozenset(
    {
        TokenType.COMMA, TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY, TokenType.HAVING, TokenType.WINDOW,
        TokenType.ORDER_BY, TokenType.LIMIT, TokenType.OFFSET, TokenType.FETCH, TokenType.UNION, TokenType.EXCEPT,
        TokenType.INTERSECT,
    }
)  # fmt: skip
_OPENING = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET})
_CLOSING = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET})


class Edits:
    """Edits noted while a tree is read, made in one go at the end."""

    def __init__(self, parsed: Parsed) -> None:
        self._parsed = parsed
        self._replacements: dict[tuple[int, int], str] = {}
        self._starts = [token.start for token in parsed.tokens]

    def apply(self) -> str:
        """The text with every edit made."""
        text = self._parsed.sql
        for (start, end), replacement in sorted(self._replacements.items(), reverse=True):
            text = text[:start] + replacement + text[end:]
        return text

    def rename(self, identifier: exp.Expression, name: str, prefix: str = "") -> None:
        """Replaces an identifier, unless it means `name` already; puts `prefix` before it."""
        start, end = span(identifier)
        if meant(identifier) != name:
            self.replace(start, end, prefix + quote(name))
        elif prefix:
            self.replace(start, start, prefix)

    def replace(self, start: int, end: int, text: str) -> None:
        """Replaces a span."""
        self._replacements[start, end] = text

    def keep_name(self, column: exp.Column) -> None:
        """Adds `AS` and the plan's name to the select-list item that is this column, perhaps cast or subscripted."""
        end = self._item_end(span(column.this)[0])
        self.replace(end, end, f" AS {self.text(column.this)}")

    def text(self, identifier: exp.Expression) -> str:
        """An identifier as it is written."""
        start, end = span(identifier)
        return self._parsed.sql[start:end]

    def place(self, identifier: exp.Expression) -> str:
        """Where an identifier stands, for messages."""
        return self._parsed.place(span(identifier)[0])

    def _item_end(self, at: int) -> int:
        """Where the select-list item that holds the token at `at` ends."""
        tokens = self._parsed.tokens
        index = bisect_left(self._starts, at)
        depth = lowest = 0
        for token in reversed(tokens[:index]):
            depth += (token.token_type in _CLOSING) - (token.token_type in _OPENING)
            lowest = min(lowest, depth)
            if token.token_type is TokenType.SELECT and depth == lowest:
                break
        depth, end = 0, at
        for token in tokens[index:]:
            depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
            if depth < lowest or (depth == lowest and token.token_type in _ITEM_ENDS):
                break
            end = token.end + 1
        return end
