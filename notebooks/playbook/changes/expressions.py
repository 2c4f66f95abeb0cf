"""Are two SQL expressions over one table the same? Answered without asking the server, and yes only when certain.

One side is usually as a person wrote it, the other as PostgreSQL stored and deparsed it:

    status IN ('new', 'open')      ((status)::text = ANY ((ARRAY['new'::character varying, …])::text[]))
    value >= -1                    (value >= ('-1'::integer)::numeric)

What PostgreSQL adds on its own is seen through: parentheses, the types of constants, varchar columns read as text,
IN and BETWEEN spelled out, moments in UTC. All else has to be equal, and what the parser may read in another way than
PostgreSQL does (operators that it does not know the precedence of) makes two expressions not the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError

from playbook.target.catalog import Table


class _AsWritten(Postgres):
    """PostgreSQL with every function under the name it was called by: to an index `mod(a, b)` is not `a % b`."""

    class Parser(Postgres.Parser):
        FUNCTIONS = {}  # noqa: RUF012
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: parser for name, parser in Postgres.Parser.FUNCTION_PARSERS.items() if name in {"CAST", "EXTRACT"}
        }


def same_expression(one: str, other: str, table: Table | None = None) -> bool:
    """Whether both certainly mean the same on `table`; without the table, columns that the server casts differ."""
    if one.strip() == other.strip():
        return True
    first, second = parse(one), parse(other)
    return first is not None and second is not None and _Comparison(table).same(first, second)


def columns_of(expression: str) -> set[str] | None:
    """The names of the columns that an expression reads; None where that is not certain."""
    tree = parse(expression)
    return None if tree is None else {_name(column.this) for column in tree.find_all(exp.Column)}


def parse(expression: str) -> exp.Expression | None:
    """The expression's tree; None unless it is one expression, read as PostgreSQL reads it."""
    try:
        query = sqlglot.parse_one(f"SELECT ({expression}\n)", read=_AsWritten)
    except SqlglotError:
        return None
    if type(query) is not exp.Select or [key for key, value in query.args.items() if value] != ["expressions"]:
        return None
    tree, *more = query.expressions
    return tree if not more and isinstance(tree, exp.Paren) and _certain(tree) else None


# How tight an operator binds in PostgreSQL. A tree in which every operand binds tighter than its operator, or stands
# in parentheses, is the one that PostgreSQL builds.
_ATOM = 99
_LEFT_ASSOCIATIVE = {
    exp.Or: 1, exp.And: 2, exp.DPipe: 7, exp.Add: 8, exp.Sub: 8, exp.Mul: 9, exp.Div: 9, exp.Mod: 9,
}  # fmt: skip
_NOT_ASSOCIATIVE = {
    exp.EQ: 5, exp.NEQ: 5, exp.LT: 5, exp.LTE: 5, exp.GT: 5, exp.GTE: 5, exp.Like: 6, exp.ILike: 6,
}  # fmt: skip
_ONE_OPERAND = {exp.Not: 2, exp.Is: 5, exp.In: 6, exp.Between: 6, exp.Neg: 10, exp.Cast: 98}
_BINDING = {**_LEFT_ASSOCIATIVE, **_NOT_ASSOCIATIVE, exp.Not: 3, exp.Is: 4, exp.In: 6, exp.Between: 6, exp.Neg: 11}
_ATOMS = frozenset(
    {exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Cast, exp.Paren, exp.Anonymous, exp.Dot,
     exp.Any, exp.Array, exp.Extract, exp.Var}
)  # fmt: skip


def _binding(node: exp.Expression) -> int:
    return _ATOM if type(node) in _ATOMS else _BINDING.get(type(node), 0)


def _certain(node: exp.Expression) -> bool:
    kind = type(node)
    if kind in _LEFT_ASSOCIATIVE:
        well = _binding(node.this) >= _LEFT_ASSOCIATIVE[kind] < _binding(node.expression)
    elif kind in _NOT_ASSOCIATIVE:
        well = _binding(node.this) > _NOT_ASSOCIATIVE[kind] < _binding(node.expression)
    elif kind in _ONE_OPERAND:
        bounds = [node.args[key] for key in ("low", "high") if key in node.args]
        well = all(_binding(part) > _ONE_OPERAND[kind] for part in (node.this, *bounds))
    else:
        well = kind in _ATOMS
    return well and all(_certain(part) for part in _parts(node))


def _parts(node: exp.Expression) -> Iterable[exp.Expression]:
    """The parts of a node; a type is no part, since there is nothing to be read differently in it."""
    for key, value in node.args.items():
        if key != "to":
            yield from (
                each for each in (value if isinstance(value, list) else [value]) if isinstance(each, exp.Expression)
            )


class _Comparison:
    """Two trees side by side."""

    def __init__(self, table: Table | None) -> None:
        self._table = table

    def same(self, one: exp.Expression, other: exp.Expression) -> bool:
        one, other = _spelled_out(one), _spelled_out(other)
        casts = (isinstance(one, exp.Cast), isinstance(other, exp.Cast))
        if casts == (True, True) and one.args["to"] == other.args["to"]:
            return self.same(one.this, other.this) or _same_moment(one, other.this)
        if any(casts):
            return (casts[0] and self._added(one, other)) or (casts[1] and self._added(other, one))
        if type(one) is not type(other):
            return False
        if isinstance(one, exp.Column):
            return self._column(one) is not None and self._column(one) == self._column(other)
        if isinstance(one, exp.Identifier):
            return _name(one) == _name(other)
        return all(self._same_value(one.args.get(key), other.args.get(key)) for key in {*one.args, *other.args})

    def _same_value(self, one: Any, other: Any) -> bool:
        if isinstance(one, exp.Expression) and isinstance(other, exp.Expression):
            return self.same(one, other)
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self._same_value, one, other))
        if isinstance(one, str) and isinstance(other, str):
            return one == other
        return (one or None) == (other or None)

    def _added(self, cast: exp.Expression, other: exp.Expression) -> bool:
        """Whether `cast` is `other` with a cast that PostgreSQL adds: a constant's type, or varchar read as text."""
        inner = _spelled_out(cast.this)
        if isinstance(inner, exp.Column):
            return self._is_varchar(inner) and cast.args["to"] == exp.DataType.build("text") and self.same(inner, other)
        if not _constant(inner) or (isinstance(other, exp.Cast) and not isinstance(inner, exp.Cast)):
            return False
        return _same_number(cast, other) or _same_moment(cast, other) or self.same(inner, other)

    def _column(self, column: exp.Expression) -> str | None:
        """The column's bare name; None where it is qualified by something else than the table."""
        qualifier = column.args.get("table")
        if column.args.get("db") or (qualifier and (self._table is None or _name(qualifier) != self._table.name)):
            return None
        return _name(column.this)

    def _is_varchar(self, column: exp.Expression) -> bool:
        found = self._table.column(self._column(column) or "") if self._table else None
        return found is not None and found.type.startswith("character varying") and not found.type.endswith("[]")


def _name(identifier: Any) -> str:
    return identifier.name if identifier.args.get("quoted") else identifier.name.lower()


def _spelled_out(node: exp.Expression) -> exp.Expression:
    """Without parentheses; IN and BETWEEN as PostgreSQL stores them; a function's name folded as it folds it."""
    while isinstance(node, exp.Paren):
        node = node.this
    negated = isinstance(node, exp.Not)
    inner = node.this if negated else node
    if isinstance(inner, exp.Between):
        return _range(inner, negated)
    if isinstance(inner, exp.In) and inner.expressions:
        return _membership(inner, negated) or node
    if isinstance(node, exp.Anonymous):
        name = _name(node.this) if isinstance(node.this, exp.Identifier) else node.name.lower()
        return exp.Anonymous(this=name, expressions=node.expressions)
    return node


def _range(between: exp.Expression, negated: bool) -> exp.Expression:
    column, low, high = between.this, between.args["low"], between.args["high"]
    if negated:
        return exp.Or(this=exp.LT(this=column, expression=low), expression=exp.GT(this=column, expression=high))
    return exp.And(this=exp.GTE(this=column, expression=low), expression=exp.LTE(this=column, expression=high))


def _membership(listed: exp.Expression, negated: bool) -> exp.Expression | None:
    """= ANY (ARRAY[…]) or <> ALL (ARRAY[…]); None where a value is no constant, which makes a chain of ORs."""
    operator, values = exp.NEQ if negated else exp.EQ, listed.expressions
    if len(values) == 1:
        return operator(this=listed.this, expression=values[0])
    if not all(map(_constant, values)):
        return None
    array = exp.Array(expressions=values)
    over = exp.Anonymous(this="all", expressions=[array]) if negated else exp.Any(this=array)
    return operator(this=listed.this, expression=over)


def _constant(node: exp.Expression) -> bool:
    node = _spelled_out(node)
    if isinstance(node, exp.Cast | exp.Neg):
        return _constant(node.this)
    if isinstance(node, exp.Array):
        return all(map(_constant, node.expressions))
    return isinstance(node, exp.Literal | exp.Null | exp.Boolean)


def _same_number(cast: exp.Expression, other: exp.Expression) -> bool:
    """PostgreSQL stores -1 as '-1'::integer, -0.5 as '-0.5'::numeric."""
    inner = _spelled_out(cast.this)
    if not (isinstance(inner, exp.Literal) and inner.is_string and isinstance(other, exp.Neg)):
        return False
    number = _spelled_out(other.this)
    if not isinstance(number, exp.Literal) or number.is_string:
        return False
    kind = "numeric" if "." in number.name else "int"
    return cast.args["to"] == exp.DataType.build(kind, dialect="postgres") and inner.name == f"-{number.name}"


def _same_moment(cast: exp.Expression, other: exp.Expression) -> bool:
    """'2024-01-01' is stored as '2024-01-01 00:00:00+00'::timestamptz: the playbook's sessions are in UTC."""
    inner, other = _spelled_out(cast.this), _spelled_out(other)
    if not all(isinstance(literal, exp.Literal) and literal.is_string for literal in (inner, other)):
        return False
    zoned = cast.args["to"].this == exp.DataType.Type.TIMESTAMPTZ
    if not zoned and cast.args["to"].this != exp.DataType.Type.TIMESTAMP:
        return False
    try:
        moments = [datetime.fromisoformat(literal.name) for literal in (inner, other)]
    except ValueError:
        return False
    if not zoned:
        return not any(moment.tzinfo for moment in moments) and moments[0] == moments[1]
    first, second = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments)
    return first == second
