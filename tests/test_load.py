"""Load: open loop, Zipf, latency from when a request was due, errors counted."""

from __future__ import annotations

import http.server
import itertools
import threading
import time
from collections import Counter
from contextlib import contextmanager

import httpx
import pytest

from playbook.service import load, traffic
from playbook.service.traffic import Request, Traffic


@contextmanager
def answering(respond):
    """A server that answers each GET with the status and body of `respond(n, path)`, one at a time."""
    numbers = itertools.count(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with lock:
                status, body = respond(next(numbers), self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    lock = threading.Lock()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_latency_counts_from_when_a_request_was_due():
    """One stall of a second makes the requests behind it late, all of them, as people would have it."""

    def stall_once(number, path):
        if number == 10:
            time.sleep(1.0)
        return 200, b"ok"

    with answering(stall_once) as url:
        (done,) = load.run([url], traffic.of_paths(["/"]), rate=100, seconds=1.0, warm_up_s=0)
    assert done.requests == pytest.approx(100, abs=40)
    assert done.p99_ms > 700
    assert done.percentile_ms(60) > 200
    assert sum(done.errors.values()) == 0
    assert done.bytes_each == 2
    assert done.statements is None


def test_errors_are_counted_by_what_they_are():
    with answering(lambda number, path: (503 if path == "/down" else 200, b"")) as url:
        (done,) = load.run([url], traffic.of_paths(["/down", "/up"]), rate=200, seconds=0.4, warm_up_s=0)
    assert 0 < done.errors["status 503"] < done.requests
    assert done.throughput_rps == pytest.approx((done.requests - done.errors["status 503"]) / 0.4)
    (done,) = load.run([url], traffic.of_paths(["/up"]), rate=50, seconds=0.2, warm_up_s=0)
    assert done.errors["ConnectError"] == done.requests > 0


def test_the_warm_up_is_no_part_and_every_service_gets_the_same():
    seen = {name: [] for name in "ab"}

    def note(name):
        return lambda number, path: (seen[name].append(path), (200, b""))[1]

    asked = traffic.of_paths([f"/{n}" for n in range(50)])
    with answering(note("a")) as a, answering(note("b")) as b:
        loads = load.run([a, b], asked, rate=150, seconds=0.4, warm_up_s=0.2, blocks=2)
    assert Counter(seen["a"]) == Counter(seen["b"])
    assert loads[0].requests == loads[1].requests < len(seen["a"])
    assert loads[0].seconds == pytest.approx(0.4)


def test_reads_come_by_zipf_and_one_in_twenty_is_a_write():
    source = Traffic(tuple(Request(str(rank)) for rank in range(5000)), (Request("w", "POST"),))
    asked = list(itertools.islice(source.requests(), 40_000))
    writes = sum(request.method == "POST" for request in asked)
    assert writes == pytest.approx(2000, rel=0.1)
    counts = Counter(request.path for request in asked if request.method == "GET")
    harmonic = sum(1 / rank for rank in range(1, 5001))
    for rank in (1, 2, 10):
        assert counts[str(rank - 1)] == pytest.approx(38_000 / rank / harmonic, rel=0.15)
    assert list(itertools.islice(source.requests(), 100)) == asked[:100]
    assert list(itertools.islice(source.requests(seed=2), 100)) != asked[:100]


def test_the_sample_gives_5000_different_requests_to_every_endpoint(as_found):
    with as_found.target.connect() as connection:
        of_sample = traffic.of_sample(connection)
        assert traffic.of_sample(connection) == of_sample
    assert len({request.path for request in of_sample.reads}) == len(of_sample.reads) == traffic.KEYS
    first = {request.path.partition("?")[0].split("/")[1] for request in of_sample.reads[:20]}
    assert first == {"proposals", "dashboard", "content", "approvals", "validation-issues", "hypotheses"}
    assert {request.method for request in of_sample.writes} == {"PATCH", "POST"}
    for request in (*of_sample.reads[:40], *of_sample.writes[::60]):
        answer = as_found.client.request(request.method, request.path, json=request.body)
        assert answer.status_code == 200, (request, answer.text)


def test_both_services_under_the_same_load_tell_what_requests_cost(as_found, optimized):
    with as_found.target.connect() as connection:
        source = traffic.of_sample(connection)
    urls = [as_found.service.url, optimized.service.url]
    before, after = load.run(urls, source, rate=15, seconds=1.6, warm_up_s=0.3, blocks=2)
    assert before.requests == after.requests > 5
    assert not before.errors + after.errors
    assert before.statements > 5 * after.statements > 0
    assert before.rows > after.rows > 0
    assert before.bytes == pytest.approx(after.bytes, rel=0.2)


def test_it_runs_where_a_loop_is_running_already():
    import asyncio

    async def notebook():
        return load.run(["http://127.0.0.1:9"], traffic.of_paths(["/"]), rate=50, seconds=0.1, warm_up_s=0)

    assert asyncio.run(notebook())[0].errors
    assert httpx.ConnectError.__name__ in asyncio.run(notebook())[0].errors
