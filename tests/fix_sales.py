"""A small foreign database whose dashboard aggregates every sale: a plan that keeps the daily sums, and its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fix_shop import Shop, lay_out

from playbook.target.connect import Target

STEP = "1/daily_sales"
PLAN = """\
name: sales
title: Daily sums
workload: workload.sql
controls: [shops_by_city]
phases:
  - id: "1"
    title: Daily sums
    week: 1
    priority: medium
    notebook: summaries
    steps:
      - name: daily_sales
        kind: materialized_view
        query: |
          SELECT DATE_TRUNC('day', sold_at) AS date, state, COUNT(*) AS count, AVG(value) AS avg_value,
                 SUM(value) AS total_value,
                 AVG(EXTRACT(EPOCH FROM (COALESCE(paid_at, NOW()) - sold_at))/3600) AS avg_hours
          FROM sales
          GROUP BY DATE_TRUNC('day', sold_at), state
        time_zone: UTC
        unique_index: {name: daily_sales_key, columns: [date DESC, state]}
        refresh_every: 1d
        claims: [daily, since]
"""
WORKLOAD = """\
-- name: daily
SELECT date_trunc('day', sold_at, 'UTC') AS date, state, count(*) AS count, avg(value) AS avg_value,
       sum(value) AS total_value,
       avg(extract(epoch FROM coalesce(paid_at,
         (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC') - sold_at) / 3600)
         AS avg_hours
FROM sales GROUP BY 1, 2 ORDER BY 1 DESC, 2;

-- name: daily_kept
-- answers: daily
SELECT date, state, count, avg_value, total_value, avg_hours FROM daily_sales ORDER BY date DESC, state;

-- name: since
-- bind since: 3 days before the last sales.sold_at
SELECT state, count(*) AS count, sum(value) AS total_value
FROM sales WHERE sold_at >= date_trunc('day', CAST(:since AS timestamptz), 'UTC') GROUP BY state ORDER BY state;

-- name: since_kept
-- answers: since
SELECT state, CAST(sum(count) AS bigint) AS count, sum(total_value) AS total_value
FROM daily_sales WHERE date >= date_trunc('day', CAST(:since AS timestamptz), 'UTC') GROUP BY state ORDER BY state;

-- name: shops_by_city
SELECT city, count(*) AS shops FROM shops GROUP BY city ORDER BY city;
"""
# Near midnight, so that every zone cuts the days otherwise; some without a value, some never paid.
ROWS = """
CREATE TABLE shops (id int PRIMARY KEY, city text NOT NULL);
INSERT INTO shops SELECT n, 'city ' || n % 7 FROM generate_series(1, 50) n;
CREATE TABLE sales (
  id bigint PRIMARY KEY,
  state text NOT NULL,
  sold_at timestamptz NOT NULL,
  paid_at timestamptz,
  value numeric(14, 2)
);
INSERT INTO sales
SELECT n, (ARRAY['OPEN', 'PAID', 'LOST'])[1 + n % 3], timestamptz '2026-03-20 00:00:00+00' + n * interval '97 minutes',
       CASE WHEN n % 3 = 1 THEN timestamptz '2026-03-20 00:00:00+00' + n * interval '97 minutes' + interval '5 hours' END,
       CASE WHEN n % 11 > 0 THEN n % 977 END
FROM generate_series(1, 900) n;
"""


@pytest.fixture
def open_sales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Target], Shop]:
    """Fills a database with sales and writes the plan beside it."""

    def make(target: Target) -> Shop:
        return lay_out(target, tmp_path, monkeypatch, plan=PLAN, workload=WORKLOAD, rows=ROWS)

    return make


@pytest.fixture
def sales(empty: Target, open_sales: Callable[[Target], Shop]) -> Shop:
    """The sales on the tests' own server; nothing of the playbook in it yet."""
    return open_sales(empty)
