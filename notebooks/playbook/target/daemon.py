"""Programs that outlive the process that starts them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from playbook.target.filelock import FileLock


def detach(
    command: Sequence[str | Path],
    *,
    keeps: FileLock,
    env: Mapping[str, str],
    output: IO[bytes] | int = subprocess.DEVNULL,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Start `command` in a session of its own, as nobody's child; it holds the lock `keeps` to its end.

    `identity` are subprocess's arguments for another account. (On Windows nothing is handed on, and it is our child.)
    """
    if os.name == "nt":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
        options: dict[str, Any] = {"creationflags": flags}
    else:
        # The shell starts it and ends at once, so that it is init's to reap and not ours.
        command = ["/bin/sh", "-c", '"$@" &', "sh", *command]
        options = {"start_new_session": True, "pass_fds": (keeps.fd,), **(identity or {})}
    started = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=os.path.abspath(os.sep), env=env, **options
    )
    if os.name == "nt":
        started.returncode = 0  # so that Python does not warn of a child left running
    else:
        started.wait()
