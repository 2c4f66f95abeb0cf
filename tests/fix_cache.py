"""Redis-compatible servers: one that the whole test session shares, and one that a test may kill and start again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from playbook.target import valkey
from playbook.target.filelock import wait_until_free


@pytest.fixture(scope="session")
def cache_server() -> Iterator[valkey.CacheServer]:
    """The cache server in the home that the whole test session shares."""
    with valkey.acquire(environ={}) as lease:
        yield lease.server


@pytest.fixture
def cache_url(cache_server: valkey.CacheServer) -> str:
    """An empty cache."""
    with redis.Redis.from_url(cache_server.url) as client:
        client.flushall()
    return cache_server.url


class Mortal:
    """A cache server of one test's own, which it may kill, stop in its tracks and start again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._leases = [valkey.acquire(home, environ={})]
        self.url = self._leases[0].server.url

    @property
    def process(self) -> psutil.Process:
        config = str(self.home / "cache" / "settings.conf")
        return next(p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[1:] == [config])

    def kill(self) -> None:
        self.process.kill()
        wait_until_free(self.home / "cache" / "server.lock")

    def start(self) -> None:
        """Start it again, empty, where it was: its socket and its password stay."""
        self._leases.append(valkey.acquire(self.home, environ={}))

    def end(self) -> None:
        while self._leases:
            self._leases.pop().release()


@pytest.fixture
def mortal_cache() -> Iterator[Mortal]:
    home = Path(tempfile.mkdtemp(prefix="playbook-cache-")).resolve()
    home.chmod(0o755)  # as root, the server runs under an account that must get through
    mortal = Mortal(home)
    yield mortal
    mortal.end()
    while home.exists():  # its supervisor may still be looking for holders there
        shutil.rmtree(home, ignore_errors=True)
