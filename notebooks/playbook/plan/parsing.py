"""Reading SQL without changing it: the parse tree tells where things stand, and the text itself is never regenerated.

sqlglot's own rendering is not the same SQL (`date_trunc('day'` becomes `'DAY'`), so a tree is only ever used to locate.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokens import Token, TokenType

from playbook.errors import PlanError

MAX_LENGTH = 100_000
"""Characters of a statement; beyond that it is no query that a person wrote, and parsing it would take seconds."""

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
_CHANGING = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Into, exp.Command, exp.DDL, exp.Copy)


@dataclass(frozen=True)
class Parsed:
    """One SELECT: its text, tree and tokens, whose positions count characters of the text.

    The first `hidden` characters were put before what the plan has; places in messages do not count them.
    """

    sql: str
    tree: exp.Query
    tokens: tuple[Token, ...]
    hidden: int = 0

    def place(self, at: int) -> str:
        """Where a character stands, for messages: `line 2, column 7`."""
        return place(self.sql[self.hidden :], at - self.hidden)


def parse_select(sql: str) -> Parsed:
    """Parses a text that holds exactly one SELECT (`WITH … SELECT` included; one `;` at the end is allowed).

    Raises:
        PlanError: it is empty, too long, not parseable, several statements, or anything but a SELECT that only reads.
    """
    if len(sql) > MAX_LENGTH:
        raise PlanError(f"the statement has {len(sql):,} characters; {MAX_LENGTH:,} are the limit")
    tokens = tokenize(sql)
    while tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens = tokens[:-1]
    if not tokens:
        raise PlanError("there is no statement; write one SELECT")
    if second := next((token for token in tokens if token.token_type is TokenType.SEMICOLON), None):
        raise PlanError(f"{place(sql, second.start)}: several statements; write one SELECT")
    if tokens[0].token_type not in {TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN}:
        raise PlanError(f"{place(sql, tokens[0].start)}: a SELECT is expected, not {tokens[0].text[:40].upper()}")
    return Parsed(sql, _only_reading(_parse(sql[: tokens[-1].end + 1])), tokens)


def tokenize(sql: str) -> tuple[Token, ...]:
    """The tokens of a text, without its comments.

    Raises:
        PlanError: a string, comment or quoted name does not end.
    """
    try:
        return tuple(sqlglot.tokenize(sql, dialect="postgres"))
    except TokenError as error:
        raise PlanError(f"a string, comment or quoted name does not end: {str(error).splitlines()[0]}") from None


def place(sql: str, at: int) -> str:
    """Where a character stands, for messages: `line 2, column 7`, counted from 1."""
    line_start = sql.rfind("\n", 0, at) + 1
    return f"line {sql.count(chr(10), 0, at) + 1}, column {at - line_start + 1}"


def span(identifier: exp.Expression) -> tuple[int, int]:
    """Where an identifier stands in the text, its quotes included: start, and the end after it.

    Raises:
        PlanError: the parser did not keep the place.
    """
    if not isinstance(identifier, exp.Identifier) or "start" not in identifier.meta:
        raise PlanError(f"cannot locate {identifier.name or type(identifier).__name__} in the statement")
    return identifier.meta["start"], identifier.meta["end"] + 1


def meant(identifier: exp.Expression) -> str:
    """The name that an identifier means: PostgreSQL lowers it unless it is quoted."""
    return identifier.name if identifier.args.get("quoted") else lowered(identifier.name)


def lowered(name: str) -> str:
    """As PostgreSQL lowers names that are not quoted: ASCII letters only."""
    return name.translate(_LOWER)


def _parse(sql: str) -> exp.Expression:
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="postgres") if statement is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        where = f"line {first.get('line')}, column {first.get('col')}: " if first.get("line") else ""
        raise PlanError(f"{where}cannot be parsed near {first.get('highlight') or 'its end'!r}") from None
    except RecursionError:
        raise PlanError("the statement is nested too deeply to be parsed") from None
    if len(statements) != 1:
        raise PlanError("several statements; write one SELECT")
    return statements[0]


def _only_reading(tree: exp.Expression) -> exp.Query:
    if not isinstance(tree, (exp.Select, exp.SetOperation, exp.Subquery)):
        raise PlanError(f"a SELECT is expected, not {type(tree).__name__.upper()}")
    try:
        changing = next(iter(tree.find_all(*_CHANGING)), None)
        locking = next(iter(tree.find_all(exp.Lock)), None)
    except RecursionError:
        raise PlanError("the statement is nested too deeply to be parsed") from None
    if changing is not None:
        raise PlanError(f"a SELECT that only reads is expected; it holds {type(changing).__name__.upper()}")
    if locking is not None:
        raise PlanError("a SELECT that only reads is expected; it locks rows (FOR UPDATE or FOR SHARE)")
    return tree
