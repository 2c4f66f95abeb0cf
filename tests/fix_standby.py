"""A streaming standby of the PostgreSQL 15 server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers import DEBIAN_15, Postgres, folder


@pytest.fixture(scope="session")
def standby15(postgres15: Postgres) -> Iterator[Postgres]:
    """It streams from `postgres15`; `catch_up` waits until it has replayed all that stands there."""
    with folder("playbook-pg-") as place:
        server = Postgres(DEBIAN_15, place, {**postgres15.settings, "unix_socket_directories": str(place)})
        server.follow(postgres15)
        try:
            server.start()
            yield server
        finally:
            server.stop()
