-- The rows of the sample, made inside the server.
--
-- How many: the setting playbook.scale (SET playbook.scale = 0.2; 1 makes 4.4 million rows).
-- The same rows on every run and every machine: each figure is a hash of its row's number n and of a salt; nothing is
-- drawn from random(), nothing asks what time it is, and floating point numbers meet only + - * / sqrt round and floor,
-- which are exact everywhere. Time runs from 2024-01-01 to 2026-01-01 UTC.
-- As in real life: few users, customers and products have most of the rows, recent months are denser, work that is
-- still open is recent, rare states are rare, and seven rows each of three tables break the rules that the plan adds in
-- 4.1.
--
-- What stands before the first section is run in every session; a section fills one table and depends on nothing but
-- that, so that two can run at a time. The large ones come first.
-- `draw` holds the numbers that a row is made from; its OFFSET 0 keeps them from being computed at each mention.

SET TimeZone = 'UTC';
SET enable_memoize = off;

CREATE TEMP TABLE size AS
SELECT greatest(20, round(5000 * scale))::bigint AS users,
       greatest(20, round(20000 * scale))::bigint AS customers,
       greatest(30, round(5000 * scale))::bigint AS products,
       greatest(20, 20 * round(10000 * scale))::bigint AS proposals,
       greatest(20, round(100000 * scale))::bigint AS content,
       greatest(8, round(200 * scale))::bigint AS workflows,
       greatest(20, round(300000 * scale))::bigint AS executions,
       greatest(20, round(400000 * scale))::bigint AS issues,
       greatest(20, round(1000000 * scale))::bigint AS events,
       greatest(20, round(50000 * scale))::bigint AS baselines,
       greatest(20, round(1000000 * scale))::bigint AS audits
FROM (SELECT current_setting('playbook.scale')::float8 AS scale) AS setting;

-- A number in [0, 1) that depends on n and salt alone.
CREATE FUNCTION pg_temp.u(n bigint, salt bigint) RETURNS float8 LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  'SELECT ((hashint8extended(n, salt) >> 12) & 4503599627370495) / 4503599627370496.0::float8';

-- The key of row n: u000002a. Eight bytes, all of which a sort compares at once: half the time of most indexes.
CREATE FUNCTION pg_temp.key(kind text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  $$SELECT kind || lpad(to_hex(n), 7, '0')$$;

-- One of 1 to `rows`, by u; the first hundredth of them gets a fifth of all.
CREATE FUNCTION pg_temp.few(u float8, rows bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  'SELECT 1 + floor(u * u * u * rows)::bigint';

-- When the share x of all rows had come; a day at the end brings three times as many as one at the start.
CREATE FUNCTION pg_temp.moment(x float8) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  'SELECT to_timestamp(1704067200 + 731 * 86400 * (sqrt(0.25::float8 + 2 * x) - 0.5::float8))';

-- A moment before all that, for what stood already.
CREATE FUNCTION pg_temp.earlier(u float8) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  'SELECT to_timestamp(1704067200 - floor(u * 1000 * 86400))';

-- How many products or sections proposal n has: 1 to 15, and 60 in any twenty of them that follow 20k.
CREATE FUNCTION pg_temp.parts(n bigint, salt bigint) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  $$SELECT ('{1,1,1,1,1,1,1,1,2,2,2,2,2,3,3,3,5,5,8,15}'::int[])
           [1 + (n * 7 + floor(20 * pg_temp.u((n - 1) / 20, salt))::bigint) % 20]$$;

CREATE FUNCTION pg_temp.price(product bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  'SELECT floor(10 + 4990 * pg_temp.u(product, 1) * pg_temp.u(product, 2))::bigint';

-- Words, from one to some hundreds, to fill a body with.
CREATE FUNCTION pg_temp.words(u float8, length float8) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  $$SELECT substr(
       'The proposed solution brings every site onto one platform, with a rollout in three waves and a single point '
       'of contact. Pricing is fixed for the first term and indexed after it; support is included around the clock. '
       'Our team has delivered comparable programmes for clients in the same industry, on time and within budget, '
       'and names the people who will do so again. Data stays in the region that the client chooses, is encrypted at'
       ' rest and in transit, and can be exported at any time. Acceptance is agreed for each milestone beforehand, '
       'and what is not accepted is not invoiced. The appendix lists the assumptions that this offer rests on, the '
       'obligations of both sides, and the service levels that are measured each month. Training is part of the '
       'first wave. ',
       1 + floor(u * 200)::int, floor(length)::int)$$;

-- Whether row n is one of seven, spread over all.
CREATE FUNCTION pg_temp.is_odd_one(n bigint, rows bigint) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
  'SELECT n % (rows / 7) = 1 AND n < rows / 7 * 7';

-- section: hypothesis_validation_events
INSERT INTO hypothesis_validation_events
SELECT pg_temp.key('e', n),
       pg_temp.key('u', pg_temp.few(u1, size.users)),
       hypothesis,
       hypothesis || (ARRAY['.search', '.editor', '.dashboard', '.approval', '.import'])[1 + floor(u3 * u3 * 5)::int],
       (ARRAY['viewed', 'started', 'completed', 'abandoned'])[1 + floor(u4 * u4 * 4)::int],
       target,
       actual,
       CASE WHEN pg_temp.is_odd_one(n, size.events) THEN CASE WHEN u3 < 0.3 THEN -250 ELSE 1001 + floor(u3 * 4000) END
            ELSE round(100 * (actual - target) / target) END,
       (ARRAY['{"source": "web", "variant": "A"}', '{"source": "web", "variant": "B"}', '{"source": "api"}']::jsonb[])
         [1 + floor(u4 * 3)::int],
       pg_temp.moment(x)
FROM size, generate_series(1, size.events) AS n,
     LATERAL (SELECT pg_temp.u(n, 91) AS u1, pg_temp.u(n, 92) AS u2, pg_temp.u(n, 93) AS u3, pg_temp.u(n, 94) AS u4,
                     (n - pg_temp.u(n, 95)) / size.events AS x OFFSET 0) AS draw,
     LATERAL (SELECT CASE WHEN u2 < 0.34 THEN 'H7' WHEN u2 < 0.60 THEN 'H4' WHEN u2 < 0.78 THEN 'H1'
                          WHEN u2 < 0.90 THEN 'H3' WHEN u2 < 0.97 THEN 'H6' WHEN u2 < 0.995 THEN 'H8'
                          WHEN u2 < 0.999 THEN 'H2' ELSE 'H5' END AS hypothesis,
                     CASE WHEN u2 < 0.60 THEN 40 WHEN u2 < 0.78 THEN 45 ELSE 20 END AS target OFFSET 0) AS what,
     -- not measured yet, the more so the younger
     LATERAL (SELECT CASE WHEN u3 > 0.7 OR (x > 0.97 AND u3 > 0.3) THEN NULL
                          ELSE round(target * (0.4 + u4 + u4 * u4 * u4)) END AS actual OFFSET 0) AS result;

-- section: audit_logs
INSERT INTO audit_logs
SELECT pg_temp.key('a', n),
       CASE WHEN u3 < 0.96 THEN pg_temp.key('u', pg_temp.few(u1, size.users)) END,
       CASE WHEN u2 < 0.45 THEN 'VIEW' WHEN u2 < 0.75 THEN 'UPDATE' WHEN u2 < 0.88 THEN 'CREATE' WHEN u2 < 0.95 THEN 'LOGIN'
            WHEN u2 < 0.985 THEN 'EXPORT' WHEN u2 < 0.9995 THEN 'DELETE' ELSE 'GRANT' END,
       entity,
       CASE entity WHEN 'Proposal' THEN pg_temp.key('p', 1 + floor(x * u4 * size.proposals)::bigint)
                   WHEN 'Content' THEN pg_temp.key('t', pg_temp.few(u4, size.content))
                   WHEN 'Customer' THEN pg_temp.key('c', pg_temp.few(u4, size.customers))
                   WHEN 'Product' THEN pg_temp.key('d', pg_temp.few(u4, size.products))
                   ELSE pg_temp.key('u', pg_temp.few(u4, size.users)) END,
       CASE WHEN u2 BETWEEN 0.45 AND 0.75
            THEN (ARRAY['{"status": ["DRAFT", "IN_REVIEW"]}', '{"value": [12000, 11500]}',
                        '{"title": ["Pilot", "Rollout"]}', '{"assigned_to": [null, "u0000001"]}']::jsonb[])[1 + floor(u3 * 4)::int] END,
       inet '10.0.0.0' + floor(u1 * 65536)::bigint,
       (ARRAY['Mozilla/5.0 (Windows NT 10.0; Win64; x64)', 'Mozilla/5.0 (Macintosh; Intel Mac OS X 14)', 'api-client/2.3',
              'Mozilla/5.0 (iPhone; CPU iPhone OS 18)'])[1 + floor(u1 * u3 * 4)::int],
       u4 < 0.985,
       pg_temp.moment(x)
FROM size, generate_series(1, size.audits) AS n,
     LATERAL (SELECT pg_temp.u(n, 161) AS u1, pg_temp.u(n, 162) AS u2, pg_temp.u(n, 163) AS u3, pg_temp.u(n, 164) AS u4,
                     (n - pg_temp.u(n, 165)) / size.audits AS x OFFSET 0) AS draw,
     LATERAL (SELECT CASE WHEN u3 < 0.5 THEN 'Proposal' WHEN u3 < 0.72 THEN 'Content' WHEN u3 < 0.85 THEN 'Customer'
                          WHEN u3 < 0.93 THEN 'Product' ELSE 'User' END AS entity OFFSET 0) AS what;

-- section: proposal_sections
INSERT INTO proposal_sections
SELECT pg_temp.key('s', proposal * 16 + part),
       pg_temp.key('p', proposal),
       part,
       initcap(replace(type, '_', ' ')) || ' ' || part,
       type,
       pg_temp.words(u1, words),
       floor(words / 6)::int,
       pg_temp.moment(proposal::float8 / size.proposals),
       pg_temp.moment(least(1, (proposal + u1 * u2 * 500) / size.proposals))
FROM size, generate_series(1, size.proposals) AS proposal,
     LATERAL generate_series(1, pg_temp.parts(proposal, 31)) AS part,
     LATERAL (SELECT pg_temp.u(proposal * 16 + part, 32) AS u1, pg_temp.u(proposal * 16 + part, 33) AS u2 OFFSET 0) AS draw,
     LATERAL (SELECT 40 + 160 * u2 * u2 AS words,
                     CASE WHEN part = 1 THEN 'EXECUTIVE_SUMMARY' WHEN u1 < 0.4 THEN 'SOLUTION' WHEN u1 < 0.65 THEN 'PRICING'
                          WHEN u1 < 0.8 THEN 'TERMS' WHEN u1 < 0.92 THEN 'CASE_STUDY' ELSE 'APPENDIX' END AS type
              OFFSET 0) AS what;

-- section: proposal_products
INSERT INTO proposal_products
SELECT pg_temp.key('i', proposal * 16 + part),
       pg_temp.key('p', proposal),
       pg_temp.key('d', product),
       quantity,
       price,
       discount,
       0.01 * (quantity * price * (100 - discount)),
       pg_temp.moment(proposal::float8 / size.proposals)
FROM size, generate_series(1, size.proposals) AS proposal,
     LATERAL generate_series(1, pg_temp.parts(proposal, 21)) AS part,
     -- a proposal takes each of its products from another fifteenth of the catalogue: never the same one twice
     LATERAL (SELECT (proposal + part) % 15 * (size.products / 15)
                       + pg_temp.few(pg_temp.u(proposal * 16 + part, 22), size.products / 15) AS product,
                     pg_temp.u(proposal * 16 + part, 23) AS u1, pg_temp.u(proposal * 16 + part, 24) AS u2 OFFSET 0) AS draw,
     LATERAL (SELECT CASE WHEN part = 1 AND pg_temp.is_odd_one(proposal, size.proposals) THEN -floor(3 * u1)::bigint
                          ELSE 1 + floor(u1 * u1 * u1 * 50)::bigint END AS quantity,
                     pg_temp.price(product) AS price,
                     CASE WHEN u2 < 0.6 THEN 0 ELSE floor(30 * (u2 - 0.5))::bigint END AS discount OFFSET 0) AS deal;

-- section: validation_issues
INSERT INTO validation_issues
SELECT pg_temp.key('v', n),
       pg_temp.key('y', pg_temp.few(u4, 120)),
       entity_type,
       CASE entity_type WHEN 'PROPOSAL' THEN pg_temp.key('p', 1 + floor(x * size.proposals)::bigint)
                        WHEN 'CONTENT' THEN pg_temp.key('t', 1 + floor(x * size.content)::bigint)
                        WHEN 'PRODUCT' THEN pg_temp.key('d', pg_temp.few(u1, size.products))
                        WHEN 'CUSTOMER' THEN pg_temp.key('c', pg_temp.few(u1, size.customers))
                        ELSE pg_temp.key('w', pg_temp.few(u1, size.workflows)) END,
       CASE WHEN u3 < 0.46 THEN 'LOW' WHEN u3 < 0.82 THEN 'MEDIUM' WHEN u3 < 0.97 THEN 'HIGH' ELSE 'CRITICAL' END,
       status,
       (ARRAY['A licence is missing for a dependent product', 'The price is below the floor of its tier',
              'The delivery date lies before the due date', 'Products exclude each other'])[1 + floor(u4 * 4)::int],
       moment,
       CASE WHEN status IN ('RESOLVED', 'DISMISSED') THEN moment + (1 + floor(250 * u3 * u4)) * interval '1 hour' END,
       CASE WHEN status IN ('RESOLVED', 'DISMISSED') THEN pg_temp.key('u', pg_temp.few(u4, size.users)) END
FROM size, generate_series(1, size.issues) AS n,
     LATERAL (SELECT pg_temp.u(n, 81) AS u1, pg_temp.u(n, 82) AS u2, pg_temp.u(n, 83) AS u3, pg_temp.u(n, 84) AS u4,
                     (n - pg_temp.u(n, 85)) / size.issues AS x OFFSET 0) AS draw,
     LATERAL (SELECT pg_temp.moment(x) AS moment,
                     CASE WHEN u1 < 0.62 THEN 'PROPOSAL' WHEN u1 < 0.84 THEN 'CONTENT' WHEN u1 < 0.97 THEN 'PRODUCT'
                          WHEN u1 < 0.999 THEN 'CUSTOMER' ELSE 'WORKFLOW' END AS entity_type,
                     CASE WHEN x > 0.97 THEN CASE WHEN u2 < 0.7 THEN 'OPEN' ELSE 'IN_PROGRESS' END
                          WHEN u2 < 0.72 THEN 'RESOLVED' WHEN u2 < 0.9 THEN 'DISMISSED' WHEN u2 < 0.97 THEN 'OPEN'
                          WHEN u2 < 0.995 THEN 'IN_PROGRESS' ELSE 'DEFERRED' END AS status OFFSET 0) AS state;

-- section: approval_executions
INSERT INTO approval_executions
SELECT pg_temp.key('x', n),
       pg_temp.key('w', pg_temp.few(u1, size.workflows)),
       pg_temp.key('p', 1 + floor(x * size.proposals)::bigint),
       status,
       1 + floor(3 * u3)::int,
       pg_temp.key('u', pg_temp.few(u3, size.users)),
       moment,
       CASE WHEN status IN ('APPROVED', 'REJECTED', 'CANCELLED')
            THEN moment + (1 + floor(250 * u3 * u4)) * interval '1 hour' END,
       CASE WHEN u4 < 0.3 THEN 'Agreed with legal and finance; see the notes in the appendix.'
            WHEN u4 < 0.4 THEN 'Discount above the limit, justified by volume.' END
FROM size, generate_series(1, size.executions) AS n,
     LATERAL (SELECT pg_temp.u(n, 61) AS u1, pg_temp.u(n, 62) AS u2, pg_temp.u(n, 63) AS u3, pg_temp.u(n, 64) AS u4,
                     (n - pg_temp.u(n, 65)) / size.executions AS x OFFSET 0) AS draw,
     LATERAL (SELECT pg_temp.moment(x) AS moment,
                     CASE WHEN x > 0.97 THEN CASE WHEN u2 < 0.4 THEN 'PENDING' WHEN u2 < 0.9 THEN 'IN_PROGRESS'
                                                  ELSE 'ESCALATED' END
                          WHEN u2 < 0.7 THEN 'APPROVED' WHEN u2 < 0.9 THEN 'REJECTED' WHEN u2 < 0.975 THEN 'CANCELLED'
                          WHEN u2 < 0.998 THEN 'IN_PROGRESS' ELSE 'ESCALATED' END AS status OFFSET 0) AS state;

-- section: proposals
INSERT INTO proposals
SELECT pg_temp.key('p', n),
       (ARRAY['Renewal', 'Rollout', 'Migration', 'Upgrade', 'Framework contract', 'Pilot'])[1 + floor(u4 * 6)::int] || ' '
         || n,
       status,
       (ARRAY['MEDIUM', 'MEDIUM', 'LOW', 'HIGH', 'URGENT'])[1 + floor(u4 * u4 * 5)::int],
       pg_temp.key('c', customer),
       pg_temp.key('u', pg_temp.few(u5, size.users)),
       CASE WHEN u2 < 0.9 THEN pg_temp.key('u', pg_temp.few(u4, size.users)) END,
       CASE WHEN pg_temp.is_odd_one(n, size.proposals) THEN -floor(100 + 5000 * u4)
            WHEN u3 < 0.04 OR (status = 'DRAFT' AND u3 < 0.5) THEN NULL
            ELSE floor(1000 + 200000 * u4 * u4 * u5 * (1 + 3 * size.customers / (size.customers + 50 * customer)::float8)) END,
       CASE WHEN u3 < 0.9 THEN 'USD' ELSE 'EUR' END,
       CASE WHEN u5 < 0.95 THEN moment + (5 + floor(u3 * 60)) * interval '1 day' END,
       CASE WHEN status IN ('APPROVED', 'SUBMITTED', 'ACCEPTED', 'DECLINED')
            THEN moment + (2 + floor(300 * u3 * u4)) * interval '1 hour' END,
       (ARRAY['{}', '{"source": "rfp"}', '{"source": "renewal", "template": "standard"}'])[1 + floor(u5 * 3)::int]::jsonb,
       moment,
       least(moment + floor(400 * u3 * u5) * interval '1 hour', timestamptz '2026-01-01 00:00:00+00')
FROM size, generate_series(1, size.proposals) AS n,
     LATERAL (SELECT pg_temp.few(pg_temp.u(n, 11), size.customers) AS customer, pg_temp.u(n, 12) AS u2,
                     pg_temp.u(n, 13) AS u3, pg_temp.u(n, 14) AS u4, pg_temp.u(n, 15) AS u5,
                     (n - pg_temp.u(n, 16)) / size.proposals AS x OFFSET 0) AS draw,
     LATERAL (SELECT pg_temp.moment(x) AS moment,
                     CASE WHEN x > 0.97 THEN CASE WHEN u2 < 0.45 THEN 'DRAFT' WHEN u2 < 0.7 THEN 'IN_REVIEW'
                                                  WHEN u2 < 0.85 THEN 'PENDING_APPROVAL' ELSE 'SUBMITTED' END
                          WHEN u2 < 0.34 THEN 'ACCEPTED' WHEN u2 < 0.56 THEN 'DECLINED' WHEN u2 < 0.74 THEN 'APPROVED'
                          WHEN u2 < 0.88 THEN 'REJECTED' WHEN u2 < 0.94 THEN 'SUBMITTED' WHEN u2 < 0.99 THEN 'DRAFT'
                          WHEN u2 < 0.999 THEN 'ARCHIVED' ELSE 'ON_HOLD' END AS status OFFSET 0) AS state;

-- section: content
INSERT INTO content
SELECT pg_temp.key('t', n),
       initcap(replace(type, '_', ' ')) || ' ' || n,
       type,
       CASE type WHEN 'CONTRACT' THEN 'legal' WHEN 'PRICE_LIST' THEN 'commercial'
                 ELSE (ARRAY['technical', 'commercial', 'security', 'references', 'company', 'legal', 'people',
                             'sustainability', 'archive'])[1 + floor(u2 * u2 * 9)::int] END,
       u3 < 0.7 + 0.28 * x,
       pg_temp.words(u2, 150 + 500 * u4 * u4),
       (ARRAY['{}', '{emea}', '{emea,approved}', '{approved}', '{draft}', '{apac,approved}'])
         [1 + floor(u4 * 6)::int]::text[],
       CASE WHEN u4 < 0.8 THEN floor(100 * u3) / 10 END,
       floor(200 * u2 * u4 * u4)::int,
       pg_temp.key('u', pg_temp.few(u4, size.users)),
       pg_temp.moment(x),
       pg_temp.moment(x + (1 - x) * u2 * u3)
FROM size, generate_series(1, size.content) AS n,
     LATERAL (SELECT pg_temp.u(n, 41) AS u1, pg_temp.u(n, 42) AS u2, pg_temp.u(n, 43) AS u3, pg_temp.u(n, 44) AS u4,
                     (n - pg_temp.u(n, 45)) / size.content AS x OFFSET 0) AS draw,
     LATERAL (SELECT CASE WHEN u1 < 0.35 THEN 'TEXT_BLOCK' WHEN u1 < 0.57 THEN 'TEMPLATE' WHEN u1 < 0.73 THEN 'CASE_STUDY'
                          WHEN u1 < 0.84 THEN 'DATA_SHEET' WHEN u1 < 0.92 THEN 'IMAGE' WHEN u1 < 0.97 THEN 'CONTRACT'
                          WHEN u1 < 0.99 THEN 'PRICE_LIST' ELSE 'VIDEO' END AS type OFFSET 0) AS what;

-- section: customer_contacts
INSERT INTO customer_contacts
SELECT pg_temp.key('k', 2 * customer + part),
       pg_temp.key('c', customer),
       'Contact ' || (2 * customer + part),
       'contact' || part || '@customer' || customer || '.example',
       (ARRAY['BUYER', 'TECHNICAL', 'EXECUTIVE', 'LEGAL'])[1 + floor(4 * pg_temp.u(customer, 120 + part))::int],
       part = 0,
       pg_temp.earlier(pg_temp.u(customer, 122 + part))
FROM size, generate_series(1, size.customers) AS customer, generate_series(0::bigint, 1) AS part;

-- section: customers
INSERT INTO customers
SELECT pg_temp.key('c', n),
       (ARRAY['Acme', 'Borealis', 'Cobalt', 'Delta', 'Ember', 'Fjord', 'Granite', 'Harbor'])[1 + floor(u1 * 8)::int] || ' '
         || (ARRAY['Foods', 'Logistics', 'Energy', 'Health', 'Bank', 'Media'])[1 + floor(u2 * 6)::int] || ' ' || n,
       CASE WHEN u3 < 0.9 THEN 'office' || n || '@customer.example' END,
       (ARRAY['Retail', 'Transport', 'Energy', 'Healthcare', 'Finance', 'Media'])[1 + floor(u2 * 6)::int],
       (ARRAY['US', 'DE', 'GB', 'FR', 'JP', 'BR', 'NL', 'SE', 'IN', 'AU'])[1 + floor(u3 * u3 * 10)::int],
       CASE WHEN n <= size.customers * 0.02 THEN 'ENTERPRISE' WHEN n <= size.customers * 0.15 THEN 'GOLD'
            WHEN u1 < 0.4 THEN 'SILVER' ELSE 'STANDARD' END,
       CASE WHEN u4 < 0.85 THEN 'ACTIVE' WHEN u4 < 0.95 THEN 'PROSPECT' WHEN u4 < 0.998 THEN 'INACTIVE' ELSE 'BLOCKED' END,
       CASE WHEN u1 < 0.8 THEN floor(100000 + 900000000 * u2 / n) END,
       CASE WHEN u4 < 0.97 THEN pg_temp.key('u', pg_temp.few(u3, size.users)) END,
       pg_temp.earlier(u2),
       pg_temp.moment(u1)
FROM size, generate_series(1, size.customers) AS n,
     LATERAL (SELECT pg_temp.u(n, 111) AS u1, pg_temp.u(n, 112) AS u2, pg_temp.u(n, 113) AS u3, pg_temp.u(n, 114) AS u4
              OFFSET 0) AS draw;

-- section: performance_baselines
INSERT INTO performance_baselines
SELECT pg_temp.key('b', n),
       (ARRAY['H7', 'H4', 'H1', 'H3', 'H6', 'H8', 'H2', 'H5'])[1 + floor(u1 * u1 * 8)::int],
       (ARRAY['search_seconds', 'proposal_minutes', 'approval_hours', 'error_rate', 'page_load_ms', 'reuse_share',
              'coordination_hours', 'win_rate', 'satisfaction', 'sessions', 'exports', 'logins'])
         [1 + floor(u2 * u2 * 12)::int],
       floor(1000 * u3) / 10,
       10 + floor(u1 * 40),
       20 + floor(u3 * u3 * 5000)::int,
       CASE WHEN u3 < 0.8 THEN 'production' WHEN u3 < 0.97 THEN 'staging' ELSE 'laboratory' END,
       pg_temp.moment((n - u3) / size.baselines)
FROM size, generate_series(1, size.baselines) AS n,
     LATERAL (SELECT pg_temp.u(n, 151) AS u1, pg_temp.u(n, 152) AS u2, pg_temp.u(n, 153) AS u3 OFFSET 0) AS draw;

-- section: users
INSERT INTO users
SELECT pg_temp.key('u', n),
       lower(first) || '.' || lower(last) || n || '@example.com',
       first || ' ' || last,
       (ARRAY['SALES', 'SALES', 'SME', 'PRESALES', 'MANAGER', 'VIEWER', 'VIEWER', 'ADMIN'])[1 + floor(u3 * u3 * 8)::int],
       (ARRAY['Sales', 'Engineering', 'Legal', 'Finance', 'Delivery', 'Marketing'])[1 + floor(u4 * 6)::int],
       u3 < 0.93,
       CASE WHEN u4 < 0.95 THEN pg_temp.moment(1 - 0.3 * u3 * u3) END,
       pg_temp.earlier(u4),
       pg_temp.moment(u4)
FROM size, generate_series(1, size.users) AS n,
     LATERAL (SELECT (ARRAY['Ada', 'Ben', 'Chloe', 'Dmitri', 'Elena', 'Farid', 'Grace', 'Hiro', 'Ines', 'Jonas', 'Kemi',
                            'Luca'])[1 + floor(12 * pg_temp.u(n, 101))::int] AS first,
                     (ARRAY['Abbot', 'Brandt', 'Costa', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ito',
                            'Jensen', 'Kowalski', 'Li'])[1 + floor(12 * pg_temp.u(n, 102))::int] AS last,
                     pg_temp.u(n, 103) AS u3, pg_temp.u(n, 104) AS u4 OFFSET 0) AS draw;

-- section: products
INSERT INTO products
SELECT pg_temp.key('d', n),
       'SKU-' || lpad(n::text, 6, '0'),
       (ARRAY['Core', 'Edge', 'Cloud', 'Secure', 'Smart'])[1 + floor(u1 * 5)::int] || ' '
         || (ARRAY['Gateway', 'Licence', 'Sensor', 'Service', 'Storage', 'Training'])[1 + floor(u2 * 6)::int] || ' ' || n,
       (ARRAY['hardware', 'software', 'service', 'support', 'training', 'accessory'])[1 + floor(u2 * 6)::int],
       pg_temp.price(n),
       CASE WHEN u1 < 0.9 THEN 'USD' ELSE 'EUR' END,
       u3 < 0.9,
       pg_temp.earlier(u3),
       pg_temp.moment(u1)
FROM size, generate_series(1, size.products) AS n,
     LATERAL (SELECT pg_temp.u(n, 131) AS u1, pg_temp.u(n, 132) AS u2, pg_temp.u(n, 133) AS u3 OFFSET 0) AS draw;

-- section: product_relationships
INSERT INTO product_relationships
SELECT pg_temp.key('r', n),
       pg_temp.key('d', n),
       pg_temp.key('d', 1 + (n + floor(pg_temp.u(n, 141) * (size.products - 1))::bigint) % size.products),
       (ARRAY['REQUIRES', 'RECOMMENDS', 'REPLACES', 'EXCLUDES'])[1 + floor(4 * pg_temp.u(n, 142))::int],
       pg_temp.earlier(pg_temp.u(n, 143))
FROM size, generate_series(1, size.products) AS n;

-- section: approval_workflows
INSERT INTO approval_workflows
SELECT pg_temp.key('w', n),
       'Workflow ' || n,
       (ARRAY['PROPOSAL', 'PROPOSAL', 'PRODUCT', 'CONTENT'])[1 + floor(4 * pg_temp.u(n, 51))::int],
       '["manager", "legal", "finance"]',
       (ARRAY[24, 48, 72, 120])[1 + floor(4 * pg_temp.u(n, 52))::int],
       pg_temp.u(n, 53) < 0.85,
       pg_temp.key('u', pg_temp.few(pg_temp.u(n, 54), size.users)),
       pg_temp.earlier(pg_temp.u(n, 55))
FROM size, generate_series(1, size.workflows) AS n;

-- section: validation_rules
INSERT INTO validation_rules
SELECT pg_temp.key('y', n), 'RULE-' || lpad(n::text, 3, '0'), 'Rule ' || n,
       (ARRAY['licensing', 'compatibility', 'pricing', 'compliance'])[1 + floor(4 * pg_temp.u(n, 71))::int],
       pg_temp.u(n, 72) < 0.9
FROM generate_series(1::bigint, 120) AS n;
