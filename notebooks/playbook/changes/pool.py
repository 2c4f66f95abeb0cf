"""Kind `pool`: one connection pool per process, sized by measurement."""

from __future__ import annotations

from pydantic import Field

from playbook.changes.application import ApplicationChange
from playbook.plan.model import StepSpec


class PoolSpec(StepSpec):
    """`url_env` names the environment variable with the database URL; the peak is checked out / (size + overflow)."""

    url_env: str
    peak_utilization_pct: float = Field(gt=0, le=100)


class Pool(ApplicationChange):
    """One engine for each process, with a bounded pool that fails in time."""

    kind = "pool"
    Spec = PoolSpec
    spec: PoolSpec

    def with_it(self) -> str:
        """The engine, made once."""
        # Imported here: SQLAlchemy takes a third of a second to load, and most commands need none.
        from playbook.service.techniques.pool import SIZE, SIZE_ENV, PoolSettings

        pool = PoolSettings(SIZE)
        return f"""engine = create_engine(  # once in each process, at import; after a fork each child makes its own
    os.environ["{self.spec.url_env}"],  # postgresql+psycopg://…
    echo=os.environ.get("ENVIRONMENT") == "development",  # elsewhere errors alone are logged
    # by measurement: the peak stays below {self.spec.peak_utilization_pct:g} %
    pool_size=int(os.environ.get("{SIZE_ENV}", {SIZE})),
    max_overflow={pool.overflow},
    pool_timeout={pool.timeout_s:g},  # seconds; then the request fails, and its client is told to come again
    pool_recycle={pool.recycle_s},
    pool_pre_ping={pool.pre_ping},  # a restart of the database costs no request
    pool_use_lifo=True,
    # behind PgBouncer in transaction mode: connect_args={{"prepare_threshold": None}}
)"""

    def without_it(self) -> str:
        """SQLAlchemy's defaults: five connections, ten more in need, 30 s of waiting."""
        return f'engine = create_engine(os.environ["{self.spec.url_env}"])'
