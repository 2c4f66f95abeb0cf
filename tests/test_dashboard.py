"""The dashboard in a real browser: live, right, usable by keyboard, closed to others, and deaf to what texts contain."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.fix_assess import url
from tests.fix_browser import LAPTOP, PHONE
from tests.waiting import until

from playbook import figures
from playbook.context import open_context
from playbook.journal import Entry
from playbook.monitor.dashboard import serving
from playbook.monitor.history import Took, open_history
from playbook.monitor.linechart import Frame, Line, Marker, Scale, line_chart
from playbook.monitor.observer import Observer
from playbook.monitor.sample import Sample
from playbook.settings import Settings

COMMAND = os.path.join(os.path.dirname(sys.executable), "playbook")
HOSTILE = """SELECT count(*) AS "<script>document.title='gone'</script>", 'c4nary' AS "<img src=x onerror=alert(1)>" FROM proposals"""


@dataclass
class Shown:
    """A dashboard that is served, with what it is made of."""

    url: str
    observer: Observer
    server: Any
    asked: httpx.Client

    @property
    def place(self) -> str:
        return self.url.partition("/?")[0]

    def wait(self, samples=2):
        wanted = self.observer.sequence + samples
        until(lambda: self.observer.sequence >= wanted, "no sample came", limit_s=30)


@contextmanager
def dashboard(context, every_s=0.5):
    observer = Observer(context, every_s)
    with serving(observer, "127.0.0.1", 0) as (server, listening, address):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        with httpx.Client() as client:
            try:
                yield Shown(address, observer, server, client)
            finally:
                server.should_exit = True
                thread.join(20)


@pytest.fixture(scope="module")
def context(as_found, tmp_path_factory):
    """The reference service's database with an hour of history, and a step that was applied in it."""
    folder = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOWN_URL", url(as_found.target))
        found = open_context(
            Settings(
                target="env:SHOWN_URL",
                out=folder,
                journal=folder / "journal.sqlite",
                metrics_url=f"{as_found.service.url}/metrics",
            )
        )
    found.journal.open()
    found.journal.begin(Entry("1.1/idx_content_search_optimization", "index", "applying"))
    found.journal.close("1.1/idx_content_search_optimization", "applied")
    history, now = open_history(found), time.time()
    for number in range(60):
        history.add(
            Sample(
                now - 3600 + 60 * number, 60.0, {"db_calls": 60, "db_ms": 120.0, "hit": 9, "read": 1}, {20: 99, 30: 1}
            ),
            {"77": Took(60, 120.0, 60, 60)},
            {"77": "SELECT kept FROM history"},
        )
    return found


@pytest.fixture(scope="module")
def shown(context, as_found):
    with dashboard(context) as found:
        found.wait()
        with as_found.target.connect() as connection:
            connection.execute(HOSTILE)
            connection.execute("SELECT pg_stat_force_next_flush()")
        for path in ("/proposals", "/dashboard", "/content"):
            as_found.get(path)
        found.wait()
        yield found


class TestPage:
    @pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
    def test_it_fits_and_passes_axe_and_asks_nobody_else(self, shown, visit, size):
        seen = visit(shown.url, size)
        assert seen.page.url == f"{shown.place}/", "the token does not stay in the address bar"
        assert seen.page.locator("#h-targets").is_visible()
        assert seen.overflow() == 0
        assert seen.axe() == []
        seen.page.locator("details[data-plan] summary").first.click()
        seen.page.locator(".plan pre").first.wait_for()
        assert seen.overflow() == 0
        assert seen.axe() == []
        assert all(request.startswith((shown.place, "data:")) for request in seen.requests)
        seen.assert_clean()

    def test_its_dark_side_has_contrast_too(self, shown, visit):
        assert visit(shown.url, color_scheme="dark").axe() == []

    def test_targets_say_in_words_what_their_colour_says(self, shown, visit):
        page = visit(shown.url).page
        for each in page.locator(".targets li").all():
            word = each.locator(".word").inner_text().strip()
            assert each.get_attribute("class") == {"not measured": "unknown"}.get(word, word)
        assert "no result cache" in page.locator(".targets li.unknown").inner_text()

    def test_it_refreshes_itself_and_keeps_what_was_opened_and_focused(self, shown, visit):
        page = visit(shown.url).page
        summary = page.locator("details[data-plan] summary").first
        summary.focus()
        page.keyboard.press("Enter")
        page.locator(".plan pre").first.wait_for()
        first = page.locator(".when").inner_text()
        page.wait_for_function("before => document.querySelector('.when').innerText !== before", arg=first)
        assert page.locator("details[data-plan][open]").count() == 1
        assert page.locator("details[open] .plan pre").is_visible()
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"

    def test_it_can_be_paused(self, shown, visit):
        page = visit(shown.url).page
        page.get_by_role("button", name="Pause").click()
        still = page.locator(".when").inner_text()
        shown.wait(3)
        assert page.locator(".when").inner_text() == still

    def test_a_statement_opens_to_its_plan(self, shown, visit):
        page = visit(shown.url).page
        hostile = page.locator("details[data-plan]", has_text="<script>").first
        hostile.locator("summary").click()
        hostile.locator(".plan pre").wait_for()
        assert re.search(r"(Seq|Index Only) Scan .*on proposals", hostile.locator(".plan pre").inner_text())

    def test_hostile_texts_are_shown_and_not_obeyed(self, shown, visit):
        seen = visit(shown.url)
        assert "document.title=" in seen.page.locator(".statements").inner_text()
        assert seen.page.locator("main script, main img").count() == 0
        assert "gone" not in seen.page.title()
        assert "c4nary" not in seen.page.content()
        seen.assert_clean()

    def test_a_longer_span_shows_the_history_with_its_changes_and_gaps(self, shown, visit):
        page = visit(shown.url).page
        page.get_by_role("link", name="24h").click()
        assert page.locator('nav a[aria-current="true"]').inner_text() == "24h"
        assert "SELECT kept FROM history" in page.locator(".statements").inner_text()
        assert page.locator(".gap").count() > 0
        assert page.locator(".marker").count() > 0
        assert "applied 1.1/idx_content_search_optimization" in page.locator(".changes").inner_text()
        assert "latest" in page.locator("#d-average").text_content()

    def test_it_says_when_it_cannot_be_reached_any_more(self, context, visit):
        with dashboard(context) as passing:
            page = visit(passing.url).page
        page.locator("#lost").wait_for()
        assert "cannot be reached since" in page.locator("#lost").inner_text()


class TestFigures:
    def test_what_the_page_shows_is_what_was_measured(self, context, as_found, visit):
        with dashboard(context) as still:
            still.wait()
            as_found.get("/proposals")
            still.wait()
            still.observer.stop()
            page = visit(still.url).page
            told = page.evaluate("fetch('/figures').then(answer => answer.json())")
            rows = {
                row.locator("th").inner_text(): row.locator("td").all_inner_texts()
                for row in page.locator(".figures tbody tr").all()
            }
            shown_targets = {
                each.get_attribute("data-target"): each.inner_text() for each in page.locator("[data-target]").all()
            }
        sides = [told["metrics"]["application"], told["metrics"]["server"]]
        assert rows["Average query time"] == [figures.milliseconds(side["averageQueryTime"]) for side in sides]
        assert rows["Queries"] == [figures.count(side["totalQueries"]) for side in sides]
        assert rows["Result cache hits"] == ["not measured", "not measured"]
        assert rows["Buffer cache hits"] == [figures.percent(side["bufferCacheHitRate"]) for side in sides]
        assert sides[0]["totalQueries"] > 0
        for target in told["targets"]:
            written = figures.named(target["name"], target["value"], target["unit"])
            assert shown_targets[target["name"]] == (written if target["met"] is not None else "–")
        period = still.observer._period
        assert sides[0]["totalQueries"] == sum(
            taken.application.queries for taken in period.samples if taken.application
        )


class TestCharts:
    def test_a_lone_point_between_times_nobody_watched_is_drawn(self):
        at = tuple(float(10 * number + 5) for number in range(10))
        values = (None, 3.0, None, None, 5.0, 6.0, None, None, None, 4.0)
        frame = Frame(0.0, 100.0, at, gaps=((0.0, 10.0), (20.0, 40.0), (60.0, 90.0)))
        chart = line_chart("k", "Rate", frame, [Line("each", values)], Scale(str))
        [drawn] = re.findall(r'class="line a" d="(M[\d.]+ [^"]*)"', chart.partition("<ul")[0])
        assert [piece.count("L") for piece in drawn.split("M")[1:]] == [0, 1, 0]
        assert drawn.count("h0.1") == 2

    def test_changes_that_came_close_together_share_a_number(self):
        markers = tuple(Marker(moment, number) for number, moment in enumerate((10.0, 96.0, 98.0, 99.0), 1))
        frame = Frame(0.0, 100.0, (50.0,), markers)
        chart = line_chart("k", "Rate", frame, [Line("each", (1.0,))], Scale(str))
        assert re.findall(r'"marker-text"[^>]*>([^<]+)<', chart) == ["1", "2\N{EN DASH}4"]
        assert chart.count('class="marker"') == 4


class TestToken:
    @pytest.mark.parametrize(
        "path", ["/", "/board", "/figures", "/plan/1", "/?token=", "/?token=wrong", "/nothing", "/docs"]
    )
    def test_without_it_there_is_401_and_nothing_else(self, shown, path):
        for given in ({}, {"Cookie": f"playbook-{shown.place.rpartition(':')[2]}=wrong"}):
            answer = shown.asked.get(shown.place + path, headers=given)
            assert (answer.status_code, answer.text) == (401, "401")
            assert "set-cookie" not in answer.headers

    def test_it_is_changed_for_a_cookie_that_only_this_page_has(self, shown):
        answer = shown.asked.get(shown.url)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert re.search(r"HttpOnly.*SameSite=strict", answer.headers["set-cookie"])
        token = shown.url.rpartition("=")[2]
        with httpx.Client(cookies=answer.cookies) as admitted:
            page = admitted.get(f"{shown.place}/")
            assert page.status_code == 200
            assert token not in page.text
            assert token not in str(answer.headers)

    def test_its_policy_lets_nothing_in_from_elsewhere(self, shown):
        with httpx.Client(cookies=shown.asked.get(shown.url).cookies) as admitted:
            first, second = (admitted.get(f"{shown.place}/").headers for _ in range(2))
        policy = first["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'nonce-")
        assert "unsafe" not in policy
        assert policy != second["content-security-policy"], "a nonce is used once"
        assert (first["cache-control"], first["referrer-policy"]) == ("no-store", "no-referrer")


def test_the_command_serves_on_loopback_until_ctrl_c(server):
    process = subprocess.Popen(
        [COMMAND, "dashboard", "--every", "1s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{40,}", address)
        with httpx.Client(follow_redirects=True) as client:
            assert "embedded sample proposals_0_02" in client.get(address).text
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode in {0, 130}
    assert "Traceback" not in said


@pytest.mark.exhaustive
def test_thirty_days_of_history_are_there_within_four_seconds(empty, context_of, visit):
    context = context_of(empty)
    history = open_history(context)
    until = time.time()
    history.add(Sample(until - 31 * 86_400, 30.0, {}))
    body = Sample(
        0.0, 30.0, {"db_calls": 60, "db_ms": 120.0, "connections_pct": 7.0, "waiting": 0}, {20: 99, 30: 1}
    ).dump()
    with history.store.session() as execute:
        for number in range(86_400):
            execute("INSERT INTO sample VALUES (?, ?, ?)", (number + 2, until - 30 * (86_400 - number), body))
    began = time.monotonic()
    with dashboard(context, every_s=5.0) as found:
        page = visit(found.url).page
        page.goto(f"{found.place}/?span=30d")
        page.locator("#d-average").wait_for(state="attached")
        seconds = time.monotonic() - began
        assert page.locator(".line").count() > 3
    history.file.unlink()
    assert seconds < 4.0
