"""Stops the embedded server after its last holder, also when that was killed: a small process that sleeps on locks."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from playbook.errors import EmbeddedError
from playbook.target.account import environment
from playbook.target.cluster import START_LIMIT_S, Cluster
from playbook.target.daemon import detach
from playbook.target.filelock import FileLock
from playbook.target.lease import Leases

_ROOT = Path(__file__).resolve().parents[2]


def post(folder: Path) -> None:
    """See to it that a supervisor watches over the server under `folder`; under the leases' lock."""
    lock = FileLock(folder / "supervisor.lock")
    # On Windows a lock cannot be handed on: there the next start notices a dead holder.
    if os.name == "nt" or not sys.executable or not lock.take():
        return
    try:
        path = os.pathsep.join(str(entry) for entry in (_ROOT, *sys.path) if entry)
        command = [sys.executable, "-P", "-m", __name__, folder, str(lock.fd)]
        detach(command, keeps=lock, env=environment() | {"PYTHONPATH": path})
    finally:
        lock.free()


def retire(cluster: Cluster, leases: Leases) -> bool:
    """Stop the server when nobody holds a lease any more; under the leases' lock. True when it then rests."""
    leases.clear()
    return not leases.holders() and cluster.stop()


def supervise(folder: Path, lock_fd: int) -> None:
    """Sleep until every lease has ended, then stop the server; returns with it, or when `folder` is gone.

    `lock_fd` is the supervisor's lock, inherited. It is given up before the leases' lock is, so that whoever holds
    that one next knows whether a supervisor watches.
    """
    cluster, leases = Cluster(folder), Leases(folder)
    while True:
        leases.wait_for_end()
        try:
            with leases.exclusively(START_LIMIT_S):
                if retire(cluster, leases):
                    os.close(lock_fd)
                    return
        except FileNotFoundError:
            return
        except EmbeddedError:
            pass  # somebody is starting it, slowly; or stopping takes long
        time.sleep(0.1)


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), int(sys.argv[2]))
