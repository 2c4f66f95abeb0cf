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


def run(target: Target, switches: Switches | None, *, port: int, say: Callable[[str], None]) -> None:
    """Serves until it is interrupted: on the working copy, or without `switches` as found, on a copy of the template.

    Raises:
        UsageError: the port is taken.
    """
    try:
        listening = listen(port)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; name another, or 0 for a free one") from None
    database = copies.as_found(target) if switches is None else nullcontext(target.conninfo)
    switches = switches or Switches()
    with listening, database as conninfo:
        say(f"{address(listening)} ({switches}) on {conninfo['dbname']}; Ctrl-C ends it")
        say("GET " + " ".join(endpoint.path for endpoint in ENDPOINTS))
        with suppress(KeyboardInterrupt):
            make_server(conninfo, switches).run(sockets=[listening])
