"""EXPLAIN as nodes: what the server does for a query, in types that can be compared, kept and drawn.

Literals in conditions are masked at once (`status = ?`): a plan goes into journals and reports, its values do not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from playbook.evidence.reading import Connection, Select, one_select, reading

if TYPE_CHECKING:
    from playbook.plan.workload import Bound

_CONDITIONS = (
    "Index Cond",
    "Recheck Cond",
    "TID Cond",
    "Hash Cond",
    "Merge Cond",
    "Join Filter",
    "One-Time Filter",
    "Filter",
    "Order By",
    "Presorted Key",
    "Sort Key",
    "Group Key",
    "Cache Key",
    "Run Condition",
)
# What makes two nodes of one type different work, apart from the tables and indexes they read.
_VARIANTS = ("Join Type", "Strategy", "Partial Mode", "Command", "Scan Direction", "Parent Relationship")
_REMOVED = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
_TOKEN = re.compile(
    r"""(?P<kept>"(?:[^"]|"")*"|\$\d+|(?:Init|Sub)Plan\ \d+|[A-Za-z_]\w*(?!'))|"""
    r"""[Ee]'(?:[^'\\]|''|\\.)*'|[BbXx]?'(?:[^']|'')*'|(?<![\w.])\d[\d.]*(?:[eE][+-]?\d+)?"""
)


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a plan. Figures of execution are None unless the plan was analysed.

    `relation` is the table, or the function or CTE where there is no table. `rows`, `actual_ms` and
    `removed` (rows that a filter threw away) are per loop, as EXPLAIN gives them. `hit` and `read` are shared buffers
    (8 kB each) of the node with all below it. `sort_kb` lies in memory unless `sort_on_disk`; `temp` counts temporary
    blocks read and written, so that any spill of this node or of those below shows there.
    """

    type: str
    relation: str | None = None
    alias: str | None = None
    index: str | None = None
    variant: tuple[str, ...] = ()
    parallel: bool = False
    conditions: tuple[tuple[str, str], ...] = ()
    planned_rows: float = 0.0
    width: int = 0
    rows: float | None = None
    loops: float | None = None
    actual_ms: float | None = None
    hit: int | None = None
    read: int | None = None
    removed: float | None = None
    heap_fetches: int | None = None
    sort_method: str | None = None
    sort_kb: int | None = None
    sort_on_disk: bool | None = None
    temp: int | None = None
    children: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def label(self) -> str:
        """`Parallel Index Scan using orders_pkey on orders o`."""
        parallel = "Parallel " if self.parallel else ""
        kind = "".join(f" {part}" for part in self.variant if part not in _USUAL)
        using = f" using {self.index}" if self.index else ""
        on = f" on {self.relation}" if self.relation else ""
        alias = f" {self.alias}" if self.alias and self.alias != self.relation else ""
        return f"{parallel}{self.type}{kind}{using}{on}{alias}"


_USUAL = frozenset({"Plain", "Simple", "Inner", "Forward", "NoMovement", "Outer", "Member", "Subquery", "Select"})


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of one query. Times are None unless it was analysed; `settings` are those that are not the defaults.

    `cost` is the planner's estimate of the whole, in its own unit.
    """

    root: Node
    planning_ms: float | None = None
    execution_ms: float | None = None
    settings: tuple[tuple[str, str], ...] = ()
    cost: float | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The types of all nodes, parents first: `("Limit", "Index Scan")`."""
        return tuple(node.type for node in self.root.walk())

    @property
    def indexes(self) -> tuple[str, ...]:
        """The indexes it reads, each once, in the order of the plan."""
        return tuple(dict.fromkeys(node.index for node in self.root.walk() if node.index))

    @property
    def buffers(self) -> int | None:
        """Shared buffers read from the cache and from outside it, of the whole execution."""
        if self.root.hit is None or self.root.read is None:
            return None
        return self.root.hit + self.root.read

    @property
    def heap_fetches(self) -> int | None:
        """Visits to the table that index-only scans had to make after all; None without such a scan."""
        found = [node.heap_fetches for node in self.root.walk() if node.heap_fetches is not None]
        return sum(found) if found else None

    @property
    def spilled(self) -> bool | None:
        """Whether anything went to temporary files."""
        return None if self.root.temp is None else self.root.temp > 0

    @property
    def hash(self) -> str:
        """The plan's shape in 16 hex digits: node types, relations, indexes, join types; no costs, no conditions."""
        return hashlib.sha256(repr(_shape(self.root)).encode()).hexdigest()[:16]

    def text(self) -> str:
        """One line a node, indented, with its conditions and without any figure: made for a diff."""
        return "\n".join(_lines(self.root, 0))

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; fields that are not known are left out."""
        return {
            "root": _node_to_json(self.root),
            "planning_ms": self.planning_ms,
            "execution_ms": self.execution_ms,
            "settings": dict(self.settings),
            "cost": self.cost,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        settings = tuple(kept["settings"].items())
        times = kept["planning_ms"], kept["execution_ms"]
        return cls(_node_from_json(kept["root"]), *times, settings, kept.get("cost"))


def explain(connection: Connection, bound: Bound, *, analyze: bool, timing: bool = True, timeout_s: float = 30) -> Plan:
    """The plan of a query for its values, in a READ ONLY transaction of its own.

    With `analyze` the query is executed; without `timing` its nodes are not clocked, which slows fast nodes down less.

    Raises:
        NotAnalysed: it is not one SELECT.
        psycopg.Error: the server refused it, or it took longer than `timeout_s`.
    """
    execution = f"ANALYZE, BUFFERS, TIMING {'ON' if timing else 'OFF'}, " if analyze else ""
    with reading(connection, timeout_s=timeout_s), Select(connection) as cursor:
        row = cursor.run(f"EXPLAIN ({execution}SETTINGS, FORMAT JSON) {one_select(bound.sql)}", bound.values).fetchone()
    assert row is not None
    return parse(row[0])


def parse(explained: Any) -> Plan:
    """What EXPLAIN (FORMAT JSON) gave, as text or as values, of PostgreSQL 13 to 18."""
    top = (json.loads(explained) if isinstance(explained, str | bytes) else explained)[0]
    settings = tuple(sorted(top.get("Settings", {}).items()))
    times = top.get("Planning Time"), top.get("Execution Time")
    return Plan(_node(top["Plan"]), *times, settings, cost=top["Plan"].get("Total Cost"))


def masked(condition: str) -> str:
    """A condition with every literal as `?`; identifiers, parameters and types stay."""
    return _TOKEN.sub(lambda match: match["kept"] or "?", condition)


def _node(found: Mapping[str, Any]) -> Node:
    executed = "Actual Loops" in found
    removed = [found[key] for key in _REMOVED if key in found]
    temp = [found[key] for key in ("Temp Read Blocks", "Temp Written Blocks") if key in found]
    return Node(
        type=found["Node Type"],
        relation=found.get("Relation Name") or found.get("Function Name") or found.get("CTE Name"),
        alias=found.get("Alias"),
        index=found.get("Index Name"),
        variant=tuple(str(found[key]) for key in _VARIANTS if key in found),
        parallel=bool(found.get("Parallel Aware")),
        conditions=tuple((key, _condition(found[key])) for key in _CONDITIONS if key in found),
        planned_rows=found.get("Plan Rows", 0),
        width=found.get("Plan Width", 0),
        rows=found.get("Actual Rows"),
        loops=found.get("Actual Loops"),
        actual_ms=found.get("Actual Total Time"),
        hit=found.get("Shared Hit Blocks") if executed else None,
        read=found.get("Shared Read Blocks") if executed else None,
        removed=sum(removed) if removed else None,
        heap_fetches=found.get("Heap Fetches"),
        sort_method=found.get("Sort Method"),
        sort_kb=found.get("Sort Space Used"),
        sort_on_disk=found["Sort Space Type"] == "Disk" if "Sort Space Type" in found else None,
        temp=sum(temp) if temp and executed else None,
        children=tuple(_node(child) for child in found.get("Plans", ())),
    )


def _condition(found: Any) -> str:
    return masked(", ".join(map(str, found)) if isinstance(found, list) else str(found))


def _shape(node: Node) -> tuple[Any, ...]:
    children = tuple(_shape(child) for child in node.children)
    return node.type, node.relation, node.index, node.variant, node.parallel, children


def _lines(node: Node, depth: int) -> Iterator[str]:
    conditions = "; ".join(f"{key}: {condition}" for key, condition in node.conditions)
    yield f"{'  ' * depth}{node.label}{f'  [{conditions}]' if conditions else ''}"
    for child in node.children:
        yield from _lines(child, depth + 1)


def _node_to_json(node: Node) -> dict[str, Any]:
    values = ((field, getattr(node, field.name)) for field in fields(node) if field.name != "children")
    # None and False are not the same here: a sort that stayed in memory, and a node that sorts nothing.
    kept = {field.name: value for field, value in values if value is not field.default and value != ()}
    return kept | ({"children": [_node_to_json(child) for child in node.children]} if node.children else {})


def _node_from_json(kept: Mapping[str, Any]) -> Node:
    values = dict(kept)
    values["variant"] = tuple(values.get("variant", ()))
    values["conditions"] = tuple((key, condition) for key, condition in values.get("conditions", ()))
    values["children"] = tuple(_node_from_json(child) for child in values.get("children", ()))
    return Node(**values)
