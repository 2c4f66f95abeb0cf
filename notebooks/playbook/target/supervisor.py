"""Stops an embedded server after its last holder, also when that was killed: a small process that sleeps on locks."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Protocol

from playbook.errors import EmbeddedError
from playbook.target.account import environment
from playbook.target.cluster import START_LIMIT_S
from playbook.target.daemon import detach
from playbook.target.filelock import FileLock
from playbook.target.lease import Leases

_ROOT = Path(__file__).resolve().parents[2]


class Stoppable(Protocol):
    """A server under a folder; it is made of that folder alone."""

    folder: Path

    def stop(self) -> bool:
        """Shut it down and wait for its end; True when it then rests."""


def post(server: Stoppable) -> None:
    """See to it that a supervisor watches over `server`; under its leases' lock."""
    folder, kind = server.folder, type(server)
    lock = FileLock(folder / "supervisor.lock")
    # On Windows a lock cannot be handed on: there the next start notices a dead holder.
    if os.name == "nt" or not sys.executable or not lock.take():
        return
    try:
        path = os.pathsep.join(str(entry) for entry in (_ROOT, *sys.path) if entry)
        command = [sys.executable, "-P", "-m", __name__, folder, str(lock.fd), kind.__module__, kind.__name__]
        detach(command, keeps=lock, env=environment() | {"PYTHONPATH": path})
    finally:
        lock.free()


def retire(server: Stoppable, leases: Leases) -> bool:
    """Stop the server when nobody holds a lease any more; under the leases' lock. True when it then rests."""
    leases.clear()
    return not leases.holders() and server.stop()


def supervise(server: Stoppable, lock_fd: int) -> None:
    """Sleep until every lease has ended, then stop the server; returns with it, or when its folder is gone.

    `lock_fd` is the supervisor's lock, inherited. It is given up before the leases' lock is, so that whoever holds
    that one next knows whether a supervisor watches.
    """
    leases = Leases(server.folder)
    while True:
        leases.wait_for_end()
        try:
            with leases.exclusively(START_LIMIT_S):
                if retire(server, leases):
                    os.close(lock_fd)
                    return
        except FileNotFoundError:
            return
        except EmbeddedError:
            pass  # somebody is starting it, slowly; or stopping takes long
        time.sleep(0.1)


if __name__ == "__main__":
    kind = getattr(importlib.import_module(sys.argv[3]), sys.argv[4])
    supervise(kind(Path(sys.argv[1])), int(sys.argv[2]))
