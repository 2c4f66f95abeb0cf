"""The user's mapping of names, held against the plan: an option that nothing in the plan asks for is a slip."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from playbook.errors import UsageError
from playbook.plan.model import Plan
from playbook.plan.names import fold, parts_of
from playbook.target.catalog import Catalog

_WORD = re.compile(r"\w+")


def check_use(mapping: Mapping[str, str], plan: Plan, catalog: Catalog) -> None:
    """Sees to it that the plan or its workload uses every name that the user mapped.

    A mapping of a name that is never asked for would change nothing and tell nobody.

    Raises:
        UsageError: they do not use one; near names of theirs are suggested.
    """
    if not mapping:
        return
    words = _folded(word for path in (plan.path, plan.workload_path) for word in _WORD.findall(path.read_text("utf-8")))
    # What stands before the dot is a relation, by the plan's name or by the target's, or a schema.
    targets = (parts_of(target)[-1] for target in mapping.values())
    owners = words | _folded(targets) | _folded(table.schema for table in catalog.tables)
    for name, target in mapping.items():
        *before, last = parts_of(name)
        for part, known in (*((each, owners) for each in before), (last, words)):
            if fold(part) not in known:
                near = [words[each] for each in get_close_matches(fold(part), words, n=3, cutoff=0.8)]
                hint = f"; near names: {', '.join(near)}" if near else ""
                raise UsageError(f"--map {name}={target}: nothing in the plan {plan.name} is called {part}{hint}")


def _folded(names: Iterable[str]) -> dict[str, str]:
    """The names by what is left of them without case and underscores."""
    return {fold(name): name for name in names}
