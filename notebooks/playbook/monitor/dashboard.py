"""The dashboard: a page on loopback that shows how the target does, refreshes itself, and asks nobody else for a thing.

Whoever has the token may look. It comes with the URL that is printed, is changed for a cookie at once and leaves the
address bar; without it there is 401 and nothing else. A strict policy lets the page load nothing from elsewhere, and
run or style itself by what stands in it under a nonce only.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from jinja2 import Template
from starlette.responses import Response

from playbook import figures
from playbook.errors import UsageError
from playbook.monitor.board import RANGES
from playbook.monitor.linechart import line_chart, moment
from playbook.monitor.observer import Observer
from playbook.results import shown
from playbook.templates import environment

EVERY_S = 5.0
TOKEN_BYTES = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Gatekeeper:
    """Asks for the token: once in the URL, afterwards as a cookie that scripts cannot read and other sites not send."""

    def __init__(self, token: str, name: str) -> None:
        self._token = token
        self._cookie = secrets.token_urlsafe(TOKEN_BYTES)
        self._name = name

    def knows(self, request: Request) -> bool:
        """Whether the request brings the cookie."""
        return _same(request.cookies.get(self._name, ""), self._cookie)

    def admits(self, request: Request) -> bool:
        """Whether it brings the token."""
        return _same(request.query_params.get("token", ""), self._token)

    def admit(self, response: Response) -> Response:
        """Gives the cookie."""
        response.set_cookie(self._name, self._cookie, httponly=True, samesite="strict", path="/")
        return response


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def create_app(observer: Observer, gatekeeper: Gatekeeper) -> FastAPI:
    """The pages: `/` whole, `/board` its inside alone for the refresh, `/plan/<queryid>`, `/figures` as JSON."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        if gatekeeper.admits(request) and request.url.path == "/":
            response: Response = gatekeeper.admit(RedirectResponse("/", 303))
        elif gatekeeper.knows(request):
            response = await call_next(request)
        else:
            response = PlainTextResponse("401", 401)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", _POLICY.format(nonce=secrets.token_urlsafe(16)))
        return response

    @app.get("/")
    def page(span: str = "15min") -> Response:
        nonce = secrets.token_urlsafe(16)
        html = _template().render(board=observer.board(_span(span)), nonce=nonce, ranges=RANGES, whole=True)
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY.format(nonce=nonce)})

    @app.get("/board")
    def inside(span: str = "15min") -> Response:
        return HTMLResponse(_template().render(board=observer.board(_span(span)), nonce="", ranges=RANGES, whole=False))

    @app.get("/plan/{queryid}")
    def plan(queryid: str) -> Response:
        found = observer.plan(queryid)
        return JSONResponse({"text": shown(found.text), "plan": shown(found.tree), "reason": shown(found.reason)})

    @app.get("/figures")
    def read(span: str = "15min") -> Response:
        return JSONResponse(observer.board(_span(span)).figures())

    return app


def _span(span: str) -> str:
    return span if span in RANGES else next(iter(RANGES))


@cache
def _template() -> Template:
    made = environment(__file__, finalize=lambda value: shown(value) if type(value) is str else value)
    for function in (figures.milliseconds, figures.percent, figures.count, figures.duration, moment, line_chart):
        made.filters[function.__name__] = function
        made.globals[function.__name__] = function
    return made.get_template("dashboard.html.j2")


@contextmanager
def serving(observer: Observer, host: str, port: int) -> Iterator[tuple[Any, Any, str]]:
    """A server that is yet to run, its socket, and the URL with the token.

    Raises:
        UsageError: the port or the interface cannot be had.
    """
    import socket

    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # so that the URL answers from the moment that it is told
    except OSError as error:
        listening.close()
        raise UsageError(
            f"--host {host} --port {port}: {error.strerror}; name another, or port 0 for a free one"
        ) from None
    with listening:
        token, number = secrets.token_urlsafe(TOKEN_BYTES), listening.getsockname()[1]
        app = create_app(observer, Gatekeeper(token, f"playbook-{number}"))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=2
        )
        name = f"[{host}]" if ":" in host else host
        observer.start()
        try:
            yield uvicorn.Server(config), listening, f"http://{name}:{number}/?token={token}"
        finally:
            observer.stop()


def run(observer: Observer, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serves until it is interrupted; `say` is told the URL once.

    Raises:
        UsageError: the port or the interface cannot be had.
    """
    with serving(observer, host, port) as (server, listening, url):
        say(url)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
