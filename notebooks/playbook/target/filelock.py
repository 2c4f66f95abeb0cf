"""Locks on files: the kernel drops them when their last holder is gone, however it went."""

from __future__ import annotations

import errno
import os
import weakref
from pathlib import Path

from playbook.errors import EmbeddedError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


class FileLock:
    """A lock on `path` (flock), which is made with mode 0600 when it is missing.

    A process that is started with `fd` handed on holds the lock too, until the last of them ends; a forked child does
    not. Two objects on the same path exclude each other within one process as well.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The open file descriptor, for handing the lock on to a child process (`pass_fds`)."""
        if self._fd is None:
            raise ValueError(f"{self.path} is not locked by this object")
        return self._fd

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock; False when another holds it and `wait` is off.

        Raises:
            EmbeddedError: the file system has no locks.
            OSError: the file cannot be opened; its folder is gone, say.
        """
        # O_CLOEXEC is Python's default: only those that are handed the descriptor keep the lock over exec.
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            taken = _lock(fd, wait=wait, shared=False)
        except BaseException:
            os.close(fd)
            raise
        if not taken:
            os.close(fd)
            return False
        self._fd = fd
        _taken.add(self)
        return True

    def free(self) -> None:
        """Let go; processes that were handed the descriptor keep holding it."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            _taken.discard(self)
            os.close(fd)


def held(path: Path) -> bool:
    """Whether anybody holds the lock on `path` (a missing file is held by nobody)."""
    return not _probe(path, wait=False)


def wait_until_free(path: Path) -> None:
    """Sleep until nobody holds the lock on `path`."""
    _probe(path, wait=True)


def _probe(path: Path, *, wait: bool) -> bool:
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        # Shared, so that two who look at once do not take each other for a holder.
        return _lock(fd, wait=wait, shared=True)
    finally:
        os.close(fd)


def _lock(fd: int, *, wait: bool, shared: bool) -> bool:
    try:
        if fcntl is None:
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise EmbeddedError(
            f"the file system has no file locks ({error.strerror}): set PLAYBOOK_HOME to a folder on a local disk"
        ) from error
    return True


# What this process holds. A forked child would keep its parent's locks alive with its copies of the descriptors.
_taken: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _forget() -> None:
    for lock in list(_taken):
        lock.free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
