"""Whether the tables behind a summary have changed since it was refreshed, told by their counters alone.

The marker holds, for every table that is read, its file and how many rows were ever inserted, updated and deleted.
Equal markers mean that nothing was committed in between; unequal ones may be a false alarm (a rolled back
transaction, VACUUM FULL, a crash that reset the counters), which costs one refresh. A session reports its counts
within a second or so of its commit, in the worst case within a minute: what it wrote then waits for the next refresh.
"""

from __future__ import annotations

from collections.abc import Sequence

from playbook.target.catalog import Table
from playbook.target.sql import literal


def marker(tables: Sequence[Table], clock: str) -> str:
    """A SELECT of one text: the marker, NULL where it cannot be told (a foreign table, counters switched off).

    `clock` is the expression that the summary takes its present moment from; empty where it needs none.
    """
    roots = ", ".join(f"{literal(table.qualified)}::pg_catalog.regclass" for table in tables)
    moment = f"|| ' ' || pg_catalog.date_part('epoch', {clock})::pg_catalog.text" if clock else ""
    return f"""WITH RECURSIVE reads(oid) AS (
  SELECT pg_catalog.unnest(ARRAY[{roots}])::pg_catalog.oid
  UNION
  SELECT further.oid FROM reads, LATERAL (
    SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = reads.oid
    UNION ALL
    SELECT d.refobjid FROM pg_catalog.pg_rewrite AS w JOIN pg_catalog.pg_depend AS d
      ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
    WHERE w.ev_class = reads.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  ) AS further
)
SELECT CASE WHEN pg_catalog.current_setting('track_counts')::bool AND bool_and(c.relkind IN ('r', 'p', 'v', 'm')) THEN
  pg_catalog.string_agg(pg_catalog.concat_ws(':', c.oid, pg_catalog.pg_relation_filenode(c.oid),
    pg_catalog.pg_stat_get_tuples_inserted(c.oid) + pg_catalog.pg_stat_get_tuples_updated(c.oid)
    + pg_catalog.pg_stat_get_tuples_deleted(c.oid)), ' ' ORDER BY c.oid)
  || ' ' || coalesce(pg_catalog.date_part('epoch', pg_catalog.pg_stat_get_db_stat_reset_time(
    (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())))::pg_catalog.text, '')
  {moment} END
FROM reads JOIN pg_catalog.pg_class AS c USING (oid) WHERE c.relkind NOT IN ('i', 'I', 'S', 't')"""
