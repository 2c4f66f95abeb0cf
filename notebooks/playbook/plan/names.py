"""The plan's names on the target: every relation and column resolved against the catalog, none guessed.

A name is looked up in this order, and the first step that finds one ends it:

1. what the user mapped it to
2. exactly that name
3. the one name equal after dropping case and underscores (`user_id` is `"userId"`)
4. what the plan mapped it to

Each step walks the search_path, and the first schema that holds a candidate wins. Singulars, plurals and near spellings
are only suggested.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from playbook.errors import Ambiguous, NotFound, PlanError, PlaybookError, UsageError
from playbook.plan import rewriting
from playbook.target.catalog import Catalog, Column, Table
from playbook.target.sql import quote

KINDS = {"r": "table", "p": "partitioned table", "m": "materialized view", "v": "view", "f": "foreign table"}
_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


class Names:
    """The names of one plan on one target.

    `mapping` is the user's and wins over everything; `plan_mapping` is the plan's own and serves where nothing else
    does. Keys are the plan's names, values the target's: `audit_logs` → `AuditTrail` or `app.AuditTrail`, and
    `audit_logs.user_id` → `actor`. A part with a dot in it stands in double quotes.
    """

    def __init__(self, catalog: Catalog, mapping: Mapping[str, str] = {}, plan_mapping: Mapping[str, str] = {}) -> None:
        self.catalog = catalog
        self._mapping = dict(mapping)
        self._plan_mapping = dict(plan_mapping)
        self._by_name: dict[tuple[str, str], list[Table]] = defaultdict(list)
        self._by_fold: dict[tuple[str, str], list[Table]] = defaultdict(list)
        for table in catalog.tables:
            self._by_name[table.schema, table.name].append(table)
            self._by_fold[table.schema, fold(table.name)].append(table)

    def relation(self, name: str, kinds: Iterable[str] = "rpmvf") -> Table:
        """The relation that the plan calls `name` (`audit_logs`, or `app.audit_logs`), of one of `kinds`.

        Raises:
            NotFound: no relation of these kinds; near names are suggested.
            Ambiguous: one schema holds two that fit equally well.
        """
        kinds = frozenset(kinds)
        bare = _split(name)[1]
        if (target := self._mapping.get(name, self._mapping.get(bare))) is not None:
            return self._mapped(name, target, kinds)
        if (found := self._look_up(name, kinds)) is not None:
            return found
        if (target := self._plan_mapping.get(name, self._plan_mapping.get(bare))) is not None:
            return self._mapped(name, target, kinds)
        raise NotFound(self._no_relation(name, kinds))

    def column(self, relation: str, name: str) -> Column:
        """The column that the plan calls `name`, of the relation that it calls `relation`.

        Raises:
            NotFound: no such relation or column; near names are suggested.
            Ambiguous: two fit equally well.
        """
        table = self.relation(relation)
        if (column := self.find_column(relation, table, name)) is None:
            raise NotFound(self.no_column(relation, table, name))
        return column

    def column_type(self, relation: str, name: str) -> str:
        """The type of `column(relation, name)` as the target has it (`timestamp without time zone`, `text[]`)."""
        return self.column(relation, name).type

    def check_mapping(self) -> None:
        """Sees to it that every name that the user mapped was mapped to something.

        Raises:
            UsageError: one was not; near names are suggested.
        """
        for name, target in self._mapping.items():
            owner, _, column = name.rpartition(".")
            try:
                if owner and (table := self._found(owner)) is not None:
                    self.find_column(owner, table, column)
                else:
                    self.relation(name)
            except PlaybookError as error:
                why = str(error).removeprefix(f"{name} is mapped to {target}: ")
                raise UsageError(f"{_map(name, target)}: {why}") from None

    def rewrite(self, sql: str, *, keep_names: bool = False) -> str:
        """A SELECT of the plan with the target's names: only identifiers are replaced, all else byte for byte.

        Result columns get the target's names; with `keep_names` they keep the plan's, as a view's columns have to.

        Raises:
            PlanError: not one SELECT that can be parsed; the message says where.
            NotFound, Ambiguous: a name cannot be placed; the message says where it stands.
        """
        return rewriting.rewrite(sql, self, keep_names=keep_names)

    def rewrite_expression(self, relation: str, sql: str) -> str:
        """An expression over one relation (of a check, of an index) with the target's names, unqualified.

        Raises:
            PlanError: not one expression; the message says where.
            NotFound, Ambiguous: a name cannot be placed; the message says where it stands.
        """
        return rewriting.rewrite_expression(sql, relation, self)

    def find_column(self, relation: str, table: Table, name: str) -> Column | None:
        """As `column`, on a relation that is resolved already; None where there is no such column.

        Raises:
            NotFound: the name is mapped to a column that the relation has not.
            Ambiguous: two fit equally well.
        """
        if mapped := self._mapped_column(self._mapping, relation, table, name):
            return mapped
        taken = self._taken(relation, table)
        if (exact := table.column(name)) and exact.name not in taken:
            return exact
        folded = [column for column in table.columns if fold(column.name) == fold(name) and column.name not in taken]
        if len(folded) > 1:
            either = _listed(quote(column.name) for column in folded)
            raise Ambiguous(f"{table.qualified} has {either} for {name}; map it: --map {relation}.{name}=COLUMN")
        return folded[0] if folded else self._mapped_column(self._plan_mapping, relation, table, name)

    def no_column(self, relation: str, table: Table, name: str, mapped: str | None = None) -> str:
        """Why `name` is no column of `table`, with what is near and how to map it, or what was `mapped` to it."""
        near, counterparts = _near(name, (column.name for column in table.columns))
        hint = f"near names: {', '.join(map(quote, near))}; " if near else ""
        meant = rewriting.spelt(near[0]) if counterparts and len(near) == 1 else "COLUMN"
        return f"{table.qualified} has no column {name}; {hint}map it: {_map(f'{relation}.{mapped or name}', meant)}"

    def is_visible(self, table: Table) -> bool:
        """Whether the bare name means this relation, given the search_path."""
        return self.is_visible_as(table.schema, table.name)

    def is_visible_as(self, schema: str, name: str) -> bool:
        """Whether the bare name means the relation in this schema, or would once it is made there."""
        schemas = (each for each in self.catalog.search_path if each == schema or self.catalog.table(each, name))
        return next(schemas, None) == schema

    def _found(self, name: str) -> Table | None:
        try:
            return self.relation(name)
        except NotFound:
            return None

    def _look_up(self, name: str, kinds: frozenset[str]) -> Table | None:
        schema, plain = _split(name)
        steps: tuple[tuple[dict[tuple[str, str], list[Table]], Callable[[str], str]], ...]
        steps = ((self._by_name, str), (self._by_fold, fold))
        for candidates, key in steps:
            for place in self._schemas(schema):
                fitting = [table for table in candidates.get((place, key(plain)), ()) if table.kind in kinds]
                if len(fitting) > 1:
                    either = _listed(table.qualified for table in fitting)
                    raise Ambiguous(f"{either} may be meant by {name}; choose one: --map {name}=NAME")
                if fitting:
                    return fitting[0]
        return None

    def _schemas(self, schema: str | None) -> Iterator[str]:
        """Where to look: along the search_path, or in the one schema that the plan names."""
        if schema is None:
            yield from self.catalog.search_path
            return
        known = {table.schema for table in self.catalog.tables}
        if schema in known:
            yield schema
            return
        alike = sorted(other for other in known if fold(other) == fold(schema))
        if len(alike) > 1:
            raise Ambiguous(f"the schemas {_listed(map(quote, alike))} may be meant by {schema}; map the full names")
        yield from alike

    def _mapped(self, name: str, target: str, kinds: frozenset[str]) -> Table:
        if (found := self._look_up(target, kinds)) is not None:
            return found
        raise NotFound(f"{name} is mapped to {target}: {self._no_relation(target, kinds, name)}")

    def _mapped_column(self, mapping: Mapping[str, str], relation: str, table: Table, name: str) -> Column | None:
        keys = (f"{relation}.{name}", f"{table.name}.{name}", f"{table.schema}.{table.name}.{name}")
        target = next((mapping[key] for key in keys if key in mapping), None)
        if target is None:
            return None
        wanted = parts_of(target)[-1]
        alike = [column for column in table.columns if fold(column.name) == fold(wanted)]
        if found := table.column(wanted) or (alike[0] if len(alike) == 1 else None):
            return found
        raise NotFound(f"{relation}.{name} is mapped to {target}: {self.no_column(relation, table, wanted, name)}")

    def _taken(self, relation: str, table: Table) -> set[str]:
        """The columns that the user gave to names of the plan: no other name means them."""
        owners = {relation, table.name, f"{table.schema}.{table.name}"}
        return {parts_of(target)[-1] for key, target in self._mapping.items() if key.rpartition(".")[0] in owners}

    def _of_any_kind(self, name: str) -> Table | None:
        """The one relation of that name, whatever it is; None where there are two."""
        try:
            return self._look_up(name, frozenset(KINDS))
        except Ambiguous:
            return None

    def _no_relation(self, name: str, kinds: frozenset[str], mapped: str | None = None) -> str:
        """Why there is no such relation: of another kind, outside the search_path, or unknown with near names.

        What to map is `name`, or what was `mapped` to it.
        """
        plan = mapped or name
        wanted = " or ".join(what for kind, what in KINDS.items() if kind in kinds)
        if kinds != frozenset(KINDS) and (other := self._of_any_kind(name)) is not None:
            return f"{other.qualified} is a {KINDS[other.kind]}; a {wanted} is needed"
        schema, plain = _split(name)
        same = [table for table in self.catalog.tables if fold(table.name) == fold(plain) and table.kind in kinds]
        if same:
            path = ", ".join(self.catalog.search_path)
            where = f"outside the search_path ({path})" if schema is None else "in another schema"
            meant = self._one_meant(same) or "SCHEMA.NAME"
            return f"{name} is only found {where}: {_listed(t.qualified for t in same)}; map it: {_map(plan, meant)}"
        reach = [
            table
            for table in self.catalog.tables
            if table.kind in kinds and (schema is None or fold(table.schema) == fold(schema))
        ]
        near, counterparts = _near(plain, (table.name for table in reach))
        if not near:
            return f"the target has no relation {name}, nor one of a near name; if it has another: {_map(plan, 'NAME')}"
        tables = [table for each in near for table in reach if table.name == each][:5]
        meant = (self._one_meant(tables) if counterparts else None) or "NAME"
        listed = ", ".join(table.qualified for table in tables)
        return f"the target has no relation {name}; near names: {listed}; map it: {_map(plan, meant)}"

    def _one_meant(self, tables: Sequence[Table]) -> str | None:
        """The one of them that is likely meant, as a mapping spells it: the only one, or the only one in sight."""
        visible = [table for table in tables if self.is_visible(table)]
        one = tables if len(tables) == 1 else visible
        if len(one) != 1:
            return None
        names = [one[0].name] if one == visible else [one[0].schema, one[0].name]
        return ".".join(map(rewriting.spelt, names))


def fold(name: str) -> str:
    """A name without case and underscores: what snake_case and camelCase have in common."""
    return name.replace("_", "").lower()


def _split(name: str) -> tuple[str | None, str]:
    parts = parts_of(name)
    if len(parts) > 2:
        raise PlanError(f"{name} is no relation: write NAME or SCHEMA.NAME, and a part with a dot in double quotes")
    return (parts[0] if len(parts) == 2 else None), parts[-1]


def parts_of(name: str) -> list[str]:
    """`app."Audit.Trail"` is `app` and `Audit.Trail`."""
    parts, at = [], 0
    while match := _PART.match(name, at):
        parts.append(match[2] or match[1].replace('""', '"'))
        at = match.end()
        if name[at : at + 1] != ".":
            break
        at += 1
    if not parts or at != len(name) or name.endswith("."):
        raise PlanError(f"{name!r} is no name: write NAME or SCHEMA.NAME, and a part with a dot in double quotes")
    return parts


def _near(name: str, names: Iterable[str]) -> tuple[list[str], bool]:
    """Up to three names that may be meant, and whether they are singulars and plurals of it, or only spelt alike."""
    by_fold: dict[str, str] = {}
    for each in names:
        by_fold.setdefault(fold(each), each)
    wanted = fold(name)
    counterparts = [each for each in by_fold if _singular(each) == _singular(wanted)]
    near = counterparts or difflib.get_close_matches(wanted, by_fold, n=3, cutoff=0.7)
    return [by_fold[each] for each in near][:3], bool(counterparts)


def _map(name: str, target: str) -> str:
    """The option that maps a name, as a shell takes it."""
    return f"--map {shlex.quote(f'{name}={target}')}"


def _singular(word: str) -> str:
    """A common form of singular and plural; good enough to suggest, never to decide."""
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("s", "")):
        if word.endswith(plural) and not word.endswith("ss"):
            return word[: -len(plural)] + singular
    return word


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
