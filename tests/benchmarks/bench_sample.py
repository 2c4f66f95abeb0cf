"""How long the sample takes to be made, and a fresh working copy: against the limits, in one run.

    .venv/bin/python tests/benchmarks/bench_sample.py [SCALE]        (default 1)

Prints the ratio to each limit (60 s and 15 s at scale 1, 2 cores) and one JSON line. The server is one of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from playbook.target import embedded, sample

LIMITS_S = {"make": 60.0, "copy": 15.0}
COPIES = 3


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory(prefix="playbook-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # as root, the server runs under an account that must get through
        with embedded.acquire(Path(folder) / "home") as lease:

            def connect(dbname: str) -> psycopg.Connection:
                return psycopg.connect(**lease.server.conninfo(dbname), autocommit=True)

            started = time.monotonic()
            made = sample.provision(connect, scale)
            figures = {"make": time.monotonic() - started}
            copies = []
            for _ in range(COPIES):
                started = time.monotonic()
                sample.reset(connect, scale)
                copies.append(time.monotonic() - started)
            figures["copy"] = statistics.median(copies)
            with connect(made.working) as connection:
                connection.execute("ANALYZE")
                rows = connection.execute(
                    "SELECT sum(reltuples)::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
                ).fetchone()[0]
    for name, seconds in figures.items():
        print(
            f"{name}: {seconds:.1f} s, {seconds / LIMITS_S[name]:.2f} of the limit of {LIMITS_S[name]:.0f} s at scale 1"
        )
    print(json.dumps({"benchmark": "sample", "scale": scale, "rows": rows, "copies_s": copies, **figures}))


if __name__ == "__main__":
    main()
