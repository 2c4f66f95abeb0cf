"""The templates of pages: everything that is put into one is escaped, and a name that it does not know is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(module: str, **options: Any) -> Environment:
    """For the templates beside a module, named by its `__file__`; `options` are jinja's own."""
    return Environment(
        loader=FileSystemLoader(Path(module).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
