"""The plan's six figures as a service hands them on."""

from __future__ import annotations

import json

from playbook.monitor.metrics import DatabaseMetrics, JsonLines, track

FOUND = DatabaseMetrics(
    "application", 30.0, average_query_time=3.5, slow_query_count=2, total_queries=400, error_rate=0.5
)


def test_a_sink_gets_the_figures_under_the_plans_names(tmp_path):
    told = []
    track(FOUND, lambda *event: told.append(event), JsonLines(tmp_path / "metrics.jsonl"))
    [(event, properties)] = told
    assert event == "database_performance"
    assert (properties["averageQueryTime"], properties["slowQueryCount"], properties["totalQueries"]) == (3.5, 2, 400)
    assert properties["cacheHitRate"] is None, "what this side cannot know is never 0"
    assert properties["timestamp"] > 1_700_000_000_000
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"event": event, **properties}


def test_a_sink_that_fails_costs_its_caller_nothing(caplog):
    told = []

    def broken(event, properties):
        raise ConnectionError("the analytics server is away")

    track(FOUND, broken, lambda *event: told.append(event))
    assert len(told) == 1
    assert "the analytics server is away" in caplog.text
