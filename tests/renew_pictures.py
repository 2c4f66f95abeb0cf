"""Makes the README's pictures anew: `.venv/bin/python -m tests.renew_pictures out/<run id>`.

The largest speed-ups that the run's indexes brought; the first screen of its report, and of the dashboard after a minute
and a half of load on the reference service of the same sample, as Chromium shows them on a laptop.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psycopg
from PIL import Image
from playwright.sync_api import sync_playwright
from tests.fix_browser import CHROMIUM, LAPTOP

from playbook import charts
from playbook.application import applied_switches
from playbook.context import open_context
from playbook.monitor.dashboard import serving
from playbook.monitor.observer import Observer
from playbook.results import Results
from playbook.service import load, process, traffic
from playbook.settings import ROOT, Settings

SPEEDUPS, REPORT, DASHBOARD = (
    ROOT / "data" / "proposals" / name for name in ("speedups.png", "report.png", "dashboard.png")
)
SHOWN = 16
INDEXES = ("1.1/", "3.2/")
LOAD_S, RATE_RPS = 90.0, 12.0


def draw_speedups(run: Path) -> None:
    results = Results.model_validate_json((run / "results.json").read_text())
    faster = [each for each in results.comparisons if each.verdict == "faster" and each.step.startswith(INDEXES)]
    faster.sort(key=lambda each: each.speedup or 0.0, reverse=True)
    SPEEDUPS.write_bytes(charts.speedup_chart(faster[:SHOWN]).png)
    print(SPEEDUPS.relative_to(ROOT))


def photograph(url: str, picture: Path, height: int = LAPTOP[1]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(viewport={"width": LAPTOP[0], "height": height})
        page.goto(url)
        page.screenshot(path=picture)
        browser.close()
    Image.open(picture).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(picture.relative_to(ROOT))


def renew_dashboard() -> None:
    context = open_context(Settings.from_environ())
    with psycopg.connect(**context.target.conninfo) as connection:
        asked = traffic.of_sample(connection, 300)
    with process.start(context.target.conninfo, applied_switches(context)) as service:
        load.settle(service.url, asked.settled(3_000))
        time.sleep(2)  # peaks are kept by the second: this burst is not to be in the picture
        watched = replace(context, settings=replace(context.settings, metrics_url=f"{service.url}/metrics"))
        with serving(Observer(watched, 1.0), "127.0.0.1", 0) as (server, listening, url):
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            load.run([service.url], asked, rate=RATE_RPS, seconds=LOAD_S)
            photograph(url, DASHBOARD, 1000)
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    draw_speedups(Path(sys.argv[1]))
    photograph((Path(sys.argv[1]) / "report.html").absolute().as_uri(), REPORT)
    renew_dashboard()
