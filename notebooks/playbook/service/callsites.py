"""Where in the application a statement was sent from: the frames of its own code, without those of libraries."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Hashable
from contextlib import suppress
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
_instructions: dict[tuple[int, int], int] = {}
_places: list[tuple[CodeType, int]] = []
_numbering = threading.Lock()
_seen: dict[Hashable, tuple[int, int, int]] = {}
"""Of statements, how many frames up the application's own code is, which code that is, and which is called by it."""
_SEEN = 4096
_NOWHERE = 0, 0, 0


@dataclass(frozen=True)
class CallSite:
    """A line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{_near(self.file)}:{self.line} in {self.function}"


def site(like: Hashable) -> int:
    """The place of the innermost frame of the application's own code, or 0; see `stack`.

    Each frame that is looked at has to be made, so this looks first where it found a statement `like` this one: at the
    same depth, in the same code, below the same library's.
    """
    depth, code, below = _seen.get(like, _NOWHERE)
    if depth:
        with suppress(ValueError):  # the stack is not as deep
            frame = sys._getframe(depth)
            if id(frame.f_code) == code and id(sys._getframe(depth - 1).f_code) == below:
                return _place(frame)
    return _search(like)


def _search(like: Hashable) -> int:
    frame: FrameType | None = sys._getframe(2)
    depth, below = 1, 0
    while frame is not None:
        code = id(frame.f_code)
        if (_ranks.get(code) or _remember(frame))[0] == _OWN:
            if len(_seen) < _SEEN:
                _seen[like] = depth, code, below
            return _place(frame)
        frame, depth, below = frame.f_back, depth + 1, code
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
                place = _place(frame)
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


def _place(frame: FrameType) -> int:
    """The number of the line that a frame is at; of the instruction, since a line has to be looked up."""
    code, at = frame.f_code, frame.f_lasti
    return _instructions.get((id(code), at)) or _number(code, at, frame.f_lineno)


def _number(code: CodeType, at: int, line: int) -> int:
    with _numbering:
        if (number := _numbers.get((id(code), line))) is None:
            _places.append((code, line))
            number = _numbers[id(code), line] = len(_places)
        _instructions[id(code), at] = number
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
