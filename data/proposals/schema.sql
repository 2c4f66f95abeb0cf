-- The plan's own domain: proposals, what is in them, how they are approved and validated, what is learnt on the way.
--
-- Plain SQL, in the order in which it can be run from top to bottom. A line `-- section: …` starts a part that the
-- loader runs on its own, so that rows come before indexes and two tables are worked on at a time:
--   tables            the bare tables (filled next, by generate.sql)
--   indexes TABLE     keys, unique constraints and indexes of one table
--   foreign keys      declared without looking at the rows, which takes an instant
--   validate TABLE    the rows of one table checked against its foreign keys
--
-- The indexes are those that such an application gathers over the years: one a column that somebody once filtered by,
-- some that another one makes redundant, one that nothing reads. None does the work of an index of the plan.

-- section: tables

-- Which statements take the time, as a database in production should know; a server that lacks it does without.
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_stat_statements') THEN
    CREATE EXTENSION pg_stat_statements;
  END IF;
END $$;

CREATE TABLE users (
  id text NOT NULL,
  email text NOT NULL,
  name text NOT NULL,
  role text NOT NULL,
  department text NOT NULL,
  is_active boolean NOT NULL DEFAULT true,
  last_login_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE customers (
  id text NOT NULL,
  name text NOT NULL,
  email text,
  industry text NOT NULL,
  country text NOT NULL,
  tier text NOT NULL,
  status text NOT NULL,
  annual_revenue numeric(14, 2),
  account_owner_id text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE customer_contacts (
  id text NOT NULL,
  customer_id text NOT NULL,
  name text NOT NULL,
  email text NOT NULL,
  role text,
  is_primary boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE products (
  id text NOT NULL,
  sku text NOT NULL,
  name text NOT NULL,
  category text NOT NULL,
  price numeric(12, 2) NOT NULL,
  currency text NOT NULL DEFAULT 'USD',
  is_active boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE product_relationships (
  id text NOT NULL,
  source_product_id text NOT NULL,
  target_product_id text NOT NULL,
  type text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE proposals (
  id text NOT NULL,
  title text NOT NULL,
  status text NOT NULL DEFAULT 'DRAFT',
  priority text NOT NULL DEFAULT 'MEDIUM',
  customer_id text NOT NULL,
  created_by text NOT NULL,
  assigned_to text,
  value numeric(14, 2),
  currency text NOT NULL DEFAULT 'USD',
  due_date timestamptz,
  approved_at timestamptz,
  metadata jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE proposal_products (
  id text NOT NULL,
  proposal_id text NOT NULL,
  product_id text NOT NULL,
  quantity integer NOT NULL DEFAULT 1,
  unit_price numeric(12, 2) NOT NULL,
  discount numeric(5, 2) NOT NULL DEFAULT 0,
  total numeric(14, 2) NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE proposal_sections (
  id text NOT NULL,
  proposal_id text NOT NULL,
  position integer NOT NULL,
  title text NOT NULL,
  section_type text NOT NULL,
  body text NOT NULL,
  word_count integer NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE content (
  id text NOT NULL,
  title text NOT NULL,
  type text NOT NULL,
  category text NOT NULL,
  is_active boolean NOT NULL DEFAULT true,
  body text NOT NULL,
  tags text[] NOT NULL DEFAULT '{}',
  quality_score double precision,
  usage_count integer NOT NULL DEFAULT 0,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE approval_workflows (
  id text NOT NULL,
  name text NOT NULL,
  entity_type text NOT NULL,
  stages jsonb NOT NULL DEFAULT '[]',
  sla_hours integer,
  is_active boolean NOT NULL DEFAULT true,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE approval_executions (
  id text NOT NULL,
  workflow_id text NOT NULL,
  proposal_id text NOT NULL,
  status text NOT NULL DEFAULT 'PENDING',
  current_stage integer NOT NULL DEFAULT 1,
  initiated_by text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz,
  comments text
);

CREATE TABLE validation_rules (
  id text NOT NULL,
  code text NOT NULL,
  name text NOT NULL,
  category text NOT NULL,
  is_active boolean NOT NULL DEFAULT true
);

CREATE TABLE validation_issues (
  id text NOT NULL,
  rule_id text NOT NULL,
  entity_type text NOT NULL,
  entity_id text NOT NULL,
  severity text NOT NULL,
  status text NOT NULL DEFAULT 'OPEN',
  message text NOT NULL,
  detected_at timestamptz NOT NULL DEFAULT now(),
  resolved_at timestamptz,
  resolved_by text
);

CREATE TABLE hypothesis_validation_events (
  id text NOT NULL,
  user_id text NOT NULL,
  hypothesis text NOT NULL,
  component text NOT NULL,
  action text NOT NULL,
  target_value double precision NOT NULL,
  actual_value double precision,
  performance_improvement double precision,
  measurement_data jsonb NOT NULL DEFAULT '{}',
  timestamp timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE performance_baselines (
  id text NOT NULL,
  hypothesis text NOT NULL,
  metric_name text NOT NULL,
  baseline_value double precision NOT NULL,
  target_improvement double precision NOT NULL,
  sample_size integer NOT NULL,
  environment text NOT NULL,
  collection_date timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE audit_logs (
  id text NOT NULL,
  user_id text,
  action text NOT NULL,
  entity text NOT NULL,
  entity_id text NOT NULL,
  changes jsonb,
  ip_address inet,
  user_agent text,
  success boolean NOT NULL DEFAULT true,
  timestamp timestamptz NOT NULL DEFAULT now()
);

-- section: indexes users
ALTER TABLE users ADD CONSTRAINT users_pkey PRIMARY KEY (id);
ALTER TABLE users ADD CONSTRAINT users_email_key UNIQUE (email);
CREATE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_role ON users (role);
CREATE INDEX idx_users_department ON users (department);
CREATE INDEX idx_users_is_active ON users (is_active);
CREATE INDEX idx_users_last_login_at ON users (last_login_at);

-- section: indexes customers
ALTER TABLE customers ADD CONSTRAINT customers_pkey PRIMARY KEY (id);
CREATE INDEX idx_customers_name ON customers (name);
CREATE INDEX idx_customers_email ON customers (email);
CREATE INDEX idx_customers_industry ON customers (industry);
CREATE INDEX idx_customers_tier ON customers (tier);
CREATE INDEX idx_customers_tier_status ON customers (tier, status);
CREATE INDEX idx_customers_status ON customers (status);
CREATE INDEX idx_customers_account_owner ON customers (account_owner_id);
CREATE INDEX idx_customers_created_at ON customers (created_at);

-- section: indexes customer_contacts
ALTER TABLE customer_contacts ADD CONSTRAINT customer_contacts_pkey PRIMARY KEY (id);
ALTER TABLE customer_contacts ADD CONSTRAINT customer_contacts_customer_id_email_key UNIQUE (customer_id, email);
CREATE INDEX idx_customer_contacts_customer ON customer_contacts (customer_id);
CREATE INDEX idx_customer_contacts_email ON customer_contacts (email);

-- section: indexes products
ALTER TABLE products ADD CONSTRAINT products_pkey PRIMARY KEY (id);
ALTER TABLE products ADD CONSTRAINT products_sku_key UNIQUE (sku);
CREATE INDEX idx_products_name ON products (name);
CREATE INDEX idx_products_category ON products (category);
CREATE INDEX idx_products_category_active ON products (category, is_active);
CREATE INDEX idx_products_price ON products (price);

-- section: indexes product_relationships
ALTER TABLE product_relationships ADD CONSTRAINT product_relationships_pkey PRIMARY KEY (id);
ALTER TABLE product_relationships ADD CONSTRAINT product_relationships_source_target_type_key
  UNIQUE (source_product_id, target_product_id, type);
CREATE INDEX idx_product_relationships_target ON product_relationships (target_product_id);

-- section: indexes proposals
ALTER TABLE proposals ADD CONSTRAINT proposals_pkey PRIMARY KEY (id);
CREATE INDEX idx_proposals_status ON proposals (status);
CREATE INDEX idx_proposals_customer ON proposals (customer_id);
CREATE INDEX idx_proposals_created_at ON proposals (created_at);
CREATE INDEX idx_proposals_created_by ON proposals (created_by);
CREATE INDEX idx_proposals_assigned_to ON proposals (assigned_to);
CREATE INDEX idx_proposals_due_date ON proposals (due_date);
CREATE INDEX idx_proposals_priority ON proposals (priority);
CREATE INDEX idx_proposals_priority_due_date ON proposals (priority, due_date);
CREATE INDEX idx_proposals_approved_at ON proposals (approved_at);
CREATE INDEX idx_proposals_title_lower ON proposals (lower(title));

-- section: indexes proposal_products
ALTER TABLE proposal_products ADD CONSTRAINT proposal_products_pkey PRIMARY KEY (id);
ALTER TABLE proposal_products ADD CONSTRAINT proposal_products_proposal_id_product_id_key
  UNIQUE (proposal_id, product_id);
CREATE INDEX idx_proposal_products_proposal ON proposal_products (proposal_id);
CREATE INDEX idx_proposal_products_product ON proposal_products (product_id);

-- section: indexes proposal_sections
ALTER TABLE proposal_sections ADD CONSTRAINT proposal_sections_pkey PRIMARY KEY (id);
ALTER TABLE proposal_sections ADD CONSTRAINT proposal_sections_proposal_id_position_key UNIQUE (proposal_id, position);
CREATE INDEX idx_proposal_sections_type ON proposal_sections (section_type);

-- section: indexes content
ALTER TABLE content ADD CONSTRAINT content_pkey PRIMARY KEY (id);
CREATE INDEX idx_content_type ON content (type);
CREATE INDEX idx_content_category ON content (category);
CREATE INDEX idx_content_is_active ON content (is_active);
CREATE INDEX idx_content_created_at ON content (created_at);
CREATE INDEX idx_content_created_by ON content (created_by);
CREATE INDEX idx_content_quality_score ON content (quality_score);
CREATE INDEX idx_content_tags ON content USING gin (tags);

-- section: indexes approval_workflows
ALTER TABLE approval_workflows ADD CONSTRAINT approval_workflows_pkey PRIMARY KEY (id);
ALTER TABLE approval_workflows ADD CONSTRAINT approval_workflows_name_key UNIQUE (name);
CREATE INDEX idx_approval_workflows_entity_type ON approval_workflows (entity_type);
CREATE INDEX idx_approval_workflows_is_active ON approval_workflows (is_active);

-- section: indexes approval_executions
ALTER TABLE approval_executions ADD CONSTRAINT approval_executions_pkey PRIMARY KEY (id);
CREATE INDEX idx_approval_executions_status ON approval_executions (status);
CREATE INDEX idx_approval_executions_workflow ON approval_executions (workflow_id);
CREATE INDEX idx_approval_executions_proposal ON approval_executions (proposal_id);
CREATE INDEX idx_approval_executions_initiated_by ON approval_executions (initiated_by);
CREATE INDEX idx_approval_executions_started_at ON approval_executions (started_at);

-- section: indexes validation_rules
ALTER TABLE validation_rules ADD CONSTRAINT validation_rules_pkey PRIMARY KEY (id);
ALTER TABLE validation_rules ADD CONSTRAINT validation_rules_code_key UNIQUE (code);
CREATE INDEX idx_validation_rules_category ON validation_rules (category);

-- section: indexes validation_issues
ALTER TABLE validation_issues ADD CONSTRAINT validation_issues_pkey PRIMARY KEY (id);
CREATE INDEX idx_validation_issues_rule ON validation_issues (rule_id);
CREATE INDEX idx_validation_issues_entity_id ON validation_issues (entity_id);
CREATE INDEX idx_validation_issues_entity_type ON validation_issues (entity_type);
CREATE INDEX idx_validation_issues_severity ON validation_issues (severity);
CREATE INDEX idx_validation_issues_status ON validation_issues (status);
CREATE INDEX idx_validation_issues_detected_at ON validation_issues (detected_at);

-- section: indexes hypothesis_validation_events
ALTER TABLE hypothesis_validation_events ADD CONSTRAINT hypothesis_validation_events_pkey PRIMARY KEY (id);
CREATE INDEX idx_hypothesis_events_user ON hypothesis_validation_events (user_id);
CREATE INDEX idx_hypothesis_events_hypothesis ON hypothesis_validation_events (hypothesis);
CREATE INDEX idx_hypothesis_events_timestamp ON hypothesis_validation_events (timestamp);

-- section: indexes performance_baselines
ALTER TABLE performance_baselines ADD CONSTRAINT performance_baselines_pkey PRIMARY KEY (id);
CREATE INDEX idx_performance_baselines_hypothesis ON performance_baselines (hypothesis);
CREATE INDEX idx_performance_baselines_metric ON performance_baselines (metric_name);
CREATE INDEX idx_performance_baselines_collected ON performance_baselines (collection_date);

-- section: indexes audit_logs
ALTER TABLE audit_logs ADD CONSTRAINT audit_logs_pkey PRIMARY KEY (id);
CREATE INDEX idx_audit_logs_user ON audit_logs (user_id);
CREATE INDEX idx_audit_logs_action ON audit_logs (action);
CREATE INDEX idx_audit_logs_entity_id ON audit_logs (entity_id);
CREATE INDEX idx_audit_logs_timestamp ON audit_logs (timestamp);

-- section: foreign keys
ALTER TABLE customers ADD CONSTRAINT customers_account_owner_id_fkey
  FOREIGN KEY (account_owner_id) REFERENCES users (id) ON DELETE SET NULL NOT VALID;
ALTER TABLE customer_contacts ADD CONSTRAINT customer_contacts_customer_id_fkey
  FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE product_relationships ADD CONSTRAINT product_relationships_source_product_id_fkey
  FOREIGN KEY (source_product_id) REFERENCES products (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE product_relationships ADD CONSTRAINT product_relationships_target_product_id_fkey
  FOREIGN KEY (target_product_id) REFERENCES products (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE proposals ADD CONSTRAINT proposals_customer_id_fkey
  FOREIGN KEY (customer_id) REFERENCES customers (id) NOT VALID;
ALTER TABLE proposals ADD CONSTRAINT proposals_created_by_fkey
  FOREIGN KEY (created_by) REFERENCES users (id) NOT VALID;
ALTER TABLE proposals ADD CONSTRAINT proposals_assigned_to_fkey
  FOREIGN KEY (assigned_to) REFERENCES users (id) ON DELETE SET NULL NOT VALID;
ALTER TABLE proposal_products ADD CONSTRAINT proposal_products_proposal_id_fkey
  FOREIGN KEY (proposal_id) REFERENCES proposals (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE proposal_products ADD CONSTRAINT proposal_products_product_id_fkey
  FOREIGN KEY (product_id) REFERENCES products (id) NOT VALID;
ALTER TABLE proposal_sections ADD CONSTRAINT proposal_sections_proposal_id_fkey
  FOREIGN KEY (proposal_id) REFERENCES proposals (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE content ADD CONSTRAINT content_created_by_fkey
  FOREIGN KEY (created_by) REFERENCES users (id) NOT VALID;
ALTER TABLE approval_workflows ADD CONSTRAINT approval_workflows_created_by_fkey
  FOREIGN KEY (created_by) REFERENCES users (id) NOT VALID;
ALTER TABLE approval_executions ADD CONSTRAINT approval_executions_workflow_id_fkey
  FOREIGN KEY (workflow_id) REFERENCES approval_workflows (id) NOT VALID;
ALTER TABLE approval_executions ADD CONSTRAINT approval_executions_proposal_id_fkey
  FOREIGN KEY (proposal_id) REFERENCES proposals (id) ON DELETE CASCADE NOT VALID;
ALTER TABLE approval_executions ADD CONSTRAINT approval_executions_initiated_by_fkey
  FOREIGN KEY (initiated_by) REFERENCES users (id) NOT VALID;
ALTER TABLE validation_issues ADD CONSTRAINT validation_issues_rule_id_fkey
  FOREIGN KEY (rule_id) REFERENCES validation_rules (id) NOT VALID;
ALTER TABLE validation_issues ADD CONSTRAINT validation_issues_resolved_by_fkey
  FOREIGN KEY (resolved_by) REFERENCES users (id) ON DELETE SET NULL NOT VALID;
ALTER TABLE hypothesis_validation_events ADD CONSTRAINT hypothesis_validation_events_user_id_fkey
  FOREIGN KEY (user_id) REFERENCES users (id) NOT VALID;
ALTER TABLE audit_logs ADD CONSTRAINT audit_logs_user_id_fkey
  FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL NOT VALID;

-- section: validate customers
ALTER TABLE customers VALIDATE CONSTRAINT customers_account_owner_id_fkey;

-- section: validate customer_contacts
ALTER TABLE customer_contacts VALIDATE CONSTRAINT customer_contacts_customer_id_fkey;

-- section: validate product_relationships
ALTER TABLE product_relationships VALIDATE CONSTRAINT product_relationships_source_product_id_fkey;
ALTER TABLE product_relationships VALIDATE CONSTRAINT product_relationships_target_product_id_fkey;

-- section: validate proposals
ALTER TABLE proposals VALIDATE CONSTRAINT proposals_customer_id_fkey;
ALTER TABLE proposals VALIDATE CONSTRAINT proposals_created_by_fkey;
ALTER TABLE proposals VALIDATE CONSTRAINT proposals_assigned_to_fkey;

-- section: validate proposal_products
ALTER TABLE proposal_products VALIDATE CONSTRAINT proposal_products_proposal_id_fkey;
ALTER TABLE proposal_products VALIDATE CONSTRAINT proposal_products_product_id_fkey;

-- section: validate proposal_sections
ALTER TABLE proposal_sections VALIDATE CONSTRAINT proposal_sections_proposal_id_fkey;

-- section: validate content
ALTER TABLE content VALIDATE CONSTRAINT content_created_by_fkey;

-- section: validate approval_workflows
ALTER TABLE approval_workflows VALIDATE CONSTRAINT approval_workflows_created_by_fkey;

-- section: validate approval_executions
ALTER TABLE approval_executions VALIDATE CONSTRAINT approval_executions_workflow_id_fkey;
ALTER TABLE approval_executions VALIDATE CONSTRAINT approval_executions_proposal_id_fkey;
ALTER TABLE approval_executions VALIDATE CONSTRAINT approval_executions_initiated_by_fkey;

-- section: validate validation_issues
ALTER TABLE validation_issues VALIDATE CONSTRAINT validation_issues_rule_id_fkey;
ALTER TABLE validation_issues VALIDATE CONSTRAINT validation_issues_resolved_by_fkey;

-- section: validate hypothesis_validation_events
ALTER TABLE hypothesis_validation_events VALIDATE CONSTRAINT hypothesis_validation_events_user_id_fkey;

-- section: validate audit_logs
ALTER TABLE audit_logs VALIDATE CONSTRAINT audit_logs_user_id_fkey;
