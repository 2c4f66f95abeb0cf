"""Statements without their values: every literal masked, comments left out."""

from __future__ import annotations

from playbook.errors import NotAnalysed
from playbook.plan.lexing import Lexeme, lex
from playbook.target.sql import quote

_UNREADABLE = "(a statement that cannot be read with certainty, so nothing of it is shown)"
_TIGHT_AFTER = frozenset("([.:")
_TIGHT_BEFORE = frozenset(")],;.:[")


def masked(sql: str) -> str:
    """The statement in one line, each string and number as `?` and without comments.

    pg_stat_statements masks only what it normalises: before PostgreSQL 16 no utility statement (`ALTER ROLE … PASSWORD`
    stands there as it was sent), and pg_stat_activity masks nothing. A text that is cut off within a string, or could
    be read in two ways, is not shown at all.
    """
    try:
        lexemes = lex(sql)
    except NotAnalysed:
        return _UNREADABLE
    text, before = "", None
    for lexeme in lexemes:
        text += _gap(before, lexeme) + _shown(lexeme)
        before = lexeme
    return text


def _gap(before: Lexeme | None, lexeme: Lexeme) -> str:
    if before is None or lexeme.text[:1] in _TIGHT_BEFORE or before.text in _TIGHT_AFTER:
        return ""
    called = lexeme.text == "(" and before.kind in {"word", "quoted"} and before.text not in _COMMANDS
    return "" if called else " "


def _shown(lexeme: Lexeme) -> str:
    match lexeme.kind:
        case "string" | "number":
            return "?"
        case "quoted":
            return quote(lexeme.text) if lexeme.text else '""'
        case "word":
            return lexeme.text.upper() if lexeme.text in _COMMANDS else lexeme.text
    return lexeme.text


_COMMANDS = frozenset(
    """
    select insert into update delete merge from where join left right inner outer full cross on using group by having
    order limit offset with values set returning and or not in is null as distinct union all except intersect case when
    then else end between like ilike exists call begin commit rollback analyze vacuum explain create alter drop table
    index view copy to asc desc for fetch do
    """.split()
)
