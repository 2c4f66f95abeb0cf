"""The cache server of the embedded target: shared by its holders, gone after the last, bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.people import Person, oneself
from tests.waiting import until

from playbook.errors import EmbeddedError
from playbook.target import valkey

HOLD = """
import sys
from pathlib import Path
from playbook.target import valkey
lease = valkey.acquire(Path(sys.argv[1]), environ={})
print("held", flush=True)
sys.stdin.read()
"""


def test_redis_url_names_the_server_and_none_is_started(tmp_path: Path) -> None:
    with valkey.acquire(tmp_path / "home", environ={"REDIS_URL": "redis://cache.example.com/3"}) as lease:
        assert lease.server.url == "redis://cache.example.com/3"
    assert not (tmp_path / "home").exists()


def test_those_who_hold_it_share_it_and_it_ends_with_the_last(mortal_cache) -> None:
    person: Person = oneself()
    with person.start(HOLD, mortal_cache.home) as other:
        assert other.stdout.readline() == "held\n"
        mortal_cache.end()
        assert redis.Redis.from_url(mortal_cache.url).ping()
        process = mortal_cache.process
        other.kill()
    until(lambda: not process.is_running())


def test_it_needs_its_password_and_hides_it(cache_server) -> None:
    path = cache_server.place.split("(")[1].rstrip(")")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)).ping()
    password = cache_server.url.split(":")[2].split("@")[0]
    assert password not in repr(cache_server)


def test_it_takes_no_more_memory_than_it_may_and_writes_nothing_to_disk(cache_server) -> None:
    client = redis.Redis.from_url(cache_server.url)
    found = client.config_get("maxmemory", "maxmemory-policy", "save", "appendonly")
    assert found == {
        "maxmemory": str(valkey.MEMORY_BYTES),
        "maxmemory-policy": "allkeys-lru",
        "save": "",
        "appendonly": "no",
    }


def test_one_that_was_killed_is_started_again_where_it_was(mortal_cache) -> None:
    mortal_cache.kill()
    mortal_cache.start()
    assert redis.Redis.from_url(mortal_cache.url).ping()


def test_one_whose_socket_was_tidied_away_is_replaced(mortal_cache) -> None:
    old = mortal_cache.process
    os.unlink(mortal_cache.home / "cache" / "run" / "cache.sock")
    mortal_cache.start()
    assert redis.Redis.from_url(mortal_cache.url).ping()
    until(lambda: not old.is_running())


def test_without_any_program_the_remedy_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(valkey, "WHEEL", "no_such_wheel")
    with pytest.raises(EmbeddedError, match="install redis-server, or set REDIS_URL"):
        valkey.acquire(tmp_path / "home", environ={})
