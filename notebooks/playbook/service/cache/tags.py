"""The types that JSON lacks: a tag for each, how its values are written in JSON, and how they are read back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

_SAFE = range(-(2**63), 2**64)  # what a JSON parser in C takes for an integer


class NotCacheable(TypeError):
    """A value or a filter of a type that would not come back as it was."""


def written(value: Any) -> tuple[str, Any] | None:
    """Tag and JSON of a value that JSON lacks; None when JSON has it, or its parts have to be looked at.

    Raises:
        NotCacheable: its type is not known here, so that it would not come back as it was.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None or kind is list or kind is dict or kind is tuple:
        return None
    if kind is int:
        return None if value in _SAFE else ("$int", hex(value))
    if kind is float:
        return None if value - value == 0 else ("$float", repr(value))
    if kind is datetime:
        return _datetime(value)
    if kind not in _WRITERS:
        raise NotCacheable(f"a value of type {kind.__qualname__}: convert it to one of {_NAMES}")
    tag, write = _WRITERS[kind]
    return tag, write(value)


def _datetime(value: datetime) -> tuple[str, Any]:
    zone, text = value.tzinfo, value.isoformat()
    if isinstance(zone, ZoneInfo):
        if zone.key is None:
            raise NotCacheable("a time in a zone without a name")
        return "$zoned", [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]
    if zone is not None and datetime.fromisoformat(text).utcoffset() != value.utcoffset():
        raise NotCacheable(f"a time in a zone of type {type(zone).__qualname__}")
    return ("$folded", text) if value.fold else ("$at", text)


def _zoned(content: list[Any]) -> datetime:
    text, zone, fold = content
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def _time(value: time) -> list[Any]:
    if value.tzinfo is not None:
        raise NotCacheable("a time of day in a zone")
    return [value.isoformat(), value.fold]


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    Decimal: ("$dec", str),
    date: ("$date", date.isoformat),
    time: ("$time", _time),
    timedelta: ("$span", lambda value: [value.days, value.seconds, value.microseconds]),
    UUID: ("$uuid", lambda value: value.hex),
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode("ascii")),
}
_NAMES = "None, bool, int, float, str, list, tuple, dict, datetime, " + ", ".join(kind.__name__ for kind in _WRITERS)

READERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda text: int(text, 16),
    "$float": float,
    "$dec": Decimal,
    "$at": datetime.fromisoformat,
    "$folded": lambda text: datetime.fromisoformat(text).replace(fold=1),
    "$zoned": _zoned,
    "$date": date.fromisoformat,
    "$time": lambda content: time.fromisoformat(content[0]).replace(fold=content[1]),
    "$span": lambda content: timedelta(*content),
    "$uuid": lambda text: UUID(hex=text),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$tuple": tuple,
    "$pairs": dict,
}
"""By tag, what makes a value of its JSON; it raises one of many errors when that is not what was written."""
