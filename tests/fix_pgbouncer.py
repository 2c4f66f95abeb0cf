"""Debian's PgBouncer in transaction mode before the embedded server, as an account without privileges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.servers import Daemon, folder, required

from playbook.target.account import server_account
from playbook.target.connect import Target, identify

PGBOUNCER = Path("/usr/sbin/pgbouncer")
PORT = 6432


@contextmanager
def pooling(conninfo: dict[str, Any], **settings: str) -> Iterator[dict[str, Any]]:
    """A PgBouncer with a pool of one connection to a database; yields what connects to it."""
    if not PGBOUNCER.exists():
        required("PgBouncer", "apt-get install pgbouncer")
    with folder("playbook-pool-") as place:
        account = server_account(place / "data")
        chosen = {
            "listen_addr": "",
            "listen_port": str(PORT),
            "unix_socket_dir": str(place),
            "unix_socket_mode": "0777",
            "auth_type": "scram-sha-256",
            "admin_users": str(conninfo["user"]),
            "auth_file": f"{place}/users",
            "pool_mode": "transaction",
            "default_pool_size": "1",
            "max_client_conn": "50",
            "ignore_startup_parameters": "extra_float_digits",
            "logfile": "",
            **settings,
        }
        where = " ".join(f"{key}={conninfo[key]}" for key in ("host", "port", "dbname"))
        lines = ["[databases]", f"{conninfo['dbname']} = {where}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in chosen.items()]
        config = place / "pgbouncer.ini"
        config.write_text("\n".join(lines) + "\n")
        (place / "users").write_text(f'"{conninfo["user"]}" "{conninfo["password"]}"\n')
        for path in (place, config, place / "users"):
            account.give(path)
        pooled = {**conninfo, "host": str(place), "port": PORT}
        daemon = Daemon([PGBOUNCER, config], account, place / "pgbouncer.log")
        try:
            ping = psycopg.conninfo.make_conninfo(**pooled)
            daemon.wait_until(lambda: psycopg.pq.PGconn.ping(ping.encode()) == psycopg.pq.Ping.OK)
            yield pooled
        finally:
            daemon.stop()


@pytest.fixture
def pooled(empty: Target) -> Iterator[Target]:
    """The database of `empty`, reached through PgBouncer in transaction mode with one connection for all clients."""
    with pooling(dict(empty.conninfo)) as conninfo:
        yield identify(Target(spec="env:POOLED_URL", conninfo=conninfo))
