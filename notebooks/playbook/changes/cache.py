"""Kind `cache`: query results kept in Redis for a bounded time."""

from __future__ import annotations

from pydantic import Field

from playbook.changes.application import ApplicationChange
from playbook.errors import NotFound
from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target.catalog import Catalog


class CacheSpec(StepSpec):
    """`prefix` starts the key of every entry of `endpoint`; `ttl_s` is in seconds."""

    endpoint: str
    prefix: str
    ttl_s: int = Field(gt=0)
    url_env: str


class Cache(ApplicationChange):
    """The results of the service's endpoints, let go when what they were read from is written."""

    kind = "cache"
    Spec = CacheSpec
    spec: CacheSpec

    def __init__(self, spec: CacheSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self._read_tables = _tables(spec.endpoint)

    def with_it(self) -> str:
        """The loader behind the cache."""
        function = self.spec.prefix.replace("-", "_").replace("/", "_")
        tables = ", ".join(f'"{table}"' for table in self._read_tables)
        return f"""from playbook.service.cache import Cache, cached, watch

cache = Cache(os.environ["{self.spec.url_env}"], namespace="app", ttl_s={self.spec.ttl_s})
watch(sessions, cache)  # a commit lets go what was read from the tables it wrote


@cached(cache, "{self.spec.prefix}", tables=({tables},))
def {function}(filters: dict) -> list:
    with sessions() as session:
        return load_{function}(session, filters)"""

    def without_it(self) -> str:
        """The loader alone."""
        function = self.spec.prefix.replace("-", "_").replace("/", "_")
        return f"""def {function}(filters: dict) -> list:
    with sessions() as session:
        return load_{function}(session, filters)"""


def _tables(path: str) -> tuple[str, ...]:
    # Imported here: the ORM takes a third of a second to load, and most commands need none.
    from playbook.service.reads import ENDPOINTS

    for endpoint in ENDPOINTS:
        if endpoint.path == path:
            return endpoint.tables
    raise NotFound(f"the reference service has no endpoint {path}; it has {', '.join(e.path for e in ENDPOINTS)}")
