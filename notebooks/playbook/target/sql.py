"""Statements as data, and the one function that quotes identifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

OWN = "SELECT /* playbook */"
"""How the playbook's own questions begin, so that they can be told from those of the target's users.

The comment stands behind the first word, since PostgreSQL 18 keeps none before it.
"""
OWN_EXPLAIN = "EXPLAIN /* playbook */"
"""And how it asks for the plan of somebody else's statement."""

_BARE = re.compile(r"[a-z_][a-z0-9_]*\Z")

# PostgreSQL 18's pg_get_keywords() without the unreserved ones, as quote_ident() has it; a test holds it against the
# server's own.
_KEYWORDS = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case
    cast char character check coalesce collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user dec decimal default
    deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant
    greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull join
    json json_array json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize
    json_table json_value lateral leading least left like limit localtime localtimestamp merge_action national
    natural nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay
    placing position precision primary real references returning right row select session_user setof similar
    smallint some substring symmetric system_user table tablesample then time timestamp to trailing treat trim true
    union unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat
    xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """.split()
)


def quote(*parts: str) -> str:
    """`quote("public", "userId")` is `public."userId"`: quoted where PostgreSQL's own quote_ident() would quote.

    Raises:
        ValueError: a part is empty or holds a NUL, which PostgreSQL cannot store.
    """
    if not parts or any(not part or "\0" in part for part in parts):
        raise ValueError(f"not an identifier: {parts!r}")
    return ".".join(
        part if _BARE.match(part) and part not in _KEYWORDS else '"' + part.replace('"', '""') + '"' for part in parts
    )


def literal(text: str) -> str:
    """`text` as a string literal, right whatever `standard_conforming_strings` says."""
    if "\0" in text:
        raise ValueError("a NUL cannot stand in a PostgreSQL string")
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def dollar_quoted(body: str) -> str:
    """`body` between dollar quotes that it does not hold."""
    tag = "$$"
    while tag in body:
        tag = f"$playbook{len(tag)}$"
    return f"{tag}{body}{tag}"


@dataclass(frozen=True)
class Statement:
    """One statement of a change, ready to be printed and to be run.

    `lock` is the table lock in PostgreSQL's words (`SHARE UPDATE EXCLUSIVE`) and `relation` the quoted name of what it
    is taken on. `transactional` is false for statements that refuse to run in a transaction (CONCURRENTLY). `long`
    marks work that blocks no writer and may take long: it runs without a statement timeout; all else runs under the
    short lock timeout. `builds` is the quoted name of the index that it builds: cancelled, a CONCURRENTLY leaves that
    INVALID. `unless` is a condition in SQL under which there is nothing left to do: an undo has to serve from wherever
    its step came to. Before a `guarded` one the change looks at the target once more, in the same transaction. What is
    not in the `language` SQL is a change of an application: it is recorded, and never sent.

    One that `repeats` is sent again and again, each time in a transaction of its own, until its last row says so: that
    row is (finished, done or NULL, total, unit). `first` is run in that way, and recorded nowhere, before each try.
    Neighbours that stand `beside` each other, under the same word, may run at the same time: no lock of one conflicts
    with what another holds. Those that are but one of two ways say in words `when` it is taken.
    """

    sql: str
    purpose: str
    lock: str = ""
    relation: str = ""
    transactional: bool = True
    long: bool = False
    language: Literal["sql", "python"] = "sql"
    builds: str = ""
    unless: str = ""
    guarded: bool = False
    repeats: bool = False
    first: str = ""
    beside: str = field(default="", compare=False)
    when: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.language != "sql":
            return self.sql
        return self.sql.rstrip().rstrip(";") + ";"

    def remains(self) -> Statement | None:
        """What drops the INVALID index that a cancelled or killed CONCURRENTLY leaves; None where none is left."""
        if not (self.builds and self.long):
            return None
        return Statement(
            f"DROP INDEX CONCURRENTLY {self.builds}",
            f"drop the unfinished {self.builds}",
            self.lock,
            self.relation,
            transactional=False,
            long=True,
        )
