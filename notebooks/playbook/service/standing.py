"""The services that a notebook asks again and again: started when they are first wanted, ended with the notebook."""

from __future__ import annotations

import atexit
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from playbook.service import copies, process
from playbook.service.switches import Switches
from playbook.target.connect import Target


class Standing:
    """The service of the embedded `target` as found, on one copy of the pristine template; others on the working copy.

    They end at `close`, or with this process, and the copy is dropped.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stack = ExitStack()
        self._urls: dict[str, str] = {}
        self._copy: Mapping[str, Any] | None = None

    def urls(self, *wanted: Switches | None) -> list[str]:
        """Where each of them answers; None is the service as found. Those that do not run yet are started together.

        Raises:
            Busy: somebody is in the template, so that it cannot be copied.
            EmbeddedError: a service did not start.
        """
        missing = {name: switches for name, switches in _named(wanted) if name not in self._urls}
        if missing:
            if not self._urls:
                atexit.register(self.close)
            places = [(self._target.conninfo if on is not None else self.copy(), on) for on in missing.values()]
            started = process.start_all([(place, on or Switches()) for place, on in places])
            for name, running in zip(missing, started, strict=True):
                self._urls[name] = self._stack.enter_context(running).url
        return [self._urls[name] for name, _ in _named(wanted)]

    def copy(self) -> Mapping[str, Any]:
        """The copy that the service as found runs on."""
        if self._copy is None:
            self._copy = self._stack.enter_context(copies.as_found(self._target))
        return self._copy

    def close(self) -> None:
        """Ends them all; what is wanted later is started anew."""
        atexit.unregister(self.close)
        self._urls.clear()
        self._copy = None
        self._stack.close()


def _named(wanted: Sequence[Switches | None]) -> list[tuple[str, Switches | None]]:
    return [("as found" if on is None else json.dumps(dict(on), sort_keys=True), on) for on in wanted]
