"""Results as runs write them: one that went well, one where all went wrong that can, a dry run, an empty one."""

from __future__ import annotations

from typing import Any

SEQ_PLAN = """\
Limit
  Sort  [Sort Key: "timestamp" DESC]
    Seq Scan on hypothesis_validation_events  [Filter: ((user_id = $1) AND (hypothesis = $2))]"""
INDEX_PLAN = """\
Limit
  Index Scan using idx_hypothesis_events_user_timestamp_hypothesis on hypothesis_validation_events  \
[Index Cond: ((user_id = $1) AND (hypothesis = $2))]"""


def step(id_: str, **changes: Any) -> dict[str, Any]:
    """A step as results.json has it: an index that was built."""
    phase, name = id_.split("/")
    return {
        "id": id_,
        "phase": phase,
        "kind": "index",
        "priority": "critical",
        "status": "applied",
        "reason": "",
        "statements": [f"CREATE INDEX CONCURRENTLY {name}\nON public.proposals USING btree (status, customer_id);"],
        "undo": [f"DROP INDEX CONCURRENTLY public.{name};"],
        "seconds": 1.84,
        "size_bytes": 6_414_336,
        "write_overhead_pct": 4.1,
    } | changes


def comparison(step_: str, query: str, bind: str = "common", **changes: Any) -> dict[str, Any]:
    """A comparison as results.json has it: a query that became about 22 times as fast."""
    return {
        "step": step_,
        "query": query,
        "bind": bind,
        "rounds": 24,
        "before_ms": 41.27,
        "after_ms": 1.894,
        "speedup": 21.79,
        "ci95": [20.4, 23.1],
        "before_buffers": 12_481,
        "after_buffers": 57,
        "before_nodes": ["Limit", "Sort", "Seq Scan"],
        "after_nodes": ["Limit", "Index Scan"],
        "same_rows": True,
        "same_rows_reason": "",
        "verdict": "faster",
    } | changes


def unmeasured(step_: str, query: str, bind: str = "common", **changes: Any) -> dict[str, Any]:
    """A comparison that could not be measured: every figure is null."""
    figures = dict.fromkeys(
        ("rounds", "before_ms", "after_ms", "speedup", "ci95", "before_buffers", "after_buffers", "same_rows")
    )
    told = {"before_nodes": [], "after_nodes": [], "same_rows_reason": "", "verdict": "not measured"}
    return comparison(step_, query, bind, **figures, **told) | changes


EVENTS = "1.1/idx_hypothesis_events_user_timestamp_hypothesis"
STATUS = "1.1/idx_proposal_status_customer_created"
CONTENT = "1.1/idx_content_search_optimization"
BASELINE = "3.2/idx_performance_baseline_lookup"
SUMMARY = "3.1/proposal_analytics_summary"
QUANTITY = "4.1/check_quantity_positive"
AUDIT = "4.2/audit_logs"


def good() -> dict[str, Any]:
    """A run with --apply on the embedded sample: nothing failed, one index gained nothing and was dropped."""
    return {
        "schema": 1,
        "run_id": "20261122T210512-7f3a",
        "started_at": "2026-11-22T21:05:12+00:00",
        "seconds": 133.4,
        "mode": "apply",
        "target": {"server_version": "18.6", "database": "proposals_0_2", "embedded": True},
        "steps": [
            step(EVENTS, size_bytes=41_910_272, write_overhead_pct=6.8, seconds=3.1),
            step(STATUS),
            step(CONTENT, status="dropped", reason="no gain: the planner keeps idx_content_type", size_bytes=2_211_840),
            step(
                "1.1/idx_validation_issues_entity_severity_status",
                status="covered",
                size_bytes=None,
                statements=[],
                undo=[],
                seconds=0.0,
                write_overhead_pct=None,
                reason="idx_validation_issues_entity_type_severity_status_detected stands already",
            ),
            step(
                SUMMARY,
                kind="materialized_view",
                priority="medium",
                write_overhead_pct=None,
                size_bytes=98_304,
                statements=[
                    "CREATE MATERIALIZED VIEW proposal_analytics_summary AS\nSELECT\n"
                    "  date_trunc('day', created_at, 'UTC') AS date, status, count(*) AS count\n"
                    "FROM proposals\nGROUP BY 1, 2;",
                    "CREATE UNIQUE INDEX idx_proposal_analytics_date_status\n"
                    "ON proposal_analytics_summary (date DESC, status);",
                ],
                undo=["DROP MATERIALIZED VIEW proposal_analytics_summary;"],
            ),
            step(BASELINE, priority="medium", size_bytes=3_473_408),
            step(
                "4.1/check_value_positive",
                kind="check",
                priority="medium",
                size_bytes=0,
                status="exists",
                statements=[
                    "ALTER TABLE proposals ADD CONSTRAINT check_value_positive CHECK (value >= 0) NOT VALID;",
                    "ALTER TABLE proposals VALIDATE CONSTRAINT check_value_positive;",
                ],
                undo=["ALTER TABLE proposals DROP CONSTRAINT check_value_positive;"],
            ),
        ],
        "comparisons": [
            comparison(EVENTS, "events_of_user_by_hypothesis", "common", before_plan=SEQ_PLAN, after_plan=INDEX_PLAN),
            comparison(
                EVENTS,
                "events_of_user_by_hypothesis",
                "rare",
                before_ms=38.9,
                after_ms=0.182,
                speedup=213.7,
                ci95=[190.2, 240.9],
                after_buffers=6,
            ),
            comparison(
                STATUS,
                "open_proposals_of_customer",
                "common",
                before_ms=12.4,
                after_ms=3.05,
                speedup=4.07,
                ci95=[3.81, 4.29],
                before_buffers=2104,
                after_buffers=612,
                before_nodes=["Bitmap Heap Scan"],
                after_nodes=["Index Scan"],
            ),
            comparison(
                STATUS,
                "open_proposals_of_customer",
                "rare",
                before_ms=1.31,
                after_ms=1.22,
                speedup=1.074,
                ci95=[0.97, 1.18],
                verdict="unproven",
                before_buffers=88,
                after_buffers=61,
            ),
            comparison(
                CONTENT,
                "content_search",
                "common",
                before_ms=2.11,
                after_ms=2.12,
                speedup=0.995,
                ci95=[0.97, 1.02],
                verdict="no gain",
                before_buffers=410,
                after_buffers=410,
                after_nodes=["Limit", "Sort", "Seq Scan"],
            ),
            comparison(
                SUMMARY,
                "dashboard_by_day",
                "common",
                before_ms=184.0,
                after_ms=1.37,
                speedup=134.3,
                ci95=[128.8, 139.9],
                same_rows=None,
                same_rows_reason="averages of float8 differ from run to run in the query itself",
            ),
            unmeasured(BASELINE, "baseline_lookup", "rare", same_rows_reason="the query timed out after 30 s"),
        ],
        "findings": [],
        "metrics": {},
        "targets": [],
        "expected": [],
    }


def failing() -> dict[str, Any]:
    """A run in which a step and a notebook failed, rows differ, a query got slower and targets were missed."""
    results = good()
    results["steps"] += [
        step(
            QUANTITY,
            kind="check",
            status="blocked",
            size_bytes=None,
            write_overhead_pct=None,
            reason="3 rows violate it: delete or mend them, then run again",
        ),
        step(
            "1.1/idx_approval_execution_status_workflow_started",
            status="not_applicable",
            statements=[],
            undo=[],
            size_bytes=None,
            write_overhead_pct=None,
            reason="no relation approval_executions; near: approvals",
        ),
        step(
            AUDIT,
            kind="partition",
            priority="nice_to_have",
            status="failed",
            size_bytes=None,
            write_overhead_pct=None,
            reason="lock_timeout: public.audit_logs was in use for 10 minutes",
        ),
    ]
    results["comparisons"] += [
        comparison(
            STATUS,
            "proposals_of_day",
            "common",
            before_ms=3.2,
            after_ms=5.9,
            speedup=0.542,
            ci95=[0.51, 0.58],
            verdict="slower",
            before_buffers=200,
            after_buffers=990,
        ),
        comparison(
            BASELINE,
            "baseline_lookup",
            "common",
            same_rows=False,
            same_rows_reason="2 rows before are missing after",
            verdict="unstable",
        ),
    ]
    results["findings"] = [
        {"check": "pg_stat_statements", "status": "ok", "detail": "loaded since 2026-11-01", "remedy": ""},
        {
            "check": "duplicate indexes",
            "status": "warn",
            "detail": "idx_content_a and idx_content_b are equal (12 MB)",
            "remedy": "DROP INDEX CONCURRENTLY public.idx_content_b;",
        },
        {"check": "free disk", "status": "not_checked", "detail": "SQL cannot know it", "remedy": "look at the host"},
    ]
    results["metrics"] = {
        "average_query_time_ms": 12.41,
        "cache_hit_rate_pct": 83.2,
        "total_queries": 120_412.0,
        "error_rate_pct": None,
    }
    results["targets"] = [
        {"name": "api_p95_ms", "limit": 200, "value": 231.4, "met": False, "reason": "load of 50 requests per s"},
        {"name": "cache_hit_rate_pct", "limit": 80, "value": 83.2, "met": True, "reason": ""},
        {"name": "pool_peak_pct", "limit": 70, "value": None, "met": None, "reason": "2.1 did not run"},
    ]
    results["expected"] = [
        {"name": "n_plus_one_eliminated_pct", "low": 90, "high": 100, "value": 99.7, "met": True, "reason": ""},
        {"name": "analytics_time_saved_pct", "low": 50, "high": 70, "value": 31.0, "met": False, "reason": ""},
    ]
    results["notebooks"] = [
        {"name": "01_1_composite_indexes", "status": "done", "seconds": 48.2, "error": ""},
        {
            "name": "04_2_partitioning",
            "status": "failed",
            "seconds": 12.9,
            "error": "LockNotGranted: public.audit_logs was in use for 10 minutes",
        },
    ]
    return results


def dry_run() -> dict[str, Any]:
    """A dry run on a foreign target: all steps planned, nothing executed, nothing measured."""
    results = good()
    results["mode"] = "dry-run"
    results["target"] = {"server_version": "15.8", "database": "app", "embedded": False}
    unknown = {"size_bytes": None, "write_overhead_pct": None, "seconds": 0.0}
    results["steps"] = [each | unknown | {"status": "planned", "reason": ""} for each in results["steps"]]
    results["comparisons"] = [
        unmeasured(EVENTS, "events_of_user_by_hypothesis", bind, same_rows_reason="dry run", before_nodes=["Seq Scan"])
        for bind in ("common", "rare")
    ]
    return results


def empty() -> dict[str, Any]:
    """What a run without any step writes: every list is there and holds nothing."""
    results = good()
    return results | {"steps": [], "comparisons": []}


def hostile(text: str) -> dict[str, Any]:
    """Results in which every string that can be `text` is."""
    results = failing()

    def swap(value: Any) -> Any:
        if isinstance(value, str):
            return text
        if isinstance(value, list):
            return [swap(each) for each in value]
        if isinstance(value, dict):
            return {key: each if key in {"status", "verdict", "met"} else swap(each) for key, each in value.items()}
        return value

    lists = ("steps", "comparisons", "findings", "targets", "expected", "notebooks")
    return (
        results
        | {key: swap(results[key]) for key in lists}
        | {"metrics": {text: 1.0}, "run_id": text, "started_at": text, "mode": text}
        | {"target": {"server_version": text, "database": text, "embedded": True}}
    )
