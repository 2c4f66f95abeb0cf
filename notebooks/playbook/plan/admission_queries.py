"""What admission asks the catalog; everything is qualified, since the search_path belongs to the target."""

from __future__ import annotations

RUN_SQL_OF_THEIR_OWN = frozenset(
    """
    query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema table_to_xml
    table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema schema_to_xml_and_xmlschema
    database_to_xml database_to_xmlschema database_to_xml_and_xmlschema ts_stat1 ts_stat2 tsquery_rewrite_query
    crosstab crosstab_hash connectby_text connectby_text_serial xpath_table
    """.split()
)
"""Functions in C, by their symbols, that run a query given as text or read a view named by one; some are STABLE."""

# 'R' and 'C' are the keywords that are never a function of that name: `coalesce(`, `in (`, `numeric(10,2)`.
LEXICAL = """
SELECT pg_catalog.current_setting('standard_conforming_strings'),
       (SELECT pg_catalog.array_agg(word) FROM pg_catalog.pg_get_keywords() WHERE catcode IN ('R', 'C'))
"""

# What has an argument of type internal cannot be called by a query (TABLESAMPLE's methods are such functions).
# `row.name` calls a function of one argument, when the row has no such column.
FUNCTIONS = """
WITH called AS (
  SELECT schema::name AS schema, name::name AS name, by_row
  FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::bool[]))
       AS c(schema, name, by_row)
)
SELECT DISTINCT p.oid::bigint, p.proname::text
FROM called AS c
JOIN pg_catalog.pg_proc AS p ON p.proname = c.name
JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE (n.nspname = c.schema OR (c.schema = 'pg_temp' AND p.pronamespace = pg_catalog.pg_my_temp_schema())
       OR (c.schema IS NULL AND n.nspname = ANY (pg_catalog.current_schemas(true))))
  AND NOT 'pg_catalog.internal'::pg_catalog.regtype = ANY (p.proargtypes)
  AND (NOT c.by_row OR (p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 AND EXISTS (
         SELECT FROM pg_catalog.pg_type AS t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p', 'd'))))
"""

# The relations that words may name, and those that reading them reads: partitions, children, and what views and
# policies are made of. A materialized view's query does not run. A view's owner may be subject to policies that the
# reader is exempt from.
_RELATIONS = r"""
WITH RECURSIVE words AS (SELECT word FROM pg_catalog.unnest(%s::name[]) AS w(word)),
relations(oid) AS (
  SELECT c.oid
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relname IN (SELECT word FROM words) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND (n.nspname = ANY (pg_catalog.current_schemas(true)) OR n.nspname IN (SELECT word FROM words))
  UNION
  SELECT further.oid
  FROM relations AS r, LATERAL (
    SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = r.oid
    UNION ALL
    SELECT m[1]::pg_catalog.oid
    FROM pg_catalog.pg_rewrite AS w JOIN pg_catalog.pg_class AS c ON c.oid = w.ev_class AND c.relkind = 'v',
         pg_catalog.regexp_matches(w.ev_action::text, ':relid (\d+)', 'g') AS m
    WHERE w.ev_class = r.oid
    UNION ALL
    SELECT m[1]::pg_catalog.oid
    FROM pg_catalog.pg_policy AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid AND c.relrowsecurity,
         pg_catalog.regexp_matches(p.polqual::text, ':relid (\d+)', 'g') AS m
    WHERE p.polrelid = r.oid
  ) AS further
)
"""

FOREIGN = _RELATIONS + (
    "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class AS c JOIN relations USING (oid) "
    "WHERE c.relkind = 'f' ORDER BY 1"
)

HIDDEN_FUNCTIONS = (
    _RELATIONS
    + r"""
, types(oid) AS (
  SELECT t.oid FROM pg_catalog.pg_type AS t WHERE t.typname = ANY (%s::name[])
  UNION
  SELECT further.oid
  FROM types JOIN pg_catalog.pg_type AS t USING (oid), LATERAL (VALUES (t.typbasetype), (t.typelem)) AS further(oid)
  WHERE further.oid <> 0
),
trees(tree, place) AS (
  SELECT w.ev_action::text, 'the view ' || c.oid::pg_catalog.regclass
  FROM relations JOIN pg_catalog.pg_class AS c USING (oid) JOIN pg_catalog.pg_rewrite AS w ON w.ev_class = c.oid
  WHERE c.relkind = 'v'
  UNION ALL
  SELECT p.polqual::text, 'the row security of ' || c.oid::pg_catalog.regclass
  FROM relations JOIN pg_catalog.pg_class AS c USING (oid) JOIN pg_catalog.pg_policy AS p ON p.polrelid = c.oid
  WHERE p.polcmd IN ('r', '*') AND (pg_catalog.row_security_active(c.oid) OR (c.relrowsecurity AND EXISTS (
    SELECT FROM relations JOIN pg_catalog.pg_class AS v USING (oid) WHERE v.relkind = 'v')))
  UNION ALL
  SELECT k.conbin::text, 'the domain ' || d.oid::pg_catalog.regtype
  FROM types AS d JOIN pg_catalog.pg_constraint AS k ON k.contypid = d.oid
)
SELECT DISTINCT m[1]::bigint, place
FROM trees, pg_catalog.regexp_matches(tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS m
UNION
SELECT o.oprcode::pg_catalog.oid::bigint, place
FROM trees, pg_catalog.regexp_matches(tree, ':(?:opno|eqop|sortop|opnos \(o) ([\d ]+)', 'g') AS m,
     pg_catalog.regexp_split_to_table(pg_catalog.btrim(m[1]), ' +') AS number
JOIN pg_catalog.pg_operator AS o ON o.oid = number::pg_catalog.oid
"""
)

# An aggregate is marked IMMUTABLE whatever the functions are that it is made of.
FORBIDDEN = r"""
WITH used(oid, place) AS (
  SELECT number::pg_catalog.oid, place
  FROM ROWS FROM (pg_catalog.unnest(%s::bigint[]), pg_catalog.unnest(%s::text[])) AS u(number, place)
),
parts AS (
  SELECT oid, place FROM used
  UNION
  SELECT part.oid, used.place
  FROM used JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = used.oid,
       pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn,
                               a.aggmfinalfn, a.aggserialfn, a.aggdeserialfn]::pg_catalog.oid[]) AS part(oid)
)
SELECT p.oid::pg_catalog.regprocedure::text, parts.place, p.provolatile = 'v'
FROM parts JOIN pg_catalog.pg_proc AS p USING (oid)
WHERE p.provolatile = 'v' OR p.prosrc = ANY (%s)
ORDER BY parts.place, 3 DESC, 1
"""

VOLATILE_OPERATORS = """
SELECT o.oprname::text, o.oid::pg_catalog.regoperator::text, o.oprcode::pg_catalog.regprocedure::text
FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_proc AS p ON p.oid = o.oprcode
WHERE p.provolatile = 'v' ORDER BY 2
"""

VOLATILE_CASTS = """
SELECT pg_catalog.format_type(c.castsource, NULL), pg_catalog.format_type(c.casttarget, NULL),
       p.oid::pg_catalog.regprocedure::text, c.castcontext = 'i', t.typname::text,
       t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
FROM pg_catalog.pg_cast AS c JOIN pg_catalog.pg_proc AS p ON p.oid = c.castfunc
JOIN pg_catalog.pg_type AS t ON t.oid = c.casttarget
WHERE p.provolatile = 'v' ORDER BY 1, 2
"""
