"""Same rows or not: a query with the change usable against the query without it, inside one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psycopg
from psycopg import errors as pg

from playbook.errors import NotAnalysed
from playbook.evidence.ordering import Ordering, ordering_of
from playbook.evidence.reading import Connection, Select, reading, why
from playbook.evidence.values import Answer, Bytes, Ids, TooMany, gather, gather_bytes, identify, read_raw
from playbook.plan.workload import Bound
from playbook.target.watchdog import Connect

INDEX_SCANS = ("enable_indexscan", "enable_indexonlyscan", "enable_bitmapscan")
"""The planner's switches without which no index is read."""
MAX_ROWS = 1_000_000
"""Larger results are not compared: their hashes would have to be kept in memory."""

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class SameRows:
    """Whether both sides gave the same rows; None where that cannot be decided, and `reason` says why."""

    equal: bool | None
    reason: str = ""


def same_rows(
    connect: Connect,
    old: Bound,
    new: Bound,
    *,
    without: Sequence[str] = (),
    timeout_s: float = 60.0,
    max_rows: int = MAX_ROWS,
) -> SameRows:
    """Compares the rows of `old`, planned with the settings `without` off, to those of `new`, in one snapshot.

    Rows are compared as multisets, and in the order that ORDER BY asks for: rows with equal keys may come in any order,
    and at a LIMIT's cut any of them may come. Numbers may differ by noise (`playbook.evidence.values`). Where the rows
    differ, both sides run again: a query that differs from itself proves nothing.

    Raises:
        playbook.errors.TargetError: no connection.
    """
    try:
        sides = _Side(old, ordering_of(old), tuple(without)), _Side(new, ordering_of(new))
        with connect() as connection, reading(connection, timeout_s=timeout_s, repeatable=True):
            read_raw(connection)
            return _compared(connection, sides, _Limits(timeout_s, max_rows))
    except (NotAnalysed, _Undecided) as error:
        return SameRows(None, str(error))


class _Undecided(Exception):
    """The rows cannot be compared; the message says why."""


@dataclass(frozen=True)
class _Side:
    bound: Bound
    ordering: Ordering
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Limits:
    timeout_s: float
    rows: int


def _compared(connection: Connection, sides: tuple[_Side, _Side], limits: _Limits) -> SameRows:
    if _same_bytes(connection, sides, limits):
        return SameRows(True)
    (old, first), (new, second) = (_answer(connection, side, limits) for side in sides)
    found = _difference(old, new, first, second)
    if found.equal is not False:
        return found
    for side, answer in ((old, first), (new, second)):
        side_again, again = _answer(connection, side, limits)
        if _difference(side, side_again, answer, again).equal is not True:
            return SameRows(None, "the query is unstable: run twice in one snapshot, it gives different rows")
    if loose := old.ordering.open or new.ordering.open:
        return SameRows(None, f"{found.reason}, which may be right: {loose}")
    return found


def _same_bytes(connection: Connection, sides: tuple[_Side, _Side], limits: _Limits) -> bool:
    """Whether both sides send the very same bytes, as they mostly do; only if not, values have to be understood."""
    old, new = (_gathered_bytes(connection, side, limits) for side in sides)
    return old.same_order(new) or (not sides[0].ordering.ordered and old.same_multiset(new))


def _gathered_bytes(connection: Connection, side: _Side, limits: _Limits) -> Bytes:
    with _decided(side, limits), _running(connection, side, side.bound.sql) as (cursor, rows):
        return gather_bytes(cursor, rows, limits.rows)


def _answer(connection: Connection, side: _Side, limits: _Limits) -> tuple[_Side, Answer]:
    """The rows of one side, and the side as it was run: without its keys where they could not be shown."""
    with _decided(side, limits):
        try:
            with _running(connection, side, side.ordering.sql) as (cursor, rows):
                return side, gather(cursor, rows, side.ordering, limits.rows)
        except psycopg.ProgrammingError:
            if not side.ordering.added:
                raise
    plain = replace(side, ordering=replace(side.ordering, sql=side.bound.sql, keys=None))
    return _answer(connection, plain, limits)


@contextmanager
def _decided(side: _Side, limits: _Limits) -> Iterator[None]:
    """Turns what keeps a side from being read into the reason why the rows cannot be compared."""
    try:
        yield
    except pg.QueryCanceled:
        raise _Undecided(f"not compared: it took longer than {limits.timeout_s:g} s") from None
    except TooMany:
        raise _Undecided(f"not compared: more than {limits.rows:,} rows") from None
    except psycopg.Error as error:
        raise _Undecided(f"not compared: {why(error, side.bound)}") from None


@contextmanager
def _running(connection: Connection, side: _Side, sql: str) -> Iterator[tuple[Select, Iterable[Any]]]:
    """The query's rows as they come, planned with the side's settings; afterwards these are as they were."""
    connection.execute("SAVEPOINT playbook_side", prepare=False)
    try:
        for setting in side.without:
            connection.execute("SELECT pg_catalog.set_config(%s, 'off', true)", [setting], prepare=False)
        with Select(connection) as cursor:
            rows = cursor.stream(sql, side.bound.values, size=_chunk())
            # Closed here when left half-way: that cancels the query.
            with closing(rows):
                yield cursor, rows
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT playbook_side", prepare=False)


def _chunk() -> int:
    return _CHUNK if psycopg.capabilities.has_stream_chunked() else 1


def _difference(old: _Side, new: _Side, first: Answer, second: Answer) -> SameRows:
    """What two runs come to, whatever the reason for it."""
    if first.rows and second.rows and first.columns != second.columns:
        return SameRows(False, f"{first.columns} columns against {second.columns}")
    if first.rows != second.rows:
        return SameRows(False, f"{first.rows:,} rows against {second.rows:,}")
    ids = identify(first.numbers, second.numbers)
    with_keys = _comparable(old.ordering, new.ordering)
    hashed = first.hashed(ids[0], with_keys=with_keys), second.hashed(ids[1], with_keys=with_keys)
    keys, rows = zip(*hashed, strict=True)
    if not (differing := _differing(*rows)):
        return _in_order(old.ordering, new.ordering, keys, rows)
    found = SameRows(False, f"{differing:,} of {first.rows:,} rows differ")
    return _at_the_cut(old.ordering, new.ordering, keys, rows, found) if old.ordering.cut or new.ordering.cut else found


def _in_order(old: Ordering, new: Ordering, keys: tuple[Ids, ...], rows: tuple[Ids, ...]) -> SameRows:
    """The same rows: are they in an order that the old ORDER BY allows?"""
    if not old.ordered or np.array_equal(*rows):
        return SameRows(True)
    if _comparable(old, new):
        same = np.array_equal(*keys)
        return SameRows(True) if same else SameRows(False, "the same rows, but not in the order of ORDER BY")
    if not new.ordered:
        return SameRows(False, "the same rows, but the new query has no ORDER BY to keep their order")
    return SameRows(None, "the same rows in another order, and the keys of ORDER BY cannot be compared")


def _at_the_cut(
    old: Ordering, new: Ordering, keys: tuple[Ids, ...], rows: tuple[Ids, ...], found: SameRows
) -> SameRows:
    """Rows differ under a LIMIT or OFFSET: right if only those differ that tie with the ones at the cut."""
    if not (old.ordered and new.ordered):
        return SameRows(None, f"{found.reason}, which may be right: LIMIT without ORDER BY takes any rows")
    if not _comparable(old, new):
        return SameRows(None, f"{found.reason}, and the keys of ORDER BY cannot be compared")
    if not np.array_equal(*keys):
        return found
    inside = np.ones(len(keys[0]), bool)
    for ordering in (old, new):
        if ordering.offset:
            inside &= (keys[0] != keys[0][0]).any(axis=1)
        if ordering.limited and len(keys[0]) >= (ordering.limit or 0):
            inside &= (keys[0] != keys[0][-1]).any(axis=1)
    if _differing(rows[0][inside], rows[1][inside]):
        return found
    return SameRows(True, "only rows that tie at the cut of LIMIT differ")


def _comparable(old: Ordering, new: Ordering) -> bool:
    return old.keys is not None and new.keys is not None and len(old.keys) == len(new.keys)


def _differing(first: Ids, second: Ids) -> int:
    """How many rows of one multiset the other does not hold, of as many."""
    if all(np.array_equal(one, other) for one, other in zip(_sorted(first), _sorted(second), strict=True)):
        return 0
    every, place = np.unique(np.concatenate([first, second]), axis=0, return_inverse=True)
    counts = np.bincount(place.reshape(-1)[: len(first)], minlength=len(every))
    return int(np.maximum(counts - np.bincount(place.reshape(-1)[len(first) :], minlength=len(every)), 0).sum())


def _sorted(rows: Ids) -> tuple[Ids, Ids]:
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return rows[order, 0], rows[order, 1]
