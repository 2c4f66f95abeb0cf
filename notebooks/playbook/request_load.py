"""The reference service of the working copy under load, and what its pool and its cache say of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import psycopg

from playbook.context import Context
from playbook.service import load, traffic
from playbook.service.api import USAGE_PATH
from playbook.service.load import Load
from playbook.service.switches import Switches

KEYS, ASKED_BEFORE = 600, 6000
"""Different requests, a small service's, so that a notebook has time to warm its cache; and how many it has seen before
the load: what comes in its five minutes at 20 a second. Under a smaller budget both are cut down, and `seconds` too."""


def asked_for(context: Context) -> tuple[int, int]:
    """How many different requests the load consists of, and how many a cache has seen before it."""
    return round(KEYS * context.settings.share), round(ASKED_BEFORE * context.settings.share)


def side_by_side(
    context: Context, services: Sequence[Switches], *, rate: float, seconds: float
) -> list[tuple[Load, dict[str, Any]]]:
    """The same open-loop load on services that differ in their switches, in turns; 5 % of it changes some rows.

    With the full budget each gets it for `seconds`.

    Answers what each came to, and what it says of its pool and cache. One with a cache has run for a while (see
    `Traffic.settled`).
    """
    keys, before = asked_for(context)
    with psycopg.connect(**context.target.conninfo) as connection:
        asked = traffic.of_sample(connection, keys)
    context.progress("load: starting the service")
    urls = context.services.urls(*services)
    for url, switches in zip(urls, services, strict=True):
        if "cache" in switches:
            context.progress(f"load: warming up with what is left of {before:,} requests")
            load.settle(url, asked.settled(before))
        load.settle(url, asked.reads[:10])
    with httpx.Client(timeout=60) as client:
        for url in urls:
            client.delete(url + USAGE_PATH)
        context.progress(f"load: {rate:g} requests a second")
        seconds *= context.settings.share
        loads = load.run(urls, asked, rate=rate, seconds=seconds, warm_up_s=0.0, blocks=2, seed=2)
        return [(each, client.get(url + USAGE_PATH).json()) for each, url in zip(loads, urls, strict=True)]
