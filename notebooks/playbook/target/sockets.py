"""Where the embedded server listens: a socket folder that every local account can reach, else loopback TCP."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import tempfile
from pathlib import Path

from playbook.errors import EmbeddedError
from playbook.target.account import Account

AVAILABLE = hasattr(socket, "AF_UNIX")
PORT = 5432  # names the socket only; each home has a folder of its own
LOOPBACK = "127.0.0.1"
_TEMPORARY = "postgres-playbook-"


def settings(preferred: Path, account: Account) -> dict[str, str]:
    """The server's settings for where it listens; makes the socket folder."""
    if not AVAILABLE:
        return {"listen_addresses": LOOPBACK, "port": str(_free_port()), "unix_socket_directories": ""}
    quoted = f'"{folder(preferred, account)}"'  # or a comma would part it
    listen = {"listen_addresses": "", "port": str(PORT), "unix_socket_permissions": "0777"}
    return listen | {"unix_socket_directories": quoted}


def folder(preferred: Path, account: Account) -> Path:
    """A folder for the server's socket: `preferred`, else one under the temporary folder, kept from start to start.

    Each candidate must be the account's, have a name that libpq can be told, and take a socket. One that every local
    account can reach comes before one that only ours can.

    Raises:
        EmbeddedError: no folder will do.
    """
    name = f"{_TEMPORARY}{account.number}-{hashlib.sha256(os.fsencode(preferred)).hexdigest()[:12]}"
    temporary = (tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 (the folder made there is verified)
    places = [preferred, *(Path(place).resolve() / name for place in temporary)]
    usable = [place for place in dict.fromkeys(places) if _nameable(place)]
    for place in sorted(usable, key=lambda place: not _reachable(place.parent)):
        if _own(place, account) and _takes_socket(place):
            return place
    raise EmbeddedError(
        f"no folder takes the server's socket (tried {', '.join(map(str, places))}): set PLAYBOOK_HOME to a folder "
        "with a short path on a local disk"
    )


def discard(place: Path) -> None:
    """Delete an empty socket folder under the temporary folder; to be called after the server's end."""
    if place.name.startswith(_TEMPORARY):
        with contextlib.suppress(OSError):
            place.rmdir()


def _nameable(place: Path) -> bool:
    # libpq parts hosts at commas, the server takes quotes for its own, and psycopg sends nothing but UTF-8.
    return str(place).isprintable() and not set(str(place)) & set(",\"'\\")


def _reachable(place: Path) -> bool:
    with contextlib.suppress(OSError):
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in (place, *place.parents))
    return False


def _own(place: Path, account: Account) -> bool:
    with contextlib.suppress(OSError):
        account.make_folder(place, 0o755)
    try:
        found = place.lstat()
    except OSError:
        return False
    # In a temporary folder anyone may have been here first.
    safe = stat.S_ISDIR(found.st_mode) and found.st_uid == account.number and not found.st_mode & 0o022
    return safe and account.enters(place)


def _takes_socket(place: Path) -> bool:
    """Whether a socket can be bound in `place`: its path may be too long, or the file system have no sockets."""
    try:
        # Left by a killed server: the process ids in its lock files may be alive as something else by now.
        for stale in place.glob(".s.PGSQL.*"):
            stale.unlink()
        path = place / f".s.PGSQL.{PORT}"
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as trial:
            trial.bind(os.fspath(path))
        path.unlink()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as trial:
        trial.bind((LOOPBACK, 0))
        return trial.getsockname()[1]
