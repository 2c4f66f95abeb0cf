"""Conditions in SQL by which a statement finds out whether it is still needed: what is there, and in which state."""

from __future__ import annotations

from playbook.target.sql import literal


def is_there(qualified: str) -> str:
    """The condition that a relation of that quoted name is there."""
    return f"to_regclass({literal(qualified)}) IS NOT NULL"


def is_gone(qualified: str) -> str:
    """The condition that none is there."""
    return f"to_regclass({literal(qualified)}) IS NULL"


def is_valid(constraint: str, table: str) -> str:
    """The condition that the constraint of that bare name stands on the table of that quoted one, and is verified."""
    return (
        "EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE convalidated "
        f"AND conrelid = to_regclass({literal(table)}) AND conname = {literal(constraint)})"
    )


def is_constrained(constraint: str, table: str) -> str:
    """The condition that a constraint of that bare name is on the table of that quoted one, verified or not."""
    return (
        "EXISTS (SELECT FROM pg_catalog.pg_constraint "
        f"WHERE conrelid = to_regclass({literal(table)}) AND conname = {literal(constraint)})"
    )


def is_kind(qualified: str, kind: str) -> str:
    """The condition that it is of that kind: r, or p for a partitioned table."""
    which = f"oid = to_regclass({literal(qualified)}) AND relkind = '{kind}'"
    return f"EXISTS (SELECT FROM pg_catalog.pg_class WHERE {which})"


def is_part(partition: str, whole: str) -> str:
    """The condition that the one is a partition of the other, or its index one of the other's; by quoted names."""
    return (
        "EXISTS (SELECT FROM pg_catalog.pg_inherits "
        f"WHERE inhrelid = to_regclass({literal(partition)}) AND inhparent = to_regclass({literal(whole)}))"
    )
