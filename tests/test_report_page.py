"""The report in a real browser: what the lead sees first, on a laptop, on a phone, for those who cannot see, on paper."""

from __future__ import annotations

import pytest
from tests.fix_browser import LAPTOP, PHONE

import fix_results
from playbook.report import write_html


@pytest.fixture
def report(tmp_path):
    def write(results):
        write_html(results, tmp_path / "report.html")
        return tmp_path / "report.html"

    return write


def test_the_first_screen_says_what_was_gained_what_was_not_and_what_is_blocked_and_by_what(report, visit):
    visited = visit(report(fix_results.failing()), size=LAPTOP)
    first = {
        each.inner_text().replace("\xa0", " "): each.bounding_box() for each in visited.page.query_selector_all(".told")
    }
    assert all(box["y"] + box["height"] <= LAPTOP[1] for box in first.values())
    gained, not_gained, blocked = first
    assert "events_of_user_by_hypothesis (rare): 38.9 ms → 0.182 ms, 214× [190×, 241×], 24 rounds" in gained
    assert "n_plus_one_eliminated_pct: 99.7 %, expected 90 % to 100 %: met" in gained
    assert "api_p95_ms: 231 ms, target 200 ms: missed" in not_gained
    assert "pool_peak_pct: not measured, 2.1 did not run" in not_gained
    assert "4.1/check_quantity_positive: 3 rows violate it" in blocked
    visited.assert_clean()


def test_axe_finds_nothing_on_a_laptop_on_a_phone_and_in_the_dark(report, visit):
    path = report(fix_results.failing())
    for visited in (visit(path, size=LAPTOP), visit(path, size=PHONE, color_scheme="dark")):
        assert visited.axe() == []
    assert visit(report(fix_results.dry_run())).axe() == []


@pytest.mark.parametrize("side", [fix_results.good, fix_results.failing, fix_results.dry_run])
def test_it_fits_a_laptop_and_a_phone(report, visit, side):
    path = report(side())
    for size in (LAPTOP, PHONE):
        visited = visit(path, size=size)
        assert visited.overflow() <= 0
        visited.assert_clean()


def test_hostile_names_do_nothing_and_are_seen_as_they_are(report, visit):
    text = "</td><script>document.title='owned'</script><!-- --><img src=http://evil.test/x onerror=alert(1)>"
    visited = visit(report(fix_results.hostile(text)))
    assert "owned" not in visited.page.title().replace(text, "")
    assert visited.page.query_selector_all("script, img") == []
    assert text in visited.page.inner_text("main")
    visited.assert_clean()


def test_on_paper_it_is_whole_and_has_no_navigation(report, visit):
    visited = visit(report(fix_results.failing()))
    visited.page.emulate_media(media="print")
    assert not visited.page.is_visible("nav")
    assert visited.page.is_visible("pre.plan")
    assert visited.page.pdf(format="A4").startswith(b"%PDF")
    visited.page.set_viewport_size({"width": 700, "height": 1000})  # A4 within the margins
    reason = visited.page.locator(".steps td[colspan]", has_text="3 rows violate it")
    assert reason.bounding_box()["height"] < 120, "a reason stands across, not in a column of one word's width"


def test_a_run_of_hundreds_of_queries_stays_small(report):
    results = fix_results.good()
    plan = "\n".join(f"{'  ' * (n % 9)}Seq Scan on orders_{n}  [Filter: (status = ?)]" for n in range(40))
    results["comparisons"] = [
        {**each, "query": f"{each['query']}_{n}", "before_plan": plan, "after_plan": plan.replace("Seq", "Index")}
        for n in range(60)
        for each in results["comparisons"]
    ]
    assert len(results["comparisons"]) > 400
    assert report(results).stat().st_size <= 5 * 1024 * 1024
