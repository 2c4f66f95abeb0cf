"""What a notebook takes outside the database: its kernel, its imports, what it shows, its part of the results.

    python tests/benchmarks/bench_notebook.py [--runs 3]

Each notebook runs dry on the standing sample at the tests' scale, named by its URL as any foreign database: then the
server only plans some queries, which takes milliseconds. Prints one JSON line a notebook, the median of the runs
against the limit. Uses PLAYBOOK_HOME.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

import papermill

from playbook.assess.assessment import WINDOW_S
from playbook.run import CURRENT_STATE
from playbook.settings import NOTEBOOKS
from playbook.target.opening import open_target

SCALE = 0.02
LIMIT_S = 5.0
WAITS_S = {CURRENT_STATE: WINDOW_S}
"""Time in which a notebook only watches the target, which is not its own."""


def main() -> int:
    """Runs the benchmark; 1 when the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    sample = open_target("embedded", SCALE, lambda text: print(text, file=sys.stderr))
    os.environ["BENCH_URL"] = _url(sample.conninfo)
    seconds = {path.stem: median(_dry_run(path) for _ in range(runs)) for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    for name, taken in seconds.items():
        print(json.dumps({"notebook": name, "seconds": round(taken, 2), "of_limit": round(taken / LIMIT_S, 2)}))
    return 0 if max(seconds.values()) <= LIMIT_S else 1


def _url(conninfo: Mapping[str, Any]) -> str:
    login = f"{quote(conninfo['user'])}:{quote(conninfo['password'])}"
    return f"postgresql://{login}@/{conninfo['dbname']}?host={quote(str(conninfo['host']))}&port={conninfo['port']}"


def _dry_run(path: Path) -> float:
    with tempfile.TemporaryDirectory() as out:
        start = time.monotonic()
        papermill.execute_notebook(
            str(path),
            f"{out}/executed.ipynb",
            {"target": "env:BENCH_URL", "apply": False, "out": out},
            cwd=str(NOTEBOOKS),
            progress_bar=False,
        )
        return time.monotonic() - start - WAITS_S.get(path.stem, 0.0)


if __name__ == "__main__":
    sys.exit(main())
