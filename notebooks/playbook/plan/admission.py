"""Which statements may be executed for measuring: one SELECT that calls nothing volatile or unknown, however hidden.

Two readings have to agree: sqlglot's tree (is it one SELECT that only reads?) and PostgreSQL's own lexical rules (which
names does it hold?). Whatever a name could call is then looked up in the catalog: functions in all overloads, the
functions behind operators, casts, domains and aggregates, and those in the views and row security policies of the
relations it reads. Where that is more than would really run, the statement is refused rather than admitted.

What cannot be known from outside: a function that was declared STABLE or IMMUTABLE and is not (PostgreSQL lets such a
one in SQL or PL/pgSQL change nothing by itself, but it may call others). So the session that measures is READ ONLY and
sends one statement over the extended protocol too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from sqlglot import exp

from playbook.errors import NotAnalysed, PlanError
from playbook.plan import admission_queries as queries
from playbook.plan.lexing import Lexeme, lex
from playbook.plan.parsing import MAX_LENGTH, lowered, parse_select

_CHANGES = frozenset({"insert", "update", "delete", "merge"})
_LOCKS = frozenset({"update", "share", "no", "key"})
_IMPLICIT_OPERATORS = frozenset({"=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*"})
"""What IN, BETWEEN, LIKE, DISTINCT, ORDER BY and joins call without naming it."""


@dataclass(frozen=True)
class _Call:
    """A name that may call a function: with parentheses, or `row.name`, which calls it with the row."""

    schema: str | None
    name: str
    by_row: bool = False


def admit(connection: psycopg.Connection[Any], sql: str) -> None:
    """Lets a statement pass that may be executed for measuring. The catalog is read, the statement is not executed.

    Raises:
        NotAnalysed: it must not be executed; the message says why.
    """
    if len(sql) > MAX_LENGTH:
        raise NotAnalysed(f"the statement has {len(sql):,} characters; {MAX_LENGTH:,} are the limit")
    with connection.transaction(force_rollback=True), connection.cursor(row_factory=tuple_row) as cursor:
        # Compiling these queries would take seconds, running them takes milliseconds.
        cursor.execute("SET LOCAL jit = off", prepare=False)
        cursor.execute("SET LOCAL transaction_read_only = on", prepare=False)
        setting, keywords = _ask(cursor, queries.LEXICAL)[0]
        lexemes = lex(sql, standard_strings=setting == "on")
        _check_shape(lexemes)
        named = _check_tree(sql) - set(keywords)
        functions = _functions(cursor, list(_calls(lexemes, frozenset(keywords))))
        _check_known(named, functions)
        words, relations = _words(lexemes), _words(_maybe_relations(lexemes))
        if foreign := _ask(cursor, queries.FOREIGN, [relations]):
            raise NotAnalysed(f"{foreign[0][0]} is a foreign table: what its server does is not known to be read only")
        hidden = _ask(cursor, queries.HIDDEN_FUNCTIONS, [relations, words])
        _check_functions(cursor, [*((oid, "") for oid, _ in functions), *hidden])
        _check_operators(cursor, [lexeme.text for lexeme in lexemes if lexeme.kind == "operator"])
        _check_casts(cursor, words)


def _check_shape(lexemes: Sequence[Lexeme]) -> None:
    """One SELECT that neither changes, creates nor locks, by its words alone."""
    lexemes = list(lexemes)
    while lexemes and lexemes[-1].text == ";" and lexemes[-1].kind == "mark":
        lexemes.pop()
    first = next((each for each in lexemes if each.text != "("), None)
    if first is None or first.kind != "word" or first.text not in {"select", "with"}:
        raise NotAnalysed("only a SELECT can be measured")
    for before, each in pairwise(lexemes):
        if each.kind == "mark" and each.text == ";":
            raise NotAnalysed("several statements; only one SELECT can be measured")
        if each.kind != "word":
            continue
        if each.text == "into":
            raise NotAnalysed("SELECT INTO creates a table")
        if before.kind == "word" and before.text == "for" and each.text in _LOCKS:
            raise NotAnalysed("FOR UPDATE and FOR SHARE lock rows")
        if each.text in _CHANGES and before.kind == "mark" and before.text in {"(", ")"}:
            raise NotAnalysed(f"{each.text.upper()} in a WITH changes rows")


def _check_tree(sql: str) -> frozenset[str]:
    """One SELECT by its tree as well; the names of functions that the parser does not know."""
    try:
        tree = parse_select(sql).tree
        return frozenset(_function_name(node) for node in tree.find_all(exp.Anonymous))
    except PlanError as error:
        raise NotAnalysed(str(error)) from None


def _function_name(node: exp.Anonymous) -> str:
    name = str(node.this)
    return name[1:-1].replace('""', '"') if name.startswith('"') else lowered(name)


def _calls(lexemes: Sequence[Lexeme], keywords: frozenset[str]) -> Iterator[_Call]:
    """Every name that may call a function; `keywords` are those that PostgreSQL never takes for a function."""
    for index, lexeme in enumerate(lexemes):
        if lexeme.kind not in {"word", "quoted"}:
            continue
        after = lexemes[index + 1] if index + 1 < len(lexemes) else None
        behind_dot = index > 0 and lexemes[index - 1].text == "." and lexemes[index - 1].kind == "mark"
        qualifier = lexemes[index - 2] if behind_dot and index > 1 else None
        called = after is not None and after.kind == "mark" and after.text == "("
        for name in _forms(lexeme):
            if behind_dot:
                yield _Call(None, name, by_row=True)
            if called and qualifier is not None and qualifier.kind in {"word", "quoted"}:
                yield from (_Call(schema, name) for schema in _forms(qualifier))
            elif called and not (lexeme.kind == "word" and name in keywords):
                yield _Call(None, name)


def _maybe_relations(lexemes: Sequence[Lexeme]) -> Iterator[Lexeme]:
    """What stands where a relation's name or its schema can (`FROM a`, `FROM ((a`, `, a`), and more than that."""
    opens = False
    for before, each in pairwise(lexemes):
        if before.kind == "word":
            opens = before.text in {"from", "join", "only", "table"}
        elif before.text != "(":
            opens = before.kind == "mark" and before.text in {",", "."}
        if opens:
            yield each


def _words(lexemes: Iterable[Lexeme]) -> list[str]:
    """Every name, in all its forms."""
    return sorted({form for each in lexemes if each.kind in {"word", "quoted"} for form in _forms(each)})


def _forms(lexeme: Lexeme) -> frozenset[str]:
    """The names a lexeme may mean: servers of a one-byte encoding lower more than ASCII."""
    return frozenset({lexeme.text, lexeme.text.lower()}) if lexeme.kind == "word" else frozenset({lexeme.text})


def _functions(cursor: psycopg.Cursor[Any], calls: Sequence[_Call]) -> list[tuple[int, str]]:
    """OID and name of every function that these may call, in all overloads."""
    values = ([c.schema for c in calls], [c.name for c in calls], [c.by_row for c in calls])
    return _ask(cursor, queries.FUNCTIONS, values) if calls else []


def _check_known(named: frozenset[str], functions: Sequence[tuple[int, str]]) -> None:
    if missing := sorted(named - {name for _, name in functions}):
        raise NotAnalysed(f"the target has no function {missing[0]}() on its search_path")


def _check_functions(cursor: psycopg.Cursor[Any], functions: Sequence[tuple[int, str]]) -> None:
    if not functions:
        return
    values = ([oid for oid, _ in functions], [where for _, where in functions], sorted(queries.RUN_SQL_OF_THEIR_OWN))
    for signature, where, volatile in _ask(cursor, queries.FORBIDDEN, values):
        reason = (
            "is volatile: it may change something, or answer differently each time"
            if volatile
            else "runs SQL of its own"
        )
        raise NotAnalysed(f"{signature}{f' in {where}' if where else ''} {reason}")


def _check_operators(cursor: psycopg.Cursor[Any], used: Sequence[str]) -> None:
    for name, operator, function in _ask(cursor, queries.VOLATILE_OPERATORS):
        # Several operators in a row read as one here, so a part is enough.
        if name in _IMPLICIT_OPERATORS or any(name in text for text in used):
            raise NotAnalysed(f"the operator {operator} calls {function}, which is volatile")


def _check_casts(cursor: psycopg.Cursor[Any], words: Sequence[str]) -> None:
    for source, target, function, implicit, type_name, built_in in _ask(cursor, queries.VOLATILE_CASTS):
        if implicit or built_in or type_name in words:
            raise NotAnalysed(f"the cast from {source} to {target} calls {function}, which is volatile")


def _ask(cursor: psycopg.Cursor[Any], sql: str, values: Sequence[Any] = ()) -> list[Any]:
    return cursor.execute(sql, values or None, prepare=False).fetchall()
