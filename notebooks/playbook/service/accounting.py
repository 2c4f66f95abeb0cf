"""What a request cost: its statements, the time the database took for them, the rows that came back."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, event

STATEMENTS, DATABASE_MS, ROWS = "x-statements", "x-database-ms", "x-rows"
"""Response headers."""


@dataclass
class Account:
    """The costs of one request, so far. A request runs in one thread at a time."""

    statements: int = 0
    seconds: float = 0.0
    rows: int = 0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As response headers."""
        values = {STATEMENTS: str(self.statements), DATABASE_MS: f"{1000 * self.seconds:.3f}", ROWS: str(self.rows)}
        return [(name.encode(), value.encode()) for name, value in values.items()]


_account: ContextVar[Account | None] = ContextVar("account", default=None)


def watch(engine: Engine) -> None:
    """Has the statements of `engine` charged to the request that sends them."""

    @event.listens_for(engine, "before_cursor_execute")
    def before(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        context._sent_at = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
        if (account := _account.get()) is not None:
            account.statements += 1
            account.seconds += time.perf_counter() - context._sent_at
            account.rows += max(cursor.rowcount, 0)


class Accounting:
    """ASGI middleware: each answer tells what it cost in its headers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Opens an account for the request and adds its headers to the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        account = Account()

        async def send_with_costs(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *account.headers()]
            await send(message)

        token = _account.set(account)
        try:
            await self._app(scope, receive, send_with_costs)
        finally:
            _account.reset(token)
