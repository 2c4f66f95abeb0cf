"""The query of a summary taken apart: what it groups by, and what it counts, sums and averages of each row.

An incremental summary keeps, for each group, sums that can be added to and taken from: the rows, and for each sum or
average the values that are not NULL and their sum. What depends on the clock has to move in a straight line with it
(a duration that is still running): then two sums tell its value at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.tokens import Token, TokenType

from playbook.errors import PlanError
from playbook.plan.parsing import Parsed, meant, parse_select, span
from playbook.target.catalog import Table
from playbook.target.sql import quote

EPOCH = "CAST('2026-01-01 00:00:00+00' AS timestamptz)"
HOUR_LATER = "CAST('2026-01-01 01:00:00+00' AS timestamptz)"
"""The two moments for which a value that depends on the clock is summed."""

_KEPT = "an incremental summary keeps count, sum and avg of one table's rows, grouped"
_CLAUSES = (TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY)
_OPEN, _CLOSE = {TokenType.L_PAREN, TokenType.L_BRACKET}, {TokenType.R_PAREN, TokenType.R_BRACKET}


@dataclass(frozen=True)
class Key:
    """What is grouped by: its name among the summary's columns, its SQL, and whether it may be NULL."""

    name: str
    sql: str
    nullable: bool


@dataclass(frozen=True)
class Component:
    """A column that is summed: its type, and its SQL for one row."""

    name: str
    type: str
    sql: str


@dataclass(frozen=True)
class Measure:
    """A column of the summary: `sql` makes it of the components' sums, each of which stands there as `{name}`.

    `stored` are columns (name and SQL of the same form) from which `read` makes it with less work, where both are
    given: what a sum says by itself is then divided when it is written, and not at each read.
    """

    name: str
    sql: str
    stored: tuple[tuple[str, str], ...] = ()
    read: str = ""


@dataclass(frozen=True)
class Aggregates:
    """A summary's query, taken apart. `columns` are the names in the query's order; `alias` is what the one table goes
    by in its SQL, and `where` the condition its rows have to meet, empty where there is none. `by_clock` are the
    expressions that depend on the clock, as they stand. `reads` are the names of the table's columns in all these."""

    keys: tuple[Key, ...]
    components: tuple[Component, ...]
    measures: tuple[Measure, ...]
    columns: tuple[str, ...]
    alias: str
    where: str
    by_clock: tuple[str, ...]
    reads: tuple[str, ...]


def aggregates(sql: str, table: Table, clock: str) -> Aggregates:
    """Takes a query with the target's names apart.

    Raises:
        PlanError: it does more than count, sum and average one table's rows by group.
    """
    parsed = parse_select(sql)
    select = parsed.tree
    if not isinstance(select, exp.Select) or select.args.get("joins") or len(list(select.find_all(exp.Select))) > 1:
        raise PlanError(f"{_KEPT}: no joins, subqueries or set operations")
    if extra := [
        key for key in ("with_", "having", "order", "limit", "offset", "distinct", "windows") if select.args.get(key)
    ]:
        raise PlanError(f"{_KEPT}: no {extra[0].rstrip('_').upper()}")
    clauses = _clauses(parsed)
    grouped = [_text(parsed, tokens) for tokens in _items(clauses.get(TokenType.GROUP_BY, ()))]
    if not grouped:
        raise PlanError(f"{_KEPT}: there is no GROUP BY")
    taken = _Taking(parsed, table, clock, grouped)
    for node, tokens in zip(select.expressions, _items(clauses[TokenType.SELECT]), strict=True):
        taken.item(node, tokens)
    if missing := set(map(_plain, grouped)) - taken.found:
        raise PlanError(f"{_KEPT}: {next(iter(missing))} is grouped by and not shown")
    if twice := {key.name for key in taken.keys} & {component.name for component in taken.components}:
        raise PlanError(f"{_KEPT}: no key may be called {next(iter(twice))}, as the counts are")
    relation = select.args["from_"].this
    alias = relation.args["alias"].this if relation.args.get("alias") else relation.this
    where = _text(parsed, clauses[TokenType.WHERE]) if TokenType.WHERE in clauses else ""
    if clock and clock in where:
        raise PlanError(f"{_KEPT}: its WHERE asks for the clock")
    return Aggregates(
        tuple(taken.keys),
        tuple(taken.components),
        tuple(taken.measures),
        tuple(taken.columns),
        parsed.sql[slice(*span(alias))],
        where,
        tuple(taken.by_clock),
        _reads(select, table, meant(alias)),
    )


def _reads(select: exp.Select, table: Table, alias: str) -> tuple[str, ...]:
    columns = [column.this for column in select.find_all(exp.Column)]
    if any(isinstance(each, exp.Star) or meant(each) == alias for each in columns):
        raise PlanError(f"{_KEPT}: no row as a whole")
    named = set(map(meant, columns))
    return tuple(column.name for column in table.columns if column.name in named)


class _Taking:
    """The select list, item by item."""

    def __init__(self, parsed: Parsed, table: Table, clock: str, grouped: Sequence[str]) -> None:
        self._parsed, self._table, self._clock = parsed, table, clock
        self._grouped = {_plain(text) for text in grouped}
        self.found: set[str] = set()
        self._counts: dict[str, str] = {}
        self._sums: dict[str, tuple[str, str]] = {}
        self.keys: list[Key] = []
        self.components = [Component("n", "bigint", "1")]
        self.measures: list[Measure] = []
        self.columns: list[str] = []
        self.by_clock: list[str] = []

    def item(self, node: exp.Expression, tokens: Sequence[Token]) -> None:
        """A key or an aggregate."""
        inner = node.this if isinstance(node, exp.Alias) else node
        name = meant(node.args["alias"]) if isinstance(node, exp.Alias) else ""
        if isinstance(node, exp.Alias):
            at = span(node.args["alias"])[0]
            tokens = [token for token in tokens if token.start < at]
            tokens = tokens[:-1] if tokens[-1].text.lower() == "as" else tokens
        text = _text(self._parsed, tokens)
        name = name or (meant(inner.this) if isinstance(inner, exp.Column) else type(inner).__name__.lower())
        self.columns.append(name)
        if (plain := _plain(text)) in self._grouped or name in self._grouped:
            self.found.add(plain if plain in self._grouped else name)
            if self._clock and self._clock in text:
                raise PlanError(f"{_KEPT}: {name} is grouped by the clock")
            self.keys.append(Key(name, text, self._nullable(inner)))
            return
        called = tokens[0].text.lower()
        whole = len(tokens) > 2 and tokens[1].token_type in _OPEN and _closes(tokens, 1) == len(tokens) - 1
        if called not in {"count", "sum", "avg"} or not whole or tokens[2].token_type is TokenType.DISTINCT:
            raise PlanError(f"{_KEPT}: {name} is none of these")
        self._aggregate(name, called, _text(self._parsed, tokens[2:-1]))

    def _aggregate(self, name: str, called: str, argument: str) -> None:
        if called == "count" and argument == "*":
            self.measures.append(Measure(name, "{n}"))
            return
        number = len(self.measures)
        values = f"{{{self._present(number, argument)}}}"
        if called == "count":
            self.measures.append(Measure(name, values))
            return
        summed, per_hour = self._sum(number, argument)
        hours = f"(SELECT CAST(extract(epoch FROM {self._clock} - {EPOCH}) AS numeric) / 3600)"
        whole = f"({{{summed}}} + {{{per_hour}}} * {hours})" if per_hour else f"{{{summed}}}"
        if called == "sum":
            self.measures.append(Measure(name, f"CASE WHEN {values} > 0 THEN {whole} END"))
            return
        parts = [f"mean_{number}", *([f"mean_per_hour_{number}"] if per_hour else [])]
        stored = [
            (part, f"{{{each}}} / nullif({values}, 0)") for part, each in zip(parts, (summed, per_hour), strict=False)
        ]
        read = f"{{{parts[0]}}}" + (f" + {{{parts[1]}}} * {hours}" if per_hour else "")
        self.measures.append(Measure(name, f"{whole} / nullif({values}, 0)", tuple(stored), read))

    def _present(self, number: int, argument: str) -> str:
        """The component that counts the values which are not NULL; one for all that is made of the same argument."""
        if (plain := _plain(argument)) not in self._counts:
            present = Component(f"n_{number}", "bigint", f"CASE WHEN ({argument}) IS NOT NULL THEN 1 ELSE 0 END")
            self.components.append(self._at(present, EPOCH))
            self._counts[plain] = present.name
        return self._counts[plain]

    def _sum(self, number: int, argument: str) -> tuple[str, str]:
        """The components of a sum: its name, and that of what an hour adds, empty where it asks for no clock."""
        if (plain := _plain(argument)) not in self._sums:
            self._sums[plain] = self._summed(number, argument)
        return self._sums[plain]

    def _summed(self, number: int, argument: str) -> tuple[str, str]:
        value = f"coalesce(CAST({argument} AS numeric), 0)"
        kept = Component(f"sum_{number}", "numeric", value)
        if not self._clock or self._clock not in argument:
            self.components.append(kept)
            return kept.name, ""
        self.by_clock.append(argument)
        first, later = (self._at(kept, moment).sql for moment in (EPOCH, HOUR_LATER))
        slope = Component(f"per_hour_{number}", "numeric", f"{later} - {first}")
        self.components += [Component(kept.name, "numeric", first), slope]
        return kept.name, slope.name

    def _at(self, component: Component, moment: str) -> Component:
        sql = component.sql.replace(self._clock, moment) if self._clock else component.sql
        return Component(component.name, component.type, sql)

    def _nullable(self, node: exp.Expression) -> bool:
        """A column that takes no NULL, or its day, is none; of all else it is not known."""
        if isinstance(node, exp.TimestampTrunc | exp.DateTrunc):
            node = node.this
        while isinstance(node, exp.Paren | exp.AtTimeZone):
            node = node.this
        column = self._table.column(meant(node.this)) if isinstance(node, exp.Column) else None
        return column is None or not column.not_null


def _clauses(parsed: Parsed) -> dict[TokenType, list[Token]]:
    """The tokens of each clause of the outermost SELECT, without its keyword."""
    found: dict[TokenType, list[Token]] = {TokenType.SELECT: []}
    current, depth = TokenType.SELECT, 0
    for token in parsed.tokens[1:]:
        if depth == 0 and token.token_type in _CLAUSES:
            current = token.token_type
            found[current] = []
            continue
        depth += (token.token_type in _OPEN) - (token.token_type in _CLOSE)
        found[current].append(token)
    return found


def _items(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    item: list[Token] = []
    depth = 0
    for token in tokens:
        depth += (token.token_type in _OPEN) - (token.token_type in _CLOSE)
        if depth == 0 and token.token_type is TokenType.COMMA:
            yield item
            item = []
        else:
            item.append(token)
    if item:
        yield item


def _closes(tokens: Sequence[Token], start: int) -> int:
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place].token_type in _OPEN) - (tokens[place].token_type in _CLOSE)
        if depth == 0:
            return place
    return -1


def _text(parsed: Parsed, tokens: Sequence[Token]) -> str:
    return parsed.sql[tokens[0].start : tokens[-1].end + 1]


def _plain(text: str) -> str:
    """An expression, to be compared: without its spaces, and its words in one case."""
    return "".join(text.split()).lower()


def names(columns: Sequence[Key | Component | Measure], qualifier: str = "") -> str:
    """Their quoted names, in a list."""
    return ", ".join(f"{qualifier}{quote(column.name)}" for column in columns)
