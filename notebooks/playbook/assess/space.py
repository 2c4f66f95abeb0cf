"""Where the room goes: tables with their indexes, partitions put together under their table."""

from __future__ import annotations

from dataclasses import dataclass

from playbook.target.catalog import Catalog, Table


@dataclass(frozen=True)
class Space:
    """What one table takes: heap with TOAST, and indexes, in bytes. `name` is quoted, without schema where that is
    public."""

    name: str
    heap_bytes: int
    index_bytes: int

    @property
    def bytes(self) -> int:
        """Both together."""
        return self.heap_bytes + self.index_bytes


def space(catalog: Catalog) -> list[Space]:
    """Every table and materialized view that has storage, or whose partitions have, the largest first."""
    sums: dict[tuple[str, str], list[int]] = {}
    for table in catalog.tables:
        if table.kind not in "rpm":
            continue
        own = sums.setdefault(_root(table, catalog), [0, 0])
        own[0] += table.size_bytes or 0
        own[1] += sum(index.size_bytes or 0 for index in table.indexes)
    found = []
    for (schema, name), (heap, indexes) in sums.items():
        table = catalog.table(schema, name)
        qualified = table.qualified if table else name
        found.append(Space(qualified.removeprefix("public."), heap, indexes))
    return sorted(found, key=lambda each: (-each.bytes, each.name))


def _root(table: Table, catalog: Catalog) -> tuple[str, str]:
    while table.partition_bound is not None and table.parent and (parent := catalog.table(*table.parent)):
        table = parent
    return table.schema, table.name
