"""The sample of a scale: a database built once and kept as a pristine template, and the copy that is worked on."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors as e

from playbook.errors import Busy, EmbeddedError, UsageError
from playbook.target import generator
from playbook.target.sql import literal, quote

Connection = psycopg.Connection[Any]
Connect = Callable[[str], Connection]
"""Opens an autocommit session of a superuser in the database of that name."""
Progress = Callable[[str, float], None]
"""Told a step, and the share of all that is done by then (0 to 1)."""

MAX_SCALE = 10.0
COPIES = 2.2
"""What room is asked for, in samples: template, working copy, and a fifth for what is applied to it."""

# Measured at scale 1 and rounded up: a database without rows, the rows with their indexes, the log of making them.
_BARE_BYTES = 8_000_000
_SCALE_BYTES = 1_060_000_000
_SCALE_LOG_BYTES = 1_500_000_000
# From here on copying the files is faster than copying through the write-ahead log: 3 s against 6 s at scale 1.
_FILE_COPY_FROM = 0.1

_MAINTENANCE = "postgres"
_LOCK_CLASS = 0x706C6179
_LOCK_POLL_S = 0.1
_ORIGIN = "playbook sample "


@dataclass(frozen=True)
class Sample:
    """The two databases of one scale: `working` is worked on, `pristine` stays as it was generated.

    `origin` tells what `pristine` was made from. `current` is false when `working` is older than that, kept for the
    steps applied to it or the sessions in it.
    """

    scale: float
    working: str
    pristine: str
    origin: str
    current: bool


@dataclass(frozen=True)
class _Names:
    """The databases of one scale; two scales never meet."""

    digits: str

    @property
    def working(self) -> str:
        return "proposals_" + self.digits.replace(".", "_")

    @property
    def pristine(self) -> str:
        return f"{self.working}_pristine"

    @property
    def building(self) -> str:
        return f"{self.working}_building"


def names(scale: float) -> tuple[str, str]:
    """The working copy and the template of `scale`: `("proposals_0_2", "proposals_0_2_pristine")`.

    Raises:
        UsageError: the scale is not a number above 0 and up to 10.
    """
    found = _names(scale)
    return found.working, found.pristine


def provision(
    connect: Connect, scale: float, progress: Progress | None = None, *, data_dir: Path | None = None
) -> Sample:
    """Sees to it that the sample of `scale` stands: milliseconds when it does, about 40 s at scale 1 when not.

    A working copy that stands is left as it is. When the SQL files have changed since, the template is built anew, and
    so is the working copy, unless steps are applied to it (it holds a schema `playbook`) or somebody is in it.

    Args:
        connect: opens superuser sessions on the server.
        scale: 1 is 4.4 million rows and 1.1 GB.
        progress: told each step.
        data_dir: a folder on the server's disk, to see whether the sample has room there; None leaves that unchecked.

    Raises:
        UsageError: the scale is not a number above 0 and up to 10.
        EmbeddedError: too little room on the disk.
        Busy: somebody is in a template that has to be built anew.
    """
    wanted, tell = _names(scale), progress or _silent
    with connect(_MAINTENANCE) as server, _alone(server, wanted, tell), _disk_full_explained(scale):
        origin = generator.digest(wanted.digits, server.info.server_version // 10000)
        _drop(server, wanted.building, force=True)
        if _origin(server, wanted.pristine) != origin:
            _check_room(server, scale, data_dir)
            _build(connect, server, wanted, origin, tell)
        if _make_way(connect, server, wanted.working, origin, tell):
            tell(f"copying {wanted.pristine} to {wanted.working}", 0.95)
            _copy(server, wanted, wanted.working, origin)
        current = _origin(server, wanted.working) == origin
    tell(f"{wanted.working} stands", 1.0)
    return Sample(scale, wanted.working, wanted.pristine, origin, current)


def reset(connect: Connect, scale: float, *, force: bool = False, progress: Progress | None = None) -> Sample:
    """Drops the working copy with all that was applied to it, and copies it from the template again.

    Raises:
        Busy: other sessions are in the working copy or the template, and `force` does not say to end them.
        UsageError: the scale is not a number above 0 and up to 10.
        EmbeddedError: the template does not stand (`provision` makes it).
    """
    wanted, tell = _names(scale), progress or _silent
    with connect(_MAINTENANCE) as server, _alone(server, wanted, tell), _disk_full_explained(scale):
        origin = _standing_origin(server, wanted)
        tell(f"copying {wanted.pristine} to {wanted.working}", 0.0)
        _drop(server, wanted.working, force=force)
        _copy(server, wanted, wanted.working, origin, force=force)
    tell(f"{wanted.working} stands", 1.0)
    return Sample(scale, wanted.working, wanted.pristine, origin, current=True)


def copy(connect: Connect, scale: float, name: str, *, force: bool = False) -> str:
    """Makes the scratch database `name` from the template of `scale`, in place of an earlier one; returns `name`.

    Raises:
        Busy: other sessions are in the template or the earlier `name`, and `force` does not say to end them.
        UsageError: `name` is no scratch database, but one that others made, a template or a working copy.
        EmbeddedError: the template does not stand (`provision` makes it).
    """
    wanted = _names(scale)
    with connect(_MAINTENANCE) as server, _alone(server, wanted, _silent), _disk_full_explained(scale):
        _refuse_all_but_scratch(server, name)
        origin = _standing_origin(server, wanted)
        _drop(server, name, force=force)
        _copy(server, wanted, name, origin, force=force)
    return name


def drop(connect: Connect, name: str) -> None:
    """Drops the scratch database `name` that `copy` made, ending the sessions in it; one that is gone is no error.

    Raises:
        UsageError: `name` is no scratch database, but one that others made, a template or a working copy.
    """
    with connect(_MAINTENANCE) as server:
        _refuse_all_but_scratch(server, name)
        _drop(server, name, force=True)


def disk_need(scale: float, kept_log_bytes: int) -> int:
    """Bytes that making the sample of `scale` takes, with as much write-ahead log as the server keeps at most."""
    databases = COPIES * (_BARE_BYTES + scale * _SCALE_BYTES)
    return math.ceil(databases + min(scale * _SCALE_LOG_BYTES, kept_log_bytes))


def _build(connect: Connect, server: Connection, wanted: _Names, origin: str, tell: Progress) -> None:
    """Builds under another name, so that a template that stands is a whole one."""
    building = quote(wanted.building)
    server.execute(f"CREATE DATABASE {building} TEMPLATE template0 ENCODING 'UTF8' {_locale(server)}")
    try:
        with ExitStack() as stack:
            workers = [stack.enter_context(connect(wanted.building)) for _ in range(generator.WORKERS)]
            generator.fill(workers, wanted.digits, lambda step, share: tell(step, 0.95 * share))
        _drop(server, wanted.pristine, force=False)
    except BaseException:
        with suppress(psycopg.Error):
            _drop(server, wanted.building, force=True)
        raise
    server.execute(f"ALTER DATABASE {building} SET default_transaction_read_only = on")
    server.execute(f"COMMENT ON DATABASE {building} IS {literal(_ORIGIN + origin)}")
    server.execute(f"ALTER DATABASE {building} IS_TEMPLATE true")
    server.execute(f"ALTER DATABASE {building} RENAME TO {quote(wanted.pristine)}")


def _locale(server: Connection) -> str:
    """Texts in the order of their code points, whatever the machine."""
    if server.info.server_version >= 170000:
        return "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
    return "LOCALE 'C'"


def _copy(server: Connection, wanted: _Names, name: str, origin: str, *, force: bool = False) -> None:
    if force:
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [wanted.pristine]
        )
    strategy = "FILE_COPY" if float(wanted.digits) >= _FILE_COPY_FROM else "WAL_LOG"
    with _holders_named(server, wanted.pristine):
        server.execute(f"CREATE DATABASE {quote(name)} TEMPLATE {quote(wanted.pristine)} STRATEGY {strategy}")
    server.execute(f"COMMENT ON DATABASE {quote(name)} IS {literal(_ORIGIN + origin)}")


def _drop(server: Connection, name: str, *, force: bool) -> None:
    row = server.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", [name]).fetchone()
    if row is None:
        return
    if row[0]:
        server.execute(f"ALTER DATABASE {quote(name)} IS_TEMPLATE false")
    with _holders_named(server, name):
        server.execute(f"DROP DATABASE {quote(name)}" + (" WITH (FORCE)" if force else ""))


def _make_way(connect: Connect, server: Connection, working: str, origin: str, tell: Progress) -> bool:
    """Drops a working copy that is broken, or outdated with nothing applied to it; whether one has to be made."""
    state = server.execute("SELECT datconnlimit = -2 FROM pg_database WHERE datname = %s", [working]).fetchone()
    broken = state == (True,)  # a drop was interrupted: it can be dropped again, and nothing else
    if state is None or (not broken and _origin(server, working) == origin):
        return state is None
    if not broken and _steps_applied(connect, working):
        tell(f"{working} is kept for the steps applied to it, though the sample has changed since: reset it", 0.95)
        return False
    try:
        _drop(server, working, force=False)
    except Busy as busy:
        tell(f"{working} is kept, though the sample has changed since: {busy}", 0.95)
        return False
    return True


def _steps_applied(connect: Connect, working: str) -> bool:
    with connect(working) as connection:
        return connection.execute("SELECT to_regnamespace('playbook') IS NOT NULL").fetchone() == (True,)


def _origin(server: Connection, name: str) -> str | None:
    """What the database was made from; None when it is missing, broken or not of the sample's making."""
    row = server.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s AND datconnlimit <> -2",
        [name],
    ).fetchone()
    return row[0].removeprefix(_ORIGIN) if row and (row[0] or "").startswith(_ORIGIN) else None


def _standing_origin(server: Connection, wanted: _Names) -> str:
    origin = _origin(server, wanted.pristine)
    if origin is None:
        raise EmbeddedError(
            f"there is no template {wanted.pristine}: provision the sample of scale {wanted.digits} first"
        )
    return origin


def _refuse_all_but_scratch(server: Connection, name: str) -> None:
    exists = server.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None
    if re.fullmatch(r"proposals_\d+(_\d+)?(_pristine|_building)?", name) or (exists and not _origin(server, name)):
        raise UsageError(f"{name} is not a scratch copy of the sample: give another name")


@contextmanager
def _alone(server: Connection, wanted: _Names, tell: Progress) -> Iterator[None]:
    """Holds off every other process that makes or replaces a database of this scale."""
    key, told = [_LOCK_CLASS, wanted.working], False
    while server.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", key).fetchone() != (True,):
        if not told:
            tell(f"waiting for another process that makes {wanted.working}", 0.0)
        told = True
        time.sleep(_LOCK_POLL_S)
    try:
        yield
    finally:
        with suppress(psycopg.OperationalError):
            server.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", key)


@contextmanager
def _holders_named(server: Connection, name: str) -> Iterator[None]:
    """Turns "is being accessed by other users" into who they are."""
    try:
        yield
    except e.ObjectInUse as in_use:
        sessions = server.execute(
            "SELECT coalesce(nullif(application_name, ''), 'unnamed') || ' (pid ' || pid || ')'"
            " FROM pg_stat_activity WHERE datname = %s ORDER BY pid",
            [name],
        ).fetchall()
        listed = ", ".join(row[0] for row in sessions) or "sessions that have just left"
        raise Busy(f"database {name} is in use by {listed}: close them, or force it") from in_use


def _check_room(server: Connection, scale: float, data_dir: Path | None) -> None:
    if data_dir is None:
        return
    row = server.execute("SELECT pg_size_bytes(current_setting('max_wal_size'))").fetchone()
    need, have = disk_need(scale, row[0] if row else 0), shutil.disk_usage(data_dir).free
    if need > have:
        raise EmbeddedError(f"{data_dir} has {have / 1e9:.2f} GB free, and {_room_asked(scale, need)}")


@contextmanager
def _disk_full_explained(scale: float) -> Iterator[None]:
    try:
        yield
    except e.DiskFull as full:
        raise EmbeddedError(f"the server's disk is full, and {_room_asked(scale, disk_need(scale, 0))}") from full


def _room_asked(scale: float, need: float) -> str:
    return (
        f"the sample of scale {scale:g} needs {need / 1e9:.2f} GB: choose a smaller scale, "
        "or set PLAYBOOK_HOME to a folder on a larger disk"
    )


def _names(scale: float) -> _Names:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= MAX_SCALE:
        raise UsageError(f"scale {scale!r}: give a number above 0 and up to {MAX_SCALE:g}, like 0.2")
    digits = f"{Decimal(repr(float(scale))).normalize():f}"
    if len(digits) > 30:
        raise UsageError(f"scale {scale!r} has too many digits: give a number like 0.2")
    return _Names(digits)


def _silent(step: str, share: float) -> None:
    pass
