"""A result cache for any application: `Cache.get_or_load`, `cached`; `watch` and `Listener` let go what was written.

    cache = Cache("redis://…", namespace="shop")

    @cached(cache, "proposals", tables=("proposals", "customers"))
    def proposals(status: str, limit: int = 20): ...

It never answers with an error of its own while the cache server is down: the loader is called, within a bound.
"""

from playbook.service.cache.breaker import Breaker
from playbook.service.cache.cache import Cache
from playbook.service.cache.counts import Counts
from playbook.service.cache.decorator import cached
from playbook.service.cache.invalidation import Listener, watch
from playbook.service.cache.tags import NotCacheable

__all__ = ["Breaker", "Cache", "Counts", "Listener", "NotCacheable", "cached", "watch"]
