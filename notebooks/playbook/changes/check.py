"""Kind `check`: a CHECK constraint on a table in use."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from playbook.changes.constraint import Constraint, ConstraintSpec
from playbook.changes.equality import same_condition
from playbook.changes.expressions import same_expression
from playbook.plan.names import Names
from playbook.target import catalog as catalogs
from playbook.target.catalog import Catalog

_CHECK = re.compile(r"CHECK \((?P<expression>.*)\)(?: NOT VALID)?\Z", re.DOTALL)


class CheckSpec(ConstraintSpec):
    """`expression` stands inside CHECK ( )."""

    expression: str


class Check(Constraint):
    """A CHECK of the plan on one table of the target."""

    kind = "check"
    Spec = CheckSpec
    by_plan = True
    spec: CheckSpec

    def __init__(self, spec: CheckSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self.expression = names.rewrite_expression(spec.table, spec.expression)
        self._proven: frozenset[str] = frozenset()

    def ask(self, connection: psycopg.Connection[Any]) -> None:
        """Which CHECKs that stand say the same, of those whose text alone cannot tell (a regular expression)."""
        others = [each.definition for each in self.table.constraints if each.kind == "c" and not self.same(each)]
        texts = {text: match["expression"] for text in others if (match := _CHECK.fullmatch(text))}
        self._proven = frozenset(
            text for text, other in texts.items() if same_condition(connection, self.table, self.expression, other)
        )

    @property
    def body(self) -> str:
        """CHECK with the target's names."""
        return f"CHECK ({self.expression})"

    def violated(self) -> str:
        """NULL passes a CHECK, and NOT NULL is NULL: so exactly the rows that PostgreSQL would refuse."""
        return f"NOT ({self.expression}\n)"

    def same(self, constraint: catalogs.Constraint) -> bool:
        """The same expression, inherited and enforced."""
        if constraint.kind != "c" or not (match := _CHECK.fullmatch(constraint.definition)):
            return False
        return constraint.definition in self._proven or same_expression(
            self.expression, match["expression"], self.table
        )

    def paid_by_writers(self) -> tuple[str, str, tuple[str, ...]]:
        """Every row that is written is held to it."""
        return self.table.schema, self.table.name, (self.spec.name,)
