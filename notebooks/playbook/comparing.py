"""Reading two runs, holding the new one against the old one, and what is written of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from playbook import junit, markdown, regressions
from playbook.errors import UsageError
from playbook.regressions import Compared
from playbook.results import Results, read

MARKDOWN, JUNIT = "compare.md", "compare.junit.xml"


@dataclass(frozen=True)
class Written:
    """A comparison with the files that hold it."""

    compared: Compared
    markdown: Path
    junit: Path


def compare(old: Path | Results, new: Path, out: Path | None = None) -> Written:
    """Holds the run in `new` against `old`, the folder of a run or what one found; writes Markdown and JUnit XML.

    They are written into `out`, else beside `new`.

    Raises:
        UsageError: a folder holds no run, or one of another schema version; or `out` cannot be written to.
    """
    compared = regressions.compare(old if isinstance(old, Results) else read_run(old), read_run(new))
    folder = out or (new if new.is_dir() else new.parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKDOWN).write_text(markdown.document(compared), encoding="utf-8")
        (folder / JUNIT).write_bytes(junit.of_compared(compared))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror}; name another with --out") from None
    return Written(compared, folder / MARKDOWN, folder / JUNIT)


def read_run(where: Path) -> Results:
    """The results in the folder of a run, or in the file itself.

    Raises:
        UsageError: there are none, they cannot be read, or they are of another schema version.
    """
    path = where / "results.json" if where.is_dir() else where
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name the folder that a run wrote (--out)") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise UsageError(f"{path} holds no results: it is not JSON; run again") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
