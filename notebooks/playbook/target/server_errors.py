"""What the server's errors say: whether it is still there, and of the rows, which are not for every output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from playbook.errors import Interrupted, one_line

LOST = ("08", "57P")
"""How the codes of errors begin after which the connection is gone."""

_QUOTES = ("22", "P0")
"""Classes of errors whose very message holds a value: data exceptions, and what functions raise."""
_DETAILS = ("23",)
"""Classes of errors whose DETAIL does: `Key (email)=(…) is duplicated`."""


def is_lost(error: Exception) -> bool:
    """Whether the connection is gone: libpq's own errors carry no code, the server's last words do."""
    return isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or error.sqlstate.startswith(LOST))


@contextmanager
def interruption() -> Iterator[None]:
    """For work that the journal can go on with: a connection that is lost meanwhile has interrupted it.

    Raises:
        Interrupted: it was lost.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        if not is_lost(error):
            raise
        raise Interrupted(f"the connection failed: {one_line(error)}; run again to resume") from error


def without_values(error: psycopg.Error) -> str:
    """The error in one line, without what it quotes of the rows."""
    state = error.sqlstate or ""
    if state.startswith(_QUOTES):
        return f"{type(error).__name__} ({state}), in words that quote a row"
    said = error.diag
    if said.message_primary is None:
        return one_line(error)
    detail = None if state.startswith(_DETAILS) else said.message_detail
    return one_line(" ".join(filter(None, (said.message_primary, detail, said.message_hint))))


def masked(error: Exception) -> str:
    """As `without_values`, for an error that repeats the server's words: those of its causes are replaced."""
    text = one_line(error)
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, psycopg.Error):
            text = text.replace(one_line(cause), without_values(cause))
        cause = cause.__cause__
    return text
