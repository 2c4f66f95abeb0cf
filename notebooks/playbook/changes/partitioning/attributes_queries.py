"""The queries behind `attributes.read`: everything that hangs on one table, each value as the server deparses it."""

from __future__ import annotations

# An empty search_path has every name qualified; UTC has every bound say what it means, whoever reads.
SETTINGS = """
SELECT set_config('search_path', '', true), set_config('TimeZone', 'UTC', true),
       set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'postgres', true),
       set_config('extra_float_digits', '1', true), set_config('quote_all_identifiers', 'off', true),
       current_setting('server_version_num')::int
"""

TABLE = """
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, pg_get_userbyid(c.relowner)::text,
       c.relpersistence::text, coalesce(am.amname::text, 'heap'), t.spcname::text, c.relrowsecurity,
       c.relforcerowsecurity, c.relreplident::text, obj_description(c.oid, 'pg_class'), c.relispartition,
       c.reloftype <> 0, pg_get_partkeydef(c.oid), c.reloptions,
       (SELECT count(*) FROM pg_inherits WHERE inhrelid = c.oid OR (inhparent = c.oid AND c.relkind = 'r')),
       (SELECT count(*) FROM pg_seclabel WHERE objoid = c.oid AND classoid = 'pg_class'::regclass)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
WHERE c.oid = to_regclass(%(table)s)
"""

_GRANTEE = "CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END"

GRANTS = f"""
SELECT {_GRANTEE}, x.privilege_type, x.is_grantable, NULL::text
FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) x WHERE c.oid = %(oid)s
UNION ALL
SELECT {_GRANTEE}, x.privilege_type, x.is_grantable, a.attname::text
FROM pg_attribute a, aclexplode(a.attacl) x WHERE a.attrelid = %(oid)s AND NOT a.attisdropped
ORDER BY 4 NULLS FIRST, 1, 2, 3
"""

# To whom a new table of this role is granted unasked.
DEFAULT_GRANTEES = f"""
SELECT DISTINCT {_GRANTEE} FROM pg_default_acl d, aclexplode(d.defaclacl) x
WHERE d.defaclobjtype = 'r' AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND d.defaclnamespace IN (0, (SELECT relnamespace FROM pg_class WHERE oid = %(oid)s)) ORDER BY 1
"""

COLUMNS = """
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attcollation <> t.typcollation
            THEN (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_collation co
                  JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation) END,
       a.attnotnull, {not_null_name}, pg_get_expr(d.adbin, d.adrelid), a.attgenerated::text, a.attidentity::text,
       CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END, {compression},
       nullif(a.attstattarget, -1)::int, a.attoptions::text[], col_description(a.attrelid, a.attnum)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
COMPRESSION = "nullif(a.attcompression::text, '')"  # from 14 on
NOT_NULL_NAME = """(SELECT k.conname::text FROM pg_constraint k
        WHERE k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum])"""  # from 18 on

CONSTRAINTS = """
SELECT k.conname::text, k.contype::text, pg_get_constraintdef(k.oid), k.convalidated, k.connoinherit,
       k.confrelid::regclass::text, obj_description(k.oid, 'pg_constraint')
FROM pg_constraint k
WHERE k.conrelid = %(oid)s AND k.contype IN ('c', 'f', 'x') AND k.conparentid = 0 ORDER BY k.contype, k.conname
"""

INDEXES = """
SELECT c.relname::text, pg_get_indexdef(i.indexrelid), i.indisunique, i.indisvalid AND i.indisready AND i.indislive,
       i.indisclustered, i.indisreplident, k.contype::text, pg_get_constraintdef(k.oid),
       obj_description(k.oid, 'pg_constraint'), obj_description(c.oid, 'pg_class'),
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY u(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum ORDER BY u.place),
       i.indexprs IS NOT NULL OR i.indpred IS NOT NULL, t.spcname::text
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') AND k.conrelid = i.indrelid
WHERE i.indrelid = %(oid)s ORDER BY c.relname
"""

TRIGGERS = """
SELECT t.tgname::text, pg_get_triggerdef(t.oid), t.tgenabled::text, t.tgtype & 1 = 1,
       t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL, obj_description(t.oid, 'pg_trigger')
FROM pg_trigger t WHERE t.tgrelid = %(oid)s AND NOT t.tgisinternal ORDER BY t.tgname
"""

POLICIES = """
SELECT p.polname::text, p.polpermissive, p.polcmd::text,
       ARRAY(SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END
             FROM unnest(p.polroles) r ORDER BY 1),
       pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid), obj_description(p.oid, 'pg_policy')
FROM pg_policy p WHERE p.polrelid = %(oid)s ORDER BY p.polname
"""

STATISTICS = """
SELECT n.nspname::text, s.stxname::text, pg_get_statisticsobjdef(s.oid), nullif(s.stxstattarget, -1)::int,
       obj_description(s.oid, 'pg_statistic_ext'), pg_get_userbyid(s.stxowner)::text, pg_has_role(s.stxowner, 'USAGE')
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = %(oid)s ORDER BY 1, 2
"""

SEQUENCES = """
SELECT n.nspname::text, c.relname::text, a.attname::text, d.deptype::text,
       format('INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s START WITH %%s CACHE %%s%%s', q.seqincrement, q.seqmin,
              q.seqmax, q.seqstart, q.seqcache, CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END),
       obj_description(c.oid, 'pg_class'),
       ARRAY(SELECT x.privilege_type || ' ON SEQUENCE %% TO ' ||
                    CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
                    || CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
             FROM aclexplode(c.relacl) x WHERE x.grantee <> c.relowner ORDER BY 1)
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S' JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_sequence q ON q.seqrelid = c.oid
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = %(oid)s
  AND d.deptype IN ('a', 'i') ORDER BY 1, 2
"""

PUBLICATIONS = """
SELECT p.pubname::text, p.pubviaroot, p.puballtables, {of_schema}, r.prrelid IS NOT NULL, {filter}, {columns},
       pg_has_role(p.pubowner, 'USAGE')
FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = %(oid)s
WHERE p.puballtables OR r.prrelid IS NOT NULL OR {of_schema} ORDER BY 1
"""
PUBLISHED_SCHEMA = """EXISTS (SELECT FROM pg_publication_namespace pn JOIN pg_class c ON c.relnamespace = pn.pnnspid
               WHERE pn.pnpubid = p.oid AND c.oid = %(oid)s)"""  # this and the next two from 15 on
PUBLISHED_ROWS = "pg_get_expr(r.prqual, r.prrelid)"
PUBLISHED_COLUMNS = """ARRAY(SELECT a.attname::text FROM unnest(r.prattrs) u JOIN pg_attribute a
              ON a.attrelid = r.prrelid AND a.attnum = u ORDER BY a.attnum)"""
