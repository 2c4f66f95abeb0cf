"""What a server did between two looks at it: right across resets, restarts and lost connections, and never a value."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest
from typer.testing import CliRunner

from playbook.cli import app
from playbook.errors import Busy, UsageError
from playbook.monitor.history import open_history
from playbook.monitor.monitoring import judged
from playbook.monitor.period import NO_APPLICATION, Period
from playbook.monitor.plans import plan_of
from playbook.monitor.record import Recorder, alone
from playbook.plan.schedule import every
from playbook.settings import Settings
from playbook.target.connect import Target, identify

COMMAND = os.path.join(os.path.dirname(sys.executable), "playbook")
TABLE = "CREATE TABLE orders AS SELECT n AS id, n % 7 AS status FROM generate_series(1, 2000) n"
ASK = "SELECT count(*) FROM orders WHERE status = 3 AND 'c4nary' <> ''"
RESET = "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()"


class TestServer:
    def test_what_ran_in_between_is_counted_and_nothing_else(self, empty, watch):
        watched = watch(empty)
        watched.run(TABLE, *[ASK] * 4)
        first = watched.take()
        assert watched.calls_of(first, "FROM orders WHERE") == 4
        watched.run(ASK)
        second = watched.take()
        [server] = second.metrics
        assert (server.source, server.slow_query_count) == ("server", 0)
        assert second.took.keys() < first.took.keys() | second.took.keys()
        assert 1 <= server.total_queries <= 3, "the playbook's own queries are not the target's"
        assert 0 < server.average_query_time < 50
        assert 0 < server.buffer_cache_hit_rate <= 100
        assert 0 < server.connection_pool_utilization < 100
        assert (server.cache_hit_rate, server.connection_pool_peak, server.error_rate) == (None, None, None)

    def test_slow_statements_and_rollbacks_are_told(self, empty, watch):
        watched = watch(empty)
        watched.run("SELECT pg_sleep(0.06)", "BEGIN", "ROLLBACK")
        taken = watched.take()
        assert taken.metrics[0].slow_query_count == 1
        assert taken.sample.figures["rollbacks"] == 1

    @pytest.mark.parametrize("reset", [RESET, "SELECT pg_stat_reset()"])
    def test_after_a_reset_everything_counted_is_new_and_it_is_said(self, empty, watch, reset):
        watched = watch(empty)
        watched.run(TABLE, *[ASK] * 50)
        watched.take()
        watched.run(reset, ASK)
        taken = watched.take()
        assert any("reset" in note for note in taken.sample.notes)
        assert all(value >= 0 for value in taken.sample.figures.values())
        assert max(each.calls for each in taken.took.values()) < 50
        assert watched.take().sample.notes == ()

    def test_an_evicted_statement_that_comes_again_counts_from_its_coming(self, empty, watch):
        """Its counters go down, or on newer versions tell from when on they count."""
        watched = watch(empty)
        watched.run(TABLE, *[ASK] * 3)
        watched.take()
        forget = (
            "SELECT pg_stat_statements_reset(0, 0, queryid) FROM pg_stat_statements WHERE query LIKE '%orders WHERE%'"
        )
        watched.run(forget, *[ASK] * 5)
        assert 5 in {each.calls for each in watched.take().took.values()}

    def test_without_the_extension_the_rest_is_told_and_why_that_is_not(self, empty, watch):
        watched = watch(empty, extension=False)
        watched.run("SELECT 1")
        taken = watched.take()
        assert "pg_stat_statements is not in this database: times of statements are not known" in taken.sample.notes
        [server] = taken.metrics
        assert (server.total_queries, server.average_query_time, server.slow_query_count) == (None, None, None)
        assert server.connection_pool_utilization > 0
        period = Period()
        period.add(taken)
        target = judged(watched.context, period)[1]
        assert (target.met, target.reason) == (
            None,
            "pg_stat_statements is not in this database: times of statements are not known",
        )

    def test_a_role_that_may_not_read_texts_sees_times_and_no_text(self, empty, watch):
        role = "monitor_poor"
        with empty.connect() as admin:
            admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
        try:
            watched = watch(empty, role)
            watched.run(TABLE, ASK)
            taken = watched.take()
            assert taken.metrics[0].total_queries >= 2
            assert not any("orders" in text for text in taken.texts.values())
            watched.sampler.close()
        finally:
            with empty.connect() as admin:
                admin.execute(f"DROP ROLE {role}")

    def test_a_lost_connection_is_opened_again_and_is_no_outage(self, empty, watch):
        watched = watch(empty)
        with empty.connect() as admin:
            pid = watched.sampler.session.connection.info.backend_pid
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        watched.run("SELECT 1")
        assert watched.take().sample.notes == ()

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
    def test_a_server_that_restarts_is_missed_and_watched_again(self, postgres15, watch, how):
        """A clean restart keeps its counters, a crash loses them: nothing is negative and it is said."""
        with postgres15.connect() as admin:
            admin.execute("DROP DATABASE IF EXISTS restarted WITH (FORCE)")
            admin.execute("CREATE DATABASE restarted")
        watched = watch(identify(Target("env:DATABASE_URL", postgres15.conninfo("restarted"))))
        watched.run(TABLE, *[ASK] * 20)
        watched.take()
        postgres15.stop(how)
        try:
            gone = watched.take()
        finally:
            postgres15.start()
        assert any(note.startswith("the server could not be asked: ") for note in gone.sample.notes)
        assert gone.metrics == ()
        watched.run(ASK)
        back = watched.take()
        assert "the server was restarted" in back.sample.notes
        assert all(value >= 0 for value in back.sample.figures.values())
        assert max(each.calls for each in back.took.values()) < 20
        assert back.metrics[0].total_queries > 0
        watched.run(ASK)
        assert watched.take().sample.notes == ()
        watched.sampler.close()
        with postgres15.connect() as admin:
            admin.execute("DROP DATABASE restarted WITH (FORCE)")

    def test_behind_a_transaction_pooler_it_watches_too(self, pooled, watch):
        watched = watch(pooled)
        watched.run("SELECT 1", times=3)
        taken = watched.take()
        assert taken.sample.notes == ()
        assert taken.metrics[0].total_queries >= 3

    def test_a_clock_that_was_moved_is_told(self, empty, watch):
        ahead = [0.0]
        watched = watch(empty, clock=lambda: time.time() + ahead[0])
        ahead[0] = -3600
        taken = watched.take()
        assert "the clock was moved by -3600 s" in taken.sample.notes
        assert taken.sample.seconds < 60
        assert watched.take().sample.notes == ()


class Away(http.server.BaseHTTPRequestHandler):
    """Something that answers, and is no meter."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"process": "<script>"}')

    def log_message(self, *_):
        pass


class TestApplication:
    def test_an_application_with_a_meter_is_watched_beside_its_server(self, as_found, watch):
        watched = watch(as_found.target, metrics_url=f"{as_found.service.url}/metrics")
        for _ in range(5):
            as_found.get("/proposals")
        taken = watched.take()
        application, server = taken.metrics
        assert (application.source, server.source) == ("application", "server")
        assert application.total_queries > 5
        assert application.connection_pool_peak > 0
        period = Period()
        period.add(taken)
        found = {each.name: each for each in judged(watched.context, period)}
        assert found["api_p95_ms"].value == taken.application.request_latencies.percentile_ms(95)
        assert found["api_p95_ms"].reason.startswith("of 5 requests, inside the service in ")
        assert found["database_average_query_ms"].met is True
        assert found["cache_hit_rate_pct"].met is None
        assert "no result cache" in found["cache_hit_rate_pct"].reason

    def test_one_that_is_away_or_no_meter_is_told_and_harms_nothing(self, empty, watch):
        assert any(
            "could not be asked" in note
            for note in watch(empty, metrics_url="http://127.0.0.1:9/metrics").take().sample.notes
        )
        server = http.server.HTTPServer(("127.0.0.1", 0), Away)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            taken = watch(empty, metrics_url=f"http://127.0.0.1:{server.server_port}/").take()
        finally:
            server.shutdown()
            server.server_close()
        assert any("could not be asked" in note for note in taken.sample.notes)
        assert [side.source for side in taken.metrics] == ["server"]


class TestTargets:
    def test_behind_a_miss_stand_the_slowest_statements_with_their_plans(self, empty, watch):
        watched = watch(empty)
        slow = "SELECT count(*), pg_sleep(0.2) FROM (SELECT FROM orders WHERE status = 3 LIMIT 1) one"
        watched.run(TABLE, slow)
        period = Period()
        period.add(watched.take())
        missed = {each.name: each for each in judged(watched.context, period)}["database_average_query_ms"]
        assert missed.met is False
        first = missed.slowest[0]
        assert "pg_sleep($" in first.text
        assert "Seq Scan on orders" in first.plan
        assert first.share_pct > 50
        assert NO_APPLICATION in {each.reason for each in judged(watched.context, period)}

    def test_having_asked_for_a_plan_is_no_statement_of_the_targets_users(self, empty, watch):
        watched = watch(empty)
        watched.run(TABLE, ASK)
        [queryid] = [queryid for queryid, text in watched.take().texts.items() if "FROM orders WHERE" in text]
        assert "Seq Scan on orders" in plan_of(watched.context, queryid).tree
        watched.run("SELECT 'somebody else'")
        assert not [text for text in watched.take().texts.values() if "EXPLAIN" in text]

    def test_a_statement_without_a_plan_says_why(self, empty, watch):
        watched = watch(empty)
        watched.run("CREATE TABLE twins (id int)", "SELECT 1")
        texts = watched.take().texts
        by_text = {text: plan_of(watched.context, queryid) for queryid, text in texts.items()}
        assert "only SELECT" in next(plan.reason for text, plan in by_text.items() if "TABLE twins" in text)
        assert plan_of(watched.context, "1").reason == "pg_stat_statements does not hold it any more"
        assert plan_of(watched.context, "1; DROP TABLE twins").tree == ""


class TestRecording:
    def test_no_value_of_a_statement_is_kept(self, empty, watch, history):
        """pg_stat_statements does not mask utility statements before PostgreSQL 16, and comments never."""
        watched = watch(empty)
        watched.run(
            TABLE, f"{ASK} /* c4nary */", "DO $$ BEGIN PERFORM 'c4nary'; END $$", "SELECT 'c4nary' AS \"<script>\""
        )
        Recorder(history).add(watched.take())
        assert any("<script>" in text for text in history.texts().values())
        assert b"c4nary" not in b"".join(path.read_bytes() for path in history.file.parent.iterdir())

    def test_samples_that_could_not_be_kept_wait_for_the_history(self, empty, watch, history):
        watched = watch(empty)
        history.file.parent.mkdir()
        history.file.mkdir()
        recorder = Recorder(history)
        recorder.add(watched.take())
        [said] = recorder.news()
        assert "1 samples wait" in said
        history.file.rmdir()
        recorder.add(watched.take())
        assert len(history.samples()[0]) == 2

    def test_a_history_has_one_monitor(self, watch, history, empty):
        context = watch(empty).context
        with alone(context, history), pytest.raises(Busy, match="another monitor keeps"), alone(context, history):
            pass
        with alone(context, history):
            pass

    def test_nothing_is_written_on_a_foreign_target_unless_it_may_be_changed(self, empty, watch, snapshot):
        before = snapshot(empty)
        watched = watch(empty, extension=False)
        history = open_history(watched.context, make=True)
        Recorder(history).add(watched.take())
        assert snapshot(empty) == before
        assert history.file.name.startswith("postgres-")
        assert len(open_history(watched.context).samples()[0]) == 1
        history.file.unlink()


class TestCommand:
    def test_monitor_samples_keeps_and_judges(self, server):
        done = CliRunner().invoke(app, ["monitor", "--every", "1s", "--for", "2s", "--json", "--gate"])
        assert done.exit_code == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(told) >= 1
        assert {each["event"] for each in told} == {"database_performance"}
        assert {"averageQueryTime", "slowQueryCount", "cacheHitRate", "totalQueries", "errorRate"} <= set(told[0])
        assert "history in schema playbook on the target" in done.stderr
        assert "API response time, 95 % of requests" in done.stderr
        with psycopg.connect(**server.conninfo("proposals_0_02")) as connection:
            assert connection.execute("SELECT count(*) FROM playbook.sample").fetchone()[0] >= len(told)

    @pytest.mark.exhaustive
    def test_sigterm_ends_it_with_its_targets(self, server):
        process = subprocess.Popen(
            [COMMAND, "monitor", "--every", "1s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            line = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        assert "server: " in line
        assert process.returncode == 0, errors
        assert "Database query time, average" in rest

    def test_a_mistake_is_told_before_anything_is_asked(self):
        with pytest.raises(UsageError, match="'often' is no interval"):
            every("often")
        for wrong in ("file:///etc/passwd", "http://user:secret@127.0.0.1/metrics", "http://127.0.0.1"):
            with pytest.raises(UsageError, match="must be like http://127.0.0.1:8000/metrics"):
                Settings.from_environ({}, metrics_url=wrong)
