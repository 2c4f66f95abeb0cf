"""The service's connections to its database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine

from playbook.service.switches import Switches

CONNECT_TIMEOUT_S = 2
"""A database that is down is told at once, not after libpq's patience."""


def make_engine(conninfo: Mapping[str, Any], switches: Switches, **options: Any) -> Engine:
    """One engine for the process. As found it is SQLAlchemy's ordinary pool: five connections and ten more in need.

    The password reaches psycopg only: no URL, and so no `repr` or log, holds it. `options` are `create_engine`'s,
    in place of the pool that a technique chooses.
    """
    parameters = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "application_name": f"playbook service ({switches})"[:63],
        **conninfo,
        "options": "-c TimeZone=UTC",
    }
    pool = next((each.pool for each in switches.techniques() if each.pool), None)
    if pool and not options:
        options = pool.options()
        parameters |= pool.connect_options()
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters), **options)
