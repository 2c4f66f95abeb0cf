"""A database with a partitioned table, one of its partitions partitioned again, and a plan of one index on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import fix_shop
from tests.fix_shop import Shop

from playbook.target.connect import Target

PLAN = """\
name: accounts
title: One index on a partitioned table
workload: workload.sql
phases:
  - id: "1"
    title: Indexes
    week: 1
    priority: critical
    notebook: indexes
    steps:
      - {name: entries_account, kind: index, table: entries, columns: [account, "at DESC"], keep: always}
"""

# A name of 63 bytes, one that is quoted and not ASCII, a second level, a schema of its own, and a table that stands by.
ROWS = """
CREATE SCHEMA old;
CREATE TABLE entries (account int NOT NULL, at date NOT NULL, region text NOT NULL, amount int) PARTITION BY RANGE (at);
CREATE TABLE old.entries_2024 PARTITION OF entries FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE entries_2025 PARTITION OF entries FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')
  PARTITION BY LIST (region);
CREATE TABLE "entries 2025 Süd" PARTITION OF entries_2025 FOR VALUES IN ('south');
CREATE TABLE entries_2025_the_rest_of_all_the_regions_that_are_not_the_south PARTITION OF entries_2025 DEFAULT;
CREATE TABLE entries_2026 PARTITION OF entries FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE bystander (id int PRIMARY KEY);
INSERT INTO entries SELECT n % 97, date '2024-01-01' + n % 1000, CASE WHEN n % 3 = 0 THEN 'south' ELSE 'north' END, n
FROM generate_series(1, 5000) n;
"""


WORKLOAD = "-- name: one\nSELECT amount FROM entries WHERE account = 1;\n"


def lay_out(target: Target, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The accounts on an empty database, and their plan in `folder`."""
    return fix_shop.lay_out(target, folder, monkeypatch, plan=PLAN, workload=WORKLOAD, rows=ROWS)


@pytest.fixture
def accounts(empty: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The accounts with its rows; nothing of the playbook in it yet."""
    return lay_out(empty, tmp_path, monkeypatch)
