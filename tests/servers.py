"""Servers that the tests start from other people's binaries: on a free socket, as an account without privileges."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from playbook.target.account import Account, server_account
from playbook.target.connect import Target, identify

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
DEBIAN_SHARE_15 = Path("/usr/share/postgresql/15/extension")
START_LIMIT_S = 60
SETTINGS = {
    "fsync": "off",
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_worker_processes": "16",
    "wal_level": "logical",
    "track_io_timing": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0777",
}


def required(what: str, remedy: str) -> None:
    """Skips the test for want of `what`; in CI, which installs what the tests need, fails it."""
    reason = f"{what} is not here: {remedy}"
    pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A folder that every account can enter, as pytest's own are not; with a path short enough for a socket."""
    place = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on just now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


class Daemon:
    """A server in the foreground, as our child under an account without privileges; it dies with us, kill -9 included."""

    def __init__(self, command: Sequence[str | Path], account: Account, log: Path) -> None:
        dying = ["setpriv", "--pdeathsig", "QUIT", "--"] if shutil.which("setpriv") else []
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*dying, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                **account.identity,
            )

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Waits until the server answers; one that ends before that fails with what it logged."""
        deadline = time.monotonic() + START_LIMIT_S
        while not answers():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """Ends it and waits for its end."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(timeout=START_LIMIT_S)


class Postgres:
    """A PostgreSQL server of its own in `place`: data, socket and log. Its superuser has a password, as elsewhere."""

    user = "postgres"
    port = 5432

    def __init__(self, binaries: Path, place: Path, settings: Mapping[str, str] = {}) -> None:
        self.place = place
        self.data = place / "data"
        self.password = secrets.token_urlsafe(18)
        self.settings = {**SETTINGS, "unix_socket_directories": str(place), "port": str(self.port), **settings}
        self.account = server_account(self.data)
        self._binaries = binaries
        self._daemon: Daemon | None = None

    def initialize(self) -> None:
        """initdb."""
        self.account.give(self.place)
        handed = self.place / "password"
        handed.write_text(self.password)
        self.account.give(handed)
        self._run(
            *("initdb", "-D", self.data, "-U", self.user, f"--pwfile={handed}", "--no-sync", "--no-instructions"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"),
        )
        handed.unlink()

    def follow(self, primary: Postgres) -> None:
        """pg_basebackup instead of initdb: a streaming standby of `primary`."""
        self.account.give(self.place)
        self.password = primary.password
        source = psycopg.conninfo.make_conninfo(**primary.conninfo(dbname=None))
        self._run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source)

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = self.account.run([self._binaries / program, *arguments])
        assert done.returncode == 0, done.stdout

    def start(self, **settings: str) -> None:
        """Starts the server and waits until it takes connections; `settings` are for this start only."""
        chosen = {**self.settings, **{name.replace("__", "."): value for name, value in settings.items()}}
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        command = [self._binaries / "postgres", "-D", self.data, *options]
        self._daemon = Daemon(command, self.account, self.place / "server.log")
        where = psycopg.conninfo.make_conninfo(host=str(self.place), port=self.port, user="postgres", dbname="postgres")
        self._daemon.wait_until(lambda: psycopg.pq.PGconn.ping(where.encode()) == psycopg.pq.Ping.OK)

    def stop(self, how: int = signal.SIGQUIT) -> None:
        """Stops the server; by default at once, since nobody misses its data."""
        if self._daemon is not None:
            self._daemon.stop(how)

    def restart(self, **settings: str) -> None:
        """Stops it cleanly and starts it with these settings besides its own; `cron__database_name` has a dot."""
        self.stop(signal.SIGINT)
        self.start(**settings)

    def conninfo(self, dbname: str | None = "postgres") -> dict[str, Any]:
        """What `psycopg.connect` needs to be the superuser."""
        where = {"host": str(self.place), "port": self.port, "user": self.user, "password": self.password}
        return where | ({"dbname": dbname} if dbname else {})

    def url(self, dbname: str = "postgres") -> str:
        """The superuser's URL, password included."""
        return f"postgresql://{self.user}:{self.password}@/{dbname}?host={self.place}&port={self.port}"

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        """An autocommit session as superuser."""
        return psycopg.connect(**self.conninfo(dbname), autocommit=True)

    def catch_up(self, primary: Target) -> None:
        """Waits until this standby has replayed all that stands on `primary`."""
        with primary.connect() as source, self.connect() as standby:
            (wanted,) = source.execute("SELECT pg_current_wal_lsn()::text").fetchone()
            deadline = time.monotonic() + START_LIMIT_S
            while not standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [wanted]).fetchone()[0]:
                assert time.monotonic() < deadline, (self.place / "server.log").read_text()
                time.sleep(0.02)

    @contextmanager
    def database(self, name: str) -> Iterator[Target]:
        """A new empty database as a foreign target."""
        with self.connect() as admin:
            admin.execute(f"CREATE DATABASE {name}")
            try:
                yield identify(Target(spec="env:DATABASE_URL", conninfo=self.conninfo(name)))
            finally:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def running(binaries: Path, settings: Mapping[str, str] = {}) -> Iterator[Postgres]:
    """A new server of `binaries`, gone without a trace afterwards."""
    with folder("playbook-pg-") as place:
        server = Postgres(binaries, place, settings)
        server.initialize()
        try:
            server.start()
            yield server
        finally:
            server.stop()
