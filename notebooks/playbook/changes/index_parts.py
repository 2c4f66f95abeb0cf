"""An index on one relation, or on a partitioned table: then one part for each relation of its tree.

CONCURRENTLY refuses a partitioned table. So its own index is made first, ON ONLY, which is a matter of the catalog: it
is INVALID, and partitions that appear from then on get their part by themselves. Each partition's part is then built
CONCURRENTLY, and attached; with the last one the whole turns valid. An equal index that a partition has already is
attached in place of a new one.

A partitioned index cannot be dropped concurrently either, nor can a part be detached: dropping the whole, under a
bounded lock on every partition, drops every attached part. So undo first builds those parts anew, under another name,
that stood before, and gives them their names once the whole is gone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from playbook.changes.conditions import is_part
from playbook.changes.covering import WantedIndex, covered_by, same_definition
from playbook.target.catalog import Catalog, Index, Table
from playbook.target.sql import Statement, literal, quote

LOCK = "SHARE UPDATE EXCLUSIVE"
MAX_BYTES = 63
"""PostgreSQL cuts names there."""


@dataclass(frozen=True)
class Part:
    """The wanted index on one relation; `stands` is what serves as it already, valid or not, `parent` the part that it
    is to be attached to. `adopted`: it stood before the step began."""

    table: Table
    wanted: WantedIndex
    parent: Part | None = None
    stands: Index | None = None
    adopted: bool = False

    @property
    def partitioned(self) -> bool:
        """Whether it has no rows of its own."""
        return self.table.kind == "p"

    @property
    def name(self) -> str:
        """The quoted name of the index, the one that stands or the one to be made."""
        return self.stands.qualified if self.stands else self.new_name

    @property
    def new_name(self) -> str:
        """The quoted name that it gets when it is built."""
        return quote(self.table.schema, self.wanted.name)

    @property
    def missing(self) -> bool:
        """Whether it is yet to be built; one that stands INVALID is built anew, but a partitioned one turns valid."""
        return self.stands is None or not (self.partitioned or self.stands.usable)

    @property
    def found(self) -> bool:
        """Whether an index serves that was not made by the step: adopted, or made by the server for a new partition."""
        return self.stands is not None and (self.adopted or self.stands.name != self.wanted.name)

    @property
    def attached(self) -> bool:
        """Whether it is a part of its parent's index."""
        return self.parent is None or (self.stands is not None and self.stands.parent == self.parent.name)

    def create(self) -> Statement:
        """CREATE INDEX; IF NOT EXISTS is never used, since it would keep an INVALID index."""
        unique = "UNIQUE " if self.wanted.unique else ""
        name = quote(self.wanted.name)
        if self.partitioned:
            sql = f"CREATE {unique}INDEX {name}\n  ON ONLY {self.table.qualified} {self._body()}"
            purpose = f"make {self.wanted.name}, invalid until every partition has its part"
            return Statement(sql, purpose, "SHARE", self.table.qualified, builds=self.new_name)
        sql = f"CREATE {unique}INDEX CONCURRENTLY {name}\n  ON {self.table.qualified} {self._body()}"
        return self._long(sql, f"build {self.wanted.name}", builds=self.new_name)

    def pretend(self) -> str:
        """The statement that HypoPG takes."""
        return f"CREATE {'UNIQUE ' if self.wanted.unique else ''}INDEX ON {self.table.qualified} {self._body()}"

    def _body(self) -> str:
        using = "" if self.wanted.method == "btree" else f"USING {quote(self.wanted.method)} "
        keys = ", ".join(key.key_sql() for key in self.wanted.keys)
        include = f" INCLUDE ({', '.join(map(quote, self.wanted.include))})" if self.wanted.include else ""
        where = f"\n  WHERE {self.wanted.predicate}" if self.wanted.predicate else ""
        return f"{using}({keys}){include}{where}"

    def _long(self, sql: str, purpose: str, *, builds: str = "", unless: str = "") -> Statement:
        """A statement that runs beside readers and writers."""
        return Statement(
            sql, purpose, LOCK, self.table.qualified, transactional=False, long=True, builds=builds, unless=unless
        )

    def attach(self) -> Statement:
        """ALTER INDEX … ATTACH PARTITION; it locks the part, and with it whoever plans a query of that partition."""
        assert self.parent is not None
        sql = f"ALTER INDEX {self.parent.name}\n  ATTACH PARTITION {self.name}"
        purpose = f"attach the part on {self.table.name}"
        return Statement(sql, purpose, "ACCESS EXCLUSIVE", self.name, unless=is_part(self.name, self.parent.name))

    def drop(self) -> Statement:
        """DROP INDEX, CONCURRENTLY where there are no parts."""
        if self.partitioned:
            purpose = f"drop {self.wanted.name} with every part of it"
            relation = f"{self.table.qualified} and its partitions"
            sql = f"DROP INDEX {self.new_name}"
            return Statement(sql, purpose, "ACCESS EXCLUSIVE", relation, unless=_gone(self.new_name))
        unless = _gone(self.new_name) if self.parent else ""
        purpose = f"drop {self.wanted.name}" + (", should it stand alone" if self.parent else "")
        return self._long(f"DROP INDEX CONCURRENTLY {self.new_name}", purpose, unless=unless)

    def kept(self) -> Part:
        """Of an adopted part the replacement that outlives the whole."""
        parent = self.parent.kept() if self.parent and self.parent.adopted else None
        return replace(self, wanted=replace(self.wanted, name=self._kept_name()), parent=parent, stands=None)

    def _kept_name(self) -> str:
        assert self.stands is not None
        return fitting(f"{self.stands.name}_kept")

    def build_kept(self) -> tuple[Statement, ...]:
        """The replacement, exactly as the adopted one was made; only where that one was attached."""
        assert self.stands is not None
        kept = self.kept()
        head = f"CREATE {'UNIQUE ' if self.stands.unique else ''}INDEX "
        rest = self.stands.definition.removeprefix(f"{head}{quote(self.stands.name)} ")
        concurrently = "" if self.partitioned else "CONCURRENTLY "
        sql = f"{head}{concurrently}{quote(kept.wanted.name)} {rest}"
        purpose = f"build {self.stands.name} anew, which goes with the whole"
        top = self.adopted_whole()
        assert top.parent is not None
        needless = f"NOT {is_part(top.name, top.parent.new_name)}"
        if self.partitioned:
            unless = f"NOT {_gone(kept.new_name)} OR {needless}"
            made = Statement(sql, purpose, "SHARE", self.table.qualified, builds=kept.new_name, unless=unless)
        else:
            unless = f"{_valid(kept.new_name)} OR {needless}"
            made = self._long(sql, purpose, builds=kept.new_name, unless=unless)
        if kept.parent is None:
            return (made,)
        attach = kept.attach()
        return (made, replace(attach, unless=f"{attach.unless} OR {_gone(kept.new_name)}"))

    def adopted_whole(self) -> Part:
        """The adopted index of which this is a part, or itself."""
        return self.parent.adopted_whole() if self.parent and self.parent.adopted else self

    def rename_kept(self) -> Statement:
        """The replacement gets the name back."""
        assert self.stands is not None
        kept = self.kept().new_name
        sql = f"ALTER INDEX {kept}\n  RENAME TO {quote(self.stands.name)}"
        return Statement(sql, f"{self.stands.name} stands again", LOCK, kept, unless=_gone(kept))


@dataclass(frozen=True)
class Parts:
    """The parts of one index, the whole first; of a plain table there is one."""

    parts: tuple[Part, ...]

    @property
    def whole(self) -> Part:
        """The part on the table that the plan names."""
        return self.parts[0]

    @property
    def leaves(self) -> tuple[Part, ...]:
        """The parts that hold rows."""
        return tuple(part for part in self.parts if not part.partitioned)

    def statements(self) -> tuple[Statement, ...]:
        """What is yet to be made; all of it where nothing is missing."""
        return tuple(self._make(rest=True)) or tuple(self._make(rest=False))

    def _make(self, *, rest: bool) -> Iterator[Statement]:
        for part in sorted(self.parts, key=lambda part: not part.partitioned):
            if part.missing or not (rest or part.found):
                yield part.create()
        for part in reversed(self.parts):
            if part.parent and not (rest and part.attached):
                yield part.attach()

    def undo(self) -> tuple[Statement, ...]:
        """What takes it back from wherever it came to."""
        if not self.whole.partitioned:
            return (self.whole.drop(),)
        adopted = [part for part in self.parts if part.adopted]
        own = [part for part in self.parts if not part.adopted]
        return (
            *(statement for part in adopted for statement in part.build_kept()),
            *(part.drop() for part in own if part.partitioned),
            *(part.rename_kept() for part in adopted),
            *(part.drop() for part in own if not part.partitioned),
        )

    def undo_after(self, earlier: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """`undo` of what an earlier run began and this one goes on with, by that run's own `undo`."""
        new = [statement for statement in self.undo() if statement not in earlier]
        if not new or not self.whole.partitioned:
            return earlier
        whole = self.whole.drop()
        before = [statement for statement in new if statement.builds or "ATTACH PARTITION" in statement.sql]
        at = earlier.index(whole) + 1 if whole in earlier else 0
        return (*before, *earlier[:at], *(st for st in new if st not in before), *earlier[at:])

    def taken(self, catalog: Catalog) -> str:
        """What bears the name of one of the parts and is none, or of a replacement; empty where the names are free."""
        for part in self.parts:
            names = [] if part.stands else [part.wanted.name]
            names += [part.kept().wanted.name] if part.adopted else []
            for name in names:
                if index := catalog.index(part.table.schema, name):
                    return f"{name} stands already as: {index.definition}"
                if relation := catalog.table(part.table.schema, name):
                    return f"{relation.qualified} is another relation of that name"
        return ""

    def covering(self) -> str:
        """The index that serves already, or those of the partitions; empty where one is missing."""
        if covering := covered_by(self.whole.wanted, self.whole.table):
            return f"{covering.name} serves already: {covering.definition}"
        found = [(part, covered_by(part.wanted, part.table)) for part in self.leaves]
        if not self.whole.partitioned or not found or not all(index for _, index in found):
            return ""
        part, index = found[0]
        assert index is not None
        return f"every partition has an index that serves already ({part.table.name}: {index.definition})"


def parts_of(wanted: WantedIndex, table: Table, catalog: Catalog) -> Parts:
    """The parts of `wanted` on `table` and what stands of them."""
    children: dict[tuple[str, str], list[Table]] = defaultdict(list)
    if table.kind == "p":
        for each in catalog.tables:
            if each.parent and each.partition_bound is not None:
                children[each.parent].append(each)
    whole = Part(table, wanted, stands=_named(wanted, table))
    return Parts(tuple(_with_parts(whole, children, begun=whole.stands is not None)))


def _with_parts(part: Part, children: dict[tuple[str, str], list[Table]], *, begun: bool) -> Iterator[Part]:
    yield part
    for table in children[part.table.schema, part.table.name]:
        name = part_name(_whole(part).wanted.name, table)
        wanted = replace(part.wanted, name=name, table=table.qualified)
        child = Part(table, wanted, part)
        stands = _attached(child) or _named(wanted, table) or _alike(child)
        adopted = stands is not None and stands.usable and _stood_before(replace(child, stands=stands), begun=begun)
        yield from _with_parts(replace(child, stands=stands, adopted=adopted), children, begun=begun)


def _stood_before(part: Part, *, begun: bool) -> bool:
    """What is attached belongs to its whole; what else bears our name is ours once the whole is begun."""
    assert part.parent is not None
    assert part.stands is not None
    return part.parent.adopted if part.attached else not (begun and part.stands.name == part.wanted.name)


def _whole(part: Part) -> Part:
    return _whole(part.parent) if part.parent else part


def _named(wanted: WantedIndex, table: Table) -> Index | None:
    return next((i for i in table.indexes if i.name == wanted.name and same_definition(wanted, i, table)), None)


def _attached(part: Part) -> Index | None:
    assert part.parent is not None
    return next((i for i in part.table.indexes if part.parent.stands and i.parent == part.parent.name), None)


def _alike(part: Part) -> Index | None:
    """A valid index of that definition that is a part of none, and that undo could build anew."""
    alike = (i for i in part.table.indexes if i.usable and same_definition(part.wanted, i, part.table))
    return next((index for index in alike if _adoptable(index)), None)


def _adoptable(index: Index) -> bool:
    return not (index.parent or index.constraint or index.tablespace)


def part_name(whole: str, table: Table) -> str:
    """The name of a part, within 63 bytes: the whole's and the partition's."""
    return fitting(f"{whole}_{table.name}", distinct=table.qualified)


def fitting(name: str, distinct: str = "") -> str:
    """`name` where it fits, else cut and made distinct again by a hash of it (and of `distinct`)."""
    if len(name.encode()) <= MAX_BYTES:
        return name
    digest = hashlib.sha256(f"{name} {distinct}".encode()).hexdigest()[:8]
    return f"{name.encode()[: MAX_BYTES - 9].decode(errors='ignore')}_{digest}"


def _gone(name: str) -> str:
    return f"pg_catalog.to_regclass({literal(name)}) IS NULL"


def _valid(name: str) -> str:
    return f"EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = to_regclass({literal(name)}) AND indisvalid)"
