"""Single flight within the process: those who want one key at once wait for one of them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future

from playbook.service.cache.entry import Entry, Unkept


class Flights:
    """The loads under way in this process, by the key of their entry.

    A flight ends with the entry, with the loader's error, or with None: then each goes and asks anew.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._under_way: dict[bytes, Future[Entry | Unkept | None]] = {}

    def join(self, key: bytes) -> tuple[Future[Entry | Unkept | None], bool]:
        """The flight for `key`, and whether the caller is the one who began it and has to end it."""
        if self._pid != os.getpid():  # a fork: the threads that would end these flights are not here
            self._begin()
        with self._lock:
            if (flight := self._under_way.get(key)) is not None:
                return flight, False
            flight = self._under_way[key] = Future()
            return flight, True

    def end(self, key: bytes, flight: Future[Entry | Unkept | None], came: Entry | Unkept | Exception | None) -> None:
        """Ends a flight, unless it has ended already."""
        with self._lock:
            if self._under_way.get(key) is flight:
                del self._under_way[key]
            if flight.done():
                return
            if isinstance(came, Exception):
                flight.set_exception(came)
            else:
                flight.set_result(came)
