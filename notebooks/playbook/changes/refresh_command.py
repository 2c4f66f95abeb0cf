"""What a job runs to refresh a summary: one at a time, only after a change, with its record on the target."""

from __future__ import annotations

from playbook.target.sql import literal

ISO = '\'YYYY-MM-DD"T"HH24:MI:SS.MS"+00:00"\''
"""to_char's format for a moment in UTC, as the journal writes it."""

ONE_CORE = "max_parallel_workers_per_gather = 0"
"""A refresh has time; what it would take of the other cores, its readers would wait for."""


def lock_key(relation: str) -> str:
    """The arguments of the advisory lock that a refresh of the relation holds."""
    return f"pg_catalog.hashtext('playbook refresh'), pg_catalog.hashtext({literal(relation)})"


def refresh_command(relation: str, marker: str, body: str) -> str:
    """One DO statement for the relation's quoted name.

    `marker` is the SELECT that tells whether anything has changed, `body` the PL/pgSQL statements that refresh, which
    set `manner` and `changed`.
    """
    return _COMMAND.format(
        relation=literal(relation),
        marker="\n".join(f"    {line}" for line in marker.splitlines()).strip(),
        body="\n".join(f"  {line}" for line in body.splitlines()),
        lock=lock_key(relation),
        one_core=ONE_CORE,
        iso=ISO,
    )


_COMMAND = """DO $refresh$
DECLARE
  began timestamptz := clock_timestamp();
  wal pg_lsn := pg_current_wal_insert_lsn();
  recorded boolean := to_regclass('playbook.refresh') IS NOT NULL;
  mark text;
  last text;
  manner text;
  changed bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock({lock}) THEN RETURN; END IF;
  mark := (
    {marker}
  );
  IF recorded THEN
    last := (SELECT marker FROM playbook.refresh WHERE relation = {relation} AND error = ''
             ORDER BY started_at DESC LIMIT 1);
    IF mark = last THEN
      UPDATE playbook.refresh SET checked_at = to_char(began AT TIME ZONE 'UTC', {iso})
      WHERE relation = {relation} AND started_at = (
        SELECT max(started_at) FROM playbook.refresh WHERE relation = {relation} AND error = '');
      RETURN;
    END IF;
  END IF;
  SET LOCAL {one_core};
{body}
  IF recorded THEN
    INSERT INTO playbook.refresh VALUES ({relation}, to_char(began AT TIME ZONE 'UTC', {iso}),
      to_char(began AT TIME ZONE 'UTC', {iso}), extract(epoch FROM clock_timestamp() - began), manner, changed,
      pg_current_wal_insert_lsn() - wal, coalesce(mark, ''), '');
  END IF;
EXCEPTION WHEN OTHERS THEN
  IF recorded THEN
    INSERT INTO playbook.refresh VALUES ({relation}, to_char(began AT TIME ZONE 'UTC', {iso}),
      to_char(began AT TIME ZONE 'UTC', {iso}), extract(epoch FROM clock_timestamp() - began), '',
      NULL, NULL, '', SQLERRM);
  ELSE
    RAISE;
  END IF;
END
$refresh$"""
