-- The queries that the plan cares about, as the application asks them. Names are the plan's and are resolved on the
-- target; each :value is sampled there, once a common and once a rare one. Orders are total, unless `ties:` says else.

-- 1.1 Missing composite indexes

-- name: user_activity_by_hypothesis
-- about: profile page: what one user did in the last 30 days, by hypothesis
-- bind user_id: sampled from hypothesis_validation_events
-- bind since: 30 days before the last hypothesis_validation_events.timestamp
SELECT hypothesis, count(*) AS events, max(timestamp) AS last_seen
FROM hypothesis_validation_events
WHERE user_id = :user_id AND timestamp >= :since
GROUP BY hypothesis
ORDER BY hypothesis;

-- name: user_latest_events
-- about: activity feed: the latest 20 events of one user
-- bind user_id: sampled from hypothesis_validation_events
SELECT id, timestamp, hypothesis, component, action, performance_improvement
FROM hypothesis_validation_events
WHERE user_id = :user_id
ORDER BY timestamp DESC, id
LIMIT 20;

-- name: proposals_of_customer_by_status
-- about: customer page, one tab a status: the latest 20 proposals
-- bind status, customer_id: sampled from proposals
SELECT id, title, priority, value, due_date, created_at
FROM proposals
WHERE status = :status AND customer_id = :customer_id
ORDER BY created_at DESC, id
LIMIT 20;

-- name: proposal_count_of_customer_by_status
-- about: customer page: the number on the tab of a status, and since when
-- ties: there is one row
-- bind status, customer_id: sampled from proposals
SELECT count(*) AS proposals, min(created_at) AS oldest
FROM proposals
WHERE status = :status AND customer_id = :customer_id;

-- name: customers_by_proposals_in_status
-- about: pipeline page: the 20 customers with most proposals in a status, and the newest of each
-- bind status: sampled from proposals
SELECT customer_id, count(*) AS proposals, max(created_at) AS newest
FROM proposals
WHERE status = :status
GROUP BY customer_id
ORDER BY proposals DESC, customer_id
LIMIT 20;

-- name: content_picker
-- about: proposal editor: the latest 20 pieces of a type and category
-- bind type, is_active, category: sampled from content
SELECT id, title, tags, quality_score, usage_count, created_at
FROM content
WHERE type = :type AND is_active = :is_active AND category = :category
ORDER BY created_at DESC, id
LIMIT 20;

-- name: content_picker_total
-- about: proposal editor: how many pieces of a type and category there are to page through
-- ties: there is one row
-- bind type, is_active, category: sampled from content
SELECT count(*) AS pieces
FROM content
WHERE type = :type AND is_active = :is_active AND category = :category;

-- name: content_counts_by_category
-- about: content library: the numbers beside the categories of a type
-- bind type, is_active: sampled from content
SELECT category, count(*) AS pieces, max(created_at) AS newest
FROM content
WHERE type = :type AND is_active = :is_active
GROUP BY category
ORDER BY category;

-- name: approval_queue
-- about: approver's queue: the latest 50 executions of a workflow in a status
-- bind status, workflow_id: sampled from approval_executions
SELECT id, proposal_id, current_stage, initiated_by, started_at
FROM approval_executions
WHERE status = :status AND workflow_id = :workflow_id
ORDER BY started_at DESC, id
LIMIT 50;

-- name: approval_queue_total
-- about: approver's queue: how many executions it holds, and since when
-- ties: there is one row
-- bind status, workflow_id: sampled from approval_executions
SELECT count(*) AS executions, min(started_at) AS oldest
FROM approval_executions
WHERE status = :status AND workflow_id = :workflow_id;

-- name: approval_load_by_workflow
-- about: approval dashboard: how many executions stand in a status, by workflow, and since when
-- bind status: sampled from approval_executions
SELECT workflow_id, count(*) AS executions, min(started_at) AS oldest, max(started_at) AS newest
FROM approval_executions
WHERE status = :status
GROUP BY workflow_id
ORDER BY workflow_id;

-- name: validation_inbox
-- about: validation page: the latest 50 issues of a kind of entity, a severity and a status
-- bind entity_type, severity, status: sampled from validation_issues
SELECT id, rule_id, entity_id, message, detected_at
FROM validation_issues
WHERE entity_type = :entity_type AND severity = :severity AND status = :status
ORDER BY detected_at DESC, id
LIMIT 50;

-- name: validation_inbox_total
-- about: validation page: how many issues there are to page through
-- ties: there is one row
-- bind entity_type, severity, status: sampled from validation_issues
SELECT count(*) AS issues
FROM validation_issues
WHERE entity_type = :entity_type AND severity = :severity AND status = :status;

-- name: validation_board
-- about: validation dashboard: issues of a kind of entity, by severity and status
-- bind entity_type: sampled from validation_issues
SELECT severity, status, count(*) AS issues, max(detected_at) AS newest
FROM validation_issues
WHERE entity_type = :entity_type
GROUP BY severity, status
ORDER BY severity, status;


-- 1.2 Query pattern analysis

-- name: proposal_list
-- about: proposal list with its customers, in one query: the latest 50 in a status
-- bind status: sampled from proposals
SELECT proposals.id, proposals.title, proposals.value, proposals.created_at, customers.name, customers.tier
FROM proposals
JOIN customers ON customers.id = proposals.customer_id
WHERE proposals.status = :status
ORDER BY proposals.created_at DESC, proposals.id
LIMIT 50;

-- name: proposal_list_products
-- about: proposal list: the products of the latest 50 proposals, in one query
SELECT proposal_products.proposal_id, products.sku, products.name, proposal_products.quantity, proposal_products.total
FROM proposal_products
JOIN products ON products.id = proposal_products.product_id
WHERE proposal_products.proposal_id IN (SELECT id FROM proposals ORDER BY created_at DESC, id LIMIT 50)
ORDER BY proposal_products.proposal_id, products.sku;

-- name: proposal_list_sections
-- about: proposal list: the sections of the latest 50 proposals, in one query
SELECT proposal_id, position, title, section_type, word_count
FROM proposal_sections
WHERE proposal_id IN (SELECT id FROM proposals ORDER BY created_at DESC, id LIMIT 50)
ORDER BY proposal_id, position;


-- 3.1 Materialized views for analytics

-- name: dashboard_daily
-- about: analytics dashboard, all of the time: proposals by day and status
SELECT date_trunc('day', created_at, 'UTC') AS date, status, count(*) AS count, avg(value) AS avg_value,
       sum(value) AS total_value
FROM proposals
GROUP BY date_trunc('day', created_at, 'UTC'), status
ORDER BY date DESC, status;

-- name: dashboard_daily_last_30_days
-- about: analytics dashboard as it opens: proposals by day and status of the last 30 days
-- bind since: 30 days before the last proposals.created_at
SELECT date_trunc('day', created_at, 'UTC') AS date, status, count(*) AS count, avg(value) AS avg_value,
       sum(value) AS total_value
FROM proposals
WHERE created_at >= date_trunc('day', CAST(:since AS timestamptz), 'UTC')
GROUP BY date_trunc('day', created_at, 'UTC'), status
ORDER BY date DESC, status;

-- name: dashboard_totals_by_status
-- about: analytics dashboard, the figures on top: number and value of all proposals by status
SELECT status, count(*) AS count, sum(value) AS total_value
FROM proposals
GROUP BY status
ORDER BY status;

-- name: dashboard_processing_hours
-- about: analytics dashboard: how long proposals took, those still open counted to the end of today, by day and status
SELECT date_trunc('day', created_at, 'UTC') AS date, status,
       avg(extract(epoch FROM coalesce(approved_at,
         (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC') - created_at) / 3600)
         AS avg_processing_hours
FROM proposals
GROUP BY date_trunc('day', created_at, 'UTC'), status
ORDER BY date DESC, status;

-- The dashboard once proposal_analytics_summary stands

-- name: dashboard_daily_from_summary
-- answers: dashboard_daily
SELECT date, status, count, avg_value, total_value
FROM proposal_analytics_summary
ORDER BY date DESC, status;

-- name: dashboard_daily_last_30_days_from_summary
-- answers: dashboard_daily_last_30_days
SELECT date, status, count, avg_value, total_value
FROM proposal_analytics_summary
WHERE date >= date_trunc('day', CAST(:since AS timestamptz), 'UTC')
ORDER BY date DESC, status;

-- name: dashboard_totals_by_status_from_summary
-- answers: dashboard_totals_by_status
SELECT status, CAST(sum(count) AS bigint) AS count, sum(total_value) AS total_value
FROM proposal_analytics_summary
GROUP BY status
ORDER BY status;

-- name: dashboard_processing_hours_from_summary
-- answers: dashboard_processing_hours
SELECT date, status, avg_processing_hours
FROM proposal_analytics_summary
ORDER BY date DESC, status;


-- 3.2 Hypothesis validation performance

-- name: hypothesis_results_by_user
-- about: hypothesis report: what was reached, by user
-- bind hypothesis: sampled from hypothesis_validation_events
SELECT user_id, count(*) AS measured, avg(target_value) AS target, avg(actual_value) AS actual,
       count(*) FILTER (WHERE actual_value >= target_value) AS reached
FROM hypothesis_validation_events
WHERE hypothesis = :hypothesis AND actual_value IS NOT NULL
GROUP BY user_id
ORDER BY user_id;

-- name: hypothesis_results_of_user
-- about: profile page: the latest 100 results of one user for a hypothesis, for its sparkline
-- ties: rows that tie are alike in every column shown
-- bind hypothesis, user_id: sampled from hypothesis_validation_events
SELECT timestamp, target_value, actual_value
FROM hypothesis_validation_events
WHERE hypothesis = :hypothesis AND user_id = :user_id AND actual_value IS NOT NULL
ORDER BY timestamp DESC, target_value, actual_value
LIMIT 100;

-- name: baseline_latest
-- about: validation service: the baseline that a new measurement is held against
-- bind hypothesis, metric_name: sampled from performance_baselines
SELECT id, baseline_value, target_improvement, sample_size, environment, collection_date
FROM performance_baselines
WHERE hypothesis = :hypothesis AND metric_name = :metric_name
ORDER BY collection_date DESC, id
LIMIT 1;

-- name: baseline_latest_by_metric
-- about: hypothesis report: the latest baseline of each metric
-- bind hypothesis: sampled from performance_baselines
SELECT DISTINCT ON (metric_name) metric_name, baseline_value, target_improvement, environment, collection_date
FROM performance_baselines
WHERE hypothesis = :hypothesis
ORDER BY metric_name, collection_date DESC, id;

-- name: baseline_coverage
-- about: hypothesis report: how many baselines each metric has, and the day of the last
-- bind hypothesis: sampled from performance_baselines
SELECT metric_name, count(*) AS baselines, max(collection_date) AS latest
FROM performance_baselines
WHERE hypothesis = :hypothesis
GROUP BY metric_name
ORDER BY metric_name;

-- name: baseline_history
-- about: baseline chart: the last 90 days of one metric
-- bind hypothesis, metric_name: sampled from performance_baselines
-- bind since: 90 days before the last performance_baselines.collection_date
SELECT collection_date, baseline_value, environment
FROM performance_baselines
WHERE hypothesis = :hypothesis AND metric_name = :metric_name AND collection_date >= :since
ORDER BY collection_date DESC, id;


-- 4.2 Partitioning for large tables

-- name: audit_actions_last_30_days
-- about: compliance report as it opens: actions by kind of entity of the last 30 days
-- bind since: 30 days before the last audit_logs.timestamp
SELECT entity, action, count(*) AS entries, count(DISTINCT user_id) AS users
FROM audit_logs
WHERE timestamp >= :since
GROUP BY entity, action
ORDER BY entity, action;

-- name: audit_actions_of_a_month_last_year
-- about: compliance report of 30 days a year ago
-- bind since: 395 days before the last audit_logs.timestamp
-- bind until: 365 days before the last audit_logs.timestamp
SELECT entity, action, count(*) AS entries, count(DISTINCT user_id) AS users
FROM audit_logs
WHERE timestamp >= :since AND timestamp < :until
GROUP BY entity, action
ORDER BY entity, action;

-- name: audit_trail_of_entity
-- about: history tab: the latest 50 entries of one entity
-- bind entity, entity_id: sampled from audit_logs
SELECT id, timestamp, user_id, action, changes
FROM audit_logs
WHERE entity = :entity AND entity_id = :entity_id
ORDER BY timestamp DESC, id
LIMIT 50;

-- name: audit_user_last_30_days
-- about: security page: what one user did in the last 30 days, the latest 100 entries
-- bind user_id: sampled from audit_logs
-- bind since: 30 days before the last audit_logs.timestamp
SELECT id, timestamp, action, entity, entity_id, success
FROM audit_logs
WHERE user_id = :user_id AND timestamp >= :since
ORDER BY timestamp DESC, id
LIMIT 100;


-- Controls: on tables that no step of the plan touches

-- name: control_longest_sections
-- about: the 20 longest sections of a type
-- bind section_type: sampled from proposal_sections
SELECT id, proposal_id, title, word_count
FROM proposal_sections
WHERE section_type = :section_type
ORDER BY word_count DESC, id
LIMIT 20;

-- name: control_product_catalogue
-- about: the catalogue page: active products by category, with what they require
SELECT products.category, products.name, products.price, count(product_relationships.id) AS requires
FROM products
LEFT JOIN product_relationships
  ON product_relationships.source_product_id = products.id AND product_relationships.type = 'REQUIRES'
WHERE products.is_active
GROUP BY products.id, products.category, products.name, products.price
ORDER BY products.category, products.name, products.id
LIMIT 100;

-- name: control_customers_by_tier
-- about: customers' contacts by tier and country
SELECT customers.tier, customers.country, count(*) AS contacts, max(customer_contacts.created_at) AS newest
FROM customers
JOIN customer_contacts ON customer_contacts.customer_id = customers.id
GROUP BY customers.tier, customers.country
ORDER BY customers.tier, customers.country;

-- name: control_accounts_by_department
-- about: customers in the care of each department
SELECT users.department, count(*) AS customers, max(customers.updated_at) AS last_change
FROM customers
JOIN users ON users.id = customers.account_owner_id
GROUP BY users.department
ORDER BY users.department;
