"""Periods of a partitioned table: calendar days, weeks, months, quarters and years, all in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from playbook.target.sql import literal

Every = Literal["day", "week", "month", "quarter", "year"]

SHORTEST_NOTICE = timedelta(days=7)
"""How far ahead the first partition of its own begins at least: until then only the old table takes rows, and the swap
can be taken back without moving any."""

_MONTHS = {"month": 1, "quarter": 3, "year": 12}


@dataclass(frozen=True, order=True)
class Period:
    """One period; weeks begin on Monday (ISO 8601)."""

    start: date
    every: Every

    @property
    def end(self) -> date:
        """The first day that no longer belongs to it."""
        if self.every in _MONTHS:
            months = self.start.year * 12 + self.start.month - 1 + _MONTHS[self.every]
            return date(months // 12, months % 12 + 1, 1)
        return self.start + timedelta(days=7 if self.every == "week" else 1)

    @property
    def label(self) -> str:
        """`2024_01` for a month, `2024_w05`, `2024_q1`, `2024`, `2024_01_31` for a day."""
        match self.every:
            case "day":
                return f"{self.start:%Y_%m_%d}"
            case "week":
                year, week, _ = self.start.isocalendar()
                return f"{year}_w{week:02d}"
            case "month":
                return f"{self.start:%Y_%m}"
            case "quarter":
                return f"{self.start.year}_q{(self.start.month + 2) // 3}"
        return str(self.start.year)

    def next(self) -> Period:
        """The one that follows without a gap."""
        return Period(self.end, self.every)


def containing(day: date, every: Every) -> Period:
    """The period that `day` falls into."""
    match every:
        case "day":
            return Period(day, every)
        case "week":
            return Period(day - timedelta(days=day.weekday()), every)
        case "month":
            return Period(day.replace(day=1), every)
        case "quarter":
            return Period(date(day.year, (day.month - 1) // 3 * 3 + 1, 1), every)
    return Period(date(day.year, 1, 1), every)


def first_ahead(now: datetime, every: Every) -> Period:
    """The first period that begins at least `SHORTEST_NOTICE` after `now`, which is in UTC."""
    soonest = (now + SHORTEST_NOTICE).date()
    period = containing(soonest, every)
    return period if period.start > soonest else period.next()


def following(period: Period, count: int) -> Iterator[Period]:
    """`period` and those after it, `count` in all."""
    for _ in range(count):
        yield period
        period = period.next()


def bound(day: date, column_type: str) -> str:
    """Midnight of `day` in UTC as a literal of the key's type."""
    if column_type == "date":
        return literal(f"{day}")
    zone = "+00" if "with time zone" in column_type else ""
    return literal(f"{day} 00:00:00{zone}")
