"""One PostgreSQL data folder and its postmaster: made, started, looked for, stopped.

Whether a server runs is told by a lock that the postmaster hands on to all its children: the kernel keeps it while any
of them lives, so no crash, reused process id or zombie can mislead. `postmaster.pid` only says whom to signal, and is
believed after that process has been recognised.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from playbook.errors import EmbeddedError
from playbook.target import postmaster, sockets
from playbook.target.account import Account, environment, server_account
from playbook.target.binaries import COPY_BYTES, Binaries, copied, drop_old_copies, wheel_binaries
from playbook.target.daemon import detach
from playbook.target.filelock import FileLock, held
from playbook.target.postmaster import SUPERUSER

START_LIMIT_S = 15 * 60.0  # crash recovery on a slow disk takes minutes
UNSEEN_LIMIT_S = 60.0  # for a server that lives and has no postmaster that we could see
STOP_LIMIT_S = 2 * 60.0
IMMEDIATE_LIMIT_S = 15.0
"""PostgreSQL kills what does not heed an immediate shutdown after 5 s (SIGKILL_CHILDREN_AFTER_SECS)."""
DATA_BYTES = 200_000_000  # a new data folder and its first WAL
SPARE_BYTES = 50_000_000  # with less the server could not write its next WAL segments
LOG_BYTES = 1_000_000  # a longer log is started afresh
INITDB_OPTIONS = (
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
)

# Few and fixed, so that plans and timings are alike from one laptop to the next.
SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "shared_buffers": "256MB",
    "huge_pages": "off",
    "min_dynamic_shared_memory": "64MB",  # for parallel queries in containers, whose /dev/shm is small
    "max_connections": "100",
    "wal_level": "logical",
    "max_wal_size": "2GB",
    "track_io_timing": "on",
    "compute_query_id": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class Cluster:
    """The PostgreSQL under `folder`, which is named after the major version and in a home.

    Starting and stopping are to be done under a lock of the caller's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self._lock = FileLock(folder / "server.lock")
        self._password = folder / "password"
        self._log_start = 0

    def running(self) -> bool:
        """Whether any process of this cluster lives, be it starting, recovering or stopping."""
        return held(self._lock.path) if os.name != "nt" else postmaster.find(self.data) is not None

    def password(self) -> str:
        """The superuser's password."""
        return self._password.read_text(encoding="ascii").strip()

    def ensure_running(self, outer: FileLock, progress: Callable[[str], None]) -> postmaster.PidFile:
        """Start the server unless it runs, wait until it takes connections (crash recovery included), and say where.

        `outer` is the caller's lock over starting and stopping. An initdb keeps it until its end even if we are killed,
        so that the next one to start does not run into it.

        Raises:
            EmbeddedError: it cannot be made or started; the message names the cause and the remedy.
        """
        began = seen = time.monotonic()
        told, launched = began, False
        while True:
            listening = postmaster.read_pid_file(self.data) if self.running() else None
            if listening is not None and listening.accepts():
                return listening
            if listening is not None and listening.socket_lost():
                self.stop()
            if self._lock.take():  # nobody lives
                try:
                    if launched:
                        raise EmbeddedError(f"PostgreSQL did not start: {_gravest(self._said())} (more in {self.log})")
                    self._start(outer, progress)
                    launched = True
                finally:
                    self._lock.free()
                began = seen = told = time.monotonic()
            now = time.monotonic()
            if postmaster.find(self.data) is not None:
                seen = now
            self._check_patience(now - began, now - seen)
            if now - told > 2:
                told = now
                progress(f"waiting for PostgreSQL ({now - began:.0f} s): {_last(self._said())}")
            time.sleep(0.02 if now - began < 2 else 0.2)

    def _start(self, outer: FileLock, progress: Callable[[str], None]) -> None:
        account = server_account(self.data)
        self._check_reach(account)
        programs = self._programs(account)
        if not self.data.exists():
            self._check_room(DATA_BYTES)
            progress("making a PostgreSQL data folder")
            self._initialize(account, programs, outer)
        self._check_room(0)
        postmaster.drop_stale_pid_file(self.data)
        if not self._password.exists():
            self._reset_password(account, programs, outer)
        self._launch(account, programs)

    def _check_reach(self, account: Account) -> None:
        if not account.enters(self.folder):
            above = (*reversed(self.folder.parents), self.folder)
            closed = next((path for path in above if not account.enters(path)), self.folder)
            raise EmbeddedError(
                f"as root the server runs as the account {account.name}, which cannot enter {closed}: set "
                "PLAYBOOK_HOME to a folder that every account can enter, such as /var/cache/postgres-playbook"
            )

    def _programs(self, account: Account) -> Binaries:
        programs, home = wheel_binaries(), self.folder.parent
        drop_old_copies(programs, home)
        refusal = programs.trial(account)
        if refusal and account.uid is not None:
            self._check_room(COPY_BYTES)
            programs = copied(programs, home)
            refusal = programs.trial(account)
        if refusal:
            raise EmbeddedError(
                f"the programs in {programs.root} do not run here ({refusal}): set PLAYBOOK_TARGET to a server of "
                "your own"
            )
        return programs

    def _check_room(self, needed: int) -> None:
        free, needed = shutil.disk_usage(self.folder).free, needed + SPARE_BYTES
        if free < needed:
            raise EmbeddedError(
                f"{self.folder} has {free / 1e6:.0f} MB free, and the embedded server needs {needed / 1e6:.0f} MB: "
                "make room, or set PLAYBOOK_HOME to a folder on a larger disk"
            )

    def _initialize(self, account: Account, programs: Binaries, outer: FileLock) -> None:
        # Only a finished data folder gets its name, so an initdb that was killed half-way is simply done anew.
        new, handed = self.folder / "data.new", self.folder / "password.initdb"
        if new.exists():
            shutil.rmtree(new)
        account.make_folder(new, 0o700)
        if not self._password.exists():
            write_secret(self._password, secrets.token_urlsafe(24))
        try:
            write_secret(handed, self.password())
            account.give(handed)
            command = [programs.program("initdb"), "-D", new, "-U", SUPERUSER, f"--pwfile={handed}", *INITDB_OPTIONS]
            made = account.run(command, keeps=outer)
        finally:
            handed.unlink(missing_ok=True)
        if made.returncode != 0:
            raise EmbeddedError(f"initdb failed in {new}: {_gravest(made.stdout)}")
        new.rename(self.data)

    def _reset_password(self, account: Account, programs: Binaries, outer: FileLock) -> None:
        new = secrets.token_urlsafe(24)
        command = [programs.program("postgres"), "--single", "-D", self.data, "-c", "exit_on_error=on", "postgres"]
        # Fed, not an argument: those are everybody's to see.
        done = account.run(command, feed=f"ALTER ROLE {SUPERUSER} PASSWORD '{new}'\n", keeps=outer)
        if done.returncode != 0:
            raise EmbeddedError(f"{self._password} was lost, and no new password could be set: {_gravest(done.stdout)}")
        write_secret(self._password, new)

    def _launch(self, account: Account, programs: Binaries) -> None:
        config = self.folder / "settings.conf"
        settings = SETTINGS | sockets.settings(self.folder / "run", account)
        lines = ["# Written anew at each start. What ALTER SYSTEM sets comes later and stays."]
        lines += ["include 'data/postgresql.conf'", *(f"{name} = '{value}'" for name, value in settings.items())]
        config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        config.chmod(0o644)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.unlink()
        # pg_ctl would have a shell read our paths, quotes and dollars included.
        command = [programs.program("postgres"), "-D", self.data, "-c", f"config_file={config}"]
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
            self._log_start = log.seek(0, os.SEEK_END)
            detach(command, keeps=self._lock, env=environment(), output=log, identity=account.identity)

    def _check_patience(self, waited: float, unseen: float) -> None:
        if waited > START_LIMIT_S:
            raise EmbeddedError(
                f"PostgreSQL took no connections for {waited:.0f} s: {_last(self._said())} (more in {self.log})"
            )
        if unseen > UNSEEN_LIMIT_S:
            raise EmbeddedError(
                f"{self.folder} is in use by a server that cannot be seen from here (in another container, on another "
                "host, or left over by a killed postmaster): end it, or set PLAYBOOK_HOME to another folder"
            )

    def _said(self) -> str:
        """What the server has logged since its start, at most the last of it."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_start, self.log.stat().st_size - 4000))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def stop(self, limit_s: float = STOP_LIMIT_S) -> bool:
        """Shut the server down and wait for its end; False when it goes on all the same.

        Sessions are ended and the data left clean (fast). A server that has not ended after `limit_s`, as 18.6 may when
        it is told so while it recovers from a crash, is shut down at once, and recovers at its next start.

        One that runs in another container takes connections but cannot be signalled: it is left to those beside it.
        """
        named = postmaster.read_pid_file(self.data)
        ended = self._ends(named, limit_s) or self._ends(named, IMMEDIATE_LIMIT_S, at_once=True)
        if ended and named is not None:
            sockets.discard(Path(named.host))
        return ended

    def _ends(self, named: postmaster.PidFile | None, limit_s: float, *, at_once: bool = False) -> bool:
        """Whether the server is gone, told once to go, after `limit_s` at most."""
        began, told = time.monotonic(), False
        while self.running():
            found = postmaster.find(self.data)
            if found is not None and not told:
                postmaster.end(found, at_once=at_once)
                told = True
            elif time.monotonic() - began > limit_s or (found is None and named is not None and named.accepts()):
                return False
            time.sleep(0.01)
        return True


def write_secret(path: Path, secret: str) -> None:
    """Write `secret` into a file that only we can read, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secret + "\n")
    new.replace(path)


def _gravest(output: str) -> str:
    """The last line of `output` that names an error, else its last line."""
    grave = [line for line in output.splitlines() if re.search(r"\b(PANIC|FATAL|error):", line)]
    return _last("\n".join(grave) or output)


def _last(output: str) -> str:
    """The last line of `output`, without the time and process that PostgreSQL logs before it."""
    lines = output.split("\n") if (output := output.strip()) else ["it has said nothing yet"]
    return re.sub(r"^\S+ \S+ \S+ \[\d+\] ", "", lines[-1].strip())
