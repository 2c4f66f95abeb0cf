"""The database that the service runs on: the sample's working copy, or a fresh one of the pristine template."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import psycopg

from playbook.target import sample
from playbook.target.connect import Target

_numbers = itertools.count(1)


@contextmanager
def as_found(target: Target) -> Iterator[Mapping[str, Any]]:
    """A copy of the pristine template of the embedded `target`, to be read and written; dropped at the end.

    The template itself takes no writes and no other copy could be made of it while somebody is in it.

    Raises:
        Busy: somebody is in the template.
    """
    assert target.embedded
    assert target.scale is not None

    def connect(dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(**{**target.conninfo, "dbname": dbname}, autocommit=True)

    working, _ = sample.names(target.scale)
    _drop_left_behind(connect, f"{working}_as_found_")
    name = sample.copy(connect, target.scale, f"{working}_as_found_{os.getpid()}_{next(_numbers)}")
    try:
        yield {**target.conninfo, "dbname": name}
    finally:
        sample.drop(connect, name)


def _drop_left_behind(connect: sample.Connect, prefix: str) -> None:
    """Drops the copies of processes that were killed."""
    with connect("postgres") as server:
        rows = server.execute("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [prefix]).fetchall()
    for (name,) in rows:
        number = re.fullmatch(r"(\d+)_\d+", name.removeprefix(prefix))
        if number and not psutil.pid_exists(int(number[1])):
            sample.drop(connect, name)
