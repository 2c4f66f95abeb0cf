"""Kind `eager_load`: relationships loaded with their parents instead of row by row."""

from __future__ import annotations

from typing import Any

from playbook.changes.application import ApplicationChange
from playbook.errors import NotFound
from playbook.plan.model import StepSpec
from playbook.plan.names import Names
from playbook.target.catalog import Catalog


class EagerLoadSpec(StepSpec):
    """Which relationships of `root` an endpoint needs, as dotted paths, and which columns of these it does not show."""

    endpoint: str
    root: str
    relationships: tuple[str, ...]
    leave_out: tuple[str, ...] = ()


class EagerLoad(ApplicationChange):
    """The loader options of one endpoint of the reference service."""

    kind = "eager_load"
    Spec = EagerLoadSpec
    spec: EagerLoadSpec

    def __init__(self, spec: EagerLoadSpec, names: Names, catalog: Catalog) -> None:
        super().__init__(spec, names, catalog)
        self._model = _model(spec.root)
        self.with_it()  # a relationship that is not there is told at once

    def with_it(self) -> str:
        """The query with its loader options."""
        from playbook.service import eager

        return eager.code(self._model, self.spec.relationships, self.spec.leave_out)

    def without_it(self) -> str:
        """The loop, with what each line of it asks the database for."""
        from playbook.service import eager

        return eager.walked(self._model, self.spec.relationships)


def _model(table: str) -> type[Any]:
    # Imported here: the ORM takes a third of a second to load, and most commands need none.
    from playbook.service.models import Base

    models = {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}
    if table not in models:
        raise NotFound(f"the reference service has no model of {table}; it has {', '.join(sorted(models))}")
    return models[table]
