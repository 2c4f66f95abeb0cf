"""What the nodes and tokens of sqlglot mean in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

from sqlglot import exp
from sqlglot.tokens import Token, TokenType

from playbook.plan.parsing import meant


def alias(node: exp.Expression) -> exp.Expression | None:
    """The identifier of an alias."""
    given = node.args.get("alias")
    return given.this if isinstance(given, exp.TableAlias) else given


def alias_columns(node: exp.Expression) -> list[str]:
    """The column list of an alias; of `AS x(a int)`, too."""
    given = node.args.get("alias")
    columns = given.args.get("columns") or () if isinstance(given, exp.TableAlias) else ()
    return [meant(column.this if isinstance(column, exp.ColumnDef) else column) for column in columns]


def joins(node: exp.Expression) -> Sequence[exp.Join]:
    """The joins that follow an item of a FROM."""
    return node.args.get("joins") or ()


def is_join_tree(node: exp.Subquery) -> bool:
    """`(a JOIN b ON …)`, and not `(SELECT …)`."""
    inner = node.this
    if isinstance(inner, (exp.Subquery, exp.Values)):
        return bool(alias(inner) or joins(inner))
    return isinstance(inner, (exp.Table, exp.Lateral, exp.Unnest))


def is_bare(node: exp.Expression) -> TypeGuard[exp.Column]:
    """Whether it is a column without a qualifier."""
    return isinstance(node, exp.Column) and not node.args.get("table") and isinstance(node.this, exp.Identifier)


def stands_alone(column: exp.Expression, clause: exp.Expression) -> bool:
    """Whether GROUP BY may read the name as an output's: it is not part of an expression."""
    parent = column.parent
    while isinstance(parent, (exp.Tuple, exp.Paren, exp.Rollup, exp.Cube, exp.GroupingSets)):
        parent = parent.parent
    return parent is clause


def naming_column(item: exp.Expression) -> exp.Column | None:
    """The column that PostgreSQL names an item without alias after, through casts, subscripts and collations."""
    while isinstance(item, (exp.Cast, exp.Bracket, exp.Paren, exp.Collate)):
        item = item.this
    return item if isinstance(item, exp.Column) and isinstance(item.this, exp.Identifier) else None


def triples(tokens: Sequence[Token]) -> Iterator[tuple[Token | None, Token, Token | None]]:
    """Every token with the one before and the one after it."""
    for index, token in enumerate(tokens):
        yield tokens[index - 1] if index else None, token, tokens[index + 1] if index + 1 < len(tokens) else None


def may_be_a_name(before: Token | None, token: Token, after: Token | None) -> bool:
    """Neither a bind, nor a function's or argument's name, nor the field of EXTRACT."""
    if token.token_type not in {TokenType.VAR, TokenType.IDENTIFIER}:
        return False
    if before is not None and before.token_type is TokenType.COLON and before.end + 1 == token.start:
        return False
    if after is not None and after.token_type is TokenType.FROM:
        return before is None or before.token_type is not TokenType.L_PAREN
    return after is None or after.token_type not in {TokenType.L_PAREN, TokenType.FARROW, TokenType.COLON_EQ}
