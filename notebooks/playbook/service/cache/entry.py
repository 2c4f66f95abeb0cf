"""An entry of the cache: a short head that tells whether it is whole and ours, and the payload."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from playbook.service.cache import codec
from playbook.service.cache.codec import Unreadable

# Magic with the version of the format, codec, checksum and length of the payload, seconds that loading it took,
# milliseconds for which it may be served stale.
_HEAD = struct.Struct(">4scIIdI")
_MAGIC = b"pbc2"
OVERHEAD_BYTES = _HEAD.size
_ENDS = 4096


class Entry(NamedTuple):
    """`load_s` is what loading took in seconds; in the last `stale_ms` of its life it is served while loaded anew."""

    codec: bytes
    payload: bytes | memoryview
    load_s: float
    stale_ms: int

    @classmethod
    def of(cls, value: Any, load_s: float, stale_ms: int) -> Entry:
        """The entry of a value.

        Raises:
            NotCacheable: it is of a type that would not come back as it was.
        """
        return cls(*codec.encode(value), load_s, stale_ms)

    @property
    def is_none(self) -> bool:
        """Whether it is the entry of None, which a loader returns for what is not there."""
        return self.codec == codec.PLAIN and self.payload == b"null"

    @property
    def value(self) -> Any:
        """The value, made anew at each call, so that nobody changes another's.

        Raises:
            Unreadable: the payload holds what this version did not write.
        """
        return codec.decode(self.codec, self.payload)

    def to_bytes(self) -> bytes:
        """As it is stored."""
        check, size = _check(self.payload), len(self.payload)
        return _HEAD.pack(_MAGIC, self.codec, check, size, self.load_s, self.stale_ms) + bytes(self.payload)

    @classmethod
    def from_bytes(cls, stored: bytes) -> Entry:
        """The entry that was stored.

        Raises:
            Unreadable: it was truncated, written by another version, or by somebody else.
        """
        try:
            magic, name, check, size, load_s, stale_ms = _HEAD.unpack_from(stored)
        except struct.error:
            raise Unreadable("shorter than its head") from None
        payload = memoryview(stored)[OVERHEAD_BYTES:]  # a copy of a large one takes as long as half its way here
        if magic != _MAGIC or size != len(payload) or check != _check(payload) or not 0 <= load_s < float("inf"):
            raise Unreadable("not an entry of this version, or not all of it")
        return cls(name, payload, load_s, stale_ms)


def _check(payload: bytes | memoryview) -> int:
    """Of the whole, or of both ends of a long one: with its length that tells what was cut off or overwritten."""
    if len(payload) <= 2 * _ENDS:
        return zlib.crc32(payload)
    return zlib.crc32(payload[-_ENDS:], zlib.crc32(payload[:_ENDS]))


@dataclass(frozen=True)
class Unkept:
    """A value that is not to be kept, for those who wait for it now; they share the one object."""

    value: Any
    load_s: float
