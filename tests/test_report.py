"""The report is one file that says everything, shows hostile text as text and asks nothing of the network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fix_results
from playbook.errors import UsageError
from playbook.report import summary_lines, write_html, write_junit
from playbook.results import shown

VOID = {"meta", "link", "wbr", "br", "img"}


class Page(HTMLParser):
    """A parsed report: its elements in order, its text, and the text of each preformatted block."""

    def __init__(self, source: str):
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.blocks: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "pre":
            self.blocks.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "style" not in self.open:
            self.pieces.append(data)
        if "pre" in self.open:
            self.blocks[-1] += data

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())

    def tags(self, *names):
        return [(tag, attributes) for tag, attributes in self.elements if tag in names]

    def values(self, name):
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture
def page(tmp_path):
    def render(results):
        write_html(results, tmp_path / "report.html")
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return render


def test_the_header_says_where_when_and_how(page):
    text = page(fix_results.good()).text
    for fact in ("proposals_0_2", "PostgreSQL 18.6, embedded sample", "22 November 2026, 21:05 UTC", "2 min 13 s"):
        assert fact in text
    assert "dry run: nothing was changed" in page(fix_results.dry_run()).text


def test_every_figure_stands_with_its_unit(page):
    text = page(fix_results.good()).text
    for figure in ("41.3 ms", "1.89 ms", "21.8× [20.4×, 23.1×]", "12,481 → 57", "40.0 MB", "+6.80 %", "3.10 s"):
        assert figure in text, figure


def test_both_sides_of_a_metric_and_its_interval_stand_in_one_row(page):
    metrics = {"api_p95_ms_as_found": 155.0, "api_p95_ms_optimized": 23.2, "whole_p95_reduction_pct": 85.2}
    metrics |= {"whole_p95_reduction_pct_low": 74.3, "whole_p95_reduction_pct_high": 91.5, "lonely_ms_as_found": 7.0}
    text = page(fix_results.good() | {"metrics": metrics}).text
    assert "api_p95_ms 155 ms23.2 ms whole_p95_reduction_pct 85.2 %[74.3 %, 91.5 %] lonely_ms_as_found 7 ms" in text
    assert "_low" not in text


def test_requests_of_one_name_are_told_apart_by_their_steps(page):
    comparisons = [fix_results.comparison(step, "GET /orders", "") for step in (fix_results.EVENTS, fix_results.STATUS)]
    source = page(fix_results.good() | {"comparisons": comparisons}).source.replace("<wbr>", "")
    chart = source[source.index('id="speedups"') : source.index('id="steps"')]
    assert all(f'<span class="note">{step}</span>' in chart for step in (fix_results.EVENTS, fix_results.STATUS))


def test_what_was_not_measured_is_said_and_never_a_zero(page):
    results = fix_results.good() | {"steps": [fix_results.step(fix_results.EVENTS, size_bytes=None, seconds=None)]}
    results["comparisons"] = [fix_results.unmeasured(fix_results.EVENTS, "q")]
    text = page(results).text
    assert "disk not measured" in text
    assert "took not measured" in text
    assert not re.search(r"(?<![\d.,_])0(\.0+)? ?(ms|×|kB|bytes|s\b|→)", text)


def test_a_figure_that_is_not_a_number_was_not_measured(page):
    nan = fix_results.comparison(
        fix_results.EVENTS, "q", before_ms=float("nan"), speedup=float("inf"), ci95=[1.0, None]
    )
    text = page(fix_results.good() | {"comparisons": [nan]}).text
    assert "nan" not in text.lower().replace("maintenance", "")
    assert "inf " not in text


def test_the_first_screen_names_what_went_wrong_worst_first(page):
    text = page(fix_results.failing()).text
    heads = [
        "notebook failed 04_2_partitioning",
        "step failed 4.2/audit_logs",
        "rows differ baseline_lookup (common): 2 rows before are missing after",
        "slower proposals_of_day (common): 3.20 ms → 5.90 ms, 0.542×",
        "target missed api_p95_ms: 231 ms, the limit is 200 ms",
        "less than expected analytics_time_saved_pct: 31 %",
        "step blocked 4.1/check_quantity_positive: 3 rows violate it",
    ]
    places = [text.index(head) for head in heads]
    assert places == sorted(places)
    assert places[-1] < text.index("Evidence, step by step")


def test_a_run_without_trouble_says_so(page):
    assert "Nothing: no step failed" in page(fix_results.good()).text
    assert "Nothing: no step failed" not in page(fix_results.failing()).text


def test_sections_without_content_are_left_out(page):
    empty = page(fix_results.empty()).text
    for section in ("Findings", "Targets", "Expected improvements", "Metrics", "Speed-ups", "Evidence", "Notebooks"):
        assert section not in empty
    full = page(fix_results.failing()).text
    for section in ("Findings", "Targets", "Expected improvements", "Metrics", "Speed-ups", "Evidence", "Notebooks"):
        assert section in full


def test_plans_are_folded_side_by_side_with_the_changed_nodes_marked(page):
    marked = page(fix_results.good()).source
    assert re.search(r'<mark class="before">- +Sort  \[Sort Key', marked)
    assert re.search(r'<mark class="after">\+ +Index Scan using', marked)
    assert re.search(r"<span> +Limit\n", marked)
    without = [fix_results.comparison(fix_results.EVENTS, "q")]
    assert "Plans of" not in page(fix_results.good() | {"comparisons": without}).text


def test_statements_can_be_copied_as_they_are(page):
    step = fix_results.good()["steps"][4]
    blocks = page(fix_results.good()).blocks
    assert "\n\n".join(step["statements"]) in blocks
    assert step["undo"][0] in blocks


def test_the_chart_has_a_mark_for_each_speedup_and_none_for_what_has_none(page):
    source = page(fix_results.good()).source
    chart = source[source.index('id="speedups"') : source.index('id="steps"')]
    assert len(re.findall(r'<td role="cell" class="strip">', chart)) == 6
    assert "1 comparison without a speed-up is not drawn." in chart


def test_the_file_asks_nothing_of_the_network_and_runs_no_script(page):
    report = page(fix_results.failing())
    assert not report.tags("script", "iframe", "object", "embed", "base", "form")
    assert set(report.values("src")) == set()
    assert all(link.startswith("#") or link == "data:," for link in report.values("href"))
    assert not re.search(r"url\(|@import|https?:", report.source)
    assert "default-src 'none'" in report.values("content")[-1]


def test_headings_landmarks_and_tables_can_be_walked_without_eyes(page):
    report = page(fix_results.failing())
    levels = [int(tag[1]) for tag, _ in report.tags("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert report.elements[0] == ("html", {"lang": "en"})
    assert [len(report.tags(tag)) for tag in ("title", "header", "main", "nav", "footer")] == [1] * 5
    assert all(attributes.get("scope") in {"col", "row"} for _, attributes in report.tags("th"))
    assert not report.open


def test_every_link_leads_somewhere_and_no_id_stands_twice(page):
    report = page(fix_results.failing())
    ids = report.values("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in report.values("href") if link.startswith("#")} <= set(ids)
    assert set(report.values("aria-labelledby")) <= set(ids)


def test_two_steps_of_the_same_id_and_comparisons_of_no_step_are_shown(page):
    results = fix_results.good()
    results["steps"].append(results["steps"][0])
    results["comparisons"].append(fix_results.comparison("9.9/gone", "query_of_no_step"))
    report = page(results)
    assert "query_of_no_step" in report.text
    ids = report.values("id")
    assert len(ids) == len(set(ids))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(min_size=1))
@example("</code><script>alert(1)</script>")
@example("\" onmouseover=alert(1) x='")
@example("{{ 7 * 7 }}{% raw %}&lt;&#60;")
@example("a\x00b\x1b[31m\u202e\ud800 c\r\nd")
def test_hostile_text_is_text_wherever_it_stands(page, text):
    report = page(fix_results.hostile(text))
    plain = page(fix_results.hostile("x"))
    assert {tag for tag, _ in report.elements} <= {tag for tag, _ in plain.elements} | {"wbr", "mark"}
    names = {name for _, attributes in report.elements for name in attributes}
    assert names <= {name for _, attributes in plain.elements for name in attributes}
    assert " ".join(shown(text).split()) in report.text


@pytest.mark.parametrize("schema", [2, "1", None, True, 1.0])
def test_another_schema_is_refused_with_the_remedy(schema, tmp_path):
    with pytest.raises(UsageError, match="reads schema 1"):
        write_html(fix_results.good() | {"schema": schema}, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_value_of_the_wrong_type_is_named(tmp_path):
    results = fix_results.good()
    results["comparisons"][1]["before_ms"] = "fast"
    with pytest.raises(UsageError, match=r"comparisons\[1\]\.before_ms"):
        write_html(results, tmp_path / "report.html")


def test_optional_keys_may_be_missing_or_null(page):
    assert "unknown database" in page({"schema": 1}).text
    results = fix_results.good() | {"findings": None, "metrics": None, "notebooks": None, "started_at": None}
    del results["comparisons"][0]["same_rows_reason"]
    results["comparisons"][1]["before_nodes"] = None
    results["comparisons"][2] |= {"now_ms": 2.5, "reason": "measured again", "unheard_of": {}}
    text = page(results).text
    assert "now 2.50 ms" in text
    assert "measured again" in text


def test_the_summary_ends_a_run_in_a_few_plain_lines():
    assert summary_lines(fix_results.failing()) == [
        "proposals_0_2 on PostgreSQL 18.6, embedded sample, 2 min 13 s",
        "10 steps: 4 applied, 1 in place already, 1 dropped, 1 covered already, 1 not applicable, 1 blocked, 1 failed.",
        "9 comparisons of a query before and after: "
        "4 faster, 1 slower, 1 no gain, 1 unproven, 1 unstable, 1 not measured.",
        "Rows: same in 6, differ in 1, not compared in 2.",
        "Health check: 1 warn, 1 not checked, 1 ok.",
        "Disk taken by the steps in place: 49.5 MB.",
        "gain: events_of_user_by_hypothesis (rare): 38.9 ms → 0.182 ms, 214× [190×, 241×]",
        "gain: dashboard_by_day (common): 184 ms → 1.37 ms, 134× [129×, 140×]",
        "gain: events_of_user_by_hypothesis (common): 41.3 ms → 1.89 ms, 21.8× [20.4×, 23.1×]",
        "notebook failed: 04_2_partitioning: LockNotGranted: public.audit_logs was in use for 10 minutes",
        "step failed: 4.2/audit_logs: lock_timeout: public.audit_logs was in use for 10 minutes",
        "rows differ: baseline_lookup (common): 2 rows before are missing after",
        "slower: proposals_of_day (common): 3.20 ms → 5.90 ms, 0.542× [0.510×, 0.580×]",
        "target missed: api_p95_ms: 231 ms, the limit is 200 ms; load of 50 requests per s",
        "less than expected: analytics_time_saved_pct: 31 %, expected was 50 % to 70 %",
        "step blocked: 4.1/check_quantity_positive: 3 rows violate it: delete or mend them, then run again",
        "not applicable: 1.1/idx_approval_execution_status_workflow_started: no relation approval_executions; "
        "near: approvals",
    ]


def test_the_summary_of_a_dry_run_claims_nothing():
    assert summary_lines(fix_results.dry_run()) == [
        "app on PostgreSQL 15.8, not embedded, 2 min 13 s",
        "Dry run: nothing was changed, no query was executed.",
        "7 steps: 7 planned.",
        "Queries: 1 planned as they run today.",
    ]


def unmapped():
    """A dry run by a role that may only read, on a target that names three things otherwise."""
    results = fix_results.dry_run()
    results["steps"] = [
        fix_results.step(
            fix_results.EVENTS,
            status="planned",
            locks=["SHARE UPDATE EXCLUSIVE on public.events"],
            notes=["not checked: free disk (df)"],
            lacks=["GRANT owner TO reader; or connect as owner"],
        ),
        fix_results.step(
            fix_results.STATUS, status="not_applicable", reason="near names: x; map it: --map proposals=Proposal"
        ),
        fix_results.step(fix_results.CONTENT, status="not_applicable", reason="map it: --map 'content=my \"c\"'"),
        fix_results.step(fix_results.QUANTITY, status="not_applicable", reason="if it has another: --map offers=NAME"),
    ]
    results["comparisons"].append(
        fix_results.unmeasured(fix_results.EVENTS, "latest", reason="no column part; map it: --map events.part=COLUMN")
    )
    return results


def test_a_dry_run_says_once_how_to_go_on():
    lines = summary_lines(unmapped())
    assert "Queries: 1 planned as they run today, 1 could not be." in lines
    assert (
        "names: if these are the tables that the plan means, run again with --map proposals=Proposal "
        "--map 'content=my \"c\"'"
    ) in lines
    assert "privileges: 1 step cannot be applied by this role: GRANT owner TO reader; or connect as owner" in lines
    assert "not planned: latest: no column part; map it: --map events.part=COLUMN" in lines


def test_the_report_of_a_dry_run_shows_what_apply_would_run_and_no_empty_figures(page):
    report = page(unmapped())
    assert report.blocks[0].startswith("-- lock: SHARE UPDATE EXCLUSIVE on public.events\nCREATE INDEX CONCURRENTLY")
    assert ("details", {"open": ""}) in report.elements
    assert "not checked: free disk (df)" in report.text
    assert report.text.count("no column part; map it: --map events.part=COLUMN") == 2
    for empty in ("not measured", "not compared", "Write cost Keep", "Biggest gains"):
        assert empty not in report.text, empty


@pytest.fixture
def junit(tmp_path):
    def write(results):
        write_junit(results, tmp_path / "junit.xml")
        return ElementTree.parse(tmp_path / "junit.xml").getroot()

    return write


def test_junit_has_a_suite_for_the_notebooks_and_one_a_phase(junit):
    root = junit(fix_results.failing())
    assert [suite.get("name") for suite in root] == [
        "notebooks",
        "phase 1.1",
        "phase 3.1",
        "phase 3.2",
        "phase 4.1",
        "phase 4.2",
    ]
    results = fix_results.failing()
    cases = len(results["steps"]) + len(results["comparisons"]) + len(results["notebooks"])
    assert len(root.findall(".//testcase")) == cases == int(root.get("tests"))


def test_junit_counts_what_it_holds(junit):
    root = junit(fix_results.failing())
    for element in (root, *root):
        assert int(element.get("tests")) == len(element.findall(".//testcase"))
        assert int(element.get("failures")) == len(element.findall(".//failure"))
        assert int(element.get("skipped")) == len(element.findall(".//skipped"))


def test_junit_fails_for_failed_notebooks_failed_steps_and_differing_rows_only(junit):
    root = junit(fix_results.failing())
    failed = {case.get("name"): case.find("failure").get("message") for case in root.iterfind(".//testcase[failure]")}
    assert failed == {
        "04_2_partitioning": "LockNotGranted: public.audit_logs was in use for 10 minutes",
        "4.2/audit_logs": "failed: lock_timeout: public.audit_logs was in use for 10 minutes",
        "3.2/idx_performance_baseline_lookup: same rows: baseline_lookup (common)": "2 rows before are missing after",
    }
    assert not junit(fix_results.good()).findall(".//failure")


def test_junit_skips_with_the_reason_what_was_not_due_or_not_possible(junit):
    root = junit(fix_results.failing())
    skipped = {case.get("name"): case.find("skipped").get("message") for case in root.iterfind(".//testcase[skipped]")}
    assert skipped == {
        "1.1/idx_validation_issues_entity_severity_status": "covered already: "
        "idx_validation_issues_entity_type_severity_status_detected stands already",
        "1.1/idx_approval_execution_status_workflow_started": "not applicable: "
        "no relation approval_executions; near: approvals",
        "3.1/proposal_analytics_summary: same rows: dashboard_by_day (common)": "averages of float8 differ from run "
        "to run in the query itself",
        "3.2/idx_performance_baseline_lookup: same rows: baseline_lookup (rare)": "the query timed out after 30 s",
        "4.1/check_quantity_positive": "blocked: 3 rows violate it: delete or mend them, then run again",
    }


def test_junit_takes_a_dry_run_as_skipped_not_as_passed(junit):
    root = junit(fix_results.dry_run())
    assert root.get("tests") == root.get("skipped")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(min_size=1))
@example("a\x00b\x1b[31m\ud800\ufffe ]]> <failure/> & \"'")
def test_junit_is_valid_xml_whatever_the_text(junit, text):
    root = junit(fix_results.hostile(text))
    assert int(root.get("tests")) == len(root.findall(".//testcase"))
    message = root.find(".//failure").get("message")
    assert shown(text).replace("\n", " ").replace("\t", " ").split() == message.replace("\n", " ").split()
