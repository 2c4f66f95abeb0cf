"""The embedded PostgreSQL server: started for the first who acquires it, shared, stopped after the last."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from playbook.errors import EmbeddedError
from playbook.target import postmaster, supervisor
from playbook.target.binaries import wheel_binaries
from playbook.target.cluster import DATA_BYTES, SPARE_BYTES, START_LIMIT_S, Cluster
from playbook.target.filelock import FileLock
from playbook.target.lease import Leases
from playbook.target.postmaster import SUPERUSER, address

_NAME = "postgres-playbook"
_RELEASE_LIMIT_S = 10.0
_FULL = {errno.ENOSPC, errno.EDQUOT}

S = TypeVar("S")


@dataclass(frozen=True)
class Server:
    """Where the embedded server listens and how its superuser logs in.

    `host` is the socket folder, which every local account can reach where the file system allows; a TCP address only
    where there are no Unix sockets.
    """

    home: Path
    host: str
    port: int
    user: str
    password: str = field(repr=False)

    def conninfo(self, dbname: str = "postgres") -> dict[str, str | int]:
        """What `psycopg.connect` needs for a database, password included: not to be shown."""
        return address(self.host, self.port) | {"user": self.user, "password": self.password, "dbname": dbname}


class Lease(Generic[S]):
    """A hold on an embedded server: it runs at least until `release`, or the end of this process however it comes."""

    def __init__(self, server: S, process: supervisor.Stoppable, leases: Leases, lock: FileLock) -> None:
        self.server = server
        self._process, self._leases, self._pid = process, leases, os.getpid()
        self._lock: FileLock | None = lock
        atexit.register(self.release)

    def release(self) -> None:
        """Let go; the last one waits for the server's end. Done twice, or in a forked child, it does nothing."""
        lock, self._lock = self._lock, None
        atexit.unregister(self.release)
        if lock is None or self._pid != os.getpid():
            return
        self._leases.end(lock)
        # Should others be busy starting or stopping it, or the home be gone: the supervisor sees to the rest.
        with contextlib.suppress(EmbeddedError, OSError), self._leases.exclusively(_RELEASE_LIMIT_S):
            supervisor.retire(self._process, self._leases)

    def __enter__(self) -> Lease[S]:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True)
class Status:
    """What stands in a home: `pid` is the postmaster's, `holders` are the processes that hold leases."""

    home: Path
    running: bool
    pid: int | None
    host: str | None
    port: int | None
    holders: tuple[int, ...]
    disk_bytes: int


def default_home() -> Path:
    """Where the embedded server lives: PLAYBOOK_HOME, else `postgres-playbook` in the user's cache folder.

    Root's is /var/cache/postgres-playbook, since PostgreSQL refuses to run as root and the account that it runs under
    cannot enter /root.

    Raises:
        EmbeddedError: there is neither PLAYBOOK_HOME nor a home folder.
    """
    if chosen := os.environ.get("PLAYBOOK_HOME"):
        return Path(chosen).expanduser().absolute()
    if _is_root():
        return Path("/var/cache") / _NAME
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if cache.is_absolute():
        return cache / _NAME
    try:
        return Path.home() / ".cache" / _NAME
    except RuntimeError:
        raise EmbeddedError("this account has no home folder: set PLAYBOOK_HOME to a folder of your own") from None


def acquire(home: Path | None = None, progress: Callable[[str], None] | None = None) -> Lease[Server]:
    """Hold the embedded server of `home` (default: `default_home()`), made and started when it does not run.

    Everybody who acquires the same home shares one server. `progress` is told now and then, in a line, what is being
    waited for.

    Raises:
        EmbeddedError: the server cannot be made or started; the message names the cause and the remedy.
    """
    say = progress or (lambda _: None)
    home = Path(home).expanduser().resolve() if home else default_home().resolve()
    with usable(home):
        cluster = Cluster(own_folder(_place(home)))

        def start(outer: FileLock) -> Server:
            found = cluster.ensure_running(outer, say)
            return Server(home, found.host, found.port, SUPERUSER, cluster.password())

        return hold(cluster, start, say)


def hold(process: supervisor.Stoppable, start: Callable[[FileLock], S], say: Callable[[str], None]) -> Lease[S]:
    """A lease on the server `process`, which `start` makes run under the lock over starting and stopping.

    Raises:
        EmbeddedError: others kept that lock too long, or what `start` raises.
    """
    leases = Leases(process.folder)
    with leases.exclusively(START_LIMIT_S + 60, say):
        leases.clear()
        lock = leases.new()
        try:
            supervisor.post(process)
            server = start(leases.lock)
        except BaseException:
            leases.end(lock)
            raise
    return Lease(server, process, leases, lock)


def status(home: Path | None = None) -> Status:
    """What stands in `home` now; changes nothing, and waits for nobody."""
    home = Path(home).expanduser().resolve() if home else default_home().resolve()
    with usable(home):
        folder = _place(home)
        cluster = Cluster(folder)
        running, found = cluster.running(), postmaster.find(cluster.data)
        listens = postmaster.read_pid_file(cluster.data) if running else None
        return Status(
            home=home,
            running=running,
            pid=found.pid if found else None,
            host=listens.host if listens else None,
            port=listens.port if listens else None,
            holders=Leases(folder).holders(),
            disk_bytes=_disk_bytes(home),
        )


def _place(home: Path) -> Path:
    # By major version, since no PostgreSQL reads the data of another.
    return home / f"postgres-{wheel_binaries().major}"


def own_folder(folder: Path) -> Path:
    """The folder of a server, which stands in a home; made with all that is missing above it, and ours alone.

    Raises:
        EmbeddedError: it is another account's.
    """
    for path in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            # Only what we have just made: as root the server's account must get through, and at the bottom everybody
            # who wants to reach the socket.
            if _is_root() or path in (folder.parent, folder):
                path.chmod(0o755)
    owner = folder.stat().st_uid
    if hasattr(os, "geteuid") and owner != os.geteuid():
        raise EmbeddedError(
            f"{folder} was made by user id {owner} and you are {os.geteuid()}: run the playbook as that user, or set "
            "PLAYBOOK_HOME to a folder of your own"
        )
    return folder


@contextlib.contextmanager
def usable(home: Path) -> Iterator[None]:
    """Turn what the operating system refuses into one line that names the cause and the remedy."""
    try:
        yield
    except OSError as error:
        cause = f"{home} cannot be used for the embedded server ({error.strerror or error})"
        if error.errno in _FULL:
            needed = (DATA_BYTES + SPARE_BYTES) / 1e6
            raise EmbeddedError(
                f"{cause}: make room, it needs {needed:.0f} MB, or set PLAYBOOK_HOME to a folder on a larger disk"
            ) from error
        raise EmbeddedError(f"{cause}: set PLAYBOOK_HOME to a folder that you may write to") from error


def _disk_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # a file gone since
                found = os.lstat(os.path.join(parent, name))
                if stat.S_ISREG(found.st_mode):
                    total += getattr(found, "st_blocks", found.st_size // 512) * 512
    return total


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
