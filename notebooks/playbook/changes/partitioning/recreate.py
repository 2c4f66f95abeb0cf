"""The commands that make a table's attributes anew on the one that takes its place, each group by itself.

`place` is always the quoted name of the table that gets them; names of indexes and statistics, which are unique in a
schema, go through `rename`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from playbook.changes.partitioning.attributes import Attributes, Column, Grant, Index, Policy, Sequence, Trigger
from playbook.changes.partitioning.names import fit
from playbook.target.sql import literal, quote

Rename = Callable[[str], str]

_STORAGE = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
_COMPRESSION = {"p": "pglz", "l": "lz4"}
_COMMANDS = {"*": "ALL", "r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
_ENABLED = {"D": "DISABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}


def create_table(a: Attributes, place: str, rename: Rename, *, tail: str, not_null: Iterable[str]) -> str:
    """CREATE TABLE with every column and CHECK; columns of `not_null` take no NULL."""
    lines = [f"  {_column(a, column, rename, column.name in not_null)}" for column in a.columns]
    lines += [f"  CONSTRAINT {quote(check.name)} {check.definition}" for check in a.checks]
    body = ",\n".join(lines)
    return f"CREATE TABLE {place} (\n{body}\n){tail}"


def _column(a: Attributes, column: Column, rename: Rename, not_null: bool) -> str:
    parts = [quote(column.name), column.type]
    if column.collation:
        parts.append(f"COLLATE {column.collation}")
    if not_null or column.not_null:
        parts.append(f"CONSTRAINT {quote(column.not_null_name)} NOT NULL" if column.not_null_name else "NOT NULL")
    if column.generated:
        kind = "STORED" if column.generated == "s" else "VIRTUAL"
        parts.append(f"GENERATED ALWAYS AS ({column.default}) {kind}")
    elif sequence := next((each for each in a.identity if each.column == column.name), None):
        parts.append(identity(column, sequence, quote(sequence.schema, rename(sequence.name))))
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    return " ".join(parts)


def identity(column: Column, sequence: Sequence, name: str) -> str:
    """The clause that makes a column an identity with a sequence of that quoted name."""
    when = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
    return f"GENERATED {when} AS IDENTITY (SEQUENCE NAME {name} {sequence.options})"


def owner(a: Attributes, place: str, user: str) -> list[str]:
    """ALTER … OWNER, where the role at work is another."""
    return [] if a.owner == user else [f"ALTER TABLE {place} OWNER TO {quote(a.owner)}"]


def grants(a: Attributes, place: str) -> list[str]:
    """Exactly the table's privileges: what a new table is granted by default is taken away first."""
    full = {grant.privilege for grant in a.grants if not grant.column and grant.grantee == quote(a.owner)}
    everything = {"INSERT", "SELECT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}
    everything |= {"MAINTAIN"} if a.server_version >= 170000 else set()
    strip = [grantee for grantee in a.default_grantees if grantee != quote(a.owner)]
    own = full == everything
    strip += [] if own else [quote(a.owner)]
    commands = [f"REVOKE ALL ON TABLE {place} FROM {', '.join(strip)}"] if strip else []
    given = [grant for grant in a.grants if grant.column or not own or grant.grantee != quote(a.owner)]
    return commands + [_grant(grant, place) for grant in given]


def _grant(grant: Grant, place: str) -> str:
    columns = f" ({quote(grant.column)})" if grant.column else ""
    option = " WITH GRANT OPTION" if grant.grantable and grant.grantee != "PUBLIC" else ""
    return f"GRANT {grant.privilege}{columns} ON TABLE {place} TO {grant.grantee}{option}"


def row_security(a: Attributes, place: str) -> list[str]:
    """Both flags."""
    flags = ((a.row_security, "ENABLE"), (a.force_row_security, "FORCE"))
    return [f"ALTER TABLE {place} {word} ROW LEVEL SECURITY" for flag, word in flags if flag]


def policies(a: Attributes, place: str) -> list[str]:
    """Every policy with its comment; their expressions may name the table, so `place` has to bear its name by then."""
    commands = []
    for policy in a.policies:
        commands.append(_policy(policy, place))
        commands += comment(f"POLICY {quote(policy.name)} ON {place}", policy.comment)
    return commands


def _policy(policy: Policy, place: str) -> str:
    kind = "" if policy.permissive else " AS RESTRICTIVE"
    using = f" USING ({policy.using})" if policy.using else ""
    check = f" WITH CHECK ({policy.check})" if policy.check else ""
    roles = ", ".join(policy.roles)
    command = _COMMANDS[policy.command]
    return f"CREATE POLICY {quote(policy.name)} ON {place}{kind} FOR {command} TO {roles}{using}{check}"


def column_settings(a: Attributes, place: str, *, inherited: bool = True) -> list[str]:
    """Storage and compression (which a partition inherits), statistics targets and options (which it does not)."""
    commands = []
    for column in a.columns:
        alter = f"ALTER TABLE {place} ALTER COLUMN {quote(column.name)} SET"
        if inherited and column.storage:
            commands.append(f"{alter} STORAGE {_STORAGE[column.storage]}")
        if inherited and column.compression:
            commands.append(f"{alter} COMPRESSION {_COMPRESSION[column.compression]}")
        if column.statistics is not None:
            commands.append(f"{alter} STATISTICS {column.statistics}")
        if column.options:
            commands.append(f"{alter} ({', '.join(column.options)})")
    return commands


def foreign_keys(a: Attributes, place: str) -> list[str]:
    """Those that refer to other tables, with their comments."""
    commands = []
    for each in a.foreign_keys:
        commands.append(f"ALTER TABLE {place} ADD CONSTRAINT {quote(each.name)} {each.definition}")
        commands += comment(f"CONSTRAINT {quote(each.name)} ON {place}", each.comment)
    return commands


def index(a: Attributes, each: Index, place: str, rename: Rename) -> list[str]:
    """One index, or the constraint that it belongs to, with the comments of both."""
    name = rename(each.name)
    if each.constraint:
        commands = [f"ALTER TABLE {place} ADD CONSTRAINT {quote(name)} {each.constraint_definition}"]
    else:
        unique = "UNIQUE " if each.unique else ""
        commands = [f"CREATE {unique}INDEX {quote(name)} ON {place} USING {each.body}"]
    commands += comment(f"INDEX {quote(a.schema, name)}", each.comment)
    return commands + comment(f"CONSTRAINT {quote(name)} ON {place}", each.constraint_comment)


def triggers(a: Attributes, place: str) -> list[str]:
    """Every trigger of a user, enabled as it was, with its comment."""
    return [command for trigger in a.triggers for command in _trigger(trigger, place)]


def _trigger(trigger: Trigger, place: str) -> list[str]:
    commands = [f"{trigger.head} ON {place} {trigger.tail}"]
    if trigger.enabled in _ENABLED:
        commands.append(f"ALTER TABLE {place} {_ENABLED[trigger.enabled]} {quote(trigger.name)}")
    return commands + comment(f"TRIGGER {quote(trigger.name)} ON {place}", trigger.comment)


def statistics(a: Attributes, place: str, rename: Rename, user: str) -> list[str]:
    """Every extended statistics object, with its target, owner and comment."""
    commands = []
    for each in a.statistics:
        name = quote(each.schema, rename(each.name))
        commands.append(f"CREATE STATISTICS {name} {each.body} FROM {place}")
        if each.owner != user:
            commands.append(f"ALTER STATISTICS {name} OWNER TO {quote(each.owner)}")
        if each.target is not None:
            commands.append(f"ALTER STATISTICS {name} SET STATISTICS {each.target}")
        commands += comment(f"STATISTICS {name}", each.comment)
    return commands


def comments(a: Attributes, place: str) -> list[str]:
    """Those of the table, its columns and its CHECKs."""
    commands = comment(f"TABLE {place}", a.comment)
    for column in a.columns:
        commands += comment(f"COLUMN {place}.{quote(column.name)}", column.comment)
    for check in a.checks:
        commands += comment(f"CONSTRAINT {quote(check.name)} ON {place}", check.comment)
    return commands


def sequence(each: Sequence, name: str) -> list[str]:
    """What an identity's sequence of that quoted name has besides its options."""
    return [*(f"GRANT {grant.replace('%', name)}" for grant in each.grants), *comment(f"SEQUENCE {name}", each.comment)]


def comment(thing: str, text: str | None) -> list[str]:
    """COMMENT ON, where there is one."""
    return [f"COMMENT ON {thing} IS {literal(text)}"] if text is not None else []


def replica_identity(a: Attributes, place: str, indexes: Iterable[str]) -> list[str]:
    """FULL, NOTHING or an index, where that is among `indexes`, the quoted names by which `place` has them."""
    chosen = {"f": "FULL", "n": "NOTHING"}.get(a.replica_identity)
    if a.replica_identity == "i":
        name = next((quote(index.name) for index in a.indexes if index.replica_identity), "")
        chosen = f"USING INDEX {name}" if name in indexes else None
    return [f"ALTER TABLE {place} REPLICA IDENTITY {chosen}"] if chosen else []


def partition(a: Attributes, name: str, values: str, parent: str, *, local: Iterable[Index], user: str) -> list[str]:
    """The commands that make one partition of `parent`; `a` tells what it takes over besides what it inherits.

    `local` are the indexes that are unique within each partition only.
    """
    place = quote(a.schema, name)
    options = f" WITH ({', '.join(a.options)})" if a.options else ""
    space = f" TABLESPACE {quote(a.tablespace)}" if a.tablespace else ""
    commands = [f"CREATE TABLE {place} PARTITION OF {parent} {values}{options}{space}"]
    commands += owner(a, place, user)
    commands += column_settings(a, place, inherited=False)
    if a.row_security:  # nobody but its owner reads a partition directly, past the parent's policies
        commands.append(f"ALTER TABLE {place} ENABLE ROW LEVEL SECURITY")
    commands += [command for index in local for command in local_index(a, index, name)]
    return commands + ([] if a.replica_identity == "i" else replica_identity(a, place, ()))


def local_index(a: Attributes, index: Index, name: str) -> list[str]:
    """The commands that keep unique within the partition of that name what cannot be so in the whole table."""
    place, own = quote(a.schema, name), quote(local_name(index, name))
    commands = [f"CREATE UNIQUE INDEX {own} ON {place} USING {index.body}"]
    return commands + ([f"ALTER TABLE {place} REPLICA IDENTITY USING INDEX {own}"] if index.replica_identity else [])


def local_name(index: Index, name: str) -> str:
    """What that index is called on the partition of that name."""
    return fit(name, f"_{'_'.join(index.columns) or index.name}_key")


def description(a: Attributes) -> list[str]:
    """All of a table, in the commands that would make it: those with the same description have the same attributes."""
    place = a.qualified

    def same(name: str) -> str:
        return name

    return [
        create_table(a, place, same, tail=f" PARTITION BY {a.partition_key}" if a.partition_key else "", not_null=()),
        *owner(a, place, ""),
        *column_settings(a, place),
        *(command for each in a.indexes for command in index(a, each, place, same)),
        *foreign_keys(a, place),
        *statistics(a, place, same, ""),
        *triggers(a, place),
        *row_security(a, place),
        *policies(a, place),
        *comments(a, place),
        *sorted(_grant(grant, place) for grant in a.grants),
        *replica_identity(a, place, {quote(each.name) for each in a.indexes}),
        *(command for each in a.sequences for command in sequence(each, each.qualified)),
        *(f"PUBLICATION {each.name} {each.named} {each.rows} {each.columns}" for each in a.publications),
    ]


def column_list(table: Attributes) -> list[str]:
    """The quoted columns that are copied; generated ones are made anew."""
    return [quote(column.name) for column in table.columns if not column.generated]


def overriding(table: Attributes) -> str:
    """What an INSERT has to say to give an identity its number."""
    return " OVERRIDING SYSTEM VALUE" if any(column.identity == "a" for column in table.columns) else ""
