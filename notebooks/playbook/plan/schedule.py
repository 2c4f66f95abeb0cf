"""How often something is done: `15m`, `6h`, `1d`, and the lines by which pg_cron, cron and systemd do it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from playbook.errors import UsageError

_EVERY = re.compile(r"(?P<count>[1-9]\d{0,3})(?P<unit>[smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AT = re.compile(r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)\Z")


@dataclass(frozen=True)
class Every:
    """An interval as it is written in a plan or on the command line."""

    text: str
    interval: timedelta

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return self.interval.total_seconds()

    def __str__(self) -> str:
        return self.text


def every(text: str) -> Every:
    """Reads `30s`, `15m`, `6h`, `1d`.

    Raises:
        UsageError: it is none of these.
    """
    if not (match := _EVERY.match(text)):
        raise UsageError(f"{text!r} is no interval: write a number and s, m, h or d, as in 15m, 6h, 1d")
    return Every(text, timedelta(**{_UNITS[match["unit"]]: int(match["count"])}))


def check_zone(name: str) -> str:
    """The name of a time zone, as it is.

    Raises:
        ValueError: there is no such zone.
    """
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone; write UTC or a name like Europe/Berlin")
    return name


def check_time(at: str) -> str:
    """A time of day, as it is.

    Raises:
        ValueError: it is not written `HH:MM`.
    """
    if not _AT.match(at):
        raise ValueError(f"{at!r} is no time of day: write HH:MM, as in 03:10")
    return at


def cron_line(interval: Every, at: str, zone: str, server_zone: str) -> str:
    """The five fields of cron, for a scheduler that reads them in `server_zone`.

    What is done once a day is done at the time `at` in `zone`, or an hour later while summer time shifts it: a fixed
    line cannot follow the clocks, and an hour earlier might still be the day before.

    Raises:
        UsageError: cron has no line for that interval.
    """
    minutes, rest = divmod(int(interval.seconds), 60)
    if rest == 0 and minutes < 60 and 60 % minutes == 0:
        return f"*/{minutes} * * * *" if minutes > 1 else "* * * * *"
    if rest == 0 and minutes % 60 == 0 and minutes < 1440 and 24 % (minutes // 60) == 0:
        hours = minutes // 60
        return f"{at[3:]} */{hours} * * *" if hours > 1 else f"{at[3:]} * * * *"
    if minutes in {1440, 7 * 1440}:
        hour, minute = _shifted(at, zone, server_zone)
        return f"{minute} {hour} * * {'0' if minutes > 1440 else '*'}"
    raise UsageError(
        f"cron has no line for every {interval}: choose minutes that divide an hour, hours that divide a day, 1d or 7d"
    )


def _shifted(at: str, zone: str, server_zone: str) -> tuple[int, int]:
    """The latest time of day in `server_zone` that is `at` in `zone` on some day of a year."""
    hour, minute = map(int, at.split(":"))
    days = [datetime(2025, month, 15, hour, minute, tzinfo=ZoneInfo(zone)) for month in range(1, 13)]
    later = max(day.astimezone(ZoneInfo(server_zone)).replace(tzinfo=None) - day.replace(tzinfo=None) for day in days)
    moment = datetime(2025, 1, 15, hour, minute) + later
    return moment.hour, moment.minute


def crontab(interval: Every, at: str, zone: str, command: str) -> str:
    """Lines for crontab(5), which reads them in the zone of the machine unless CRON_TZ says otherwise."""
    return f"CRON_TZ={zone}\n{cron_line(interval, at, zone, zone)} {command.replace('%', chr(92) + '%')}"


def systemd(interval: Every, at: str, zone: str, command: str) -> str:
    """A service and its timer for systemd: two files to copy."""
    daily = interval.interval.days in {1, 7} and interval.seconds % 86400 == 0
    when = (
        f"OnCalendar={'Sun ' if interval.interval.days == 7 else ''}*-*-* {at}:00 {zone}"
        if daily
        else (f"OnActiveSec=1min\nOnUnitActiveSec={int(interval.seconds)}s")
    )
    return (
        "# /etc/systemd/system/playbook-refresh.service\n"
        f"[Service]\nType=oneshot\nExecStart={command}\n\n"
        "# /etc/systemd/system/playbook-refresh.timer\n"
        f"[Timer]\n{when}\nPersistent=true\n\n[Install]\nWantedBy=timers.target"
    )
