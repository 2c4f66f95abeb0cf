"""The server's first process: what `postmaster.pid` says of it, and whether that can be believed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from playbook.errors import EmbeddedError
from playbook.target.binaries import wheel_binaries

SUPERUSER = "postgres"


@dataclass(frozen=True)
class PidFile:
    """What `postmaster.pid` says, true or stale; `host` is the socket folder or the TCP address."""

    pid: int
    port: int
    host: str
    ready: bool

    def accepts(self) -> bool:
        """Whether a server there takes connections now."""
        # Not at the top: the supervisor, which shares this module, is to stay small.
        from psycopg.conninfo import make_conninfo
        from psycopg.pq import PGconn, Ping

        if not (self.ready and self.host):
            return False
        where = make_conninfo(**address(self.host, self.port), user=SUPERUSER, dbname="postgres")
        return PGconn.ping(where.encode()) == Ping.OK

    def socket_lost(self) -> bool:
        """Whether the server is ready but its socket is gone: somebody has tidied up the temporary folder."""
        return self.ready and self.host.startswith("/") and not Path(self.host, f".s.PGSQL.{self.port}").exists()


def address(host: str, port: int) -> dict[str, str | int]:
    """libpq's parameters for `host`; the empty hostaddr keeps PGHOSTADDR from leading elsewhere."""
    return {"host": host, "hostaddr": "", "port": port}


def read_pid_file(data: Path) -> PidFile | None:
    """What `postmaster.pid` in the folder `data` says; None when there is none, or it says nothing yet."""
    try:
        text = (data / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape")
        lines = [*text.split("\n"), *[""] * 8]
        # Negative is PostgreSQL's way of writing that it runs in single-user mode.
        return PidFile(abs(int(lines[0])), int(lines[3] or 0), lines[4] or lines[5], lines[7].strip() == "ready")
    except (OSError, ValueError):
        return None


def find(data: Path) -> psutil.Process | None:
    """The postmaster on `data`, recognised beyond doubt; None when there is none that we can see."""
    named = read_pid_file(data)
    if named is not None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(named.pid)
            if _serves(process, data):
                return process
    return None


def end(postmaster: psutil.Process, *, at_once: bool = False) -> None:
    """Tell the postmaster to shut down in mode fast: sessions are ended, and the data left clean.

    `at_once` is mode immediate: nothing committed is lost, but the next start has to recover it from the WAL.
    """
    name = "QUIT" if at_once else "INT"
    if os.name == "nt":
        command = [wheel_binaries().program("pg_ctl"), "kill", name, str(postmaster.pid)]
        subprocess.run(command, check=False, capture_output=True)
        return
    with contextlib.suppress(psutil.NoSuchProcess):  # psutil refuses, too, when the process id has been reused since
        postmaster.send_signal(signal.Signals[f"SIG{name}"])


def drop_stale_pid_file(data: Path) -> None:
    """Delete a `postmaster.pid` whose process id is alive as something else; to be called when no server of ours runs.

    All other stale files are left to PostgreSQL, which looks after them itself.

    Raises:
        EmbeddedError: a server runs there that somebody started by hand.
    """
    named = read_pid_file(data)
    if named is None or not psutil.pid_exists(named.pid):
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(named.pid)
        if _may_serve(process, data):
            raise EmbeddedError(
                f"{data} is in use by process {named.pid}, which the playbook did not start: stop that server"
            )
    (data / "postmaster.pid").unlink(missing_ok=True)


def _may_serve(process: psutil.Process, data: Path) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    try:
        return process.cwd() == str(data)
    except psutil.AccessDenied:  # root in a container may not look: rather refuse than double a server
        return process.name() == "postgres"


def _serves(process: psutil.Process, data: Path) -> bool:
    # Backends show "postgres: ..."; only a postmaster on this data shows "-D data". So a reused process id cannot pass,
    # and no clock is asked: the start times that systems reckon move when a laptop wakes up.
    command = process.cmdline()
    if Path(command[0] if command else "").stem != "postgres" or command[1:3] != ["-D", str(data)]:
        return False
    with contextlib.suppress(psutil.AccessDenied):  # root in a container may not look
        if process.cwd() != str(data):
            return False
    owned = os.name == "nt" or process.uids().effective == data.stat().st_uid
    return owned and process.status() != psutil.STATUS_ZOMBIE
