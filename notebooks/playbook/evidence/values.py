"""Rows made comparable: what must be equal to the byte is hashed, numbers are kept so that noise can be told apart.

Results are read as the server sends them (text), row by row. Of a row, 16 bytes of hash and its numbers stay in memory.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Loader

from playbook.evidence.ordering import Ordering
from playbook.evidence.reading import Connection

TOLERANCE = 1e-9
"""Floats that differ by this share or less are equal: their sums depend on the order of the rows."""
TOLERANCE_FLOAT4 = 1e-6
"""The same for `real`, of which neighbouring values lie further apart than 1e-9."""
NEAR_ZERO = 1e-12
"""Floats that differ by this or less are equal: what cancels out leaves noise of no certain share."""

Ids = NDArray[np.uint64]
Canonical = Callable[[bytes, "Numbers"], bytes]

_EXACT, _FLOAT8, _FLOAT4 = range(3)
_TOLERANCES = np.array([0.0, TOLERANCE, TOLERANCE_FLOAT4])
_DIVIDED = 12  # digits after the point from which a numeric comes from a division, and so is rounded
_DOUBLE = 15  # digits that a double keeps exactly
_NOT_FINITE = frozenset({b"NaN", b"Infinity", b"-Infinity"})
_ELEMENT = re.compile(rb"[^{},\s]+")
_MIXERS = np.random.default_rng(16).integers(1, 2**63, 4096, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass
class Numbers:
    """Numbers in the order in which they came, each with how exact it is."""

    values: array[float] = field(default_factory=lambda: array("d"))
    levels: bytearray = field(default_factory=bytearray)

    def add(self, value: float, level: int) -> bytes:
        """Keeps the number, and gives what stands for it in the row's hash."""
        self.values.append(value + 0.0)  # -0.0 equals 0.0
        self.levels.append(level)
        return b"#"


@dataclass
class Answer:
    """The rows of one run, hashed: the columns shown, and apart from them the ORDER BY keys."""

    columns: int = 0
    rows: int = 0
    hashes: bytearray = field(default_factory=bytearray)
    keys: bytearray = field(default_factory=bytearray)
    numbers: Numbers = field(default_factory=Numbers)
    key_ends: array[int] = field(default_factory=lambda: array("q"))
    row_ends: array[int] = field(default_factory=lambda: array("q"))

    def add(self, shown: bytes, key: bytes, key_end: int) -> None:
        """One more row; its key's numbers came first and ended at `key_end`."""
        self.rows += 1
        self.hashes += blake2b(shown, digest_size=16).digest()
        self.keys += blake2b(key, digest_size=16).digest()
        self.key_ends.append(key_end)
        self.row_ends.append(len(self.numbers.values))

    def hashed(self, ids: Ids, *, with_keys: bool) -> tuple[Ids, Ids]:
        """Two arrays of two words a row: of its keys, and of the row, to which its keys belong or not.

        `ids` stand for this answer's numbers.
        """
        key_ends, ends = (np.asarray(each, dtype=np.int64) for each in (self.key_ends, self.row_ends))
        starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
        # A key's numbers and then a row's, each counted from its own first one.
        lengths = np.stack([key_ends - starts, ends - key_ends], axis=1).reshape(-1)
        places = np.arange(len(ids)) - np.repeat(np.stack([starts, key_ends], axis=1).reshape(-1), lengths)
        # The sum of ids, each multiplied by the odd number of its place: a linear hash, modulo 2**64.
        mixed = np.cumsum(ids * _MIXERS[places % len(_MIXERS)], dtype=np.uint64)
        sums = np.concatenate([np.zeros(1, np.uint64), mixed])
        keys, rows = (np.frombuffer(bytes(each), np.uint64).reshape(-1, 2).copy() for each in (self.keys, self.hashes))
        keys[:, 0] += sums[key_ends] - sums[starts]
        rows[:, 0] += sums[ends] - sums[key_ends]
        if with_keys:
            rows[:, 1] ^= keys[:, 0] * _MIXERS[0] + keys[:, 1]
        return keys, rows


def identify(first: Numbers, second: Numbers) -> tuple[Ids, Ids]:
    """Numbers of two answers as ids that are equal where the numbers are, apart from noise."""
    values = np.concatenate([np.asarray(first.values), np.asarray(second.values)])
    levels = np.frombuffer(bytes(first.levels + second.levels), np.uint8)
    order = np.argsort(values, kind="stable")
    ordered, exactness = values[order], levels[order]
    tolerance = _TOLERANCES[np.maximum(exactness[1:], exactness[:-1])]
    size = np.maximum(np.abs(ordered[1:]), np.abs(ordered[:-1]))
    allowed = np.where(tolerance > 0, np.maximum(tolerance * size, NEAR_ZERO), 0.0)
    ids = np.zeros(len(values), np.uint64)
    ids[order[1:]] = np.cumsum(np.diff(ordered) > allowed).astype(np.uint64)
    return ids[: len(first.values)], ids[len(first.values) :]


def read_raw(connection: Connection) -> None:
    """From now on, this connection gives values as the server's bytes."""
    for info in connection.adapters.types:
        connection.adapters.register_loader(info.oid, _Raw)
        if info.array_oid:
            connection.adapters.register_loader(info.array_oid, _Raw)
    connection.adapters.register_loader(0, _Raw)


@dataclass
class Bytes:
    """The rows of one run as they came: their columns' type OIDs, and 16 bytes of hash for each."""

    types: tuple[int, ...] = ()
    hashes: bytearray = field(default_factory=bytearray)

    def same_order(self, other: Bytes) -> bool:
        """Whether both hold the same bytes in the same order."""
        return self.hashes == other.hashes and (not self.hashes or self.types == other.types)

    def same_multiset(self, other: Bytes) -> bool:
        """Whether both hold the same bytes in whatever order."""
        if len(self.hashes) != len(other.hashes) or self.types != other.types:
            return False
        first, second = (np.sort(np.frombuffer(bytes(each.hashes), "V16").view("S16")) for each in (self, other))
        return bool(np.array_equal(first, second))


def gather_bytes(cursor: psycopg.Cursor[Any], rows: Iterable[Sequence[bytes | None]], most: int) -> Bytes:
    """The rows of a query as they come over a connection that reads raw.

    Raises:
        TooMany: there are more rows than `most`.
    """
    gathered = Bytes()
    hashes = gathered.hashes
    for row in rows:
        if not hashes:
            gathered.types = tuple(column.type_code for column in cursor.description or ())
        # No value holds a NUL.
        hashes += blake2b(b"\0".join([b"\0\1" if value is None else value for value in row]), digest_size=16).digest()
        if len(hashes) > 16 * most:
            raise TooMany
    return gathered


def gather(
    cursor: psycopg.Cursor[Any], rows: Iterable[Sequence[bytes | None]], ordering: Ordering, most: int
) -> Answer:
    """The rows of a query as they come over a connection that reads raw.

    Raises:
        TooMany: there are more rows than `most`, or more numbers than ten times that.
    """
    answer = Answer()
    numbers = answer.numbers
    forms: list[Canonical] = []
    for row in rows:
        if not forms:
            forms = [_FORMS.get(column.type_code, _exact) for column in cursor.description or ()]
            places = ordering.places(len(row))
            answer.columns = len(row) - ordering.added
        key = b";".join([_form(row[place], forms[place], numbers) for place in places])
        key_end = len(numbers.values)
        shown = b";".join([_form(row[place], forms[place], numbers) for place in range(answer.columns)])
        answer.add(shown, key, key_end)
        if answer.rows > most or len(numbers.values) > 10 * most:
            raise TooMany
    return answer


class TooMany(Exception):
    """A result too large to be compared in memory."""


class _Raw(Loader):
    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def _form(data: bytes | None, form: Canonical, numbers: Numbers) -> bytes:
    return b"-" if data is None else form(data, numbers)


def _exact(data: bytes, _: Numbers) -> bytes:
    return b"%d:%b" % (len(data), data)


def _padded(data: bytes, numbers: Numbers) -> bytes:
    return _exact(data.rstrip(b" "), numbers)


def _integer(data: bytes, numbers: Numbers) -> bytes:
    return numbers.add(float(data), _EXACT) if len(data) <= _DOUBLE else _numeric(data, numbers)


def _numeric(data: bytes, numbers: Numbers) -> bytes:
    """Integers and numerics: exact, whatever their trailing zeros; those that come from a division are rounded."""
    if data in _NOT_FINITE:
        return data
    whole, _, digits = data.partition(b".")
    fraction = digits.rstrip(b"0")
    if len(fraction) >= _DIVIDED:
        return numbers.add(float(data), _FLOAT8)
    if len(whole.lstrip(b"-0")) + len(fraction) <= _DOUBLE:
        return numbers.add(float(data), _EXACT)
    if fraction and len(digits) >= _DIVIDED:  # rounded as well, to digits that happen to end in 0
        return numbers.add(float(data), _FLOAT8)
    return whole + b"." + fraction


def _float(level: int) -> Canonical:
    return lambda data, numbers: data if data in _NOT_FINITE else numbers.add(float(data), level)


def _array(element: Canonical) -> Canonical:
    def canonical(data: bytes, numbers: Numbers) -> bytes:
        return _ELEMENT.sub(lambda match: match[0] if match[0] == b"NULL" else element(match[0], numbers), data)

    return canonical


class _Number(str):
    """A number in JSON, as it is written."""


def _json(data: bytes, numbers: Numbers) -> bytes:
    def written(value: Any) -> Any:
        if isinstance(value, _Number):
            return _json_number(value.encode(), numbers).decode()
        if isinstance(value, dict):
            return {"o": [[key, written(value[key])] for key in sorted(value)]}
        if isinstance(value, list):
            return [written(each) for each in value]
        return {"s": value}

    parsed = json.loads(data, parse_float=_Number, parse_int=_Number)
    return _exact(json.dumps(written(parsed)).encode(), numbers)


def _json_number(data: bytes, numbers: Numbers) -> bytes:
    return numbers.add(float(data), _FLOAT8) if b"e" in data.lower() else _numeric(data, numbers)


_FORMS: dict[int, Canonical] = {
    **dict.fromkeys((20, 21, 23, 26), _integer),  # int8, int2, int4, oid
    1700: _numeric,
    **dict.fromkeys((1005, 1007, 1016, 1231), _array(_numeric)),
    700: _float(_FLOAT4),
    701: _float(_FLOAT8),
    1021: _array(_float(_FLOAT4)),
    1022: _array(_float(_FLOAT8)),
    1042: _padded,  # char(n)
    **dict.fromkeys((114, 3802), _json),  # json, jsonb
}
"""By type OID; all others must be equal to the byte."""
