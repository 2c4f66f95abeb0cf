"""A server of one's own, to be killed and restarted, and faults that strike at one point of one statement."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import fix_partitions, fix_shop
from tests.fix_shop import Shop, statuses

from playbook import undoing
from playbook.errors import PlaybookError, Unreachable
from playbook.journal import StatementRecord
from playbook.target import embedded
from playbook.target.connect import Target, identify
from playbook.target.sessions import Sessions

_numbers = itertools.count(1)


@dataclass
class OwnServer:
    """An embedded server that nobody else uses."""

    home: Path
    lease: embedded.Lease

    def kill_backend(self, pid: int) -> None:
        """kill -9 of one backend: the postmaster ends all the others and recovers."""
        os.kill(pid, signal.SIGKILL)

    def kill(self, pid: int = 0) -> None:
        """kill -9 of the postmaster; its backends end when they notice."""
        os.kill(embedded.status(self.home).pid, signal.SIGKILL)

    def shut_down(self, pid: int = 0) -> None:
        """A fast shutdown, as an administrator restarts a server."""
        os.kill(embedded.status(self.home).pid, signal.SIGINT)

    def recover(self, target: Target) -> None:
        """Starts it where it does not run, and waits until it takes connections."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            before, self.lease = self.lease, embedded.acquire(self.home)
            before.release()
            with suppress(Unreachable, psycopg.Error), target.connect() as connection:
                connection.execute("SELECT 1")
                return
            time.sleep(0.05)
        raise AssertionError("the server did not come back")


@pytest.fixture(scope="session")
def own_server() -> Iterator[OwnServer]:
    """Started once a session; it recovers from whatever a test does to it."""
    home = Path(tempfile.mkdtemp(prefix="playbook-faults-"))
    home.chmod(0o755)
    own = OwnServer(home, embedded.acquire(home))
    yield own
    own.lease.release()
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def database(own: OwnServer) -> Iterator[Target]:
    """A new database on it, gone afterwards, however the server was left."""
    name = f"faults_{next(_numbers)}"
    with psycopg.connect(**own.lease.server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    target = identify(Target(spec="env:DATABASE_URL", conninfo=own.lease.server.conninfo(name)))
    yield target
    own.recover(target)
    with psycopg.connect(**own.lease.server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def own_shop(own_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The shop on a server that may be killed."""
    with database(own_server) as target:
        yield fix_shop.lay_out(target, tmp_path, monkeypatch)


@pytest.fixture
def own_accounts(own_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The accounts on a server that may be killed; two indexes are there to be adopted."""
    with database(own_server) as target:
        accounts = fix_partitions.lay_out(target, tmp_path, monkeypatch)
        accounts.execute("CREATE INDEX mine ON entries_2026 (account, at DESC)")
        accounts.execute("CREATE INDEX whole_year ON entries_2025 (account, at DESC)")
        yield accounts


POINTS = ("after_intent", "during", "before_done")


@dataclass
class Fault:
    """Strikes once: at `point` of the statement at `position`, with what `kill` does to its backend.

    `during` strikes while the statement waits for a session that `touch`ed its table; where nothing makes it wait,
    right after it.
    """

    shop: Shop
    direction: str
    position: int
    point: str
    kill: Callable[[int], None]
    touch: str
    step: str = ""
    struck: bool = False
    _pid: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _blocker: psycopg.Connection | None = None

    @contextmanager
    def arranged(self) -> Iterator[None]:
        intent, done = StatementRecord.intent, StatementRecord.done

        def strikes_here(record: StatementRecord) -> bool:
            here = (record.direction, record.position) == (self.direction, self.position)
            return here and record.step.endswith(self.step) and not self.struck

        def with_intent(record: StatementRecord, pid: int, start: str) -> None:
            intent(record, pid, start)
            if strikes_here(record):
                self._pid = pid
                if self.point == "after_intent":
                    self._strike()
                elif self.point == "during" and self._blocker is None:
                    self._blocker = self.shop.target.connect()
                    self._blocker.execute("BEGIN")
                    self._blocker.execute(self.touch.encode())
                    threading.Thread(target=self._strike_once_it_waits, daemon=True).start()

        def with_done(record: StatementRecord, connection: psycopg.Connection | None) -> None:
            if strikes_here(record) and self.point != "after_intent":
                self._strike()
            done(record, connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StatementRecord, "intent", with_intent)
            patch.setattr(StatementRecord, "done", with_done)
            yield
        with self._lock:
            if self._blocker:
                self._blocker.close()

    def _strike(self) -> None:
        with self._lock:
            if not self.struck:
                self.struck = True
                self.kill(self._pid)

    def _strike_once_it_waits(self) -> None:
        with suppress(psycopg.Error, Unreachable), self.shop.target.connect() as connection:
            asked = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
            while not self.struck:
                if connection.execute(asked, [self._pid]).fetchone():
                    self._strike()
                time.sleep(0.002)


Place = tuple[str, str, int]
"""Direction, step, position."""


def reasons(answer: Any) -> str:
    """Why, in one line."""
    return "; ".join(row[1].reason for row in answer.steps)


def resume(shop: Shop) -> None:
    """The next run goes on, and everything stands after it."""
    applied = shop.playbook().phase(shop.phase).apply()
    assert set(statuses(applied).values()) == {"applied"}, reasons(applied)
    assert shop.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


def undo(shop: Shop) -> None:
    """Takes everything back."""
    assert {one.error for one in undoing.undo(shop.context())} <= {""}


def points_of(shop: Shop) -> list[Place]:
    """Every statement of apply, from `preview`, and every one that an undo then runs, from the journal."""
    counted = shop.playbook().phase(shop.phase)
    found = [("apply", name, at) for name, sts, _ in counted.preview().steps for at in range(len(sts))]
    counted.apply()
    return found + points_of_undo(shop)


def points_of_undo(shop: Shop) -> list[Place]:
    """Every statement that an undo of what stands runs, from the journal."""
    undo(shop)
    ran = shop.execute("SELECT step, position FROM playbook.statement WHERE direction = 'undo' ORDER BY 1, 2")
    return [("undo", step, at) for step, at in ran]


def strike(shop: Shop, own: OwnServer, kill: Callable[[int], None], touch: str, place: Place, point: str) -> None:
    """Applies or undoes until the fault strikes there, and waits until the server is back."""
    if place[0] == "undo":
        resume(shop)
    strike_alone(shop, own, kill, touch, place, point)


def strike_alone(shop: Shop, own: OwnServer, kill: Callable[[int], None], touch: str, place: Place, point: str) -> None:
    """The same where what is to be undone stands."""
    direction, step, position = place
    fault = Fault(shop, direction, position, point, kill, touch, step)
    with fault.arranged(), suppress(PlaybookError):
        shop.playbook().phase(shop.phase).apply() if direction == "apply" else undoing.undo(shop.context())
    own.recover(shop.target)
    assert fault.struck, (place, point)


def strike_everywhere(
    shop: Shop,
    own: OwnServer,
    kill: Callable[[int], None],
    touch: str,
    snapshot: Callable[[Target], object],
    points: tuple[str, ...] = POINTS,
) -> tuple[int, list[Place]]:
    """Every statement at every point, resumed and not, each time undone: how many strikes, and the statements."""
    as_found = snapshot(shop.target)
    places = points_of(shop)
    covered = 0
    for place in places:
        for point in points:
            for resumed in (True, False) if place[0] == "apply" else (False,):
                strike(shop, own, kill, touch, place, point)
                if resumed:
                    resume(shop)
                undo(shop)
                assert snapshot(shop.target) == as_found, (place, point, resumed)
                covered += 1
    return covered, places


def killed(shop: Shop, place: Place, point: str, touch: str) -> None:
    """Applies or undoes in another process, which dies there by kill -9."""
    direction, step, position = place
    assert shop.killed(step, point, position, direction, touch) == -9, (place, point)


def killed_everywhere(shop: Shop, touch: str, take: Callable[[Target], Any]) -> tuple[int, list[Place]]:
    """As `strike_everywhere`, by kill -9 of the client; `take` tells the state that has to come back each time."""
    as_found = take(shop.target)
    places = points_of(shop)
    covered = 0
    for place in places:
        for point in ("before_intent", *POINTS, "after_done"):
            for resumed in (True, False) if place[0] == "apply" else (False,):
                if place[0] == "undo":
                    resume(shop)
                killed(shop, place, point, touch)
                if resumed:
                    resume(shop)
                undo(shop)
                assert take(shop.target) == as_found, (place, point, resumed)
                covered += 1
    return covered, places


@dataclass(frozen=True)
class SmallDisk:
    """A tablespace on a disk of its own, in which a database may make what is new."""

    admin: Target
    name: str
    folder: Path

    def grow(self) -> None:
        """From here on it has room."""
        subprocess.run(["mount", "-o", "remount,size=32m", self.folder], check=True)

    def choose(self) -> None:
        """From here on what new sessions make lies there."""
        self._default(f"SET default_tablespace = {self.name}")

    def leave(self) -> None:
        """From here on it lies where it did before."""
        self._default("RESET default_tablespace")

    def _default(self, what: str) -> None:
        with self.admin.connect() as connection:
            connection.execute(f"ALTER DATABASE {self.admin.conninfo['dbname']} {what}".encode())


@contextmanager
def small_disk(admin: Target, size: str, user: str) -> Iterator[SmallDisk]:
    """A tmpfs, which takes root; empty again in the end. `user` may use it."""
    folder = Path(tempfile.mkdtemp(prefix="playbook-small-"))  # pytest's own folder is closed to the server's account
    disk = SmallDisk(admin, f"small_{admin.conninfo['dbname']}", folder)
    with admin.connect() as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sessions, "kept", lambda sessions: nullcontext())  # only a new one has another default tablespace
        data = connection.execute("SELECT current_setting('data_directory')").fetchall()[0][0]
        owner = Path(data).stat()
        options = f"size={size},mode=700,uid={owner.st_uid},gid={owner.st_gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        try:
            connection.execute(f"CREATE TABLESPACE {disk.name} LOCATION '{folder}'")
            connection.execute(f'GRANT CREATE ON TABLESPACE {disk.name} TO "{user}"')
            yield disk
            disk.leave()
            connection.execute(f"DROP TABLESPACE {disk.name}")
        finally:
            subprocess.run(["umount", "-l", folder], check=True)
            folder.rmdir()


class Proxy:
    """Between client and server: it passes everything on, until the COMMIT of a transaction that held `marker`.

    Then the connection is lost, with the COMMIT `delivered` or not; of one that was not, the server hears nothing more.
    """

    def __init__(self, target: Target, marker: bytes, *, delivered: bool) -> None:
        c = target.conninfo
        self._server = f"{c['host']}/.s.PGSQL.{c['port']}"
        self._marker, self._delivered = marker, delivered
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://{c['user']}:{c['password']}@127.0.0.1:{self._listener.getsockname()[1]}/{c['dbname']}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                threading.Thread(target=self._upwards, args=(client, server), daemon=True).start()
                threading.Thread(target=self._downwards, args=(client, server), daemon=True).start()

    def _upwards(self, client: socket.socket, server: socket.socket) -> None:
        marked = False
        with suppress(OSError), closing(server), closing(client):
            while data := client.recv(65536):
                marked = marked or (data[:1] == b"Q" and self._marker in data)
                if marked and b"COMMIT" in data and not self.cut:
                    self.cut += 1
                    client.shutdown(socket.SHUT_RDWR)
                    if self._delivered:
                        server.sendall(data)
                        time.sleep(0.2)
                        server.shutdown(socket.SHUT_RDWR)
                    return
                server.sendall(data)

    def _downwards(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
