"""Debian's Chromium without a window, driven by Playwright: what a page logs and asks for is kept, axe looks at it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.servers import required

CHROMIUM = Path("/usr/bin/chromium")
LAPTOP, PHONE = (1280, 800), (390, 844)
"""The sizes of window that pages have to fit."""
_HERE = {"file", "data", "blob", "about"}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def is_foreign(url: str) -> bool:
    """Whether what is asked for lies outside this machine."""
    parts = urlsplit(url)
    return parts.scheme not in _HERE and parts.hostname not in _LOOPBACK


@dataclass
class Visit:
    """A page in a window of its own: `errors` are what it logged as such or threw, `foreign` what it asked others for.

    What is foreign is refused, and so makes no test depend on a network.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def assert_clean(self) -> None:
        """It logged no error and asked nobody else for anything."""
        assert self.foreign == []
        assert self.errors == []

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window: a person would have to scroll sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def axe(self) -> list[str]:
        """What axe finds wrong with the page as it stands, a line each: rule, the help for it, the first element."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page, options=_AXE).response["violations"]
        return [f"{each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}" for each in found]


Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser. A module's at most: while Playwright runs, its thread can run no other event loop."""
    if not CHROMIUM.exists():
        required("Chromium", "apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to start as root.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0, args=["--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a page: `visit(url, size=PHONE)`; a path is opened as a file. Each is closed after the test."""
    opened = []

    def visit_(url: str | Path, size: tuple[int, int] = LAPTOP, **options: Any) -> Visit:
        window = {"width": size[0], "height": size[1]}
        context = chromium.new_context(viewport=window, service_workers="block", **options)
        opened.append(context)
        visited = Visit(context.new_page())

        def judge(route: Any) -> None:
            visited.requests.append(route.request.url)
            if is_foreign(route.request.url):
                visited.foreign.append(route.request.url)
                route.abort()
            else:
                route.continue_()

        context.route("**/*", judge)
        visited.page.on("console", lambda said: visited.errors.append(said.text) if said.type == "error" else None)
        visited.page.on("pageerror", lambda error: visited.errors.append(str(error)))
        visited.page.goto(url.absolute().as_uri() if isinstance(url, Path) else url)
        return visited

    yield visit_
    for context in opened:
        context.close()
