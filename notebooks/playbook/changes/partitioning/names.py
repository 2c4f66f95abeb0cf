"""Names of what partitioning makes: derived from the table's own, and never longer than PostgreSQL keeps them."""

from __future__ import annotations

from hashlib import sha256

MAX_BYTES = 63
"""NAMEDATALEN - 1: a longer name is cut silently, and two that differ only behind that become one."""


def fit(base: str, suffix: str) -> str:
    """`base` with `suffix`; where that is too long, `base` is cut, and a digest of the whole keeps it apart."""
    whole = base + suffix
    if len(whole.encode()) <= MAX_BYTES:
        return whole
    digest = "_" + sha256(whole.encode()).hexdigest()[:8]
    room = MAX_BYTES - len((digest + suffix).encode())
    return base.encode()[:room].decode(errors="ignore") + digest + suffix
