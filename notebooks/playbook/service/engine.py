"""The service's connections to its database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine

from playbook.service.pool import PoolSettings
from playbook.service.switches import Switches

CONNECT_TIMEOUT_S = 2
"""A database that is down is told at once, not after libpq's patience."""


POOL = PoolSettings(size=16)
"""With the switch `pool`: what the sweep of notebook 02_1 recommends for the service's load, with a margin."""


def make_engine(conninfo: Mapping[str, Any], switches: Switches, **options: Any) -> Engine:
    """One engine for the process. As found it is SQLAlchemy's ordinary pool: five connections and ten more in need.

    The password reaches psycopg only: no URL, and so no `repr` or log, holds it. `options` are `create_engine`'s,
    in place of the pool that the switch chooses.
    """
    parameters = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": f"playbook service ({switches})"[:63],
        **conninfo,
        "options": "-c TimeZone=UTC",
    }
    if switches.pool and not options:
        options = POOL.options()
        parameters |= POOL.connect_options()
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters), **options)
