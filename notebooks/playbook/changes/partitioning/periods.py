"""Periods of a partitioned table: calendar days, weeks, months, quarters and years, all in UTC."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from playbook.target.sql import literal

Every = Literal["day", "week", "month", "quarter", "year"]

SHORTEST_NOTICE = timedelta(days=7)
"""How far ahead the first partition of its own begins at least: until then only the old table takes rows, and the swap
can be taken back without moving any."""

_SPAN = re.compile(r"([1-9]\d{0,3}) (day|week|month|quarter|year)s?")
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


@dataclass(frozen=True)
class Span:
    """A length of time by the calendar: `24 months`, `7 days`."""

    count: int
    unit: Every

    @classmethod
    def parse(cls, text: str) -> Span:
        """Raises ValueError for what is none."""
        if not (match := _SPAN.fullmatch(text.strip())):
            raise ValueError(f"{text!r} is no length of time: write it like 24 months, 7 days, 3 years")
        return cls(int(match[1]), match[2])  # type: ignore[arg-type] # the pattern has the words of Every

    def before(self, day: date) -> date:
        """The day that lies this long before `day`; of a month that is shorter, its last."""
        if self.unit in _MONTHS:
            months = day.year * 12 + day.month - 1 - self.count * _MONTHS[self.unit]
            year, month = months // 12, months % 12 + 1
            return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
        return day - timedelta(days=self.count * (7 if self.unit == "week" else 1))

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'' if self.count == 1 else 's'}"


def step(every: Every) -> str:
    """How long a period is, as an interval of PostgreSQL."""
    return "3 months" if every == "quarter" else f"1 {every}"


def bound(day: date, column_type: str) -> str:
    """Midnight of `day` in UTC as a literal of the key's type."""
    if column_type == "date":
        return literal(f"{day}")
    zone = "+00" if "with time zone" in column_type else ""
    return literal(f"{day} 00:00:00{zone}")
