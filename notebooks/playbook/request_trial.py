"""The requests that an application's steps claim to speed up: the service as found, and with the steps' switches on.

As found it runs on a copy of the pristine template, with the switches on the working copy. Both are asked in the same
rounds, one right after the other, so that whatever slows the machine down slows both.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import httpx
from sqlalchemy.orm import Session

from playbook.application import applied_switches
from playbook.context import Context
from playbook.evidence.compare import Case, Comparison
from playbook.evidence.hypothetical import Estimate
from playbook.evidence.measure import Measurement
from playbook.evidence.statistics import MIN_ROUNDS, Drift, judge
from playbook.service.accounting import ROWS, STATEMENTS
from playbook.service.engine import make_engine
from playbook.service.reads import ENDPOINTS, Endpoint
from playbook.service.switches import Switches
from playbook.service.views import encode
from playbook.standing import Shape
from playbook.step import Step

ROUNDS = 20
ROUNDS_ALONE = 8
"""Of the service as found alone: once a step is applied, both are asked together, and only that is compared."""
BLOCKS = 2
SHARE = 0.08
"""Of the phase's budget, for each service asked in one measurement."""
SAME_ROUNDS = Drift(1, 1.0, (1.0, 1.0), moved=False, reason="both were asked in the same rounds")


class RequestTrial:
    """One request to every endpoint, on the embedded sample. It answers what `playbook.trial.Trial` does of queries."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._as_found: dict[Case, Measurement] = {}
        self._statements: dict[tuple[str, Case], int] = {}
        self.left_out: dict[str, str] = {}

    def cases(self, step: Step) -> list[Case]:
        """One for each endpoint: a switch is for all of them."""
        return [_case(endpoint) for endpoint in ENDPOINTS]

    def claimed(self, step: Step) -> list[Case]:
        """The same: none of them is only a control."""
        return self.cases(step)

    def beside(self, found: Mapping[Case, Measurement]) -> list[Measurement]:
        """The service as found, where it was asked beside the one with the switches on."""
        return [each for case, each in self._as_found.items() if found.get(case) is not each]

    def shape(self, found: Measurement, when: str) -> Shape:
        """How many statements the request sends."""
        return self._sent("on" if when == "after" else "as found", (found.query, found.bind)), None, ()

    def measure(self, steps: Iterable[Step], *, applied: bool = False) -> dict[Case, Measurement]:
        """The service as found; once `steps` are `applied`, with their switches alone, and as found beside it."""
        kinds = {step.spec.kind for step in steps}
        if not kinds or not self._context.target.embedded:
            return {}
        settings = applied_switches(self._context)
        on = Switches({kind: settings.get(kind, {}) for kind in kinds if applied})
        wanted = {"as found": None, "on": on} if on else {"as found": None}
        self._context.progress("requests: starting the service")
        urls = dict(zip(wanted, self._context.services.urls(*wanted.values()), strict=True))
        with httpx.Client(timeout=60) as client:
            found = self._ask(client, urls, ROUNDS if on else ROUNDS_ALONE)
        self._as_found = found["as found"]
        return found["on"] if on else found["as found"]

    def _ask(self, client: httpx.Client, urls: Mapping[str, str], rounds: int) -> dict[str, dict[Case, Measurement]]:
        blocks: dict[str, dict[Case, list[list[float]]]] = {name: {} for name in urls}
        rows: dict[tuple[str, Case], int] = {}
        for name, url in urls.items():
            for endpoint in ENDPOINTS:
                answer = client.get(url + endpoint.example)
                key = name, _case(endpoint)
                self._statements[key], rows[key] = (int(answer.headers[header]) for header in (STATEMENTS, ROWS))
        ends = time.monotonic() + self._context.settings.budget_s * SHARE * len(urls)
        for block in range(BLOCKS):
            for round_ in range(rounds // BLOCKS):
                self._context.progress(f"requests: round {block * rounds // BLOCKS + round_ + 1} of up to {rounds}")
                if time.monotonic() > ends and round_ >= -(-MIN_ROUNDS // BLOCKS):
                    break
                for endpoint in ENDPOINTS:
                    for name, url in urls.items():
                        started = time.perf_counter()
                        client.get(url + endpoint.example).raise_for_status()
                        elapsed = 1000 * (time.perf_counter() - started)
                        series = blocks[name].setdefault(_case(endpoint), [[] for _ in range(BLOCKS)])
                        series[block].append(elapsed)
        return {
            name: {
                case: Measurement(*case, blocks=tuple(map(tuple, series)), rows=rows[name, case])
                for case, series in measured.items()
            }
            for name, measured in blocks.items()
        }

    def compare(
        self, step: Step, before: Mapping[Case, Measurement], after: Mapping[Case, Measurement]
    ) -> list[Comparison]:
        """Each request as found and with the switch on, both from the rounds that they were asked in together.

        Where the service does not run there is none.
        """
        together = self._as_found if after else {}
        return [
            self._comparison(step, together.get(case) or before.get(case) or Measurement(*case), after.get(case))
            for case in self.cases(step)
            if case in before or case in after
        ]

    def _comparison(self, step: Step, before: Measurement, after: Measurement | None) -> Comparison:
        case = before.query, before.bind
        found = judge(before.blocks, after.blocks if after else (), drift=SAME_ROUNDS)
        return Comparison(
            step=step.id,
            query=before.query,
            bind=before.bind,
            rounds=min(before.rounds, after.rounds if after else 0),
            before_ms=before.median_ms,
            after_ms=after.median_ms if after else None,
            speedup=found.speedup,
            ci95=found.ci95,
            before_buffers=None,
            after_buffers=None,
            before_nodes=self._sent("as found", case),
            after_nodes=self._sent("on", case),
            same_rows=None,
            same_rows_reason="not compared",
            verdict=found.verdict,
            reason=found.reason,
        )

    def _sent(self, name: str, case: Case) -> tuple[str, ...]:
        """What stands in the place of plan nodes: how many statements a request sends."""
        count = self._statements.get((name, case))
        return () if count is None else (f"{count} statement{'' if count == 1 else 's'}",)

    def check_rows(self, step: Step, comparison: Comparison) -> Comparison:
        """The comparison with the answer to: is it the same JSON, byte by byte, without the switch and with it?

        Both are read from the working copy, in one snapshot; for the switch `cache` what was kept is compared too.
        """
        endpoint = next(each for each in ENDPOINTS if _case(each) == (comparison.query, comparison.bind))
        engine = make_engine(self._context.target.conninfo, Switches())
        answers = []
        try:
            with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                for switches in (Switches(), Switches.of([step.spec.kind])):
                    with Session(connection) as session:
                        answers.append(encode(endpoint.read_example(session, switches)))
        finally:
            engine.dispose()
        if step.spec.kind == "cache":
            answers.append(_as_kept(endpoint, answers[0]))
        same = len(set(answers)) == 1
        return replace(comparison, same_rows=same, same_rows_reason="" if same else "the answers differ")

    def estimates(self, step: Step) -> list[Estimate]:
        """None: a planner knows nothing of requests."""
        return []

    def values(self) -> dict[Case, str]:
        """The values stand in the paths."""
        return {}

    def drift(self, before: Mapping[Case, Measurement], after: Mapping[Case, Measurement]) -> Drift:
        """None: what is compared was asked in the same rounds."""
        return SAME_ROUNDS


def _as_kept(endpoint: Endpoint, answer: bytes) -> bytes:
    """What the cache answers after it was given `answer`; nothing where it did not keep it."""
    from playbook.service.cache import Cache
    from playbook.service.results import Kept
    from playbook.target import valkey

    with valkey.acquire() as lease:
        kept = Kept(Cache(lease.server.url, namespace=f"check-{secrets.token_hex(6)}"))
        asked = (endpoint, endpoint.sample_key, endpoint.sample_filters)
        kept.answer(*asked, lambda: answer)
        found = kept.answer(*asked, lambda: b"")
        kept.cache.close()
    return found


def _case(endpoint: Endpoint) -> Case:
    return f"GET {endpoint.example}", ""
