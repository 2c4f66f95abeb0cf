"""Two runs held against each other: what got worse is caught, what did not change raises no alarm."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import pairwise
from xml.etree import ElementTree

import psycopg
import pytest
from markdown_it import MarkdownIt

import fix_results
import test_cli
from playbook import caching, parts, regressions, request_load
from playbook.caching import Caching
from playbook.context import open_context
from playbook.markdown import document
from playbook.phase import Playbook
from playbook.results import read
from playbook.settings import Settings
from playbook.target import sample

STEP = "1/orders_customer_created"


def finished(phase):
    """What a run of this one phase would write into results.json."""
    context = phase.context
    part = parts.read_part(context.settings.folder, phase.spec.notebook)
    return parts.merge(
        [part],
        run_id=context.run_id,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=1.0,
        mode="apply" if context.settings.applies else "dry-run",
        target=context.target,
        also=[],
        order=[phase.step_id(spec) for phase, spec in context.plan.steps()],
        notebooks=[],
    )


def run(phase):
    """Everything a notebook does, in its order."""
    phase.check()
    phase.before()
    phase.apply()
    phase.after()
    phase.settle()
    return finished(phase)


def compare(old, new):
    return regressions.compare(read(old), read(new))


def alarms(compared):
    return {(each.topic, each.name) for each in (*compared.of("regression"), *compared.missed)}


def test_unchanged_runs_raise_no_alarm_and_a_dropped_index_raises_one(shop):
    applied = run(shop.playbook(budget_s=2).phase("1"))
    assert all(rows for each in applied["measured"] if not each["control"] for rows in each["rounds_ms"])
    again = [run(shop.playbook(apply=False, measure=True, budget_s=1).phase("1")) for _ in range(2)]
    assert [alarms(compare(old, new)) for old, new in ((applied, again[0]), again, again[::-1])] == [set()] * 3
    shop.execute("DROP INDEX orders_customer_created")
    dropped = run(shop.playbook(apply=False, measure=True, budget_s=1).phase("1"))
    found = compare(again[1], dropped)
    assert not found.passes
    assert alarms(found) >= {("step", STEP), ("query", "latest_orders (common)"), ("query", "latest_orders (rare)")}
    (query,) = (each for each in found.differences if each.name == "latest_orders (common)")
    assert "no longer by orders_customer_created" in query.reason
    assert not any("open_orders" in name for _, name in alarms(found))
    back = compare(dropped, again[1])
    assert alarms(back) == set()
    assert {each.name for each in back.of("better")} >= {STEP, "latest_orders (common)"}


def test_a_dry_run_that_executes_nothing_is_compared_by_its_plans(shop):
    old = run(shop.playbook(apply=False).phase("1"))
    shop.execute("CREATE INDEX orders_customer ON orders (customer_id)")
    new = run(shop.playbook(apply=False).phase("1"))
    query = ("query", "latest_orders (common)")
    assert query in {(each.topic, each.name) for each in compare(old, new).of("better")}
    assert query in alarms(compare(new, old))
    assert "no longer by orders_customer" in compare(new, old).of("regression")[0].reason


@pytest.fixture(scope="module")
def embedded_phase(server, tmp_path_factory):
    def connect(dbname):
        return psycopg.connect(**server.conninfo(dbname), autocommit=True)

    sample.provision(connect, 0.02)
    sample.reset(connect, 0.02, force=True)
    folder = tmp_path_factory.mktemp("results")
    settings = {"scale": 0.02, "budget_s": 2, "out": folder}
    with ExitStack() as opened:

        def opening(phase, **given):
            context = opened.enter_context(closing(open_context(Settings(**(settings | given)))))
            return Playbook(context).phase(phase)

        yield opening


@pytest.mark.exhaustive
def test_an_n_plus_one_put_back_is_caught_by_its_statements(embedded_phase):
    phase = embedded_phase("1.2")
    mended = run(phase)
    assert alarms(compare(mended, mended)) == set()
    phase.undo()
    back = run(embedded_phase("1.2", apply=False))
    found = compare(mended, back)
    assert ("step", "1.2/proposals_with_customer_products_sections") in alarms(found)
    told = [each.reason for each in found.of("regression") if each.topic == "query"]
    assert told
    assert all(" statements became " in reason for reason in told)


@pytest.mark.exhaustive
def test_a_cache_switched_off_is_caught(embedded_phase, monkeypatch):
    monkeypatch.setattr(request_load, "KEYS", 8 * 40)
    monkeypatch.setattr(caching, "LOAD_S", 8 * 2.0)

    def loaded(phase):
        phase.check()
        phase.before()
        phase.apply()
        Caching(phase).load()
        return finished(phase)

    kept, again = loaded(embedded_phase("2.2")), loaded(embedded_phase("2.2"))
    assert alarms(compare(kept, again)) == set()
    with monkeypatch.context() as broken:
        broken.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        off = loaded(embedded_phase("2.2"))
    assert ("metric", "cache_hit_rate_pct") in alarms(compare(kept, off))
    embedded_phase("2.2").undo()
    undone = loaded(embedded_phase("2.2", apply=False))
    assert ("step", "2.2/cached_proposals") in alarms(compare(kept, undone))


@pytest.mark.exhaustive
def test_twenty_runs_without_a_change_raise_no_alarm_and_each_dropped_index_does(embedded_phase, server):
    first = run(embedded_phase("3.2"))
    runs = [first, *(run(embedded_phase("3.2", apply=False)) for _ in range(20))]
    found = [compare(old, new) for old, new in pairwise(runs)]
    assert [sorted(alarms(each)) for each in found if alarms(each)] == []
    # Buffers are of queries that were measured, whatever else the machine does.
    runs.append(run(embedded_phase("3.2", apply=False, budget_s=20)))
    # In the sample of this size the second one's queries take as many buffers without it: their plans tell.
    for index, felt in (("idx_hypothesis_validation_compound", True), ("idx_performance_baseline_lookup", False)):
        with psycopg.connect(**server.conninfo("proposals_0_02"), autocommit=True) as connection:
            connection.execute(f"DROP INDEX {index}")
        runs.append(run(embedded_phase("3.2", apply=False, budget_s=20)))
        found = compare(*runs[-2:])
        assert ("step", f"3.2/{index}") in alarms(found)
        assert any(topic == "query" for topic, _ in alarms(found)) or not felt
        told = {each.word for each in found.differences if f"no longer by {index}" in each.reason}
        assert told
        assert told <= {"regression", "changed"}


CASES = ["orders_of_day", "orders_of_customer"]


def measured(seed, *, factor=1.0, pace=1.0, **changes):
    """A run of two queries and four controls: `factor` slows the queries down, `pace` all of them."""
    rng = random.Random(seed)

    def rounds(ms):
        return [[round(ms * pace * rng.lognormvariate(0, 0.04), 4) for _ in range(20)] for _ in range(2)]

    row = {"phase": "1", "when": "after", "step": STEP, "bind": "common", "control": False, "buffers": 120}
    row |= {"nodes": ["Limit", "Index Scan"], "plan_hash": "a", "indexes": ["orders_day"], "error": ""}
    rows = [row | {"query": name, "rounds_ms": rounds(3 * factor)} | changes for name in CASES]
    rows += [
        row | {"query": f"control_{number}", "control": True, "step": "", "rounds_ms": rounds(2.0 + number)}
        for number in range(4)
    ]
    return fix_results.empty() | {"steps": [fix_results.step(STEP)], "measured": rows}


def words(compared):
    return {each.word for each in compared.differences if each.topic == "query"}


def test_a_slower_query_is_a_regression_only_when_the_statistics_say_so():
    assert words(compare(measured(1), measured(2))) == {"same"}
    assert words(compare(measured(1), measured(2, factor=1.15))) == {"same"}
    assert words(compare(measured(1), measured(2, factor=1.6))) == {"regression"}
    assert words(compare(measured(1, factor=1.6), measured(2))) == {"better"}
    few = measured(2, factor=3)
    for each in few["measured"]:
        each["rounds_ms"] = [each["rounds_ms"][0][:3], each["rounds_ms"][1][:3]]
    assert words(compare(measured(1), few)) == {"not compared"}


def test_another_machine_is_seen_by_the_controls_and_its_times_are_not_compared():
    found = compare(measured(1), measured(2, pace=1.9))
    assert words(found) == {"not compared"}
    assert "times are not compared" in found.differences[-1].reason
    half_as_fast = compare(measured(1), measured(2, pace=1.9, buffers=400))
    assert words(half_as_fast) == {"regression"}, "buffers do not depend on the machine"


def test_twenty_seeds_without_a_change_raise_no_alarm():
    assert [seed for seed in range(20) if not compare(measured(seed), measured(1000 + seed)).passes] == []


@pytest.mark.parametrize(
    ("changes", "word", "said"),
    [
        ({"buffers": 180}, "regression", "buffers 120 → 180"),
        ({"buffers": 130}, "same", ""),
        ({"buffers": 80}, "better", ""),
        ({"nodes": ["Limit", "Sort", "Seq Scan"], "plan_hash": "b", "indexes": []}, "regression", "no longer by"),
        ({"nodes": ["Limit", "Index Only Scan"], "plan_hash": "b"}, "changed", "another plan"),
        ({"nodes": ["Limit", "Bitmap Heap Scan"], "plan_hash": "b", "buffers": 300}, "regression", "another plan"),
        ({"nodes": ["4 statements"], "plan_hash": ""}, "changed", ""),
        ({"error": "longer than the timeout of 30 s", "rounds_ms": []}, "regression", "the timeout of 30 s"),
        ({"error": "7 rounds do not fit into the budget of 3 s", "rounds_ms": []}, "not compared", "budget"),
    ],
)
def test_plans_and_buffers_are_compared_exactly(changes, word, said):
    found = [each for each in compare(measured(1), measured(2, **changes)).differences if each.topic == "query"]
    assert {each.word for each in found} == {word}
    assert all(said in each.reason for each in found)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("applied", "planned", "regression"),
        ("exists", "not_applicable", "regression"),
        ("applied", "blocked", "regression"),
        ("covered", "failed", "regression"),
        ("failed", "failed", "regression"),
        ("applied", "dropped", "changed"),
        ("dropped", "applied", "changed"),
        ("applied", "exists", "same"),
        ("blocked", "blocked", "same"),
        ("planned", "applied", "better"),
    ],
)
def test_the_statuses_of_steps_are_compared_exactly(old, new, word):
    sides = [fix_results.empty() | {"steps": [fix_results.step(STEP, status=status)]} for status in (old, new)]
    assert [each.word for each in compare(*sides).differences] == [word]


def test_the_plan_of_a_step_that_was_dropped_for_gaining_nothing_is_no_regression():
    dropped = measured(2, nodes=["Seq Scan"], plan_hash="b", indexes=[])
    dropped["steps"][0]["status"] = "dropped"
    assert compare(measured(1), dropped).passes


def test_differing_rows_are_always_a_failure():
    differing = fix_results.failing()
    assert ("rows", "baseline_lookup (common)") in alarms(compare(differing, differing))


def test_a_missed_target_fails_the_gate_and_what_was_not_measured_does_not():
    limits = {
        name: {"name": name, "limit": 200, "value": 100.0, "met": True, "reason": ""} for name in ("a_ms", "b_ms")
    }
    old = fix_results.empty() | {"targets": list(limits.values())}
    missed = limits["a_ms"] | {"value": 300.0, "met": False}
    unknown = limits["b_ms"] | {"value": None, "met": None, "reason": "2.1 did not run"}
    found = compare(old, fix_results.empty() | {"targets": [missed, unknown]})
    assert alarms(found) == {("target", "a_ms")}
    assert [each.word for each in found.differences] == ["regression", "changed"]
    still = compare(fix_results.empty() | {"targets": [missed]}, fix_results.empty() | {"targets": [missed]})
    assert not still.of("regression")
    assert not still.passes


@pytest.mark.parametrize(
    ("name", "old", "new", "word"),
    [
        ("cache_hit_rate_pct", 91.0, 0.0, "regression"),
        ("cache_hit_rate_pct", 91.0, 84.0, "same"),
        ("n_plus_one_statements_optimized", 0.0, 40.0, "regression"),
        ("n_plus_one_statements_as_found", 1200.0, 1300.0, None),
        ("api_statements_per_request_optimized", 3.1, 3.4, "same"),
        ("api_statements_per_request_optimized", 3.1, 31.0, "regression"),
        ("api_p95_ms_optimized", 20.0, 60.0, "same"),
    ],
)
def test_a_metric_is_judged_where_it_is_counted(name, old, new, word):
    found = compare(*(fix_results.empty() | {"metrics": {name: value}} for value in (old, new)))
    assert [each.word for each in found.differences] == ([word] if word else [])


def test_runs_that_are_not_alike_say_so_first():
    other = measured(2, factor=3, buffers=999, nodes=["Seq Scan"], plan_hash="b", indexes=[])
    other |= {"mode": "dry-run", "target": {"server_version": "15.8", "database": "app", "embedded": False}}
    found = compare(measured(1), other)
    assert found.passes
    assert "different databases" in found.notes[0]
    assert "made with --apply and the new one a dry run" in found.notes[1]
    newer = measured(2)
    newer["target"]["server_version"] = "18.7"
    assert compare(measured(1), newer).notes == ("the server was PostgreSQL 18.6 and is 18.7",)


HOSTILE = [
    "<script>alert(1)</script> | `x``y` [a](http://b) @team #1 *b*\n## no\u202e",
    "`" * 9 + "|\\|" + "-" * 9,
    "![x](y) &amp; </details> <b",
    " ",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stand_in_the_markdown_as_text(text):
    hostile = fix_results.hostile(text) | {"measured": measured(1)["measured"]}
    hostile["comparisons"][0] |= {"same_rows": False}
    tokens = MarkdownIt().enable("table").parse(document(compare(hostile, hostile)))
    kinds = [child.type for token in tokens for child in (token, *(token.children or ()))]
    assert not {"link_open", "image", "em_open", "strong_open", "softbreak"} & set(kinds)
    ours = r"</?sub>|</?details>|<details><summary>[\w ]+ \(\d+\)</summary>\n?"
    html = [child.content for token in tokens for child in (token, *(token.children or ())) if "html" in child.type]
    assert [each for each in html if not re.fullmatch(ours, each.strip())] == []
    assert kinds.count("td_open") == 5 * (kinds.count("tr_open") - kinds.count("thead_open"))
    assert kinds.count("heading_open") <= 3


def write(folder, results):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    return folder


class TestCommand:
    def test_the_gate_closes_on_a_regression_only(self, tmp_path):
        old, same = write(tmp_path / "old", measured(1)), write(tmp_path / "same", measured(2))
        worse = write(tmp_path / "worse", measured(3, factor=2))
        passed = test_cli.playbook("compare", old, same, "--gate")
        assert passed.returncode == 0, passed.stderr
        assert "no regression" in passed.stdout
        closed = test_cli.playbook("compare", old, worse, "--gate", "--out", tmp_path / "out")
        assert closed.returncode == 3
        assert "orders_of_day (common)" in closed.stdout
        assert test_cli.playbook("compare", old, worse).returncode == 0
        root = ElementTree.parse(tmp_path / "out" / "compare.junit.xml").getroot()
        assert (root.get("failures"), root.get("tests")) == ("2", "3")
        text = (tmp_path / "out" / "compare.md").read_text()
        assert text.startswith("## PostgreSQL playbook: 2 regressions\n")
        assert "`orders_of_day (common)`" in text

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "No such file or directory; name the folder that a run wrote"),
            ("{", "holds no results: it is not JSON"),
            ('{"schema": 2}', "of schema 2 and this version reads schema 1"),
            ('{"schema": 1, "steps": [{"id": 5}]}', "steps[0].id"),
        ],
    )
    def test_a_folder_that_holds_no_run_is_refused_in_one_line(self, tmp_path, text, said):
        new = write(tmp_path / "new", measured(1))
        old = tmp_path / "old"
        if text is not None:
            old.mkdir()
            (old / "results.json").write_text(text)
        done = test_cli.playbook("compare", old, new, "--gate")
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1

    def test_it_loads_what_it_needs_and_no_more(self, tmp_path):
        folder = write(tmp_path / "run", measured(1))
        script = (
            "import sys; sys.argv = ['playbook', 'compare', *sys.argv[1:]]\n"
            "from playbook.cli import main\n"
            "try: main()\n"
            "except SystemExit: print('LOADED', *sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, folder, folder], capture_output=True, text=True, check=True
        )
        loaded = set(done.stdout.rpartition("LOADED")[2].split())
        assert not {"sqlalchemy", "sqlglot", "papermill", "IPython", "scipy", "pandas"} & loaded
