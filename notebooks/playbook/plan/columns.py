"""Columns of the plan's SQL, each placed on the target: which column a name means, and whether it may stand alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlglot import exp

from playbook.errors import Ambiguous, NamesError, NotFound, PlanError
from playbook.plan.edits import Edits
from playbook.plan.parsing import meant, span
from playbook.plan.scopes import Hit, Resolver, Scope, Source

# Values, not columns, unless quoted or qualified.
_VALUES = frozenset(
    "user current_user session_user system_user current_role current_catalog current_schema current_date current_time "
    "current_timestamp localtime localtimestamp".split()
)
_SYSTEM_COLUMNS = frozenset("ctid xmin xmax cmin cmax tableoid".split())


class Columns:
    """The columns of one statement; `placed` are the id()s of the nodes that were understood.

    `final` tells by a column's id() its name on the target. `unqualified` takes qualifiers away.
    """

    def __init__(self, edits: Edits, names: Resolver, *, unqualified: bool) -> None:
        self._edits, self._names, self._unqualified = edits, names, unqualified
        self.placed: set[int] = set()
        self.final: dict[int, str] = {}

    def place(
        self, node: exp.Column, scope: Scope, *, taken: frozenset[str] = frozenset(), opaque: bool = False
    ) -> Source | None:
        """Replaces a column's name; qualifies it where it would be taken for another column or one of `taken`."""
        self.placed.add(id(node))
        if node.args.get("table") is not None:
            return self._qualified(node, scope)
        name = meant(node.this)
        if name in _VALUES and not node.this.args.get("quoted"):
            return None
        with self.located(node.this):
            hit = scope.resolve(name, self._names)
        if hit is not None:
            self.final[id(node)] = hit.name
            if scope.captures(hit, renamed=hit.name != name) or (hit.name in taken and not hit.merged):
                self._edits.rename(node.this, hit.name, self._prefix(hit, scope, node))
            else:
                self._edits.rename(node.this, hit.name)
            return None
        if (row := scope.source(name)) is not None:
            return row
        if not (opaque or scope.opaque or name in _SYSTEM_COLUMNS):
            raise NotFound(f"{self._edits.place(node.this)}: {self.no_column(scope, name)}")
        return None

    def _prefix(self, hit: Hit, scope: Scope, node: exp.Column) -> str:
        """What qualifies a column that would be taken for another one."""
        if hit.source.alias and scope.source(hit.source.alias) is not hit.source:
            name = f"{self._edits.place(node.this)}: {meant(node.this)}"
            raise Ambiguous(f"{name} would mean another column on the target; give the relations different aliases")
        return f"{hit.source.qualifier}." if hit.source.qualifier else ""

    def _qualified(self, node: exp.Column, scope: Scope) -> Source | None:
        """`alias.column`, `schema.table.column` or `alias.*`; of the last, the source is returned."""
        qualifier = node.args["table"]
        if node.args.get("catalog") is not None:
            raise PlanError(
                f"{self._edits.place(qualifier)}: a column is written COLUMN, NAME.COLUMN or SCHEMA.NAME.COLUMN"
            )
        source = scope.source(meant(qualifier))
        if source is None:
            if scope.source("") is None:
                known = ", ".join(each.alias for level in scope.chain() for each in level.sources) or "none"
                raise NotFound(
                    f"{self._edits.place(qualifier)}: no relation {meant(qualifier)} here; there are {known}"
                )
            return None
        start = node.args.get("db") or (qualifier if self._unqualified else None)
        if start is not None and (source.moved or self._unqualified):
            # The plan's name is an alias now, which stands without a schema.
            end = span(node.this)[0] if self._unqualified else span(qualifier)[0]
            self._edits.replace(span(start)[0], end, "")
        if isinstance(node.this, exp.Star):
            return source
        self.final[id(node)] = self.field(source, node.this)
        return None

    def field(self, source: Source, node: exp.Expression) -> str:
        """Replaces the name of a column of `source`; returns its name on the target."""
        name = meant(node)
        with self.located(node):
            final = source.outputs.find(name, self._names)
        if final is None:
            if not (source.outputs.opaque or name in _SYSTEM_COLUMNS):
                raise NotFound(f"{self._edits.place(node)}: {self.no_column(Scope(sources=[source]), name)}")
            return name
        self._edits.rename(node, final)
        return final

    @contextmanager
    def located(self, node: exp.Expression) -> Iterator[None]:
        """Adds to an error about a name where it stands."""
        try:
            yield
        except NamesError as error:
            raise type(error)(f"{self._edits.place(node)}: {error}") from None

    def no_column(self, scope: Scope, name: str) -> str:
        """Why a column is not found: with near names where only one relation comes into question."""
        sources = [source for level in scope.chain() for source in level.sources]
        origins = {output.origin for source in sources for output in source.outputs.columns}
        if len(sources) == len(origins) == 1 and (origin := origins.pop()) is not None:
            return self._names.no_column(origin.relation, origin.table, name)
        return f"no column {name} in {', '.join(source.alias for source in sources) or 'a query without FROM'}"
