"""A script for psql that takes back what is applied, for the day when there is nothing else."""

from __future__ import annotations

from playbook.context import Context
from playbook.journal import APPLIED
from playbook.target.execute import STOPS_WRITERS
from playbook.target.sql import Statement

LOCK_TIMEOUT = "1s"
"""So long a lock is waited for that writers queue behind: nobody watches over them here."""

_HEAD = r"""-- Takes back what is applied on this target, the last step first. `playbook undo` does the same, with
-- locks that nobody waits for, and keeps the journal right. Each statement first asks whether it is still
-- needed, and the script ends at the first error: where that says so, or a lock was not to be had, run it
-- again, until it comes to its end:
--   until psql -X -f undo.sql "$DATABASE_URL"; do sleep 1; done
\set ON_ERROR_STOP on
SET client_min_messages = warning;"""

_AGAIN = r"""\if :finished
\else
DO $$ BEGIN RAISE EXCEPTION 'a part of the work is done: run this script again'; END $$;
\endif"""


def undo_sql(context: Context) -> str:
    """What takes everything applied back by hand, the last step first."""
    applied = [entry for entry in context.journal.entries() if entry.status in APPLIED]
    lines = [_HEAD]
    if not applied:
        lines.append("-- Nothing is applied.")
    for entry in reversed(applied):
        lines += ["", f"-- {entry.step}".replace("\n", " "), *map(_in_psql, entry.undo)]
    return "\n".join(lines) + "\n"


def _in_psql(statement: Statement) -> str:
    """The statement, after the question whether it is needed; what changes an application stands as a comment."""
    if statement.language != "sql":
        lines = [f"in the application: {statement.purpose}", *str(statement).splitlines()]
        return "\n".join(f"-- {line}" for line in lines)
    if not statement.unless:
        return _run(statement)
    return f"SELECT NOT ({statement.unless}) AS needed \\gset\n\\if :needed\n{_run(statement)}\n\\endif"


def _run(statement: Statement) -> str:
    """All of it or nothing; of one that repeats, one round, after which the script ends unless it was the last."""
    if not statement.transactional:
        return str(statement)
    brief = not statement.long and statement.lock in STOPS_WRITERS
    lines = ["BEGIN;", *([f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';"] if brief else [])]
    if statement.repeats:
        return "\n".join([*lines, f"{str(statement).removesuffix(';')} \\gset", "COMMIT;", _AGAIN])
    return "\n".join([*lines, str(statement), "COMMIT;"])
