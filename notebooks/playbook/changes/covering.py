"""Does an index that stands already serve all that a wanted one would?

*Covered* means: whatever the planner would do with the wanted index it can do with the standing one, on the evidence of
the catalog alone. An undecidable case is not covered: an index too many can be dropped, a query left slow is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from playbook.changes.expressions import columns_of, same_expression
from playbook.target.catalog import Index, IndexKey, Table
from playbook.target.relations import as_shown
from playbook.target.sql import quote

_IDENTIFIER = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_WRITTEN_NAME = re.compile(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})?\Z")
_SAME_CLASS = {"varchar_ops": "text_ops", "varchar_pattern_ops": "text_pattern_ops"}


@dataclass(frozen=True, slots=True)
class WantedKey:
    """One key: a column, by the target's name for it, or an expression in the target's SQL.

    `nulls_first` None is PostgreSQL's default (first when descending). `opclass` and `collation` are bare names
    (`text_pattern_ops`, `C`) or SQL (`ext.gin_trgm_ops`, `pg_catalog."C"`); None is the default for the key's type.

    Raises:
        ValueError: both or neither of column and expression, or a name that is no name.
    """

    column: str | None = None
    expression: str | None = None
    descending: bool = False
    nulls_first: bool | None = None
    opclass: str | None = None
    collation: str | None = None

    def __post_init__(self) -> None:
        if (self.column is None) == (self.expression is None):
            raise ValueError("a key is either a column or an expression")
        self.key_sql()

    @property
    def puts_nulls_first(self) -> bool:
        """Where the nulls go, the default included."""
        return self.descending if self.nulls_first is None else self.nulls_first

    def key_sql(self) -> str:
        """The key as it stands in CREATE INDEX."""
        parts = [quote(self.column) if self.column is not None else f"({self.expression})"]
        if self.collation:
            # Names of collations hold dots (en_US.utf8), those of operator classes do not.
            sql = '"' in self.collation or self.collation.startswith("pg_catalog.")
            parts.append(f"COLLATE {_written(self.collation) if sql else quote(self.collation)}")
        if self.opclass:
            parts.append(_written(self.opclass) if {'"', "."} & set(self.opclass) else quote(self.opclass))
        if self.descending:
            parts.append("DESC")
        if self.puts_nulls_first != self.descending:
            parts.append("NULLS FIRST" if self.puts_nulls_first else "NULLS LAST")
        return " ".join(parts)


def _written(name: str) -> str:
    if not _WRITTEN_NAME.match(name):
        raise ValueError(f"not a name: {name!r}")
    return name


@dataclass(frozen=True, slots=True)
class WantedIndex:
    """An index as a plan wants it; `table` is the quoted name with its schema, all names are the target's."""

    name: str
    table: str
    method: str
    keys: tuple[WantedKey, ...]
    include: tuple[str, ...] = ()
    predicate: str | None = None
    unique: bool = False
    nulls_not_distinct: bool = False


def covered_by(wanted: WantedIndex, table: Table) -> Index | None:
    """The standing index of `table` that serves all that `wanted` would, the narrowest if there are several."""
    covering = [index for index in table.indexes if not why_not(wanted, index, table)]
    return min(covering, key=lambda index: (_width(index), index.name), default=None)


def why_not(wanted: WantedIndex, index: Index, table: Table) -> str:
    """Why `index` does not serve all that `wanted` would, as a clause to follow its name; empty when it does."""
    if not index.usable:
        return "is not valid: a build or a drop did not end"
    return (
        _keys_differ(wanted, index, table)
        or (_not_as_unique(wanted, index) if wanted.unique else "")
        or _rows_missing(wanted, index, table)
        or _columns_missing(wanted, index)
    )


def same_definition(wanted: WantedIndex, index: Index, table: Table | None = None) -> bool:
    """Whether `index` is what `wanted` describes, its name aside and whether or not it is valid.

    `table` is its table; without it an expression over a varchar column may go unrecognised.
    """
    return (
        quote(index.schema, index.table) == wanted.table
        and (index.method, index.unique, index.exclusion) == (wanted.method, wanted.unique, False)
        and (not wanted.unique or _same_uniqueness(wanted, index))
        and len(index.keys) == len(wanted.keys)
        and all(_same_key(key, stands, table) for key, stands in zip(wanted.keys, index.keys, strict=True))
        and _reading(wanted.keys, index.keys) == "forward"
        and sorted(index.included) == sorted(wanted.include)
        and _same_predicate(wanted.predicate, index.predicate, table)
    )


def redundant(table: Table) -> list[tuple[Index, Index, str]]:
    """Standing indexes that could go: each with the one that serves all it does, and how that one does.

    Never one that makes rows unique or backs a constraint, never a part of a partitioned index (its whole is told of
    instead), nor a partial one because of a full one: that costs more to read.
    """
    droppable = [index for index in table.indexes if _droppable(index)]
    found = []
    for index in droppable:
        wanted = _as_wanted(index)
        keepers = [
            other
            for other in table.indexes
            if other is not index and other.predicate == index.predicate and not why_not(wanted, other, table)
        ]
        # Of two that serve for each other the later name goes; one that stays anyway is the better keeper.
        keepers = [
            other
            for other in keepers
            if other not in droppable or other.name < index.name or why_not(_as_wanted(other), index, table)
        ]
        if keepers:
            keeper = min(keepers, key=lambda other: (other in droppable, -_width(other), other.name))
            found.append((index, keeper, _how(index, keeper)))
    return found


def _keys_differ(wanted: WantedIndex, index: Index, table: Table) -> str:
    if index.method != wanted.method:
        return f"is a {index.method} index, not {wanted.method}"
    shown = f"({', '.join(map(str, index.keys))})"
    same = [_same_key(key, stands, table) for key, stands in zip(wanted.keys, index.keys, strict=False)]
    if wanted.method != "btree":
        identical = all(same) and len(wanted.keys) == len(index.keys)
        return "" if identical and _reading(wanted.keys, index.keys) == "forward" else f"has other keys: {shown}"
    if not all(same) or len(index.keys) < len(wanted.keys):
        return f"does not begin with the same keys: {shown}"
    if not _reading(wanted.keys, index.keys):
        return f"keeps them in another order: {shown}"
    return ""


def _same_key(wanted: WantedKey, key: IndexKey, table: Table | None) -> bool:
    """The same values under the same operators; the direction is another matter."""
    if wanted.column is not None and key.column is not None:
        same_values = wanted.column == key.column
    else:
        same_values = same_expression(_text(wanted), _text(key), table)
    if wanted.collation is None:
        same_collation = key.default_collation
    else:
        same_collation = key.collation is not None and _names(wanted.collation, key.collation)
    same_class = key.default_opclass if wanted.opclass is None else _names(wanted.opclass, key.opclass)
    return same_values and same_collation and same_class and not key.opclass_options


def _text(key: WantedKey | IndexKey) -> str:
    return quote(key.column) if key.column is not None else key.expression or ""


def _names(written: str, qualified: str) -> bool:
    """Whether `written`, bare or SQL, names what the catalog calls `qualified`."""
    if written in {qualified, as_shown(qualified)}:
        return True
    return any(qualified.endswith("." + quote(name)) for name in (written, _SAME_CLASS.get(written, written)))


def _reading(wanted: Sequence[WantedKey], keys: Sequence[IndexKey]) -> str:
    """How `keys` give the wanted order: read forward, backward (each key turned round, its nulls too) or not at all."""
    pairs = list(zip(wanted, keys, strict=False))
    if all((key.descending, key.puts_nulls_first) == (has.descending, has.nulls_first) for key, has in pairs):
        return "forward"
    if all(key.descending != has.descending and key.puts_nulls_first != has.nulls_first for key, has in pairs):
        return "backward"
    return ""


def _not_as_unique(wanted: WantedIndex, index: Index) -> str:
    if not index.unique:
        return "is not unique"
    if len(index.keys) != len(wanted.keys):
        return "makes more columns unique together"
    if not _same_uniqueness(wanted, index):
        return "is unique in another way (deferrable, or as to nulls)"
    if (index.predicate is None) != (wanted.predicate is None):
        return "is unique over other rows"
    return ""


def _same_uniqueness(wanted: WantedIndex, index: Index) -> bool:
    return index.immediate and index.nulls_not_distinct == wanted.nulls_not_distinct


def _rows_missing(wanted: WantedIndex, index: Index, table: Table) -> str:
    if index.predicate is None or _same_predicate(wanted.predicate, index.predicate, table):
        return ""
    return f"holds only rows where {index.predicate}"


def _same_predicate(wanted: str | None, stands: str | None, table: Table | None) -> bool:
    if wanted is None or stands is None:
        return wanted is stands
    return same_expression(wanted, stands, table)


def _columns_missing(wanted: WantedIndex, index: Index) -> str:
    """A payload is there for index-only scans; where the whole table is indexed, those also have to check the
    predicate, so its columns must be there as well."""
    holds = {key.column for key in index.keys} | set(index.included)
    needed = set(wanted.include)
    if wanted.include and wanted.predicate and index.predicate is None:
        if (read := columns_of(wanted.predicate)) is None:
            return "may not hold the columns of the predicate"
        needed |= read
    missing = sorted(needed - holds)
    return f"does not hold {', '.join(missing)}" if missing else ""


def _droppable(index: Index) -> bool:
    kept = index.unique or index.exclusion or index.constraint or index.parent
    return index.usable and not kept and not any(key.opclass_options for key in index.keys)


def _as_wanted(index: Index) -> WantedIndex:
    keys = tuple(
        WantedKey(key.column, key.expression, key.descending, key.nulls_first, key.opclass, key.collation)
        for key in index.keys
    )
    table = quote(index.schema, index.table)
    return WantedIndex(index.name, table, index.method, keys, index.included, index.predicate)


def _how(index: Index, keeper: Index) -> str:
    keys = f"({', '.join(map(str, index.keys))})"
    backward = _reading(_as_wanted(index).keys, keeper.keys) == "backward"
    same = len(index.keys) == len(keeper.keys)
    return f"{keys} is what {keeper.name} {'holds' if same else 'begins with'}{', read backward' if backward else ''}"


def _width(index: Index) -> int:
    return len(index.keys) + len(index.included)
