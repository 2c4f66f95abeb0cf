"""Values as JSON, with tags for what JSON lacks. Whatever stands in the cache, reading it executes nothing."""

from __future__ import annotations

import json
import struct
from typing import Any

import orjson

from playbook.service.cache.shapes import Irregular, restorer, split
from playbook.service.cache.tags import READERS, NotCacheable, written

BYTES, PLAIN, SHAPED, TAGGED = b"b", b"p", b"s", b"t"
"""How a payload is to be read: as it is; as JSON; as JSON after its shape; as JSON with a tag beside each value."""
_SHAPE = struct.Struct(">I")


class Unreadable(ValueError):
    """A payload that this version did not write: truncated, of another version, or hostile."""


def encode(value: Any) -> tuple[bytes, bytes]:
    """Codec and payload of `value`.

    Raises:
        NotCacheable: a part of it is of a type that would not come back as it was.
    """
    if type(value) is bytes:
        return BYTES, value
    try:
        try:
            body, shape = split(value)
        except Irregular:
            return TAGGED, orjson.dumps(_tagged(value))
        if shape is None:
            return PLAIN, orjson.dumps(body)
        told = orjson.dumps(shape)
        return SHAPED, _SHAPE.pack(len(told)) + told + orjson.dumps(body)
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise NotCacheable(_why(error)) from None


def decode(codec: bytes, payload: bytes | memoryview) -> Any:
    """What `encode` made the payload of.

    Raises:
        Unreadable: it made none such.
    """
    if codec == BYTES:
        return bytes(payload)
    try:
        if codec == PLAIN:
            return orjson.loads(payload)
        if codec == SHAPED:
            (size,) = _SHAPE.unpack_from(payload)
            end = _SHAPE.size + size
            return restorer(bytes(payload[_SHAPE.size : end]))(orjson.loads(payload[end:]))
        if codec == TAGGED:
            return json.loads(bytes(payload), object_hook=_untagged)
    # What hostile content can raise in the readers is many things; whatever it is, the entry is not believed.
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from None
    raise Unreadable(f"unknown codec {codec!r}")


def canonical(filters: Any) -> bytes:
    """`filters` as bytes: equal for filters that mean the same (order of keys), different for all others (`1`, `"1"`).

    Raises:
        NotCacheable: a part of them is of a type that has no such form.
    """
    try:
        return orjson.dumps(_tagged(filters), option=orjson.OPT_SORT_KEYS)
    except (RecursionError, orjson.JSONEncodeError) as error:
        raise NotCacheable(_why(error)) from None


def _tagged(value: Any) -> Any:
    """`value` with `{"$tag": …}` in place of what JSON lacks."""
    kind = type(value)
    if (leaf := written(value)) is not None:
        return {leaf[0]: leaf[1]}
    if kind is list:
        return [_tagged(part) for part in value]
    if kind is tuple:
        return {"$tuple": [_tagged(part) for part in value]}
    if kind is dict:
        if others := [key for key in value if type(key) is not str]:
            raise NotCacheable(f"a dict with the key {others[0]!r}: use text for keys")
        tagged = {key: _tagged(part) for key, part in value.items()}
        if len(tagged) == 1 and next(iter(tagged)).startswith("$"):
            return {"$pairs": [list(pair) for pair in tagged.items()]}
        return tagged
    return value


def _untagged(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        [(tag, content)] = found.items()
        if tag.startswith("$"):
            return READERS[tag](content)
    return found


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError) or "ecursion" in str(error):
        return "it is nested too deeply, or holds itself"
    return f"it cannot be written as JSON: {error}"
