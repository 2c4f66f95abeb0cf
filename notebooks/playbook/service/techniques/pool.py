"""Switch `pool`: one bounded pool for the process, of the size that was found by measurement."""

from __future__ import annotations

from playbook.service.pool import PoolSettings
from playbook.service.techniques.technique import Technique

SIZE_ENV = "DATABASE_POOL_SIZE"
"""Where the code of the plan's step looks for the size."""
SIZE = 16
"""Before a size was measured: ample, since too small a pool costs time and too large a one costs idle connections."""


class Pool(Technique):
    """`size` is what a sweep recommended."""

    name = "pool"

    def __init__(self, size: int = SIZE) -> None:
        self._settings = PoolSettings(size=size)

    @property
    def pool(self) -> PoolSettings:
        """In place of SQLAlchemy's ordinary one."""
        return self._settings
