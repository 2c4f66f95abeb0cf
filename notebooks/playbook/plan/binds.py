"""Values for a query's binds, sampled from the target: common ones, and rare ones that exist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from playbook.errors import NotAnalysed
from playbook.plan.admission import admit
from playbook.plan.names import Names
from playbook.plan.workload import Bind, Bound, Query, numbered
from playbook.target.catalog import Catalog, Column, Table
from playbook.target.sql import quote

SAMPLED_ROWS = 100_000
"""Of a table with more than twice as many rows, a fixed sample of about this many is read."""
TIMEOUT_MS = 30_000
_SEED = 42
_SETTINGS = ("transaction_read_only = on", "jit = off", "DateStyle = 'ISO'")
_BYTES_PER_ROW = 300
"""Where nothing has counted the rows yet."""

_Values = tuple[str | None, ...]


def bind(query: Query, names: Names, connection: psycopg.Connection[Any], *, execute: bool) -> tuple[Bound, ...]:
    """The query on the target with common values and, where binds are sampled and it makes a difference, rare ones.

    With `execute` the tables are read, bounded and in a READ ONLY transaction. Without, only the statistics that
    ANALYZE left are: values of several binds are then each common or rare by themselves, and may not occur together.

    Raises:
        NotFound, Ambiguous: a name of the query or of its binds cannot be placed on the target.
        NotAnalysed: there are no values, no statistics, no privilege, or sampling took too long.
    """
    sql, order = numbered(names.rewrite(query.sql))
    common: dict[str, str | None] = {}
    rare: dict[str, str | None] = {}
    sampler = _TableSampler(names, connection) if execute else _StatisticsSampler(names, connection)
    for each in query.binds:
        for chosen, values in zip((common, rare), sampler.sample(each), strict=True):
            chosen.update(zip(each.names, values, strict=True))
    bounds = [Bound(query.name, "common", sql, tuple(common[name] for name in order), order)]
    if rare != common:
        bounds.append(Bound(query.name, "rare", sql, tuple(rare[name] for name in order), order))
    return tuple(bounds)


def rebind(query: Query, bound: Bound, names: Names) -> Bound:
    """The query that answers `bound`'s on the target, with its values and under its name.

    Raises:
        NotFound, Ambiguous: a name of the query cannot be placed on the target.
    """
    sql, order = numbered(names.rewrite(query.sql))
    values = dict(zip(bound.names, bound.values, strict=True))
    return Bound(bound.query, bound.bind, sql, tuple(values[name] for name in order), order)


class _Sampler:
    """Common and rare values of a bind, as PostgreSQL's text of them."""

    def __init__(self, names: Names, connection: psycopg.Connection[Any]) -> None:
        self._names = names
        self._connection = connection

    def sample(self, bind: Bind) -> tuple[_Values, _Values]:
        """The common and the rare values of `bind.names`; of a time before the last, twice the same."""
        table = self._names.relation(bind.relation)
        if bind.kind == "before_last":
            assert bind.column is not None
            assert bind.interval is not None
            value = (self._before_last(table, self._names.column(bind.relation, bind.column), bind.interval),)
            return value, value
        return self._combinations(table, [self._names.column(bind.relation, name) for name in bind.names])

    def _combinations(self, table: Table, columns: Sequence[Column]) -> tuple[_Values, _Values]:
        raise NotImplementedError

    def _before_last(self, table: Table, column: Column, interval: timedelta) -> str:
        raise NotImplementedError

    def _ask(self, table: Table, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Rows of one SELECT, in a READ ONLY transaction with a timeout."""
        connection = self._connection
        with (
            _explained(table),
            connection.transaction(force_rollback=True),
            connection.cursor(row_factory=tuple_row) as cursor,
        ):
            for setting in (*_SETTINGS, f"statement_timeout = {TIMEOUT_MS}"):
                cursor.execute(f"SET LOCAL {setting}", prepare=False)
            return cursor.execute(sql, values or None, prepare=False).fetchall()


class _TableSampler(_Sampler):
    """Reads the tables."""

    def _combinations(self, table: Table, columns: Sequence[Column]) -> tuple[_Values, _Values]:
        """The most frequent combination and one at the lowest tenth; with NULLs only where there are no others."""
        whole = " AND ".join(f"{quote(column.name)} IS NOT NULL" for column in columns)
        sample = self._source(table, columns)
        for source, condition in ((sample, whole), (_first_rows(table, columns, whole), "true"), (sample, "true")):
            if rows := self._read(table, _frequencies(source, columns, condition)):
                return rows[0], rows[-1]
        raise NotAnalysed(f"{table.qualified} has no rows to sample values from")

    def _before_last(self, table: Table, column: Column, interval: timedelta) -> str:
        name = quote(column.name)
        indexed = any(index.usable and index.keys[0].column == column.name for index in table.indexes if index.keys)
        for source in dict.fromkeys((table.qualified if indexed else self._source(table, [column]), table.qualified)):
            sql = (
                f"SELECT (max({name}) - {_interval(interval)})::{column.type}::text FROM {source} "
                f"WHERE {name} > '-infinity' AND {name} < 'infinity'"
            )
            if (value := self._read(table, sql)[0][0]) is not None:
                return str(value)
        raise NotAnalysed(f"{table.qualified}.{name} holds no time to count back from")

    def _read(self, table: Table, sql: str) -> list[Any]:
        admit(self._connection, sql)
        return self._ask(table, sql)

    def _source(self, table: Table, columns: Sequence[Column]) -> str:
        """The table, or a fixed sample of a big one; of a view, which cannot be sampled, the first rows."""
        if table.kind not in "rpm":
            return _first_rows(table, columns, "true")
        rows = _rows(table, self._names.catalog)
        if rows <= 2 * SAMPLED_ROWS:
            return table.qualified
        return f"{table.qualified} TABLESAMPLE system ({100 * SAMPLED_ROWS / rows:.6f}) REPEATABLE ({_SEED})"


class _StatisticsSampler(_Sampler):
    """Reads what ANALYZE left in pg_stats, and no table."""

    def _combinations(self, table: Table, columns: Sequence[Column]) -> tuple[_Values, _Values]:
        chosen = [self._common_and_rare(table, column) for column in columns]
        return tuple(common for common, _ in chosen), tuple(rare for _, rare in chosen)

    def _common_and_rare(self, table: Table, column: Column) -> tuple[str, str]:
        """The most common value, and one of those that are too rare to be listed as common."""
        common, bounds = self._statistics(table, column)
        middle = bounds[len(bounds) // 2 : len(bounds) // 2 + 1]
        return (common + middle)[0], (middle or common[-1:])[0]

    def _before_last(self, table: Table, column: Column, interval: timedelta) -> str:
        common, bounds = self._statistics(table, column)
        type_ = column.type.replace("%", "%%")
        sql = (
            f"SELECT (pg_catalog.max(value::{type_}) - {_interval(interval)})::{type_}::text "
            "FROM pg_catalog.unnest(%s::text[]) AS s(value) "
            f"WHERE value::{type_} > '-infinity' AND value::{type_} < 'infinity'"
        )
        ((value,),) = self._ask(table, sql, [common + bounds])
        if value is None:
            raise NotAnalysed(f"{table.qualified}.{quote(column.name)} holds no time to count back from")
        return str(value)

    def _statistics(self, table: Table, column: Column) -> tuple[list[str], list[str]]:
        """The most common values and the bounds of the histogram, one of them at least not empty."""
        found = self._ask(table, _STATISTICS, [table.schema, table.name, column.name])
        common, bounds = found[0] if found else (None, None)
        if not common and not bounds:
            which = f"{table.qualified}.{quote(column.name)}"
            raise NotAnalysed(
                f"{which} has no statistics that this role may read: run ANALYZE {table.qualified}, or allow "
                "sampling with --measure"
            )
        return common or [], bounds or []


# Element for element as text: elements may be arrays themselves, which no cast to an array of arrays could read.
_STATISTICS = """
SELECT most_common_vals::text::text[], histogram_bounds::text::text[]
FROM pg_catalog.pg_stats
WHERE schemaname = %s AND tablename = %s AND attname = %s
ORDER BY inherited DESC LIMIT 1
"""


def _frequencies(source: str, columns: Sequence[Column], condition: str) -> str:
    """The most frequent combination and the one at the lowest tenth; equally frequent ones by their text."""
    names = [f"v{number}" for number in range(1, len(columns) + 1)]
    values = ", ".join(f"{quote(c.name)}::text AS {name}" for c, name in zip(columns, names, strict=True))
    order = ", ".join(f'{name} COLLATE pg_catalog."C"' for name in names)
    return (
        f"WITH frequencies AS (SELECT {values}, count(*) AS times FROM {source} WHERE {condition} "
        f"GROUP BY {', '.join(map(str, range(1, len(columns) + 1)))}), "
        f"ranked AS (SELECT *, row_number() OVER (ORDER BY times DESC, {order}) AS place, count(*) OVER () AS places "
        f"FROM frequencies) "
        f"SELECT {', '.join(names)} FROM ranked WHERE place = 1 OR place = places - (places - 1) / 10 ORDER BY place"
    )


def _first_rows(table: Table, columns: Sequence[Column], condition: str) -> str:
    """Where a sample cannot be had, or held nothing but NULLs."""
    listed = ", ".join(dict.fromkeys(quote(column.name) for column in columns))
    return f"(SELECT {listed} FROM {table.qualified} WHERE {condition} LIMIT {SAMPLED_ROWS}) AS sampled"


def _rows(table: Table, catalog: Catalog) -> float:
    """About how many rows there are, those of partitions and children included."""
    children = defaultdict(list)
    for each in catalog.tables:
        children[each.parent].append(each)

    def count(one: Table) -> float:
        size = 0 if one.size_bytes is None else one.size_bytes / _BYTES_PER_ROW
        own = one.estimated_rows if one.estimated_rows > 0 else size
        return max(own, sum(count(child) for child in children[one.schema, one.name]))

    return count(table)


def _interval(interval: timedelta) -> str:
    if interval.seconds == 0:
        return f"interval '{interval.days} days'"
    return f"interval '{interval.days * 24 + interval.seconds // 3600} hours'"


@contextmanager
def _explained(table: Table) -> Iterator[None]:
    """A reason for errors of the server, which may quote values in theirs."""
    try:
        yield
    except psycopg.errors.QueryCanceled:
        raise NotAnalysed(f"sampling {table.qualified} took longer than {TIMEOUT_MS // 1000} s") from None
    except psycopg.errors.InsufficientPrivilege:
        reason = f"this role may not read {table.qualified}: GRANT SELECT ON {table.qualified} TO it"
        raise NotAnalysed(reason) from None
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        what = type(error).__name__
        raise NotAnalysed(f"values of {table.qualified} cannot be sampled: {what} ({error.sqlstate})") from None
