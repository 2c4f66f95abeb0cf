"""Makes the README's picture of the report anew: `.venv/bin/python -m tests.renew_pictures out/<run id>`.

The first screen of that run's report, as Chromium shows it on a laptop.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from tests.fix_browser import CHROMIUM, LAPTOP

from playbook.settings import ROOT

PICTURE = ROOT / "data" / "proposals" / "report.png"


def renew(run: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0)
        page = browser.new_page(viewport={"width": LAPTOP[0], "height": LAPTOP[1]})
        page.goto((run / "report.html").absolute().as_uri())
        page.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    renew(Path(sys.argv[1]))
    print(PICTURE.relative_to(ROOT))
