"""What notebooks show survives JupyterLab's sanitizer, says the same in plain text, and shows hostile text as text."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from PIL import Image

import fix_results
from playbook import show
from playbook.evidence.explain import Node, Plan
from playbook.results import shown
from playbook.target.sql import Statement

# What @jupyterlab/apputils 4 lets through of an untrusted output.
TAGS = set("b br code details div em mark p pre span strong summary table tbody td th thead tr wbr".split())
ATTRIBUTES = {"style", "colspan", "scope"}
LENGTH = r"\d*\.?\d+(?:px|em)"
COLOUR = r"#[0-9a-f]{6}|rgba\(128, 128, 128, 0\.35\)|transparent"
STYLES = {
    "background": "none",
    "background-color": COLOUR,
    "border": rf"1px solid (?:{COLOUR})",
    "border-bottom": rf"1px solid (?:{COLOUR})|0",
    "border-collapse": "collapse",
    "border-left": rf"4px solid (?:{COLOUR})",
    "border-radius": LENGTH,
    "color": COLOUR,
    "cursor": "pointer",
    "display": "flex|block",
    "flex": rf"\d \d {LENGTH}",
    "flex-wrap": "wrap",
    "font-family": "monospace",
    "font-size": LENGTH,
    "font-weight": "400|600",
    "gap": LENGTH,
    "line-height": r"\d\.\d+",
    "margin": rf"(?:{LENGTH}|0)(?: (?:{LENGTH}|0))*",
    "min-width": f"0|{LENGTH}",
    "opacity": r"0\.\d+",
    "overflow-x": "auto",
    "padding": rf"(?:{LENGTH}|0)(?: (?:{LENGTH}|0))*",
    "padding-left": LENGTH,
    "text-align": "left|right",
    "text-indent": f"-{LENGTH}",
    "vertical-align": "top|bottom",
    "white-space": "nowrap|pre-wrap",
}


@dataclass
class Output(HTMLParser):
    """A parsed output."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def __post_init__(self):
        HTMLParser.__init__(self)
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.pieces.append(data)

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())


BUILD = Statement(
    "CREATE INDEX CONCURRENTLY idx ON public.proposals (status)",
    "builds the index while writers go on",
    "SHARE UPDATE EXCLUSIVE",
    "public.proposals",
    transactional=False,
    long=True,
)
ANALYZE = Statement("ANALYZE public.proposals;", "fresh statistics", "SHARE UPDATE EXCLUSIVE", "public.proposals")
SCAN = Node("Index Scan", "events", index="idx_events", rows=50, loops=1, actual_ms=0.2)
BEFORE = Plan(
    Node("Limit", children=(Node("Sort", children=(Node("Seq Scan", "events", rows=1240, actual_ms=41.2),)),))
)
AFTER = Plan(Node("Limit", children=(SCAN,)))


def everything(results):
    """Every kind of output there is."""
    steps, rows = results["steps"], results["comparisons"]
    items = [
        {"priority": "critical", "week": 1, "item": each["id"], "phases": (each["phase"],), "status": each["status"]}
        for each in steps
    ]
    return {
        "verdict": show.verdict_table(rows, steps),
        "plans": show.plan_pair(rows[0].get("before_plan"), rows[0].get("after_plan")),
        "nodes": show.node_changes(rows),
        "status": show.status_table(steps),
        "findings": show.findings_table(results["findings"]),
        "targets": show.targets_table(results["targets"]),
        "expected": show.expected_table(results["expected"]),
        "matrix": show.priority_matrix(items),
        "statements": show.statements(
            [
                Statement(each["statements"][0], each["reason"], each["kind"], each["id"])
                for each in steps
                if each["statements"]
            ]
        ),
        "banner": show.banner(
            steps[0]["id"], "18.6", changes=steps[0]["reason"], seconds=1.0, notes=[steps[0]["kind"]]
        ),
    }


@pytest.mark.parametrize("kind", list(everything(fix_results.failing())))
def test_jupyterlab_strips_nothing_from_an_output_it_does_not_trust(kind):
    output = Output(everything(fix_results.failing())[kind].html)
    assert {tag for tag, _ in output.elements} <= TAGS
    for tag, attributes in output.elements:
        assert set(attributes) <= ATTRIBUTES, tag
        for declaration in filter(None, (part.strip() for part in attributes.get("style", "").split(";"))):
            name, value = declaration.split(": ", 1)
            assert re.fullmatch(STYLES[name], value, re.IGNORECASE), declaration


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1))
@example("</pre></code><img src=x onerror=alert(1)>")
@example('" style="position: fixed')
@example("{0} {x} %s %(x)s")
@example("a\x00b\x1b[31m\u202e\ud800 c\r\nd")
def test_hostile_text_is_text_in_every_output(text):
    for kind, output in everything(fix_results.hostile(text)).items():
        parsed = Output(output.html)
        assert {tag for tag, _ in parsed.elements} <= TAGS, kind
        assert all(set(attributes) <= ATTRIBUTES for _, attributes in parsed.elements), kind
        assert not re.search("[\x00\x1b\u202e\ud800]", output.html + output.text), kind
        assert "".join(shown(text).split()) in "".join(parsed.text.split()), kind


def test_an_output_is_html_and_plain_text_at_once():
    data, _ = DisplayFormatter().format(show.statements([ANALYZE]))
    assert set(data) == {"text/html", "text/plain"}
    assert data["text/plain"].startswith("-- 1. fresh statistics")


def test_statements_are_one_block_of_sql_with_lock_and_purpose():
    assert show.statements([BUILD, ANALYZE]).text == (
        "-- 1. builds the index while writers go on\n"
        "--    lock: SHARE UPDATE EXCLUSIVE on public.proposals; outside a transaction; "
        "blocks no writer, may take long\n"
        "CREATE INDEX CONCURRENTLY idx ON public.proposals (status);\n"
        "\n"
        "-- 2. fresh statistics\n"
        "--    lock: SHARE UPDATE EXCLUSIVE on public.proposals\n"
        "ANALYZE public.proposals;"
    )


def test_the_block_reads_the_same_in_html():
    output = show.statements([BUILD, ANALYZE])
    assert "".join(Output(output.html).pieces) == output.text


@given(st.text())
@example("ends here\nDROP TABLE proposals; --")
@example("ends here\rDROP TABLE proposals; --")
def test_a_purpose_never_becomes_sql(purpose):
    text = show.statements([Statement("SELECT 1", purpose, purpose, purpose)]).text
    assert [line for line in text.split("\n") if not line.startswith("--")] == ["SELECT 1;"]
    assert "\r" not in text


def test_nothing_to_run_is_said():
    assert show.statements([]).text == "There is nothing to run."


def test_statements_of_a_way_that_is_taken_only_sometimes_are_folded_under_the_words_that_say_when():
    ways = [
        Statement("SELECT 1", "one", when="only at night"),
        Statement("SELECT 2", "two", when="only at night"),
        BUILD,
    ]
    output = show.statements(ways)
    assert output.text.startswith("-- only at night:\n\n-- 1. one\n")
    assert "2 statements only at night</summary>" in output._repr_html_()
    assert output._repr_html_().index("</details>") < output._repr_html_().index("-- 3. ")


def test_the_verdict_table_gives_each_step_its_costs_and_each_query_its_evidence():
    steps = [fix_results.step("1.1/idx_a", size_bytes=8192)]
    rows = [
        fix_results.comparison("1.1/idx_a", "q", "common"),
        fix_results.unmeasured("1.1/idx_a", "q", "rare", same_rows_reason="it timed out", reason="6 rounds"),
    ]
    lines = show.verdict_table(rows, steps).text.split("\n")
    assert [" ".join(line.split()) for line in lines if "---" not in line] == [
        "query before after speed-up [95 % interval] same rows disk write cost keep or drop",
        "1.1/idx_a 8.00 kB +4.10 % keep",
        "1 faster, 1 not measured",
        "q (common) 41.3 ms 1.89 ms 21.8× [20.4×, 23.1×] same faster",
        "plan: Limit, Sort, Seq Scan → Limit, Index Scan; buffers: 12,481 → 57; 24 rounds",
        "q (rare) not measured not measured not measured not compared not measured",
        "rows: it timed out",
        "not measured: 6 rounds",
        "plan: not measured",
    ]
    places = [lines[0].index("keep or drop"), lines[2].index("keep"), lines[4].index("faster")]
    assert len(set(places)) == 1


def test_a_row_opens_to_its_plan_diff():
    row = fix_results.comparison("1.1/a", "q", before_plan=BEFORE, after_plan=AFTER)
    html = show.verdict_table([row]).html
    assert "<summary" in html
    assert re.search(r"<mark[^>]*>-     Seq Scan on events  \(1,240 rows, 41\.2 ms\)\n</mark>", html)
    assert "<details" not in show.verdict_table([row | {"before_plan": None, "after_plan": None}]).html


@pytest.mark.parametrize(
    ("step", "row", "word", "why"),
    [
        ({}, {}, "keep", "1 faster"),
        ({"status": "exists"}, {"verdict": "unproven"}, "keep", "1 unproven"),
        ({"status": "dropped", "reason": "no gain"}, {"verdict": "no gain"}, "drop", "no gain"),
        ({}, {"verdict": "slower"}, "undo", "made slower: q (common)"),
        ({}, {"same_rows": False}, "undo", "rows differ"),
        ({"status": "blocked", "reason": "3 rows violate it"}, {}, "blocked", "3 rows violate it"),
        ({"status": "undone"}, {}, "undone", ""),
    ],
)
def test_the_decision_follows_from_status_verdicts_and_rows(step, row, word, why):
    steps = [fix_results.step("1.1/a", **step)]
    lines = show.verdict_table([fix_results.comparison("1.1/a", "q", **row)], steps).text.split("\n")
    assert lines[2].endswith(f"  {word}")
    if why:
        assert lines[3] == f"    {why}"


def test_what_is_known_of_a_step_may_stand_in_its_rows():
    row = fix_results.comparison("1.1/a", "q") | {"status": "dropped", "size_bytes": 8192, "write_overhead_pct": None}
    line = show.verdict_table([row]).text.split("\n")[2]
    assert re.search(r"8\.00 kB +not measured +drop$", line)


def test_a_plan_pair_marks_the_nodes_that_stand_on_one_side_only():
    assert show.plan_pair(BEFORE, AFTER).text == (
        "before:\n  Limit\n-   Sort\n-     Seq Scan on events  (1,240 rows, 41.2 ms)\n"
        "after:\n  Limit\n+   Index Scan using idx_events on events  (50 rows, 0.200 ms)"
    )


def test_a_node_that_is_gone_is_marked_and_those_below_it_are_not():
    sorted_ = Plan(Node("Limit", children=(Node("Sort", children=(SCAN,)),)))
    assert show.plan_pair(sorted_, AFTER, figures=False).text == (
        "before:\n  Limit\n-   Sort\n      Index Scan using idx_events on events\n"
        "after:\n  Limit\n    Index Scan using idx_events on events"
    )


@pytest.mark.parametrize("change", [{"index": "idx_other"}, {"conditions": (("Filter", "status = ?"),)}])
def test_another_index_or_condition_is_a_change(change):
    assert "+   Index Scan" in show.plan_pair(Plan(Node("Limit", children=(replace(SCAN, **change),))), AFTER).text


def test_figures_alone_are_no_change():
    slower = Plan(Node("Limit", children=(replace(SCAN, rows=9, loops=3, actual_ms=77.0),)))
    text = show.plan_pair(slower, AFTER).text
    assert "(9 rows, 77.0 ms in each of 3 loops)" in text
    assert "(1 row)" in show.plan_pair(Plan(replace(SCAN, rows=1, actual_ms=None)), None).text
    assert "+" not in text
    before = "Sort  (cost=1..2 rows=9 width=4) (actual time=0.1..0.2 rows=9 loops=1)\n  Buffers: shared hit=3"
    after = "Sort  (cost=1..2 rows=7 width=4) (actual time=9.1..9.2 rows=7 loops=1)\n  Buffers: shared hit=999"
    assert "\n+" not in show.plan_pair(before, after).text


def test_without_figures_a_plan_pair_is_the_same_in_every_run():
    again = Plan(Node("Limit", rows=77, children=(replace(SCAN, rows=9, actual_ms=9.9),)))
    assert show.plan_pair(BEFORE, AFTER, figures=False) == show.plan_pair(BEFORE, again, figures=False)
    explained = (
        "Sort  (cost=1..2 rows=9 width=4)\n  Buffers: shared hit=3\n  ->  Seq Scan on t  (cost=1..2 rows=9 width=4)"
    )
    assert show.plan_pair(explained, None, figures=False).text == (
        "before:\n  Sort\n    Seq Scan on t\nafter:\n  not measured"
    )


def test_same_nodes_are_not_called_the_same_plan_unless_the_plans_say_so():
    nodes = {"before_nodes": ["Index Scan"], "after_nodes": ["Index Scan"]}
    other = Plan(replace(SCAN, index="idx_other"))
    for plans, words in (
        ({}, "same nodes: Index Scan"),
        ({"before_plan": Plan(SCAN), "after_plan": Plan(SCAN)}, "unchanged: Index Scan"),
        ({"before_plan": Plan(SCAN), "after_plan": other}, "same nodes, other indexes or conditions: Index Scan"),
    ):
        assert words in show.node_changes([fix_results.comparison("1.1/a", "q", **nodes, **plans)]).text


def test_node_changes_hold_nothing_that_noise_can_turn():
    rows = fix_results.good()["comparisons"]
    noisy = [row | {"before_ms": 1.0, "speedup": 0.3, "ci95": [0.1, 0.9], "verdict": "slower"} for row in rows]
    assert show.node_changes(rows) == show.node_changes(noisy)
    assert show.node_changes(rows[:1]).text.split("\n")[2] == (
        "events_of_user_by_hypothesis  common  Limit, Sort, Seq Scan → Limit, Index Scan  same"
    )


def test_the_banner_says_where_whether_anything_changes_and_how_long_it_takes():
    told = show.banner("app@db:5432/shop", "15.8", changes="2 indexes", seconds=130, notes=["Untested version."])
    assert told.text.split("\n") == [
        "Connected to app@db:5432/shop, PostgreSQL 15.8.",
        "Will be changed: 2 indexes.",
        "Takes about 2 min 10 s.",
        "Untested version.",
    ]
    told = show.banner("embedded sample proposals", "18.6", changes="", seconds=None, embedded=True)
    assert "Nothing will be changed." in told.text


def test_steps_findings_targets_and_promises_as_tables():
    results = fix_results.failing()
    status = show.status_table(results["steps"][:1]).text.split("\n")
    assert status[2].split() == [fix_results.EVENTS, "index", "critical", "applied", "40.0", "MB", "+6.80", "%"]
    assert "duplicate indexes   warn" in show.findings_table(results["findings"]).text
    assert "api_p95_ms                231 ms  200 ms  missed" in show.targets_table(results["targets"]).text
    assert "analytics_time_saved_pct       31 %   50 % to 70 %  missed" in show.expected_table(results["expected"]).text


def test_the_priority_matrix_names_a_priority_once():
    items = [
        {
            "priority": "critical",
            "week": 1,
            "item": "indexes",
            "phases": ("1.1",),
            "status": "applied",
            "result": "3 faster",
        },
        {"priority": "critical", "week": 1, "item": "n+1", "phases": ("1.2",)},
        {"priority": "nice_to_have", "week": 4, "item": "partitions", "phases": ("4.2",)},
    ]
    assert show.priority_matrix(items).text.split("\n")[2:] == [
        "critical (week 1)      indexes     1.1     applied  3 faster",
        "                       n+1         1.2              not measured",
        "nice to have (week 4)  partitions  4.2              not measured",
    ]


def test_the_chart_is_displayed_once_as_png_with_its_words_beside():
    chart = show.speedup_chart(fix_results.good()["comparisons"])
    data, metadata = DisplayFormatter().format(chart)
    assert set(data) == {"image/png", "text/plain"}
    assert "events_of_user_by_hypothesis (rare): 214× [190×, 241×] faster" in data["text/plain"]
    assert "baseline_lookup (rare): not measured" in data["text/plain"]
    assert metadata["image/png"] == {"width": 960, "height": chart.height, "alt": chart.alt}
    assert Image.open(BytesIO(chart.png)).size == (2 * chart.width, 2 * chart.height)


def test_the_chart_is_the_same_file_every_time_and_leaves_no_figure_open():
    rows = fix_results.failing()["comparisons"]
    assert show.speedup_chart(rows).png == show.speedup_chart(rows).png
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_the_chart_keeps_the_colours_that_the_colour_blind_tell_apart():
    image = Image.open(BytesIO(show.speedup_chart(fix_results.failing()["comparisons"]).png)).convert("RGB")
    colours = {colour for _, colour in image.getcolors(1 << 24)}
    assert {(0, 0x72, 0xB2), (0xD5, 0x5E, 0)} <= colours


@pytest.mark.parametrize("name", ["$\\frac{", "日本語", "x" * 300, "two\nlines", "a$b$c"])
def test_the_chart_takes_any_name_for_a_query(name):
    chart = show.speedup_chart([fix_results.comparison("1.1/a", name)])
    assert name in chart.alt
    assert chart.png.startswith(b"\x89PNG")


def test_the_chart_as_html_has_an_alternative_text():
    html = show.speedup_chart([fix_results.comparison("1.1/a", '"<q>')]).html
    tag, attributes = Output(html).elements[0]
    assert tag == "img"
    assert '"<q> (common): 21.8×' in attributes["alt"]


def test_a_chart_of_nothing_is_a_sentence():
    assert show.speedup_chart([fix_results.unmeasured("1.1/a", "q")]).text == "No speed-up was measured."


def test_parameters_of_a_statement_are_no_formula():
    html = show.statements([Statement("SELECT $1::int + $2", "add")])._repr_html_()
    assert html.startswith('<div class="mathjax_ignore tex2jax_ignore">')
