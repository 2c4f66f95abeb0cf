"""The service in the foreground, for a person to look at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress

from playbook.errors import UsageError
from playbook.service import copies
from playbook.service.process import address, listen, make_server
from playbook.service.reads import ENDPOINTS
from playbook.service.switches import Switches
from playbook.target.connect import Target


def run(target: Target, *, as_found: bool, port: int, say: Callable[[str], None]) -> None:
    """Serves until it is interrupted, as found on a copy of the pristine template, else on the working copy.

    Raises:
        UsageError: the port is taken.
    """
    try:
        listening = listen(port)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; name another, or 0 for a free one") from None
    switches = Switches() if as_found else Switches.optimized()
    with listening, copies.as_found(target) if as_found else nullcontext(target.conninfo) as conninfo:
        say(f"{address(listening)} ({switches}) on {conninfo['dbname']}; Ctrl-C ends it")
        say("GET " + " ".join(endpoint.path for endpoint in ENDPOINTS))
        with suppress(KeyboardInterrupt):
            make_server(conninfo, switches).run(sockets=[listening])
