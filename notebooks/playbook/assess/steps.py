"""Findings as steps of a plan: YAML to paste under `steps:` of a phase, with names that resolve on this target."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

from playbook.target.catalog import Catalog, Constraint, Table

_NAME = r'(?:"(?:[^"]|"")+"|[^\s",()."]+)'
_CHECK = re.compile(r"CHECK \((?P<expression>.*)\)(?: NOT VALID)?\Z", re.DOTALL)
_FOREIGN_KEY = re.compile(
    rf"FOREIGN KEY \((?P<columns>{_NAME}(?:, {_NAME})*)\) REFERENCES (?:{_NAME}\.)?{_NAME}"
    rf"\((?P<keys>{_NAME}(?:, {_NAME})*)\)"
    r"(?: ON UPDATE (?P<on_update>NO ACTION|RESTRICT|CASCADE|SET NULL|SET DEFAULT))?"
    r"(?: ON DELETE (?P<on_delete>NO ACTION|RESTRICT|CASCADE|SET NULL|SET DEFAULT))?(?: NOT VALID)?\Z"
)
_LONGEST_NAME = 63
_INDENT = 6
"""Where the steps of a phase stand in a plan file."""


def index_step(table: Table, columns: Sequence[str], catalog: Catalog) -> str:
    """A b-tree index on plain columns, kept whatever is measured: it serves what the plan's queries do not show."""
    keys = [name if re.fullmatch(r"[^\s]+", name) else {"column": name} for name in columns]
    return _yaml(
        {
            "name": index_name(table, columns, catalog),
            "kind": "index",
            "table": plan_name(table, catalog),
            "columns": keys,
            "keep": "always",
        }
    )


def validation_step(table: Table, constraint: Constraint, catalog: Catalog) -> str:
    """The step whose `apply` validates a constraint that stands NOT VALID; empty where no kind of step does."""
    common = {"name": constraint.name, "table": plan_name(table, catalog)}
    if constraint.kind == "c" and (match := _CHECK.fullmatch(constraint.definition)):
        return _yaml({**common, "kind": "check", "expression": match["expression"]})
    if constraint.kind == "f" and (match := _FOREIGN_KEY.fullmatch(constraint.definition)):
        referenced = _referenced(constraint, catalog)
        if referenced is None:
            return ""
        actions = {name: match[name].lower() for name in ("on_update", "on_delete") if match[name]}
        references = {"table": plan_name(referenced, catalog), "columns": _names(match["keys"])}
        return _yaml(
            {
                **common,
                "kind": "foreign_key",
                "columns": list(constraint.columns),
                "references": references,
                **{name: action for name, action in actions.items() if action != "no action"},
            }
        )
    return ""


def partition_step(table: Table, key: str, catalog: Catalog) -> str:
    """Partitions by the month; the step's name is the new parent's while it is built."""
    step = {"name": _free(f"{table.name}_partitioned", table, catalog), "kind": "partition"}
    return _yaml({**step, "table": plan_name(table, catalog), "key": key, "every": "month"})


def index_name(table: Table, columns: Sequence[str], catalog: Catalog) -> str:
    """`idx_orders_customer_id`: cut to the bytes that PostgreSQL keeps, and none that stands already."""
    return _free("_".join(("idx", table.name, *columns)), table, catalog)


def _free(head: str, table: Table, catalog: Catalog) -> str:
    for number in range(1, 1000):
        tail = "" if number == 1 else f"_{number}"
        name = head.encode()[: _LONGEST_NAME - len(tail)].decode(errors="ignore") + tail
        if catalog.index(table.schema, name) is None and catalog.table(table.schema, name) is None:
            return name
    raise AssertionError(f"no free name beside {table.qualified}")


def plan_name(table: Table, catalog: Catalog) -> str:
    """The table as a plan names it: bare where the search_path leads to it."""
    schemas = (schema for schema in catalog.search_path if catalog.table(schema, table.name))
    parts = (table.name,) if next(schemas, None) == table.schema else (table.schema, table.name)
    return ".".join(_part(part) for part in parts)


def _part(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if {'"', "."} & set(name) else name


def _referenced(constraint: Constraint, catalog: Catalog) -> Table | None:
    return next((table for table in catalog.tables if table.qualified == constraint.references), None)


def _names(listed: str) -> list[str]:
    return [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in re.findall(_NAME, listed)]


def _yaml(step: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    text = StringIO()
    yaml.dump([dict(step)], text)
    pad = " " * (_INDENT - 2)
    return "".join(f"{pad}{line}\n" for line in text.getvalue().splitlines())
