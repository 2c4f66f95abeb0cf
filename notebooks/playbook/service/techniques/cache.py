"""Switch `cache`: answers are kept in the embedded target's cache server until what they were read from is written."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from playbook.service.techniques.technique import Technique

if TYPE_CHECKING:
    from playbook.service.results import Results


class Cache(Technique):
    """The server is held as long as this process lives.

    It is empty at every start: copies of the sample come and go under one name, so what an earlier service kept may be
    of another database.
    """

    name = "cache"

    def results(self, loaders: int) -> Results:
        """The cache before every endpoint."""
        from playbook.service import cache
        from playbook.service.results import Kept
        from playbook.target import valkey

        url = valkey.acquire().server.url
        return Kept(cache.Cache(url, namespace=f"service-{secrets.token_hex(6)}", loaders=loaders))
