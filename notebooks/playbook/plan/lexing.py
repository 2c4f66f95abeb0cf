"""PostgreSQL's lexical rules, strictly: what may be executed is decided on its own reading of a text, and what could be
read in two ways is refused. (Where nothing is at stake, sqlglot's tokens do.)"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from playbook.errors import NotAnalysed
from playbook.plan.parsing import lowered, place

Kind = Literal["word", "quoted", "string", "number", "parameter", "operator", "mark", "unicode"]

_LEXEME = re.compile(
    r"""
      (?P<space>      [ \t\n\r\f\v]+ | --[^\n\r]* )
    | (?P<comment>    /\* )
    | (?P<dollar>     \$ (?P<tag> (?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)? ) \$ )
    | (?P<unicode>    [uU] & ['"] )
    | (?P<escape>     [eE] ' (?: [^'\\] | \\. | '' )*+ ' )
    | (?P<string>     [bBxXnN]? ' (?: [^'] | '' )*+ ' )
    | (?P<quoted>     " (?: [^"] | "" )++ " )
    | (?P<parameter>  \$ [0-9]+ )
    | (?P<number>     (?: [0-9]+ (?: \.(?!\.) [0-9]* )? | \.[0-9]+ ) (?: [eE][+-]?[0-9]+ )? )
    | (?P<word>       [A-Za-z_\x80-\U0010ffff] [A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<operator>   [-+*/<>=~!@\#%^&|`?]+ )
    | (?P<mark>       [(),.;:\[\]] )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_COMMENT_START = re.compile(r"--|/\*")


@dataclass(frozen=True)
class Lexeme:
    """A word, name, string or sign. `text` of a word is lowered and of a quoted name bare, as PostgreSQL means them."""

    kind: Kind
    text: str
    start: int


def lex(sql: str, *, standard_strings: bool = True) -> list[Lexeme]:
    """The lexemes of a text; comments and space are left out.

    `standard_strings` is the server's `standard_conforming_strings`.

    Raises:
        NotAnalysed: something does not end, is no SQL, or could be read in two ways; the message says where.
    """
    found: list[Lexeme] = []
    for lexeme in _lexemes(sql):
        if lexeme.kind == "unicode":
            raise NotAnalysed(f"{place(sql, lexeme.start)}: Unicode escapes are not read; write the characters")
        if lexeme.kind == "word" and any(letter.isspace() for letter in lexeme.text):
            raise NotAnalysed(f"{place(sql, lexeme.start)}: a space that PostgreSQL takes for a letter")
        if lexeme.kind == "string" and found and found[-1].kind == "string":
            raise NotAnalysed(f"{place(sql, lexeme.start)}: a string in several parts; write it in one")
        if lexeme.kind == "string" and not standard_strings and "\\" in lexeme.text and lexeme.text[0] in "'bBxXnN":
            raise NotAnalysed(f"{place(sql, lexeme.start)}: a backslash in a string, which this server reads as escape")
        found.append(lexeme)
    return found


def _lexemes(sql: str) -> Iterator[Lexeme]:
    at = 0
    while at < len(sql):
        match = _LEXEME.match(sql, at)
        if match is None:
            raise NotAnalysed(f"{place(sql, at)}: {sql[at]!r} cannot be read; a string or quoted name may not end")
        start, kind, text, at = at, match.lastgroup, match[0], match.end()
        match kind:
            case "comment":
                at = _after_comment(sql, start)
            case "dollar":
                at = _after_dollar_quoted(sql, start, text)
                yield Lexeme("string", sql[start:at], start)
            case "escape" | "string":
                yield Lexeme("string", text, start)
            case "quoted":
                yield Lexeme("quoted", text[1:-1].replace('""', '"'), start)
            case "word":
                yield Lexeme("word", lowered(text), start)
            case "operator":
                # A comment ends an operator: `+--` is a plus and a comment.
                if comment := _COMMENT_START.search(text):
                    text, at = text[: comment.start()], start + comment.start()
                yield Lexeme("operator", text, start)
            case "number" | "parameter" | "mark" | "unicode":
                yield Lexeme(kind, text, start)


def _after_comment(sql: str, start: int) -> int:
    """The end of a comment; those within it are part of it."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise NotAnalysed(f"{place(sql, start)}: a comment does not end")


def _after_dollar_quoted(sql: str, start: int, tag: str) -> int:
    end = sql.find(tag, start + len(tag))
    if end < 0:
        raise NotAnalysed(f"{place(sql, start)}: a string in dollar quotes does not end")
    return end + len(tag)
