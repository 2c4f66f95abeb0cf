"""The reference service of the working copy under load, and what its pool and its cache say of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg

from playbook.context import Context
from playbook.service import load, process, traffic
from playbook.service.api import USAGE_PATH
from playbook.service.load import Load
from playbook.service.switches import Switches

KEYS = 120
"""Different requests. Each is made once before the load, so that the service measured is one that has run for long."""


def under_load(context: Context, on: Switches, *, rate: float, seconds: float) -> tuple[Load, dict[str, Any]]:
    """One service under load: what it came to, and what it says of its pool and cache; see `side_by_side`."""
    [found] = side_by_side(context, [on], rate=rate, seconds=seconds)
    return found


def side_by_side(
    context: Context, services: Sequence[Switches], *, rate: float, seconds: float
) -> list[tuple[Load, dict[str, Any]]]:
    """The same open-loop load on services that differ in their switches, in turns; 5 % of it writes a few rows."""
    conninfo = context.target.conninfo
    with psycopg.connect(**conninfo) as connection:
        asked = traffic.of_sample(connection, KEYS)
    with ExitStack() as stack:
        context.progress("load: starting the service")
        urls = [
            stack.enter_context(each).url for each in process.start_all([(conninfo, switches) for switches in services])
        ]
        client = stack.enter_context(httpx.Client(timeout=60))
        for url in urls:
            for request in asked.reads:
                client.get(url + request.path)
            client.delete(url + USAGE_PATH)
        context.progress(f"load: {rate:g} requests a second")
        loads = load.run(urls, asked, rate=rate, seconds=seconds, warm_up_s=0.0, blocks=2)
        return [(each, client.get(url + USAGE_PATH).json()) for each, url in zip(loads, urls, strict=True)]
