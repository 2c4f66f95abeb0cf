"""What eager loading gains on a list of 200 proposals over HTTP, and what the detector costs a request.

Run with `.venv/bin/python -m pytest -q -n 0 -s tests/benchmarks/bench_n_plus_one.py`.
"""

from __future__ import annotations

import time
from statistics import median, quantiles
from typing import Any

from sqlalchemy.orm import Session

from playbook.service import n_plus_one, reads
from playbook.service.engine import make_engine
from playbook.service.filters import ProposalFilters
from playbook.service.switches import Switches

PATH = "/proposals?limit=200"
ROUNDS = 40


def test_a_list_of_200_proposals(as_found, optimized):
    times: list[tuple[Any, list[float]]] = [(as_found, []), (optimized, [])]
    for _ in range(ROUNDS):
        for served, measured in times:
            started = time.perf_counter()
            served.get(PATH).raise_for_status()
            measured.append(1000 * (time.perf_counter() - started))
    before, after = (quantiles(measured, n=20)[-1] for _, measured in times)
    statements = as_found.statements(PATH), optimized.statements(PATH)
    fewer = 100 * (1 - statements[1] / statements[0])
    print(f"\n{statements[0]} statements -> {statements[1]} ({fewer:.2f} % fewer)")
    print(f"p95 {before:.1f} ms -> {after:.1f} ms ({before / after:.1f} times as fast)")
    assert fewer >= 99
    assert before / after >= 5


def test_the_detector_costs_a_request_little(as_found):
    """The same request with it and without it, in turns; judged by the least of each, which no other work disturbed."""
    engine = make_engine(as_found.target.conninfo, Switches())
    filters = ProposalFilters(limit=200)
    clocked: dict[str, list[float]] = {"without": [], "with": []}

    def request():
        with Session(engine) as session:
            reads.list_proposals(session, Switches(), filters, "")

    def watched():
        with n_plus_one.detect():
            request()

    request()
    watched()
    for _ in range(ROUNDS):
        for name, work in (("without", request), ("with", watched)):
            started = time.perf_counter()
            work()
            clocked[name].append(time.perf_counter() - started)
    engine.dispose()
    ratios = [b / a for a, b in zip(clocked["without"], clocked["with"], strict=True)]
    least = min(clocked["with"]) / min(clocked["without"])
    print(
        f"\ndetector: {100 * (median(ratios) - 1):+.1f} % (median of pairs), {100 * (least - 1):+.1f} % (of the least)"
    )
    assert least <= 1.03
