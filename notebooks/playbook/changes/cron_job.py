"""A pg_cron job that keeps up what a step made, where that extension stands in the database worked on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from playbook.changes.change import Finding
from playbook.errors import UsageError
from playbook.plan.schedule import cron_line, every
from playbook.target.sql import Statement, literal, quote

PREFIX = "pg_cron job "
_EXTENSION = """
SELECT (SELECT e.extversion FROM pg_catalog.pg_extension AS e WHERE e.extname = 'pg_cron'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'cron.timezone'),
       (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'cron.database_name'),
       pg_catalog.current_database()::text, current_user::text
"""
_WITHOUT_ZONE = ("1.0", "1.1", "1.2", "1.3", "1.4")
_MAY = (
    "SELECT pg_catalog.has_schema_privilege('cron', 'USAGE') AND pg_catalog.has_table_privilege('cron.job', 'SELECT')"
)
_JOB = "SELECT schedule, command, active FROM cron.job WHERE jobname = %s AND username = current_user"
_RUNS = """
SELECT d.start_time, d.end_time, CASE WHEN d.status = 'failed' THEN d.return_message ELSE '' END
FROM cron.job_run_details AS d JOIN cron.job AS j USING (jobid)
WHERE j.jobname = %s AND j.username = current_user AND d.status IN ('succeeded', 'failed')
ORDER BY d.start_time DESC LIMIT %s
"""


@dataclass(frozen=True)
class Cron:
    """What the server said of pg_cron. `zone` is the one that it reads schedules in; GMT unless it was set.

    `database` is where its jobs are made, `here` the database worked on; `usable` tells that this role may make jobs,
    and `zone_told` that it may read the zone (or that this version has no setting for it).
    """

    version: str | None
    zone: str
    database: str | None
    here: str
    user: str
    usable: bool
    zone_told: bool = True

    @classmethod
    def ask(cls, connection: psycopg.Connection[Any]) -> Cron:
        """Reads it from the target."""
        version, zone, database, here, user = connection.execute(_EXTENSION).fetchall()[0]
        usable = version is not None and connection.execute(_MAY).fetchall() == [(True,)]
        told = zone is not None or version is None or version.startswith(_WITHOUT_ZONE)
        return cls(version, zone or "GMT", database, here, user, usable, zone_told=told)

    def findings(self, instead: str) -> list[Finding]:
        """Why no job is made although pg_cron is on the server; `instead` says what does it from elsewhere."""
        if self.version is None and self.database and self.database != self.here:
            detail = f"pg_cron stands in database {self.database}, and jobs can be made only there"
            return [Finding("warn", detail, f"{instead}, or schedule it from there")]
        if self.version is not None and not self.usable:
            detail = f"pg_cron stands here, and {self.user} may not use it"
            return [Finding("warn", detail, f"GRANT USAGE ON SCHEMA cron TO {quote(self.user)};")]
        if self.usable and not self.zone_told:
            detail = f"{self.user} may not read cron.timezone, so the job's hour is written in GMT"
            return [Finding("not_checked", detail, f"GRANT pg_read_all_settings TO {quote(self.user)};")]
        return []


@dataclass(frozen=True)
class Job:
    """One job: its name, its five fields in pg_cron's zone, the SQL it runs, and in words what that does."""

    name: str
    schedule: str
    command: str
    does: str

    @classmethod
    def of(cls, cron: Cron, relation: str, command: str, *, does: str, every_: str, at: str, zone: str) -> Job | None:
        """The job that keeps up `relation`; None where pg_cron is not usable or has no such interval."""
        if not cron.usable:
            return None
        try:
            line = cron_line(every(every_), at, zone, "UTC" if cron.zone == "GMT" else cron.zone)
        except UsageError:
            return None
        return cls(f"playbook {cron.here} {relation}", line, command, does)

    @property
    def object_name(self) -> str:
        """What the journal calls it."""
        return PREFIX + self.name

    def make(self) -> Statement:
        """Makes the job, or gives the one of that name this schedule."""
        arguments = ",\n  ".join([literal(self.name), literal(self.schedule), f"$job$\n{self.command}\n$job$"])
        return Statement(
            f"SELECT cron.schedule(\n  {arguments})", f"{self.does} on a schedule (pg_cron)", unless=self._stands
        )

    def remove(self) -> Statement:
        """Removes it, if it is there."""
        where = f"jobname = {literal(self.name)} AND username = current_user"
        return Statement(f"SELECT cron.unschedule(jobid) FROM cron.job WHERE {where}", f"{self.does} no more")

    @property
    def probe(self) -> str:
        """A SELECT of one boolean: does it stand with this schedule and command?"""
        return f"SELECT {self._stands}"

    @property
    def _stands(self) -> str:
        return (
            "EXISTS (SELECT FROM cron.job WHERE active AND username = current_user "
            f"AND database = pg_catalog.current_database() AND jobname = {literal(self.name)} "
            f"AND schedule = {literal(self.schedule)} AND pg_catalog.btrim(command, E'\\n') = {literal(self.command)})"
        )


def definition(connection: psycopg.Connection[Any], object_name: str) -> str | None:
    """Schedule and command of a job by its name in the journal, None where it is gone."""
    if connection.execute("SELECT to_regclass('cron.job')").fetchone() == (None,):
        return None
    row = connection.execute(_JOB, [object_name.removeprefix(PREFIX)]).fetchone()
    return None if row is None else f"{row[0]}{'' if row[2] else ' (inactive)'} {row[1].strip()}"


@dataclass(frozen=True)
class Run:
    """One run of a job, as pg_cron keeps it; `error` is empty where it succeeded."""

    started: datetime
    ended: datetime
    error: str


def runs(connection: psycopg.Connection[Any], job: str, most: int) -> list[Run]:
    """The last runs of a job that have ended, the latest first; none where they are not kept or may not be read."""
    try:
        return [Run(*row) for row in connection.execute(_RUNS, [job, most]).fetchall()]
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        return []
