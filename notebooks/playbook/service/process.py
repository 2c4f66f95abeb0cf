"""The service as a process of its own on a free loopback port. It ends with its starter, killed ones included."""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from playbook.errors import EmbeddedError, one_line
from playbook.service.switches import Switches

_ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0


class Running:
    """A service that was started: `url` is where it answers. Used as a context manager it ends with the block."""

    def __init__(self, process: subprocess.Popen[str], url: str, switches: Switches) -> None:
        self._process = process
        self.url = url
        self.switches = switches

    @property
    def pid(self) -> int:
        """The process that answers."""
        return self._process.pid

    def stop(self) -> None:
        """Ends it; done twice it does nothing."""
        if self._process.stdin and not self._process.stdin.closed:
            with suppress(BrokenPipeError):  # it has ended already
                self._process.stdin.close()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(conninfo: Mapping[str, Any], switches: Switches) -> Running:
    """Starts the service on the database of `conninfo`; returns when it answers.

    The connection's password goes through a pipe: it stands in no process list, environment or file.

    Raises:
        EmbeddedError: it did not come up; the message holds its last words.
    """
    return start_all([(conninfo, switches)])[0]


def start_all(services: Sequence[tuple[Mapping[str, Any], Switches]]) -> list[Running]:
    """Starts several at the same time, each on its database with its switches; see `start`.

    Raises:
        EmbeddedError: one did not come up; then none is left.
    """
    path = os.pathsep.join(str(entry) for entry in (_ROOT, *sys.path) if entry)
    with ExitStack() as started:
        running = []
        for _, switches in services:
            errors = started.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
            running.append((Running(process, "", switches), process, errors))
            started.callback(running[-1][0].stop)
        for (service, process, errors), (conninfo, switches) in zip(running, services, strict=True):
            service.url = _begin(process, {"conninfo": dict(conninfo), "switches": dict(switches)})
            if not service.url:
                process.kill()
                process.wait()
                raise EmbeddedError(f"the reference service did not start: {_last_words(errors)}")
        started.pop_all()
        for _, _, errors in running:
            errors.close()
        return [service for service, _, _ in running]


def _begin(process: subprocess.Popen[str], settings: Mapping[str, Any]) -> str:
    """Hands the settings to the child; its URL once it answers, or nothing."""
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        if select.select([process.stdout], [], [], START_LIMIT_S)[0] and (told := process.stdout.readline()):
            return str(json.loads(told)["url"])
    except OSError:
        pass  # it has ended already: what it said tells why
    return ""


def _last_words(errors: IO[str]) -> str:
    errors.seek(0)
    lines = errors.read().strip().splitlines()
    return one_line(lines[-1]) if lines else "it said nothing"


def listen(port: int = 0) -> socket.socket:
    """A socket on loopback; port 0 takes a free one."""
    # Of a named protocol: only then asyncio turns Nagle's algorithm off for the connections that come in. With it, an
    # answer in two writes waits for the client's delayed acknowledgement, 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    return listening


def address(listening: socket.socket) -> str:
    """`http://127.0.0.1:41234`."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def make_server(conninfo: Mapping[str, Any], switches: Switches) -> Any:
    """A uvicorn server of the application, yet to be run; it logs no requests."""
    import uvicorn

    from playbook.service.api import create_app
    from playbook.service.engine import make_engine
    from playbook.service.pool import Gauge

    engine = make_engine(conninfo, switches)
    found = (each.results(Gauge.capacity_of(engine)) for each in switches.techniques())
    app = create_app(engine, switches, next(filter(None, found), None))
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    )


def main() -> None:
    """The child: settings from the first line of stdin, the URL on stdout, the end of stdin is the end."""
    given = json.loads(sys.stdin.readline())
    server = make_server(given["conninfo"], Switches(given["switches"]))
    listening = listen()

    def end_with_starter() -> None:
        sys.stdin.read()  # ends when the starter closes its end, or is gone
        server.should_exit = True
        time.sleep(STOP_LIMIT_S / 2)
        os._exit(0)  # a request that hangs does not hold it

    def tell_when_started() -> None:
        while not server.started:
            time.sleep(0.01)
        print(json.dumps({"url": address(listening)}), flush=True)

    # What was made until here stays: it is not to be looked through again at each collection, while somebody waits.
    gc.collect()
    gc.freeze()
    for work in (end_with_starter, tell_when_started):
        threading.Thread(target=work, daemon=True).start()
    server.run(sockets=[listening])


if __name__ == "__main__":
    main()
