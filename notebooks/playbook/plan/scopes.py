"""What the names in a query can mean: the relations of its FROM, what each offers, and the queries around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from playbook.errors import Ambiguous
from playbook.target.catalog import Catalog, Column, Table


class Resolver(Protocol):
    """What rewriting needs to know of the target; `playbook.plan.names.Names` is one."""

    catalog: Catalog

    def relation(self, name: str) -> Table:
        """The relation that the plan calls `name`."""

    def find_column(self, relation: str, table: Table, name: str) -> Column | None:
        """The column that the plan calls `name`, if there is one."""

    def no_column(self, relation: str, table: Table, name: str) -> str:
        """Why there is none, with near names."""

    def is_visible(self, table: Table) -> bool:
        """Whether the bare name means this relation, given the search_path."""


@dataclass(frozen=True, eq=False)
class Origin:
    """A relation of the target and what the plan calls it."""

    relation: str
    table: Table


@dataclass(frozen=True)
class Output:
    """A column that a source offers.

    `name` is what the rewritten query knows it by. The plan knows it by `plan`, or, where it comes from a relation as
    it is (through `*`), by any name that resolves to that relation's column `name`. A column that PostgreSQL names
    after an expression has no name here, only its position.
    """

    name: str
    plan: str | None = None
    origin: Origin | None = None


@dataclass(frozen=True)
class Outputs:
    """The columns of a source in their order; `opaque` where there are others, whose names only PostgreSQL knows."""

    columns: tuple[Output, ...] = ()
    opaque: bool = False

    @classmethod
    def of(cls, relation: str, table: Table) -> Outputs:
        """Those of a relation of the target."""
        origin = Origin(relation, table)
        return cls(tuple(Output(column.name, origin=origin) for column in table.columns))

    @classmethod
    def named(cls, names: Sequence[str], *, opaque: bool = False) -> Outputs:
        """Columns of just these names."""
        return cls(tuple(Output(name, plan=name) for name in names), opaque)

    def __add__(self, other: Outputs) -> Outputs:
        return Outputs(self.columns + other.columns, self.opaque or other.opaque)

    def renamed(self, names: Sequence[str]) -> Outputs:
        """As under an alias with a column list, which renames the first columns."""
        return Outputs.named(names) + Outputs(self.columns[len(names) :], self.opaque)

    def candidates(self, name: str, resolver: Resolver) -> set[str]:
        """What the rewritten query calls the columns that the plan calls `name`."""
        found = {output.name for output in self.columns if output.plan == name}
        for origin in {output.origin for output in self.columns if output.origin}:
            column = resolver.find_column(origin.relation, origin.table, name)
            if column is not None and any(o.name == column.name and o.origin is origin for o in self.columns):
                found.add(column.name)
        return found

    def find(self, name: str, resolver: Resolver) -> str | None:
        """The one of `candidates`; None where there is none.

        Raises:
            Ambiguous: two columns bear that name.
        """
        found = self.candidates(name, resolver)
        if len(found) > 1:
            raise Ambiguous(f"{name} may mean {' and '.join(sorted(found))}; give one another alias")
        return next(iter(found), None)

    def has(self, name: str) -> bool:
        """Whether a column is called `name` in the rewritten query."""
        return any(output.name == name for output in self.columns)


@dataclass(frozen=True, eq=False)
class Source:
    """One item of a FROM. `alias` is the plan's name for it, and `qualifier` how the text spells that.

    `moved`: its relation was given another name or schema, so that `schema.table.column` has to lose its schema.
    """

    alias: str
    qualifier: str
    outputs: Outputs
    moved: bool = False


@dataclass(frozen=True)
class Hit:
    """The column that an unqualified name means: whose it is, and what the target calls it."""

    source: Source
    name: str
    level: Scope
    merged: bool
    """USING or NATURAL made it one of two: it belongs to no source alone."""


@dataclass
class Scope:
    """One query's names: its sources, the common table expressions it declares, and the query around it."""

    outer: Scope | None = None
    ctes: dict[str, Outputs] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)
    """Columns (by their names on the target) that USING or NATURAL made one of two."""

    def chain(self) -> Iterator[Scope]:
        """This query and those around it, from the inside out."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def local(self) -> Scope:
        """The same query without those around it."""
        return Scope(None, self.ctes, self.sources, self.merged)

    def resolve(self, name: str, resolver: Resolver) -> Hit | None:
        """The column that `name` means here, the innermost query first; None where no query offers it.

        Raises:
            Ambiguous: two sources of one query offer it.
        """
        for level in self.chain():
            offers = [(source, source.outputs.find(name, resolver)) for source in level.sources]
            found = [(source, final) for source, final in offers if final is not None]
            if not found:
                continue
            source, final = found[0]
            merged = final in level.merged
            if len(found) > 1 and not (merged and all(other == final for _, other in found)):
                either = " and ".join(sorted(f"{source.alias}.{final}" for source, final in found))
                raise Ambiguous(f"{name} may mean {either}; qualify it")
            return Hit(source, final, level, merged)
        return None

    def captures(self, hit: Hit, *, renamed: bool) -> bool:
        """Whether the name of `hit`, bare, could mean another source's column here; `renamed`: it is a new name."""
        if hit.merged:
            return False
        for level in self.chain():
            others = [source.outputs for source in level.sources if source is not hit.source]
            if any(outputs.has(hit.name) or (renamed and outputs.opaque) for outputs in others):
                return True
            if level is hit.level:
                break
        return False

    @property
    def opaque(self) -> bool:
        """Whether a name that is found nowhere may yet be a column of a source whose columns are not known."""
        return any(source.outputs.opaque for level in self.chain() for source in level.sources)

    def cte(self, name: str) -> Outputs | None:
        """The common table expression of that name, the innermost first."""
        return next((scope.ctes[name] for scope in self.chain() if name in scope.ctes), None)

    def source(self, alias: str) -> Source | None:
        """The source of that alias, the innermost first."""
        found = (source for scope in self.chain() for source in scope.sources if source.alias == alias)
        return next(found, None)

    def outputs(self) -> Outputs:
        """What `*` stands for."""
        return sum((source.outputs for source in self.sources), Outputs())
