"""Open-loop load over HTTP: requests start when they are due, whether or not earlier ones have been answered.

Latency counts from the moment that a request was due, not from when it could be sent: a service that stalls makes the
requests behind it late, as it would make people wait (Tene, "How not to measure latency"). Latencies go into an HDR
histogram, so that percentiles are right to three digits up to an hour.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from hdrh.histogram import HdrHistogram

from playbook.errors import RunError
from playbook.service.accounting import DATABASE_MS, ROWS, STATEMENTS
from playbook.service.traffic import Request, Traffic

TIMEOUT_S = 30.0
_HOUR_US = 3_600_000_000


@dataclass
class Load:
    """What the requests of one service came to; those of the warm-up are not among them.

    `seconds` is the time over which they were due. An answer that is no success, and no answer at all, is an error;
    its latency counts all the same. Costs come from the service's own headers and are None where it sends none.
    `parts` are the requests of each name.
    """

    seconds: float = 0.0
    requests: int = 0
    writes: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    costs: dict[str, float] = field(default_factory=lambda: dict.fromkeys((STATEMENTS, DATABASE_MS, ROWS), 0.0))
    told: int = 0
    latencies_ms: list[float] = field(default_factory=list, repr=False)
    parts: dict[str, Load] = field(default_factory=dict, repr=False)
    _latency: Any = field(default_factory=lambda: HdrHistogram(1, _HOUR_US, 3), repr=False)

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that so many per cent of the requests did not exceed, in milliseconds."""
        return self._latency.get_value_at_percentile(percent) / 1000 if self.requests else None

    @property
    def p50_ms(self) -> float | None:
        """The median."""
        return self.percentile_ms(50)

    @property
    def p95_ms(self) -> float | None:
        """What 95 % did not exceed."""
        return self.percentile_ms(95)

    @property
    def p99_ms(self) -> float | None:
        """What 99 % did not exceed."""
        return self.percentile_ms(99)

    @property
    def throughput_rps(self) -> float | None:
        """Requests answered with success, each second."""
        return (self.requests - sum(self.errors.values())) / self.seconds if self.seconds else None

    @property
    def statements(self) -> float | None:
        """Statements each request."""
        return self._each(STATEMENTS)

    @property
    def database_ms(self) -> float | None:
        """Milliseconds that the database took, each request."""
        return self._each(DATABASE_MS)

    @property
    def rows(self) -> float | None:
        """Rows that the database returned, each request."""
        return self._each(ROWS)

    @property
    def bytes_each(self) -> float | None:
        """Bytes of an answer, each request."""
        return self.bytes / self.requests if self.requests else None

    @classmethod
    def merged(cls, loads: Sequence[Load]) -> Load:
        """All requests of several loads as one."""
        whole = cls(seconds=sum(each.seconds for each in loads))
        for each in loads:
            whole.requests += each.requests
            whole.writes += each.writes
            whole.errors += each.errors
            whole.bytes += each.bytes
            whole.told += each.told
            whole.costs = {name: whole.costs[name] + cost for name, cost in each.costs.items()}
            whole.latencies_ms += each.latencies_ms
            whole._latency.add(each._latency)
        for name in dict.fromkeys(name for each in loads for name in each.parts):
            whole.parts[name] = cls.merged([each.parts[name] for each in loads if name in each.parts])
            whole.parts[name].seconds = whole.seconds
        return whole

    def _each(self, name: str) -> float | None:
        return self.costs[name] / self.told if self.told else None

    def part(self, name: str) -> Load:
        """The requests of that name; none where there were none."""
        return self.parts.get(name) or Load()

    def cost(self, name: str) -> float:
        """The `statements`, `database_ms` or `rows` of all requests together."""
        return self.costs[{"statements": STATEMENTS, "database_ms": DATABASE_MS, "rows": ROWS}[name]]

    def add(self, request: Request, seconds: float, answer: httpx.Response | None, error: str) -> None:
        """One request that was answered, or came to nothing."""
        self._add(request, seconds, answer, error)
        if request.name:
            self.parts.setdefault(request.name, Load())._add(request, seconds, answer, error)

    def _add(self, request: Request, seconds: float, answer: httpx.Response | None, error: str) -> None:
        self.requests += 1
        self.latencies_ms.append(1000 * seconds)
        self.writes += request.method != "GET"
        self._latency.record_value(max(1, min(_HOUR_US, round(1_000_000 * seconds))))
        if error:
            self.errors[error] += 1
        if answer is not None:
            self.bytes += len(answer.content)
            if STATEMENTS in answer.headers:
                self.told += 1
                for name in self.costs:
                    self.costs[name] += float(answer.headers.get(name, 0))


def run(
    urls: Sequence[str],
    traffic: Traffic,
    *,
    rate: float,
    seconds: float,
    warm_up_s: float = 1.0,
    blocks: int = 1,
    seed: int = 1,
) -> tuple[Load, ...]:
    """The same load on each of `urls`, one at a time, in `blocks` turns; answers what each came to.

    Every service gets the same requests at the same intervals: `rate` a second, as they come when people do not wait
    for each other (exponential gaps). `seconds` are for one service in all, without the warm-up before its first block.
    """
    loads = tuple(Load() for _ in urls)
    _await(_run(urls, traffic, loads, rate, seconds / blocks, warm_up_s, blocks, seed))
    return loads


def settle(url: str, requests: Sequence[Request], at_once: int = 4) -> None:
    """Sends all of `requests` in their order, a few at once, as fast as they are answered. Nothing is measured.

    Raises:
        RunError: one was answered with no success.
    """
    _await(_settle(url, iter(requests), at_once))


async def _settle(url: str, requests: Iterator[Request], at_once: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:

        async def one_after_the_other() -> None:
            for request in requests:
                answer = await client.request(request.method, request.path, json=request.body)
                if not answer.is_success:
                    raise RunError(f"{request.method} {request.path} was answered with {answer.status_code}")

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


def _await(work: Any) -> None:
    # In a thread of its own, since a notebook's kernel has a loop running already.
    thread = _Thread(work)
    thread.start()
    thread.join()
    if thread.error:
        raise thread.error


class _Thread(threading.Thread):
    def __init__(self, work: Any) -> None:
        super().__init__(name="load")
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._work)
        except BaseException as error:
            self.error = error


async def _run(
    urls: Sequence[str],
    traffic: Traffic,
    loads: Sequence[Load],
    rate: float,
    block_s: float,
    warm_up_s: float,
    blocks: int,
    seed: int,
) -> None:
    requests = [traffic.requests(seed) for _ in urls]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits) as client:
        if warm_up_s:
            for url, source in zip(urls, requests, strict=True):
                await _block(client, url, source, Load(), _due(rate, warm_up_s, seed))
        for block in range(blocks if block_s else 0):
            for url, source, load in zip(urls, requests, loads, strict=True):
                await _block(client, url, source, load, _due(rate, block_s, seed + 1 + block))
                load.seconds += block_s


def _due(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """When requests are due, in seconds from the start."""
    draw = random.Random(seed)  # noqa: S311
    moment = draw.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += draw.expovariate(rate)


async def _block(
    client: httpx.AsyncClient, url: str, requests: Iterator[Request], load: Load, due: Iterator[float]
) -> None:
    """Sends what is due when it is due, and waits for the last answer."""
    clock = asyncio.get_running_loop().time
    start = clock()
    sent = []
    for moment in due:
        if (wait := start + moment - clock()) > 0:
            await asyncio.sleep(wait)
        sent.append(asyncio.ensure_future(_send(client, url, next(requests), load, start + moment)))
    await asyncio.gather(*sent)


async def _send(client: httpx.AsyncClient, url: str, request: Request, load: Load, due_at: float) -> None:
    clock = asyncio.get_running_loop().time
    answer, error = None, ""
    try:
        answer = await client.request(request.method, url + request.path, json=request.body)
        if not answer.is_success:
            error = f"status {answer.status_code}"
    except httpx.TimeoutException:
        error = "timeout"
    except httpx.HTTPError as failed:
        error = type(failed).__name__
    load.add(request, clock() - due_at, answer, error)
