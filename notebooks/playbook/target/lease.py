"""Who uses the embedded server: one locked file a holder, one lock over all that starts and stops it."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from playbook.errors import EmbeddedError
from playbook.target.filelock import FileLock, held, wait_until_free


class Leases:
    """The leases on the server under `folder`. A lease whose lock can be taken is dead: its holder is gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = FileLock(folder / "lock")
        self._files = folder / "leases"

    @contextlib.contextmanager
    def exclusively(self, limit_s: float, progress: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Hold the lock over all that starts and stops the server.

        Raises:
            EmbeddedError: others kept it longer than `limit_s` seconds.
        """
        began, told = time.monotonic(), 0.0
        while not self.lock.take():
            waited = time.monotonic() - began
            if waited > limit_s:
                raise EmbeddedError(
                    f"another process has kept {self.lock.path} for {waited:.0f} s, starting or stopping the embedded "
                    "server: end it (playbook status names the holders) and try again"
                )
            if waited - told > 2:
                told = waited
                progress(f"waiting for another process that starts or stops PostgreSQL ({waited:.0f} s)")
            time.sleep(0.02)
        try:
            yield
        finally:
            self.lock.free()

    def new(self) -> FileLock:
        """A lease for this process, held until `end` or the end of the process."""
        self._files.mkdir(mode=0o700, exist_ok=True)
        lease = FileLock(self._files / f"{os.getpid()}-{secrets.token_hex(4)}")
        lease.take(wait=True)
        return lease

    def end(self, lease: FileLock) -> None:
        """Give up a lease."""
        lease.free()
        lease.path.unlink(missing_ok=True)

    def holders(self) -> tuple[int, ...]:
        """The process ids of the living holders, as each saw its own; one process may hold several leases."""
        return tuple(int(file.name.partition("-")[0]) for file in self._all() if held(file))

    def clear(self) -> None:
        """Delete the dead leases; under the lock only, since a new lease is not locked for an instant."""
        for file in self._all():
            if not held(file):
                file.unlink(missing_ok=True)

    def wait_for_end(self) -> None:
        """Sleep until each lease that exists now has come to its end."""
        for file in self._all():
            wait_until_free(file)

    def _all(self) -> list[Path]:
        return sorted(self._files.glob("[0-9]*-*"))
