"""Loader options from the relationships that an endpoint needs, written as dotted paths (`products.product`).

To-one relationships are joined, which adds no row. To-many ones get a statement of their own: joined, they would
multiply the rows of their parents, and two of them each other. Whatever is not named raises when it is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import RelationshipProperty, class_mapper, defer, joinedload, raiseload, selectinload
from sqlalchemy.orm.interfaces import ORMOption

from playbook.errors import PlanError

Tree = dict[str, Any]
"""Names of relationships, each with those below it."""
INDENT = "    "


def options(root: type[Any], paths: Iterable[str], leave_out: Iterable[str] = ()) -> tuple[ORMOption, ...]:
    """What `select(root).options(…)` takes. `leave_out` are columns (`sections.body`) that are not to be loaded.

    Raises:
        PlanError: a path names no relationship, or no column; the message lists those there are.
    """
    loads = [_load(root, name, below) for name, below in _tree(paths, leave_out).items()]
    return (*loads, raiseload("*", sql_only=True))


def code(root: type[Any], paths: Iterable[str], leave_out: Iterable[str] = ()) -> str:
    """The same options as Python, to be copied.

    Raises:
        PlanError: a path names no relationship, or no column; the message lists those there are.
    """
    lines = [f"{INDENT}{_load_code(root, name, below)}," for name, below in _tree(paths, leave_out).items()]
    return "\n".join([f"select({root.__name__}).options(", *lines, f'{INDENT}raiseload("*", sql_only=True),', ")"])


def walked(root: type[Any], paths: Iterable[str]) -> str:
    """The loop that loads them one by one, as Python."""
    lines = list(_walk(root, "row", _tree(paths), 1))
    return "\n".join([f"for row in session.scalars(select({root.__name__})):", *lines])


def _tree(paths: Iterable[str], leave_out: Iterable[str] = ()) -> Tree:
    tree: Tree = {}
    for path in (*paths, *leave_out):
        branch = tree
        for name in path.split("."):
            branch = branch.setdefault(name, {})
    return tree


def _is_column(owner: type[Any], name: str, below: Tree) -> bool:
    return not below and name in class_mapper(owner).column_attrs


def _relationship(owner: type[Any], name: str) -> RelationshipProperty[Any]:
    known = class_mapper(owner).relationships
    if name not in known:
        raise PlanError(f"{owner.__name__} has no relationship {name}; it has {', '.join(sorted(known.keys()))}")
    return known[name]


def _load(owner: type[Any], name: str, below: Tree) -> Any:
    if _is_column(owner, name, below):
        return defer(getattr(owner, name), raiseload=True)
    found = _relationship(owner, name)
    attribute = getattr(owner, name)
    load = selectinload(attribute) if found.uselist else joinedload(attribute, innerjoin=_always_there(found))
    if below:
        load = load.options(*(_load(found.mapper.class_, *branch) for branch in below.items()))
    return load


def _load_code(owner: type[Any], name: str, below: Tree) -> str:
    if _is_column(owner, name, below):
        return f"defer({owner.__name__}.{name}, raiseload=True)"
    found = _relationship(owner, name)
    inner = ", innerjoin=True" if _always_there(found) else ""
    loader = "selectinload" if found.uselist else "joinedload"
    text = f"{loader}({owner.__name__}.{name}{'' if found.uselist else inner})"
    parts = [_load_code(found.mapper.class_, *branch) for branch in below.items()]
    return f"{text}.options({', '.join(parts)})" if parts else text


def _walk(owner: type[Any], variable: str, tree: Tree, depth: int) -> Iterable[str]:
    for name, below in tree.items():
        found = _relationship(owner, name)
        shown = f"{variable}.{name}"
        statement = f"SELECT … FROM {found.mapper.local_table} for each {owner.__name__}"
        if not below:
            yield f"{INDENT * depth}{shown}  # {statement}"
            continue
        yield f"{INDENT * depth}for each in {shown}:  # {statement}"
        yield from _walk(found.mapper.class_, "each", below, depth + 1)


def _always_there(found: RelationshipProperty[Any]) -> bool:
    return not found.uselist and not any(column.nullable for column in found.local_columns)
