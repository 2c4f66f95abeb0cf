"""Where in a JSON document the tagged values stand, told once for all rows of a list instead of beside each value.

A shape is a tag (`"$dec"`), `[shape]` for every element of a list, `{"key": shape}` for some keys of an object, or None
for plain JSON. None (null) in the document may stand anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

from playbook.service.cache.tags import READERS, written

_NULL = object()  # the shape of None, which goes with every other


class Irregular(Exception):
    """The same place holds values of different types, or something that only a tag beside it can tell."""


def split(value: Any) -> tuple[Any, Any]:
    """The JSON document of a value, and its shape.

    Raises:
        Irregular: no shape describes it.
        NotCacheable: a part of it is of a type that would not come back as it was.
    """
    body, shape = _split(value)
    return body, _pruned(shape)


@lru_cache(maxsize=512)
def restorer(shape: bytes) -> Callable[[Any], Any]:
    """What puts the tagged values back into a document (in place) of that shape, which is given as JSON.

    It raises one of many errors when the document is not of that shape.
    """
    return _restorer(orjson.loads(shape))


def _split(value: Any) -> tuple[Any, Any]:
    if value is None:
        return None, _NULL
    if (leaf := written(value)) is not None:
        return leaf[1], leaf[0]
    kind = type(value)
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise Irregular
        parts = {key: _split(part) for key, part in value.items()}
        return {key: part[0] for key, part in parts.items()}, {key: part[1] for key, part in parts.items()}
    if kind is list:
        pairs = [_split(part) for part in value]
        shape = _NULL
        for _, found in pairs:
            shape = _merged(shape, found)
        return [part for part, _ in pairs], [shape]
    if kind is tuple:
        raise Irregular
    return value, None


def _merged(one: Any, other: Any) -> Any:
    if one is _NULL or one is other:
        return other
    if other is _NULL:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() == other.keys() and all(one[key] is other[key] for key in one):
            return one
        return {key: _merged(one.get(key, _NULL), other.get(key, _NULL)) for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [_merged(one[0], other[0])]
    if one == other:
        return one
    raise Irregular


def _pruned(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {key: below for key, part in shape.items() if (below := _pruned(part)) is not None} or None
    if isinstance(shape, list):
        below = _pruned(shape[0])
        return None if below is None else [below]
    return None if shape is _NULL else shape


def _restorer(shape: Any) -> Callable[[Any], Any]:
    if isinstance(shape, str):
        return READERS[shape]
    if isinstance(shape, list):
        [below] = shape
        return _of_list(_restorer(below))
    return _of_object([(key, _restorer(below)) for key, below in shape.items()])


def _of_list(restore: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def restored(body: Any) -> Any:
        if type(body) is not list:
            raise TypeError("not a list")
        return [None if part is None else restore(part) for part in body]

    return restored


def _of_object(readers: list[tuple[str, Callable[[Any], Any]]]) -> Callable[[Any], Any]:
    def restored(body: Any) -> Any:
        for key, restore in readers:
            if (part := body.get(key)) is not None:
                body[key] = restore(part)
        return body

    return restored
