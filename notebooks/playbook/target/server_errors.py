"""What the server's errors say of the rows: a message may quote them, and so is not for every output."""

from __future__ import annotations

import psycopg

from playbook.errors import one_line

_QUOTES = ("22", "P0")
"""Classes of errors whose very message holds a value: data exceptions, and what functions raise."""
_DETAILS = ("23",)
"""Classes of errors whose DETAIL does: `Key (email)=(…) is duplicated`."""


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
