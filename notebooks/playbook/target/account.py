"""Who the embedded server runs as."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbook.errors import EmbeddedError
from playbook.target.filelock import FileLock

try:
    import pwd
except ImportError:  # Windows
    pwd = None

_PREFERRED = ("postgres", "nobody")


@dataclass(frozen=True)
class Account:
    """The account that the server runs under.

    `uid` is None when that is the account of this process; otherwise we are root and children change to `uid`, `gid`
    and no further groups.
    """

    name: str
    uid: int | None = None
    gid: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """The arguments of subprocess that make a child run as this account."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": ()}

    @property
    def number(self) -> int:
        """The user id, also when it is our own."""
        return os.geteuid() if self.uid is None else self.uid

    def run(
        self, command: Sequence[str | Path], *, feed: str = "", keeps: FileLock | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` as this account, away from our environment and working folder, and keep what it prints.

        `feed` is what it reads; it holds the lock `keeps` as long as it lives, even if we are killed meanwhile.

        Raises:
            EmbeddedError: this process may not change to the account.
        """
        try:
            return subprocess.run(
                command,
                input=feed,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                cwd="/",
                env=environment(),
                check=False,
                pass_fds=() if keeps is None or os.name == "nt" else (keeps.fd,),
                **self.identity,
            )
        except OSError as error:
            # Not EACCES, which exec gives for a program that the account cannot reach.
            if self.uid is None or error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            raise EmbeddedError(
                f"root may not change to the account {self.name} here ({error.strerror}), and PostgreSQL refuses to "
                "run as root: run the playbook as an ordinary user"
            ) from error

    def enters(self, folder: Path) -> bool:
        """Whether this account can enter `folder`; asked of the kernel, since access lists and mounts count too."""
        if self.uid is None:
            return os.access(folder, os.X_OK)
        return self.run(["/bin/sh", "-c", 'test -x "$0"', str(folder)]).returncode == 0

    def give(self, path: Path) -> None:
        """Make this account the owner of `path`, which we have just made."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder that belongs to this account, with `mode` whatever the umask.

        Raises:
            FileExistsError: something is there already; it is left as it is.
        """
        path.mkdir()
        path.chmod(mode)
        self.give(path)


def environment() -> dict[str, str]:
    """A bare environment for PostgreSQL's programs: no secret of ours, no PG* variable."""
    kept = {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMP"}
    found = {name: value for name, value in os.environ.items() if name.upper() in kept}
    return {"PATH": os.defpath} | found | {"LC_ALL": "C"}


def server_account(data: Path) -> Account:
    """The account for the data folder `data`: as root its owner, else `postgres` or `nobody`; otherwise ourselves.

    Raises:
        EmbeddedError: there is no such account.
    """
    if pwd is None:
        return Account("")
    if os.geteuid() != 0:
        try:
            return Account(pwd.getpwuid(os.geteuid()).pw_name)
        except KeyError:
            raise EmbeddedError(
                f"user id {os.geteuid()} has no account, which PostgreSQL needs: add it to /etc/passwd, or set "
                "PLAYBOOK_TARGET to a server of your own"
            ) from None
    if data.exists():
        return _owner(data)
    for name in _PREFERRED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root, and there is neither an account postgres nor nobody: add one, or run the "
        "playbook as an ordinary user"
    )


def _owner(data: Path) -> Account:
    uid = data.stat().st_uid
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        entry = None
    if entry is None or uid == 0:
        raise EmbeddedError(
            f"{data} belongs to {'root' if uid == 0 else f'user id {uid}, which has no account'}, and PostgreSQL "
            f"cannot run as that: give it back to its account with chown -R, or delete {data.parent}"
        )
    return Account(entry.pw_name, uid, entry.pw_gid)
