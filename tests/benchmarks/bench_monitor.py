"""What watching costs: the reference service's throughput, a monitor's share of a core, a dashboard over 30 days.

Run with `.venv/bin/python -m pytest -q -n 0 -s tests/benchmarks/bench_monitor.py`, on a quiet machine.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playbook.evidence.statistics import ratio
from playbook.monitor.history import Took, open_history
from playbook.monitor.observer import Observer
from playbook.monitor.record import Recorder
from playbook.monitor.sample import Sample
from playbook.monitor.sampler import Sampler
from playbook.settings import NOTEBOOKS

PATHS = ("/proposals/p0000010", "/content", "/approvals", "/validation-issues")
ROUNDS, BLOCKS, CLIENTS, REQUESTS = 12, 2, 3, 16
LEAST = 0.97
"""Of the throughput without the meter."""
SHARE_PCT = 0.5
"""Of one core, for a sample every 30 s."""
STATEMENTS = 4_000
USABLE_S = 4.0
_BARE = """
import playbook.monitor.meter as meter
meter.Meter = lambda *_, **__: type("Nothing", (), {"attach": lambda self, app: None})()
"""


@contextmanager
def served(conninfo, *, metered: bool) -> Iterator[tuple[str, int]]:
    """The reference service as found, with the meter that it carries or without: its URL, and its process."""
    code = ("" if metered else _BARE) + "from playbook.service import process; process.main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS)},
    )
    try:
        child.stdin.write(json.dumps({"conninfo": dict(conninfo), "switches": {}}) + "\n")
        child.stdin.flush()
        yield json.loads(child.stdout.readline())["url"], child.pid
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


def cpu_ms(pid: int) -> float:
    """What all threads of a process have had of the processors, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e6


def milliseconds_for(url: str, pid: int) -> tuple[float, float]:
    """Several clients at once ask one after the other: how long all of them took, and the service's processor time.

    The service works on one processor, so what a request takes of that bounds how many it answers; and unlike the time
    on the clock it does not depend on who else is at work on the machine.
    """
    before = cpu_ms(pid)
    place = urlsplit(url)

    def ask() -> None:
        connection = http.client.HTTPConnection(place.hostname, place.port)
        for number in range(REQUESTS):
            connection.request("GET", PATHS[number % len(PATHS)])
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1000 * (time.perf_counter() - began), cpu_ms(pid) - before


def test_the_meter_leaves_the_service_its_throughput(as_found):
    clocked: dict[bool, list[list[float]]] = {False: [], True: []}
    used: dict[bool, list[list[float]]] = {False: [], True: []}
    conninfo = as_found.target.conninfo
    with served(conninfo, metered=False) as bare, served(conninfo, metered=True) as metered:
        for service in (bare, metered):
            milliseconds_for(*service)
        for _ in range(BLOCKS):
            for blocks in (*clocked.values(), *used.values()):
                blocks.append([])
            for number in range(ROUNDS):
                for with_it in (False, True) if number % 2 else (True, False):
                    wall, cpu = milliseconds_for(*(metered if with_it else bare))
                    clocked[with_it][-1].append(wall)
                    used[with_it][-1].append(cpu)
    for what, sides in (("by the clock", clocked), ("by processor time", used)):
        found = ratio(sides[False], sides[True])
        low, high = (100 * (end - 1) for end in found.ci95)
        print(
            f"\nthroughput with the meter, {what}: {100 * (found.speedup - 1):+.2f} % [{low:+.2f}, {high:+.2f}] (limit -3 %)"
        )
    print(f"{sum(map(sum, used[False])) / (ROUNDS * BLOCKS * CLIENTS * REQUESTS):.2f} ms of a processor for a request")
    assert found.speedup >= LEAST


def test_a_monitor_takes_a_small_share_of_a_core(empty, context_of, as_found):
    """A target with thousands of statements, and an application beside it; CPU of this process for each sample."""
    with empty.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        for number in range(STATEMENTS):
            connection.execute(f"RESET bench.setting_{number}".encode())
    context = context_of(empty)
    history = open_history(context)
    recorder = Recorder(history)
    with Sampler(context, f"{as_found.service.url}/metrics") as sampler, empty.connect() as users:
        sampler.take()
        cpu = []
        for _ in range(12):
            for number in range(200):
                users.execute(f"RESET bench.setting_{number}".encode())
            as_found.get("/content")
            began = time.process_time()
            taken = sampler.take()
            recorder.add(taken)
            cpu.append(time.process_time() - began)
    history.file.unlink()
    share = 100 * sorted(cpu)[len(cpu) // 2] / 30
    print(f"\na sample of {len(sampler._server.statements.counts):,} statements: {1000 * sorted(cpu)[6]:.1f} ms of CPU, "
          f"{share:.3f} % of a core at one every 30 s (limit {SHARE_PCT} %)")  # fmt: skip
    assert recorder.news() == []
    assert share <= SHARE_PCT


def test_thirty_days_of_history_are_shown_soon(empty, context_of):
    context = context_of(empty)
    history = open_history(context)
    until = time.time()
    figures = {"db_calls": 60, "db_ms": 120.0, "hit": 900, "read": 10, "commits": 60, "rollbacks": 1, "active": 2,
               "waiting": 0, "idle_in_transaction": 0, "longest_transaction_s": 0.2, "connections_pct": 7.0,
               "connections_peak_pct": 7.0, "queries": 60, "query_ms": 140.0, "query_slow": 1, "query_failed": 0,
               "requests": 50, "request_failed": 0, "pool_mean_pct": 5.0, "pool_peak_pct": 30.0, "pool_waits": 0}  # fmt: skip
    body = Sample(0.0, 30.0, figures, {20: 40, 25: 8, 30: 2}, {15: 50, 22: 10}).dump()
    took = {str(number): Took(10, 20.0, 10, 100) for number in range(40)}
    history.add(Sample(until - 30 * 86_400, 30.0, figures), took, {str(n): f"SELECT {n}" for n in range(40)})
    with history.store.session() as execute:
        for number in range(1, 86_400):
            execute("INSERT INTO sample VALUES (?, ?, ?)", (number + 1, until - 30 * (86_400 - number), body))
        [[slot]] = execute("SELECT body FROM usage")
        for number in range(1, 8_640):
            execute("INSERT INTO usage VALUES (?, ?, ?)", (until - 300 * number, 300.0, slot))
    size = history.file.stat().st_size
    began = time.perf_counter()
    observer = Observer(context, every_s=5.0)
    observer.start()
    started = time.perf_counter() - began
    while len(observer._kept) < 80_000:
        time.sleep(0.01)
    whole = time.perf_counter() - began
    spans = {}
    for span in ("15min", "24h", "30d"):
        began = time.perf_counter()
        observer.board(span)
        spans[span] = time.perf_counter() - began
    observer.stop()
    history.file.unlink()
    told = ", ".join(f"{span} {seconds:.2f} s" for span, seconds in spans.items())
    print(f"\n30 days at 30 s ({size / 1e6:.0f} MB): a day read in {started:.2f} s, all in {whole:.2f} s; boards: {told} "
          f"(limit {USABLE_S} s)")  # fmt: skip
    assert whole + spans["30d"] <= USABLE_S
