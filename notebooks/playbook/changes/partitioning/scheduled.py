"""The pg_cron job that makes a table's next partitions: what `playbook maintain` does, inside the server."""

from __future__ import annotations

from datetime import date

from playbook.changes.cron_job import Cron, Job
from playbook.changes.partitioning import recreate
from playbook.changes.partitioning.ahead import local_indexes
from playbook.changes.partitioning.attributes import Attributes
from playbook.changes.partitioning.names import fit
from playbook.changes.partitioning.periods import Every, containing, step
from playbook.target.sql import literal

_LABELS: dict[Every, str] = {
    "day": "YYYY_MM_DD",
    "week": 'IYYY"_w"IW',
    "month": "YYYY_MM",
    "quarter": 'YYYY"_q"Q',
    "year": "YYYY",
}
"""`Period.label` for to_char()."""
_LABEL = "zqxjkvzqxj"
"""Stands for the label in a name, which stays bare with it where it is with the label."""
_LOW, _HIGH = "@low@", "@high@"


def job(cron: Cron, a: Attributes, key: str, every: Every, ahead: int, user: str) -> Job | None:
    """The job for the table named in `a`; its partitions have what `a` tells besides what they inherit.

    Each run makes one partition at most, so that no lock is held for several. None where pg_cron is not usable, or
    where a name would have to be cut, which SQL cannot do as `names.fit` does.
    """
    label = containing(date(2001, 1, 1), every).label
    token = _LABEL[: len(label)]
    commands = _commands(a, f"{a.name}_{token}", key, user)
    if commands.replace(token, label) != _commands(a, fit(a.name, f"_{label}"), key, user):
        return None
    text = _COMMAND.format(
        commands=commands,
        low=_LOW,
        high=_HIGH,
        token=token,
        parent=literal(a.qualified),
        every=every,
        step=step(every),
        ahead=ahead,
        label=_LABELS[every],
    )
    return Job.of(cron, a.qualified, text, does="make partitions ahead", every_="1h", at="00:10", zone="UTC")


def _commands(a: Attributes, name: str, key: str, user: str) -> str:
    values = f"FOR VALUES FROM ('{_LOW}') TO ('{_HIGH}')"
    made = recreate.partition(a, name, values, a.qualified, local=local_indexes(a, key), user=user)
    return ";\n".join(made)


# The lock is asked for as the playbook does: for 40 ms at a time, with pauses, and then not until the next run.
_COMMAND = """DO $partitions$
DECLARE
  last date;
BEGIN
  PERFORM set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true),
          set_config('lock_timeout', '40ms', true);
  last := (SELECT max((regexp_match(pg_get_expr(c.relpartbound, c.oid),
                                    'TO \\(''(\\d{{4}}-\\d\\d-\\d\\d)( 00:00:00(\\+00)?)?''\\)'))[1]::date)
           FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid WHERE h.inhparent = to_regclass({parent}));
  IF last IS NULL OR last > date_trunc('{every}', now()) + {ahead} * interval '{step}' THEN RETURN; END IF;
  IF last <> date_trunc('{every}', last) THEN
    RAISE EXCEPTION 'the last partition ends on %, amid a {every}; make the next one by hand', last;
  END IF;
  FOR attempt IN 1..20 LOOP
    BEGIN
      EXECUTE replace(replace(replace($commands$
{commands}
$commands$, '{token}', to_char(last, '{label}')), '{low}', last::text),
        '{high}', (last + interval '{step}')::date::text);
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      PERFORM pg_sleep(0.5 + random());
    END;
  END LOOP;
  RAISE EXCEPTION 'no lock on the table in 20 tries of 40 ms; the next run tries again';
END
$partitions$"""
