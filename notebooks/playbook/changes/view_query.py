"""The query behind a summary, made independent of the session: days cut in one zone, the clock bound to the day.

    DATE_TRUNC('day', created_at)     DATE_TRUNC('day', created_at, 'UTC')
    created_at, without a zone        (created_at AT TIME ZONE 'UTC')
    NOW()                             the end of the present day in that zone

`date_trunc` of a moment follows the session's TimeZone unless a zone is given, and so does every moment that is made of
a timestamp without a zone. NOW() would give every group that depends on it other values at each refresh; the end of the
day gives the same ones all day long, and no duration below zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.tokens import Token, TokenType

from playbook.errors import PlanError
from playbook.plan import nodes
from playbook.plan.names import Names
from playbook.plan.parsing import Parsed, meant, parse_select, span
from playbook.target.catalog import Table
from playbook.target.sql import literal

_NOW = frozenset({"now", "transaction_timestamp"})
_SESSION_CLOCKS = frozenset(
    {"localtimestamp", "localtime", "current_time", "statement_timestamp", "clock_timestamp", "timeofday"}
)
_WITHOUT_ZONE = "timestamp without time zone"


@dataclass(frozen=True)
class ViewQuery:
    """The query with the target's names, its columns under the plan's; `clock` is its present moment, empty if it asks
    for none. `tables` are the relations it reads, in the order of the text."""

    sql: str
    tables: tuple[Table, ...]
    clock: str


def view_query(sql: str, names: Names, *, zone: str, stored_zone: str) -> ViewQuery:
    """The plan's query as a summary is made of it. Timestamps without a zone are read as moments in `stored_zone`.

    Raises:
        PlanError: it is not one SELECT, or asks for a clock that cannot be bound.
        NotFound, Ambiguous: a name cannot be placed on the target.
    """
    parsed = parse_select(sql)
    clock = end_of_day(zone)
    edits = [*_zones(parsed, zone), *_clocks(parsed, clock, zone), *_moments(parsed, names, stored_zone)]
    text = parsed.sql[: parsed.tokens[-1].end + 1]
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    return ViewQuery(names.rewrite(text, keep_names=True), _tables(parsed, names), clock if clock in text else "")


def relation_names(sql: str) -> tuple[str, ...]:
    """What the plan calls the relations that a query of it reads."""
    return tuple(dict.fromkeys(relation for relation, _ in _relations(parse_select(sql))))


def end_of_day(zone: str) -> str:
    """When the present day ends in `zone`: the same for a whole day, in a session of any zone."""
    at_zone = f"AT TIME ZONE {literal(zone)}"
    return f"(date_trunc('day', now() {at_zone}) + interval '1 day') {at_zone}"


def _zones(parsed: Parsed, zone: str) -> Iterator[tuple[int, int, str]]:
    """The zone as third argument of every date_trunc that has two."""
    tokens = parsed.tokens
    for place, token in enumerate(tokens[:-1]):
        if token.text.lower() == "date_trunc" and tokens[place + 1].token_type is TokenType.L_PAREN:
            commas, end = _arguments(tokens, place + 1)
            if commas == 1:
                yield end.start, end.start, f", {literal(zone)}"


def _arguments(tokens: Sequence[Token], start: int) -> tuple[int, Token]:
    """How many commas stand between the arguments of the call that opens at `start`, and where it closes."""
    depth = commas = 0
    for token in tokens[start:]:
        depth += (token.token_type in {TokenType.L_PAREN, TokenType.L_BRACKET}) - (
            token.token_type in {TokenType.R_PAREN, TokenType.R_BRACKET}
        )
        if depth == 0:
            return commas, token
        commas += depth == 1 and token.token_type is TokenType.COMMA
    raise PlanError("a parenthesis is not closed")


def _clocks(parsed: Parsed, clock: str, zone: str) -> Iterator[tuple[int, int, str]]:
    tokens = parsed.tokens
    for place, token in enumerate(tokens):
        word = token.text.lower()
        if token.token_type in {TokenType.STRING, TokenType.IDENTIFIER}:
            continue
        called = tokens[place + 1 : place + 2] and tokens[place + 1].token_type is TokenType.L_PAREN
        if word in _NOW and called:
            yield token.start, _arguments(tokens, place + 1)[1].end + 1, clock
        elif word == "current_timestamp":
            yield token.start, (_arguments(tokens, place + 1)[1] if called else token).end + 1, clock
        elif word == "current_date":
            yield token.start, token.end + 1, f"CAST({clock} AT TIME ZONE {literal(zone)} - interval '1 day' AS date)"
        elif word in _SESSION_CLOCKS and (called or word in {"localtimestamp", "localtime", "current_time"}):
            raise PlanError(
                f"{parsed.place(token.start)}: {word} cannot be bound to a day; write NOW() or CURRENT_DATE"
            )


def _moments(parsed: Parsed, names: Names, stored_zone: str) -> Iterator[tuple[int, int, str]]:
    """Columns without a zone, with the zone that they are stored in."""
    relations = list(_relations(parsed))
    for column in parsed.tree.find_all(exp.Column):
        if not isinstance(column.this, exp.Identifier):
            continue
        name, qualifier = meant(column.this), column.args.get("table")
        types = set()
        for relation, alias in relations:
            if qualifier is not None and meant(qualifier) != alias:
                continue
            if (found := names.find_column(relation, names.relation(relation), name)) is not None:
                types.add(found.type)
        if not any(type_.startswith("timestamp") and type_.endswith("without time zone") for type_ in types):
            continue
        if len(types) > 1:
            raise PlanError(f"{parsed.place(span(column.this)[0])}: qualify {name}: two relations have such a column")
        start = span(qualifier if qualifier is not None else column.this)[0]
        end = span(column.this)[1]
        named = f" AS {parsed.sql[slice(*span(column.this))]}" if _is_item(column) else ""
        yield start, end, f"({parsed.sql[start:end]} AT TIME ZONE {literal(stored_zone)}){named}"


def _is_item(column: exp.Column) -> bool:
    return isinstance(column.parent, exp.Select) and column.arg_key == "expressions"


def _relations(parsed: Parsed) -> Iterator[tuple[str, str]]:
    """The plan's names of the relations that are read, each with the alias it goes by."""
    inside = {meant(cte.args["alias"].this) for cte in parsed.tree.find_all(exp.CTE)}
    for table in parsed.tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier) or (meant(table.this) in inside and not table.args.get("db")):
            continue
        alias = nodes.alias(table) or table.this
        parts = [table.args.get("db"), table.this]
        yield ".".join(parsed.sql[slice(*span(part))].strip('"') for part in parts if part is not None), meant(alias)


def _tables(parsed: Parsed, names: Names) -> tuple[Table, ...]:
    found = {table.qualified: table for table in (names.relation(relation) for relation, _ in _relations(parsed))}
    if not found:
        raise PlanError("the query reads no table")
    return tuple(found.values())
