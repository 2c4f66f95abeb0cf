"""The browser that pages are tested in tells what is wrong with one: errors, requests to others, poor access."""

from __future__ import annotations

from tests.fix_browser import LAPTOP, PHONE

GOOD = (
    '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><main><h1>A page</h1>'
    "<p>It says something.</p></main></html>"
)


def test_a_page_without_fault_passes_at_both_sizes(visit, tmp_path):
    page = tmp_path / "good.html"
    page.write_text(GOOD)
    for size in (LAPTOP, PHONE):
        seen = visit(page, size)
        seen.assert_clean()
        assert seen.overflow() == 0
        assert seen.axe() == []
        assert seen.page.viewport_size["width"] == size[0]


def test_what_a_page_does_wrong_is_told(visit, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        GOOD.replace("<main>", '<img src="https://example.com/x.png"><p style="width: 2000px">wide</p><main>').replace(
            "</html>", "<script>console.error('said so'); undefined_name();</script></html>"
        )
    )
    seen = visit(page)
    assert seen.foreign == ["https://example.com/x.png"]
    assert "said so" in seen.errors
    assert any("undefined_name" in error for error in seen.errors)
    assert seen.overflow() > 700
    assert any(line.startswith("image-alt: ") for line in seen.axe())
