"""What a query's text says of the order of its rows: its ORDER BY keys, the cut of a LIMIT, what leaves rows open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlglot import exp
from sqlglot.tokens import Token, TokenType

from playbook.evidence.reading import one_select
from playbook.plan.parsing import Parsed, meant, parse_select
from playbook.plan.workload import Bound

_CLAUSES = frozenset(
    {
        TokenType.FROM,
        TokenType.WHERE,
        TokenType.GROUP_BY,
        TokenType.HAVING,
        TokenType.WINDOW,
        TokenType.ORDER_BY,
        TokenType.LIMIT,
        TokenType.OFFSET,
        TokenType.FETCH,
        TokenType.UNION,
        TokenType.INTERSECT,
        TokenType.EXCEPT,
    }
)
_AFTER_ORDER = frozenset({TokenType.LIMIT, TokenType.OFFSET, TokenType.FETCH, TokenType.FOR})
_DIRECTIONS = frozenset({"asc", "desc", "using", "nulls"})
_OPEN, _CLOSE = {TokenType.L_PAREN, TokenType.L_BRACKET}, {TokenType.R_PAREN, TokenType.R_BRACKET}
# Their result depends on the order in which rows reach them.
_COLLECTING = frozenset(
    """
    array_agg string_agg json_agg jsonb_agg json_object_agg jsonb_object_agg xmlagg json_arrayagg json_objectagg
    """.split()
)

Depths = tuple[tuple[Token, int], ...]


@dataclass(frozen=True, slots=True)
class Key:
    """Where an ORDER BY key stands: among the shown columns (from their end if negative), or among the `added`."""

    place: int
    added: bool = False


@dataclass(frozen=True, slots=True)
class Ordering:
    """How a query orders and cuts its rows.

    `sql` is the query, with its ORDER BY keys added as columns at the end where it does not show them. `keys` is None
    where one could not be placed, and empty without an ORDER BY. `limited` tells that a LIMIT chooses rows, `limit` how
    many if that can be read. `open` names what else lets right results differ.
    """

    sql: str
    ordered: bool
    keys: tuple[Key, ...] | None
    limited: bool = False
    limit: int | None = None
    offset: bool = False
    open: str = ""

    @property
    def cut(self) -> bool:
        """Whether LIMIT or OFFSET choose among the rows."""
        return self.limited or self.offset

    @property
    def added(self) -> int:
        """How many columns were added."""
        return sum(key.added for key in self.keys or ())

    def places(self, columns: int) -> tuple[int, ...]:
        """The keys' places in rows of so many columns, the added ones included."""
        shown = columns - self.added
        return tuple(key.place + shown if key.added or key.place < 0 else key.place for key in self.keys or ())


def ordering_of(bound: Bound) -> Ordering:
    """The ordering of a query.

    Raises:
        playbook.errors.NotAnalysed: it is not one SELECT.
    """
    parsed = parse_select(one_select(bound.sql))
    depths = _depths(parsed.tokens)
    texts = _key_texts(parsed.sql, depths)
    keys = _keys(parsed, depths, texts)
    added = [text for text, key in zip(texts, keys or (), strict=False) if key.added]
    limit, offset = parsed.tree.args.get("limit"), parsed.tree.args.get("offset")
    with_ties = isinstance(limit, exp.Fetch) and "ties" in _outer_words(depths)
    return Ordering(
        sql=_with_columns(parsed.sql, depths, added),
        ordered=bool(texts),
        keys=keys,
        limited=limit is not None and not with_ties,
        limit=_limit(limit, bound),
        offset=offset is not None,
        open=_open(depths),
    )


def _depths(tokens: Sequence[Token]) -> Depths:
    """Each token with the number of brackets it stands in; the brackets themselves stand outside."""
    depth, found = 0, []
    for token in tokens:
        depth -= token.token_type in _CLOSE
        found.append((token, depth))
        depth += token.token_type in _OPEN
    return tuple(found)


def _outer_words(depths: Depths) -> set[str]:
    return {token.text.lower() for token, depth in depths if not depth}


def _key_texts(sql: str, depths: Depths) -> tuple[str, ...]:
    """The texts of the outermost ORDER BY's keys, without their directions."""
    outer = [token for token, depth in depths if not depth]
    starts = [place for place, token in enumerate(outer) if token.token_type is TokenType.ORDER_BY]
    if not starts:
        return ()
    ends = [place for place, token in enumerate(outer) if place > starts[-1] and token.token_type in _AFTER_ORDER]
    clause = outer[starts[-1] + 1 : ends[0] if ends else None]
    keys: list[list[Token]] = [[]]
    for token in clause:
        if token.token_type is TokenType.COMMA:
            keys.append([])
        else:
            keys[-1].append(token)
    return tuple(_without_direction(sql, key) for key in keys)


def _without_direction(sql: str, key: Sequence[Token]) -> str:
    """The key's text up to ASC, DESC, USING or NULLS; brackets inside are covered by the tokens around them."""
    words = [place for place, token in enumerate(key) if place and token.text.lower() in _DIRECTIONS]
    end = key[: words[0]] if words else key
    return sql[end[0].start : end[-1].end + 1] if end else ""


def _keys(parsed: Parsed, depths: Depths, texts: Sequence[str]) -> tuple[Key, ...] | None:
    order = parsed.tree.args.get("order")
    expressions = [ordered.this for ordered in order.expressions] if order else []
    if len(texts) != len(expressions):
        return None
    addable = (
        isinstance(parsed.tree, exp.Select) and not parsed.tree.args.get("distinct") and _list_end(depths) is not None
    )
    keys: list[Key] = []
    for expression in expressions:
        place = _place(expression, parsed.tree)
        if place is None and not addable:
            return None
        keys.append(Key(sum(key.added for key in keys), added=True) if place is None else Key(place))
    return tuple(keys)


def _place(key: exp.Expression, tree: exp.Expression) -> int | None:
    """The place of a key that the query shows: by number, by the shown name, or as the same expression."""
    if isinstance(key, exp.Literal) and not key.is_string:
        return int(key.name) - 1
    shown = tree.selects
    stars = [place for place, each in enumerate(shown) if each.is_star]
    bare = meant(key.this) if isinstance(key, exp.Column) and not key.table else None
    # A bare name means the shown column of that name first.
    named = [place for place, each in enumerate(shown) if bare and _shown_name(each) == bare]
    alike = [place for place, each in enumerate(shown) if each.unalias() == key]
    for place in named + alike:
        if not stars or place < stars[0]:
            return place
        if place > stars[-1]:
            return place - len(shown)
    return None


def _shown_name(column: exp.Expression) -> str | None:
    if isinstance(column, exp.Alias) and isinstance(column.args["alias"], exp.Identifier):
        return meant(column.args["alias"])
    return meant(column.this) if isinstance(column, exp.Column) and isinstance(column.this, exp.Identifier) else None


def _list_end(depths: Depths) -> int | None:
    """Where the outermost select list ends in the text; None where there is no single one."""
    outer = [token for token, depth in depths if not depth]
    begin = next((place for place, token in enumerate(outer) if token.token_type is TokenType.SELECT), None)
    if begin is None or len(outer) == begin + 1:
        return None
    for before, token in pairwise(outer[begin:]):
        # `a IS DISTINCT FROM b` may stand in the list; `SELECT DISTINCT FROM t` shows nothing.
        if token.token_type in _CLAUSES and before.token_type is not TokenType.DISTINCT:
            return token.start
    return None


def _with_columns(sql: str, depths: Depths, added: Sequence[str]) -> str:
    end = _list_end(depths)
    if not added or end is None:
        return sql
    return f"{sql[:end]}{''.join(f', {text}' for text in added)} {sql[end:]}"


def _limit(limit: exp.Expression | None, bound: Bound) -> int | None:
    """The number of a LIMIT or FETCH FIRST, from the text or from the query's values."""
    count = limit.args.get("expression") or limit.args.get("count") if limit is not None else None
    if isinstance(count, exp.Parameter) and count.name.isdigit():
        value = bound.values[int(count.name) - 1]
        return int(value) if str(value).isdigit() else None
    return int(count.name) if isinstance(count, exp.Literal) and count.name.isdigit() else None


def _open(depths: Depths) -> str:
    """The first construct whose right result depends on the order in which rows reach it, in words."""
    for (token, depth), (after, _) in pairwise(depths):
        if depth and token.token_type in {TokenType.LIMIT, TokenType.FETCH}:
            return "a LIMIT inside the query chooses among ties"
        if token.token_type is TokenType.DISTINCT and after.token_type is TokenType.ON:
            return "DISTINCT ON chooses among ties"
        if token.token_type is TokenType.OVER:
            return "a window function numbers ties as they come"
        if token.text.lower() in _COLLECTING and after.token_type is TokenType.L_PAREN:
            return f"{token.text.lower()} collects rows as they come"
        if token.token_type is TokenType.TABLE_SAMPLE:
            return "TABLESAMPLE chooses rows"
    return ""
