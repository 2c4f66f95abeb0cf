"""The plan of a statement that the target's users sent, by EXPLAIN alone: nothing is executed."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg

from playbook.assess.activity import HIDDEN
from playbook.assess.masking import masked
from playbook.context import Context
from playbook.errors import NotAnalysed, PlaybookError
from playbook.evidence.explain import parse
from playbook.evidence.reading import reading
from playbook.plan.lexing import lex
from playbook.target.extensions import schema_of
from playbook.target.server_errors import without_values
from playbook.target.sql import OWN, OWN_EXPLAIN

TIMEOUT_S = 5.0
GENERIC_FROM = 16
"""EXPLAIN (GENERIC_PLAN) takes the `$1` of pg_stat_statements from PostgreSQL 16 on."""
_PLANNED = frozenset({"select", "with", "insert", "update", "delete", "merge"})
_TEXT = f"""
{OWN} left(query, 100000) FROM {{schema}}.pg_stat_statements(true)
WHERE queryid = %s AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1
"""


@dataclass(frozen=True)
class StatementPlan:
    """A statement without its literals, and its plan as a tree; where there is none, why."""

    text: str
    tree: str
    reason: str = ""


def plan_of(context: Context, queryid: str) -> StatementPlan:
    """The plan that the server would make now for a statement, whatever its values. Nothing is executed.

    Raises:
        TargetError: the target cannot be reached.
    """
    if queryid == HIDDEN:
        return StatementPlan(HIDDEN, "", "GRANT pg_read_all_stats shows them")
    with context.connect() as connection:
        try:
            text = _text(connection, queryid)
            if not text:
                return StatementPlan("", "", "pg_stat_statements does not hold it any more")
            return _planned(context, connection, text)
        except psycopg.Error as error:
            return StatementPlan("", "", without_values(error))


def _text(connection: psycopg.Connection, queryid: str) -> str:
    schema = schema_of(connection, "pg_stat_statements")
    if schema is None or not re.fullmatch(r"-?\d{1,20}", queryid):
        return ""
    row = connection.execute(_TEXT.format(schema=schema).encode(), [int(queryid)]).fetchone()
    return (row[0] or "") if row else ""


def _planned(context: Context, connection: psycopg.Connection, text: str) -> StatementPlan:
    shown = masked(text)
    try:
        options = _options(context, connection, text)
        # READ ONLY is for functions that the planner tries out. The simple protocol, since the extended one wants the
        # values of $1; it would take two statements, which the text is not.
        with reading(connection, timeout_s=TIMEOUT_S):
            [[told]] = connection.execute(f"{OWN_EXPLAIN} ({options}) {text}".encode(), prepare=False).fetchall()
        return StatementPlan(shown, parse(told).text())
    except psycopg.Error as error:
        return StatementPlan(shown, "", without_values(error))
    except PlaybookError as error:
        return StatementPlan(shown, "", str(error))


def _options(context: Context, connection: psycopg.Connection, text: str) -> str:
    """EXPLAIN's options for a statement.

    Raises:
        NotAnalysed: it has no plan, is more than one statement, or cannot be planned without its values.
    """
    standard = connection.info.parameter_status("standard_conforming_strings") != "off"
    lexemes = lex(text, standard_strings=standard)
    if any(each.kind == "mark" and each.text == ";" for each in lexemes):
        raise NotAnalysed("it is more than one statement")
    if not lexemes or lexemes[0].text.lower() not in _PLANNED:
        raise NotAnalysed("only SELECT, INSERT, UPDATE, DELETE and MERGE have a plan")
    if not any(each.kind == "parameter" for each in lexemes):
        return "FORMAT JSON"
    server = context.target.server
    if server is not None and server.major < GENERIC_FROM:
        raise NotAnalysed(
            f"PostgreSQL {server.major} plans it with values only: EXPLAIN takes $1 from {GENERIC_FROM} on"
        )
    return "GENERIC_PLAN, FORMAT JSON"
