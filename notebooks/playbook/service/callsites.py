"""Where in the application a statement was sent from: the frames of its own code, without those of libraries."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from dataclasses import dataclass
from types import CodeType, FrameType

_OWN, _PACKAGE, _LIBRARY = range(3)
_PLUMBING = ("sqlalchemy", "psycopg", "psycopg_pool", "greenlet", "asyncpg", "psycopg2")
_HERE = os.path.dirname(os.path.abspath(__file__))
_OURS = {os.path.join(_HERE, name) for name in ("callsites.py", "n_plus_one.py", "accounting.py", "pytest_plugin.py")}
_PATHS = sysconfig.get_paths()
_SITES = tuple(path + os.sep for path in {_PATHS["purelib"], _PATHS["platlib"]})
_STANDARD = tuple(path + os.sep for path in {_PATHS["stdlib"], _PATHS["platstdlib"]})

Stack = tuple[int, ...]
"""Places in code by their number, the innermost first: cheap to take and to compare."""
# By the id of a code object, which is kept so that the id stays its own: hashing code reads all of it, each time.
_ranks: dict[int, tuple[int, CodeType]] = {}
_numbers: dict[tuple[int, int], int] = {}
_places: list[tuple[CodeType, int]] = []
_numbering = threading.Lock()


@dataclass(frozen=True)
class CallSite:
    """A line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{_near(self.file)}:{self.line} in {self.function}"


def site() -> int:
    """The place of the innermost frame of the application's own code, or 0; see `stack`."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        rank, _ = _ranks.get(id(code)) or _remember(frame)
        if rank == _OWN:
            return _numbers.get((id(code), frame.f_lineno)) or _number(code, frame.f_lineno)
        frame = frame.f_back
    return 0


def stack() -> Stack:
    """The frames of the application's own code, the innermost first; a recursion counts once.

    Where there are none, as in an application that is installed as a package, those of packages other than the ones
    that talk to the database.
    """
    own: list[int] = []
    packages: list[int] = []
    for first in _beginnings():
        frame: FrameType | None = first
        while frame is not None:
            code = frame.f_code
            rank, _ = _ranks.get(id(code)) or _remember(frame)
            if rank != _LIBRARY:
                place = _numbers.get((id(code), frame.f_lineno)) or _number(code, frame.f_lineno)
                frames = own if rank == _OWN else packages
                if place not in frames:
                    frames.append(place)
            frame = frame.f_back
    return tuple(own or packages)


def sites(frames: Stack) -> tuple[CallSite, ...]:
    """The frames as call sites."""
    found = (_places[number - 1] for number in frames)
    return tuple(CallSite(code.co_filename, line, code.co_qualname) for code, line in found)


def _remember(frame: FrameType) -> tuple[int, CodeType]:
    _ranks[id(frame.f_code)] = known = (_rank(frame), frame.f_code)
    return known


def _number(code: CodeType, line: int) -> int:
    with _numbering:
        _places.append((code, line))
        number = _numbers[id(code), line] = len(_places)
    return number


def _beginnings() -> list[FrameType]:
    """This frame; with SQLAlchemy's asyncio, where the work is done in a greenlet, those that wait for it too."""
    found = [sys._getframe(2)]
    if greenlet := sys.modules.get("greenlet"):
        waiting = greenlet.getcurrent().parent
        while waiting is not None and waiting.gr_frame is not None:
            found.append(waiting.gr_frame)
            waiting = waiting.parent
    return found


def _rank(frame: FrameType) -> int:
    name = frame.f_code.co_filename
    if frame.f_globals.get("__name__") == "__main__":
        return _OWN
    if name.startswith("<") or name in _OURS:
        return _LIBRARY
    path = os.path.abspath(name)
    for site in _SITES:
        if path.startswith(site):
            return _LIBRARY if path[len(site) :].startswith(_PLUMBING) else _PACKAGE
    return _LIBRARY if path.startswith(_STANDARD) else _OWN


def _near(path: str) -> str:
    """The path from the working folder on, where it lies below that."""
    here = os.getcwd() + os.sep
    return path[len(here) :] if path.startswith(here) else path
