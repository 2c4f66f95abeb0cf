"""Backends that are still at work on what an interrupted run sent them."""

from __future__ import annotations

import time

from playbook.context import Context
from playbook.journal import Entry, Sent
from playbook.target.sql import Statement


def await_backends(context: Context, entry: Entry, *, cancel: bool = False) -> None:
    """Those of every statement that the journal has begun."""
    for position, statement in enumerate(entry.statements):
        sent = context.journal.sent(entry.step, "apply", position)
        if sent.state == "intent":
            await_backend(context, sent, statement, cancel=cancel)


def await_backend(context: Context, sent: Sent, statement: Statement, *, cancel: bool = False) -> None:
    """A killed client leaves its backend at work. To apply, it may end our own work; to undo, it is cancelled.

    One that has nothing to do is ended: its client is lost behind a network that has not noticed yet.
    """
    if context.sessions.have(sent.backend_pid):
        return  # it is one of ours, which has done with it, and may be at something else by now
    at_work = "SELECT state <> 'idle' FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start::text = %s"
    with context.connect() as connection:
        while row := connection.execute(at_work, [sent.backend_pid, sent.backend_start]).fetchone():
            if cancel or row[0] is False:
                end = "pg_cancel_backend" if row[0] else "pg_terminate_backend"
                connection.execute(f"SELECT pg_catalog.{end}(%s)".encode(), [sent.backend_pid])
            context.progress(f"{statement.purpose}: waiting for backend {sent.backend_pid} of the interrupted run")
            time.sleep(0.5)
