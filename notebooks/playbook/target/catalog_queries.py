"""The queries behind `catalog.read`: each answers for all user relations at once, none is asked per table."""

from __future__ import annotations

# Much of what follows is deparsed text, which depends on the session's settings; with these it is the same whoever
# reads. An empty search_path has every name qualified. JIT would compile for longer than the queries run. Deparsing
# takes ACCESS SHARE on the relation, so without a lock_timeout a read could wait behind a table rewrite for hours.
# Deparsing also looks at the present, not at the snapshot: pg_table_is_visible() is null for what is gone by now.
SETTINGS = """
SELECT pg_catalog.current_setting('server_version_num')::int,
       pg_catalog.current_database()::text,
       pg_catalog.current_schemas(false)::text[],
       pg_catalog.set_config('search_path', '', true),
       pg_catalog.set_config('TimeZone', 'UTC', true),
       pg_catalog.set_config('DateStyle', 'ISO, YMD', true),
       pg_catalog.set_config('IntervalStyle', 'postgres', true),
       pg_catalog.set_config('extra_float_digits', '1', true),
       pg_catalog.set_config('bytea_output', 'hex', true),
       pg_catalog.set_config('standard_conforming_strings', 'on', true),
       pg_catalog.set_config('quote_all_identifiers', 'off', true),
       pg_catalog.set_config('jit', 'off', true),
       pg_catalog.set_config('lock_timeout', '{lock_timeout_ms}', true)
"""

_USER_RELATIONS = """
  JOIN pg_namespace n ON n.oid = c.relnamespace
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'playbook')
"""

RELATIONS = f"""
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, pg_get_userbyid(c.relowner)::text,
       c.relpersistence::text, c.reltuples::float8, c.relpages,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_table_size(c.oid) END,
       (SELECT ARRAY[pn.nspname::text, p.relname::text]
        FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
        WHERE h.inhrelid = c.oid ORDER BY h.inhseqno LIMIT 1),
       CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
       CASE WHEN c.relispartition THEN pg_get_expr(c.relpartbound, c.oid) END,
       c.relrowsecurity, c.relreplident::text
FROM pg_class c {_USER_RELATIONS}
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f')
ORDER BY n.nspname, c.relname
"""

COLUMNS = f"""
SELECT a.attrelid, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text, a.attnum, a.attcollation::text
FROM pg_class c {_USER_RELATIONS}
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f')
ORDER BY a.attrelid, a.attnum
"""

# pg_get_indexdef for a single key is asked for expressions only: for plain keys the arrays say it all. It stands
# in the same form (not pretty) inside the whole definition, which is what `catalog.py` relies on.
INDEXES = f"""
SELECT i.indrelid, c.oid, c.relname::text, am.amname::text, i.indisunique, i.indisprimary, i.indisexclusion,
       {{nulls_not_distinct}}, i.indimmediate, i.indisvalid, i.indisready, i.indislive,
       i.indnkeyatts, i.indkey::text, concat_ws(',', i.indclass, i.indcollation, i.indoption),
       CASE WHEN i.indexprs IS NOT NULL THEN ARRAY(
         SELECT CASE WHEN i.indkey[k - 1] = 0 THEN pg_get_indexdef(c.oid, k, false) END
         FROM generate_series(1, i.indnkeyatts::int) k ORDER BY k) END,
       (SELECT array_agg(array_to_string(a.attoptions, ', ') ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid HAVING count(a.attoptions) > 0),
       pg_get_expr(i.indpred, i.indrelid),
       CASE WHEN pg_table_is_visible(i.indrelid) IS NOT NULL THEN pg_get_indexdef(c.oid) END,
       CASE WHEN c.relkind = 'i' THEN pg_relation_size(c.oid) END, c.relkind = 'I',
       (SELECT ARRAY[pn.nspname::text, p.relname::text]
        FROM pg_inherits h JOIN pg_class p ON p.oid = h.inhparent JOIN pg_namespace pn ON pn.oid = p.relnamespace
        WHERE h.inhrelid = c.oid),
       t.spcname::text, c.reloptions
FROM pg_class c {_USER_RELATIONS}
JOIN pg_index i ON i.indexrelid = c.oid
JOIN pg_am am ON am.oid = c.relam
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
WHERE c.relkind IN ('i', 'I')
ORDER BY i.indrelid, c.relname
"""

# A foreign key to a partitioned table has a hidden twin for each partition, on the same referencing table.
CONSTRAINTS = f"""
SELECT k.conrelid, k.conname::text, k.contype::text,
       CASE WHEN pg_table_is_visible(c.oid) IS NOT NULL THEN pg_get_constraintdef(k.oid) END, k.convalidated,
       array_to_string(k.conkey, ' '),
       CASE WHEN k.contype IN ('p', 'u', 'x') THEN k.conindid ELSE 0 END,
       (SELECT ARRAY[rn.nspname::text, r.relname::text]
        FROM pg_class r JOIN pg_namespace rn ON rn.oid = r.relnamespace WHERE r.oid = k.confrelid)
FROM pg_class c {_USER_RELATIONS}
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f', 'c', 'x', 'n')
WHERE c.relkind IN ('r', 'p', 'f')
  AND NOT (k.contype = 'f' AND k.conparentid <> 0
           AND EXISTS (SELECT FROM pg_constraint q WHERE q.oid = k.conparentid AND q.conrelid = k.conrelid))
ORDER BY k.conrelid, k.conname
"""

OPCLASSES = """
SELECT o.oid::text, n.nspname::text, o.opcname::text, fn.nspname::text, f.opfname::text
FROM pg_opclass o
JOIN pg_namespace n ON n.oid = o.opcnamespace
JOIN pg_opfamily f ON f.oid = o.opcfamily
JOIN pg_namespace fn ON fn.oid = f.opfnamespace
"""

COLLATIONS = """
SELECT c.oid::text, n.nspname::text, c.collname::text
FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
"""

# Asked only when a read was refused by its lock timeout.
EXCLUSIVELY_LOCKED = """
SELECT min(n.nspname || '.' || c.relname), min(l.pid)
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
