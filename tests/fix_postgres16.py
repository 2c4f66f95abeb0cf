"""PostgreSQL 16 from the programs in PyPI's `pgserver` wheel, which `bash .ci/run` puts beside the environment."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers import Postgres, folder, required, running

from playbook.target.connect import Target

WHEEL = Path(sys.prefix) / "postgres-16"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres16() -> Iterator[Postgres]:
    """The server; its build holds no contrib, so no pg_stat_statements either."""
    if not WHEEL.exists():
        install = f"pip install --no-deps --only-binary :all: --python-version 3.12 --target {WHEEL} pgserver==0.1.4"
        required("PostgreSQL 16", install)
    with folder("playbook-16-") as place:  # the account that runs it may not reach our environment
        for source in (WHEEL / "pgserver", WHEEL / "pgserver.libs"):
            if source.exists():
                shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("include", "*.py", "*.a"))
        subprocess.run(["chmod", "-R", "a+rX", place], check=True)
        with running(place / "pgserver" / "pginstall" / "bin") as server:
            yield server


@pytest.fixture
def empty16(postgres16: Postgres) -> Iterator[Target]:
    """An empty database on PostgreSQL 16 as a foreign target."""
    with postgres16.database(f"empty_{next(_numbers)}") as target:
        yield target
