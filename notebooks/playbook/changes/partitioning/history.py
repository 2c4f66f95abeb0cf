"""What the attach route left as one partition: whether it can be split into periods, was so, or need not be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg

from playbook.changes import preflight
from playbook.changes.change import Finding
from playbook.changes.partitioning import attributes, dependents, obstacles, retention, routes
from playbook.changes.partitioning.attach import Attach
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.conversion import new_name
from playbook.changes.partitioning.dependents import Dependents
from playbook.changes.partitioning.periods import Every, containing
from playbook.changes.partitioning.split import Split
from playbook.target.sql import quote


@dataclass(frozen=True)
class History:
    """The partition; `split` is what would split it, None where `said` tells why there is nothing to do.

    `obstacles` speak against it, `notes` do not. `kept`: it was split already, and only follows by now.
    """

    split: Split | None = None
    said: str = ""
    obstacles: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    kept: bool = False


def read(
    connection: psycopg.Connection[Any], whole: Attributes, key: str, every: Every, user: str
) -> tuple[Attributes, History] | None:
    """The history of a partitioned table, with what hangs on it; None where it has none of our making."""
    name = quote(whole.schema, Attach.old_name(whole.name))
    found = attributes.read(connection, name)
    if found is None or found.kind != "r":
        return None
    others = [row for row in connection.execute(_PARTITIONS.encode(), [whole.qualified]).fetchall() if row[0] != name]
    parts = retention.read(connection, whole.qualified)
    part = next((each for each in parts.ranges if each.name == name and each.low is None), None)
    if part is None:
        periods = quote(whole.schema, new_name(found.name))
        return (found, History(kept=True)) if periods in {other for other, _ in others} else None
    last = containing(part.high - timedelta(days=1), every)
    if last.end != part.high:
        remedy = "let the step's `every` be what it was"
        return found, History(obstacles=(Finding("blocked", f"{name} ends on {part.high}, amid a {every}", remedy),))
    split = Split(
        table=found,
        dependents=Dependents((), (), (), ()),
        key=key,
        building=new_name(found.name),
        user=user,
        ahead=0,
        default=False,
        first=last,
        last=last,
        whole=whole,
        others=tuple(other for other, _ in others),
        rest=parts.default,
    )
    return found, _to_be_split(connection, replace(split, table=_alone(split)), found, dict(others))


def _to_be_split(
    connection: psycopg.Connection[Any], split: Split, found: Attributes, others: dict[str, str]
) -> History:
    every = split.last.every
    begun = routes.begun_for(connection, found)
    if not begun and _is_empty(connection, found):
        return History(said="its history is empty, so there is nothing to split")
    oldest = begun[0] if begun else routes.oldest_day(connection, found, split.key)
    if oldest is None:
        said = f"the server's statistics do not say how old the rows of {found.qualified} are"
        return History(obstacles=(Finding("blocked", said, f"ANALYZE {found.qualified}"),))
    split = replace(split, first=min(containing(oldest, every), split.last))
    if split.first == split.last and not begun:
        return History(said=f"its history is one {every}, so there is nothing to split")
    against = _obstacles(connection, split, found, others)
    if not begun:
        against += obstacles.names_taken(connection, split.new_names())
    return History(split, obstacles=tuple(against), notes=tuple(_notes(connection, found)))


def _notes(connection: psycopg.Connection[Any], found: Attributes) -> list[Finding]:
    row = connection.execute("SELECT pg_catalog.pg_total_relation_size(%s::oid)", [found.oid]).fetchone()
    return [
        *preflight.disk(row[0] if row else None),
        *obstacles.swap_waits(connection),
        *preflight.replication_lag(connection),
    ]


def _is_empty(connection: psycopg.Connection[Any], found: Attributes) -> bool:
    return connection.execute("SELECT pg_catalog.pg_relation_size(%s::oid)", [found.oid]).fetchone() == (0,)


def _alone(split: Split) -> Attributes:
    """As it was before a run that was interrupted, with the foreign keys that it has from the whole table."""
    logs = split.log.trigger, split.log.truncate_trigger
    return replace(
        split.table,
        triggers=tuple(each for each in split.table.triggers if each.name not in logs),
        constraints=(*(each for each in split.table.constraints if each.kind != "f"), *split.whole.foreign_keys),
    )


def _obstacles(
    connection: psycopg.Connection[Any], split: Split, found: Attributes, others: dict[str, str]
) -> list[Finding]:
    name, whole = found.qualified, split.whole.qualified
    hangs = dependents.read(connection, found.oid)
    referring = [each for oid in (split.whole.oid, found.oid) for each in dependents.read(connection, oid).references]
    own = connection.execute(_OWN.encode(), {"oid": found.oid, "logs": [split.log.trigger, split.log.truncate_trigger]})
    bound_to = [*(f"view {each.name}" for each in hangs.views), *(f"function {each.name}" for each in hangs.functions)]
    against = [
        *(
            (f"foreign key {each.name} of {each.table} refers to {whole}, whose partitions cannot be detached then",
             "drop it first, and create it again after")
            for each in referring
        ),
        *((f"{each} is bound to {name} itself", "drop it first, and create it again after")
          for each in [*bound_to, *hangs.others]),
        *((f"{what} is on {name} alone", f"drop it, or make it one of {whole}") for (what,) in own.fetchall()),
        *((f"constraint {each.name} is not validated", f"ALTER TABLE {whole} VALIDATE CONSTRAINT {quote(each.name)}")
          for each in {each.name: each for each in (*split.whole.constraints, *found.constraints)}.values()
          if not each.validated),
        *((f"{other} is partitioned itself", "split the history by hand")
          for other, kind in others.items() if kind == "p" and split.table.foreign_keys),
    ]  # fmt: skip
    if found.primary_key is None:
        against.append((f"{name} has no primary key, by which a changed row could be told",
                        f"ALTER TABLE {whole} ADD PRIMARY KEY (…)"))  # fmt: skip
    elif split.key not in found.primary_key.columns:
        against.append((f"the primary key of {name} lacks {split.key}", "split the history by hand"))
    against += [
        (f"publication {each.name} carries whatever is made: it would send the copy to subscribers that lack it",
         "leave the history as it is")
        for each in found.publications
        if not each.named
    ]  # fmt: skip
    row = connection.execute("SELECT pg_catalog.row_security_active(%s)", [name]).fetchone()
    if row and row[0]:
        against.append((f"row security may hide rows of {name} from {split.user}", "use a role that sees all"))
    count = routes.count_of(split)
    if count > routes.MOST_PERIODS:
        against.append((f"there would be {count:,} partitions: more than {routes.MOST_PERIODS:,} are a burden to every "
                        "query", "leave the history as it is"))  # fmt: skip
    return [
        *preflight.standby(connection),
        *(Finding("blocked", detail, remedy) for detail, remedy in against),
        *obstacles.privileges(connection, split),
        *obstacles.lock_table(connection, split),
    ]


_PARTITIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind::text
FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE h.inhparent = to_regclass(%s) ORDER BY 1
"""

# What somebody put on the partition itself: its successor would not have it.
_OWN = """
SELECT 'trigger ' || tgname FROM pg_catalog.pg_trigger
WHERE tgrelid = %(oid)s AND NOT tgisinternal AND tgparentid = 0 AND tgname <> ALL (%(logs)s)
UNION ALL
SELECT 'foreign key ' || conname FROM pg_catalog.pg_constraint
WHERE conrelid = %(oid)s AND contype = 'f' AND conparentid = 0
ORDER BY 1
"""
