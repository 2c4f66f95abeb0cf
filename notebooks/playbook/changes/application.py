"""What the kinds share that change an application: their statements are code, and the journal is the switch."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import psycopg

from playbook.changes.change import Change, Finding, Stands
from playbook.target.sql import Statement


class ApplicationChange(Change):
    """A technique of an application, carried out on the reference service, whose switch is named like the kind.

    `apply` sends nothing to the target: it writes into the journal that the technique is on, and the service is started
    with what the journal says. `preview` shows the code or configuration that does it, to be copied.
    """

    of_service: ClassVar[bool] = True

    @property
    def tables(self) -> tuple[str, ...]:
        """It touches no relation."""
        return ()

    @abstractmethod
    def with_it(self) -> str:
        """The code with the technique."""

    @abstractmethod
    def without_it(self) -> str:
        """The code as the plan found it."""

    def statements(self) -> tuple[Statement, ...]:
        """The code, as one statement that is recorded and not sent."""
        purpose = f"switches {self.kind} on in the reference service; in your application:"
        return (Statement(self.with_it(), purpose, language="python"),)

    def undo(self) -> tuple[Statement, ...]:
        """The code as it was."""
        purpose = f"switches {self.kind} off in the reference service; that is:"
        return (Statement(self.without_it(), purpose, language="python"),)

    def stands(self) -> Stands:
        """No catalog knows of it: the journal decides."""
        return Stands("absent")

    def preflight(self, connection: psycopg.Connection[Any], *, execute: bool) -> list[Finding]:
        """Nothing speaks against code."""
        return []

    def repair(self, statement: Statement) -> Statement | None:
        """Nothing is left behind."""
        return None

    def outcome(self, connection: psycopg.Connection[Any], statement: Statement) -> Literal["done", "absent", "broken"]:
        """The target knows nothing of it."""
        return "absent"

    def makes(self) -> tuple[str, ...]:
        """Its switch."""
        return (f"switch {self.kind}",)

    def objects(self, connection: psycopg.Connection[Any]) -> dict[str, str]:
        """Its switch: that it is on stands in the journal, and nobody else can turn it."""
        return dict.fromkeys(self.makes(), "on")

    @staticmethod
    def definition(connection: psycopg.Connection[Any], name: str) -> str | None:
        """As long as the journal holds it, it is on."""
        return "on"

    def size_bytes(self, connection: psycopg.Connection[Any]) -> int:
        """It takes no room on the target."""
        return 0
