"""Settings of every test, those in notebooks too: a server home of their own, the tests' scale, no network."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest

pytest_plugins = (
    "tests.fix_servers",
    "tests.fix_postgres15",
    "tests.fix_postgres16",
    "tests.fix_pgbouncer",
    "tests.fix_standby",
    "tests.fix_tls",
    "tests.fix_shop",
    "tests.fix_partitions",
    "tests.fix_faults",
    "tests.fix_sales",
    "tests.fix_prisma",
    "tests.fix_snake",
    "tests.fix_results",
    "tests.fix_assess",
    "tests.fix_cache",
    "tests.fix_service",
    "tests.fix_library",
    "tests.fix_ledger",
    "tests.fix_conversion",
    "tests.fix_routes",
    "tests.fix_browser",
    "tests.fix_monitor",
)

_HOME = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres", choices=("15", "16", "18"), default="18", help="The version on which tests make empty databases."
    )


def pytest_report_header(config: pytest.Config) -> str:
    return f"empty databases: on PostgreSQL {config.getoption('--postgres')}"


def pytest_configure(config: pytest.Config) -> None:
    # In the environment, since kernels and commands started by the tests read it. Not under pytest's own temporary
    # folder: that one is closed to the account that runs the server when the tests run as root.
    home = tempfile.mkdtemp(prefix="playbook-tests-")
    os.chmod(home, 0o755)
    config.stash[_HOME] = home
    # A shell that starts the tests in the background has these ignored, and all that they start would inherit that:
    # commands that are to be interrupted, and PgBouncer, which leaves SIGQUIT as it found it.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    for name in [name for name in os.environ if name.startswith(("PLAYBOOK_", "PG"))]:
        del os.environ[name]
    os.environ |= {
        "PLAYBOOK_HOME": f"{home}/home",
        "PLAYBOOK_OUT": f"{home}/out",
        "PLAYBOOK_SCALE": "0.02",
        "PLAYBOOK_BUDGET_S": "4",
        "PLAYBOOK_PROGRESS": os.devnull,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "Agg",
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_HOME], ignore_errors=True)
