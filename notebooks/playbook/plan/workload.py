"""The workload: the named queries that a plan cares about, and how their values are to be sampled.

    -- name: events_of_user_by_hypothesis
    -- about: one user's latest results for a hypothesis (profile page)
    -- ties: why its ORDER BY may leave the order of some rows open (left out where it does not)
    -- bind user_id, hypothesis: sampled from hypothesis_validation_events
    -- bind since: 30 days before the last hypothesis_validation_events.timestamp
    SELECT … WHERE user_id = :user_id AND hypothesis = :hypothesis AND timestamp >= :since …;

    -- name: dashboard_from_summary
    -- answers: dashboard (how that query is asked once its step stands: the same rows from something else, its binds)
    SELECT … FROM proposal_analytics_summary WHERE date >= :since …;

A file holds any number of these; other comments are for its readers. All names are the plan's.
`:name` is a bind where a value can stand: not in a string, a comment, a cast (`::`) or a slice (`[1:2]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from sqlglot import exp
from sqlglot.tokens import Token, TokenType

from playbook.errors import PlanError
from playbook.plan.parsing import parse_select, tokenize
from playbook.target.sql import literal

_NAME = re.compile(r"--\s*name\s*:(?P<name>.*)", re.IGNORECASE)
_FIELD = re.compile(r"--\s*(?P<key>about|ties|answers|bind\s(?P<names>[^:]*))\s*:(?P<text>.*)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_]\w*\Z")
_SAMPLED = re.compile(r"sampled\s+from\s+(?P<relation>\S+)\Z", re.IGNORECASE)
_BEFORE_LAST = re.compile(
    r"(?P<count>\d{1,6})\s+(?P<unit>day|hour)s?\s+before\s+the\s+last\s+(?P<relation>\S+)\.(?P<column>[^.\s]+)\Z",
    re.IGNORECASE,
)
_OPERANDS = frozenset({TokenType.NUMBER, TokenType.VAR, TokenType.IDENTIFIER, TokenType.R_PAREN, TokenType.R_BRACKET})


@dataclass(frozen=True)
class Bind:
    """How the values of some binds are had: `sampled` jointly from the columns of these names of a relation, or
    `before_last`, an `interval` before the greatest value of the relation's `column`."""

    names: tuple[str, ...]
    kind: Literal["sampled", "before_last"]
    relation: str
    column: str | None = None
    interval: timedelta | None = None
    line: int = 0


@dataclass(frozen=True)
class Query:
    """A named query in the plan's names, with `:name` where values go. `line` is where its SQL starts in the file.

    `ties` tells why its ORDER BY may leave the order of some rows open; empty where it does not. `answers` names the
    query whose rows it returns too, once a step has made what it reads; it takes that query's values.
    """

    name: str
    about: str
    sql: str
    binds: tuple[Bind, ...] = ()
    line: int = 0
    ties: str = ""
    answers: str = ""


@dataclass(frozen=True)
class Bound:
    """A query on the target with its values: `$1`, `$2`, … in the target's names.

    `bind` tells which values these are: `common` ones, or `rare` ones. Each value is its PostgreSQL text (None for
    NULL), sent without a type, so that the server reads it as the type that stands in its place. They may be personal
    data: `repr` leaves them out. `names` are the binds' names in the order of the values.
    """

    query: str
    bind: str
    sql: str
    values: tuple[Any, ...] = field(default=(), repr=False)
    names: tuple[str, ...] = ()

    def masked(self) -> str:
        """The binds without their values: `user_id = ***, since = ***`."""
        return ", ".join(f"{name} = ***" for name in self.names)

    def shown(self) -> str:
        """The binds with their values as SQL literals, for those who asked to see them."""
        shown = ("NULL" if value is None else literal(str(value)) for value in self.values)
        return ", ".join(f"{name} = {value}" for name, value in zip(self.names, shown, strict=True))


@dataclass(frozen=True)
class Placeholder:
    """A `:name` and its place in the text."""

    name: str
    start: int
    end: int


@dataclass
class _Block:
    """One query's lines as they are read."""

    name: str
    line: int
    texts: dict[str, list[str]] = field(default_factory=lambda: {"about": [], "ties": [], "answers": []})
    binds: list[Bind] = field(default_factory=list)
    sql: list[str] = field(default_factory=list)
    sql_line: int = 0


def load(path: Path | str) -> dict[str, Query]:
    """The queries of a workload file by name, in its order.

    Raises:
        PlanError: the message starts with `file:line:` and says what is expected there.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise PlanError(f"{path}: cannot be read: {reason}; name an existing workload file") from None
    queries: dict[str, Query] = {}
    for block in _blocks(path, text):
        if block.name in queries:
            first = queries[block.name].line
            raise PlanError(f"{path}:{block.line}: the query {block.name} stands twice (also at line {first})")
        queries[block.name] = _query(path, block)
    if not queries:
        raise PlanError(f"{path}:1: no query; each starts with a line `-- name: some_name`")
    _check_answers(path, queries)
    return queries


def placeholders(sql: str) -> tuple[Placeholder, ...]:
    """Every `:name` where a value can stand, in order; those in strings, comments, casts and slices are none.

    Raises:
        PlanError: a string, comment or quoted name does not end.
    """
    return tuple(_placeholders(sql, tokenize(sql)))


def numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """The SQL with `$1`, `$2`, … for its `:name`s, and the names in that order; a name used twice has one number."""
    found = placeholders(sql)
    names = tuple(dict.fromkeys(placeholder.name for placeholder in found))
    for placeholder in reversed(found):
        before = sql[: placeholder.start]
        # `LIMIT:n` is fine, `LIMIT$1` is a name.
        space = " " if before and (before[-1].isalnum() or before[-1] in "_$") else ""
        sql = f"{before}{space}${names.index(placeholder.name) + 1}{sql[placeholder.end :]}"
    return sql, names


def _placeholders(sql: str, tokens: Sequence[Token]) -> Iterator[Placeholder]:
    brackets = 0
    before: Token | None = None
    for token, after in pairwise([*tokens, None]):
        assert token is not None
        brackets += (token.token_type is TokenType.L_BRACKET) - (token.token_type is TokenType.R_BRACKET)
        slices = brackets > 0 and before is not None and before.token_type in _OPERANDS
        if token.token_type is TokenType.COLON and after is not None and after.start == token.end + 1 and not slices:
            name = sql[after.start : after.end + 1]
            if _WORD.match(name):
                yield Placeholder(name, token.start, after.end + 1)
        before = token


def _blocks(path: Path, text: str) -> Iterator[_Block]:
    """The file cut at its `-- name:` lines."""
    block: _Block | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _NAME.match(line):
            if block is not None:
                yield block
            block = _Block(_word(path, number, match["name"].strip(), "a query's name"), number)
        elif block is not None:
            _add(path, number, line, block)
        elif line.strip() and not line.lstrip().startswith("--"):
            raise PlanError(f"{path}:{number}: SQL before the first `-- name: some_name` line")
        elif _FIELD.match(line):
            raise PlanError(f"{path}:{number}: this line belongs below a `-- name: some_name` line")
    if block is not None:
        yield block


def _add(path: Path, number: int, line: str, block: _Block) -> None:
    """A line of a query: a field, another comment before the SQL, or the SQL."""
    match = _FIELD.match(line)
    if not block.sql and match and match["names"] is not None:
        block.binds.append(_bind(path, number, match["names"], match["text"].strip()))
    elif not block.sql and match:
        block.texts[match["key"].lower()].append(match["text"].strip())
    elif block.sql or (line.strip() and not line.startswith("--")):
        block.sql.append(line)
        block.sql_line = block.sql_line or number


def _bind(path: Path, number: int, names: str, how: str) -> Bind:
    words = tuple(_word(path, number, name.strip(), "a bind's name") for name in names.split(","))
    if match := _SAMPLED.match(how):
        return Bind(words, "sampled", match["relation"], line=number)
    if match := _BEFORE_LAST.match(how):
        if len(words) > 1:
            raise PlanError(f"{path}:{number}: one bind a line for a time before the last value")
        interval = timedelta(**{f"{match['unit'].lower()}s": int(match["count"])})
        return Bind(words, "before_last", match["relation"], match["column"], interval, number)
    forms = "`sampled from TABLE` or `30 days before the last TABLE.COLUMN`"
    raise PlanError(f"{path}:{number}: {how!r} is not understood; write {forms}")


def _query(path: Path, block: _Block) -> Query:
    if not block.sql:
        raise PlanError(f"{path}:{block.line}: the query {block.name} has no SQL")
    where = f"{path}:{block.sql_line}: {block.name}"
    # Lines in messages are the file's.
    above = "\n" * (block.sql_line - 1)
    try:
        parsed = parse_select(above + "\n".join(block.sql))
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None
    sql = parsed.sql[len(above) : parsed.tokens[-1].end + 1]
    found = placeholders(sql)
    if len(list(parsed.tree.find_all(exp.Placeholder, exp.Parameter))) != len(found):
        raise PlanError(f"{where}: a value is written :name, without a space and without quotes; $1, ? and @ are not")
    texts = {key: " ".join(lines) for key, lines in block.texts.items()}
    if not texts["answers"]:
        _check_binds(path, block, sql, found)
    elif block.binds:
        raise PlanError(
            f"{path}:{block.binds[0].line}: {block.name} takes the values of {texts['answers']}: no bind line"
        )
    return Query(block.name, sql=sql, binds=tuple(block.binds), line=block.sql_line, **texts)


def _check_binds(path: Path, block: _Block, sql: str, found: Sequence[Placeholder]) -> None:
    """Every bind is declared once and used; every placeholder is declared."""
    declared: set[str] = set()
    for bind in block.binds:
        for name in bind.names:
            if name in declared:
                raise PlanError(f"{path}:{bind.line}: {block.name}: the bind {name} stands twice")
            if name not in {placeholder.name for placeholder in found}:
                raise PlanError(
                    f"{path}:{bind.line}: {block.name}: the bind {name} is not used; write :{name} in its SQL"
                )
            declared.add(name)
    for placeholder in found:
        if placeholder.name not in declared:
            line = block.sql_line + sql.count("\n", 0, placeholder.start)
            missing = f"`-- bind {placeholder.name}: …`"
            raise PlanError(f"{path}:{line}: {block.name}: :{placeholder.name} has no {missing} line above the SQL")


def _check_answers(path: Path, queries: dict[str, Query]) -> None:
    """What answers another query needs that query, alone, and no value that this one has not."""
    answered: set[str] = set()
    for query in queries.values():
        if not query.answers:
            continue
        where = f"{path}:{query.line}: {query.name}"
        asked = queries.get(query.answers)
        if asked is None or asked.answers:
            raise PlanError(f"{where}: answers {query.answers}, which is no query of this file that is asked by itself")
        if asked.name in answered:
            raise PlanError(f"{where}: {asked.name} is answered by another query already")
        answered.add(asked.name)
        known = {name for bind in asked.binds for name in bind.names}
        if missing := [each.name for each in placeholders(query.sql) if each.name not in known]:
            raise PlanError(f"{where}: :{missing[0]} is no bind of {asked.name}, whose values it takes")


def _word(path: Path, number: int, text: str, what: str) -> str:
    if not _WORD.match(text):
        raise PlanError(f"{path}:{number}: {text!r} is not {what}: letters, digits and underscores only")
    return text
