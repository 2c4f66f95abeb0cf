-- The proposals domain as Prisma's migrations leave it in a database that nobody named for this plan: columns in quoted
-- camelCase, enums, moments without a zone, some tables under their models' names (singular), the audit log under
-- another one, `performance_baselines` never made, and a schema `archive` that holds a table of the same name.
-- Run by the role that is to own it all. Every text of a row holds `canary`, so that a test can look for leaks.

CREATE TYPE "UserRole" AS ENUM ('ADMIN', 'MANAGER', 'SALES', 'VIEWER');
CREATE TYPE "CustomerTier" AS ENUM ('STANDARD', 'SILVER', 'GOLD', 'ENTERPRISE');
CREATE TYPE "ProposalStatus" AS ENUM ('DRAFT', 'SUBMITTED', 'IN_REVIEW', 'APPROVED', 'REJECTED', 'ACCEPTED');
CREATE TYPE "Priority" AS ENUM ('LOW', 'MEDIUM', 'HIGH', 'URGENT');
CREATE TYPE "SectionType" AS ENUM ('TEXT', 'PRODUCTS', 'TERMS');
CREATE TYPE "ContentType" AS ENUM ('TEMPLATE', 'TEXT_BLOCK', 'IMAGE', 'CONTRACT');
CREATE TYPE "RelationshipType" AS ENUM ('REQUIRES', 'RECOMMENDS', 'EXCLUDES');
CREATE TYPE "ExecutionStatus" AS ENUM ('PENDING', 'IN_PROGRESS', 'APPROVED', 'REJECTED');
CREATE TYPE "EntityType" AS ENUM ('PROPOSAL', 'CONTENT', 'PRODUCT');
CREATE TYPE "Severity" AS ENUM ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL');
CREATE TYPE "ValidationStatus" AS ENUM ('OPEN', 'RESOLVED', 'DISMISSED');
CREATE TYPE "HypothesisType" AS ENUM ('H1', 'H3', 'H4', 'H6', 'H7', 'H8');

CREATE TABLE "_prisma_migrations" (
  "id" VARCHAR(36) NOT NULL PRIMARY KEY,
  "checksum" VARCHAR(64) NOT NULL,
  "finished_at" TIMESTAMPTZ,
  "migration_name" VARCHAR(255) NOT NULL,
  "logs" TEXT,
  "rolled_back_at" TIMESTAMPTZ,
  "started_at" TIMESTAMPTZ NOT NULL DEFAULT now(),
  "applied_steps_count" INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE "users" (
  "id" TEXT NOT NULL,
  "email" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "role" "UserRole" NOT NULL DEFAULT 'VIEWER',
  "department" TEXT NOT NULL,
  "isActive" BOOLEAN NOT NULL DEFAULT true,
  "lastLoginAt" TIMESTAMP(3),
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" TIMESTAMP(3) NOT NULL,
  CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "customers" (
  "id" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "email" TEXT,
  "country" TEXT NOT NULL,
  "tier" "CustomerTier" NOT NULL DEFAULT 'STANDARD',
  "tags" TEXT[],
  "accountOwnerId" TEXT,
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" TIMESTAMP(3) NOT NULL,
  CONSTRAINT "customers_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "CustomerContact" (
  "id" TEXT NOT NULL,
  "customerId" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "email" TEXT NOT NULL,
  "isPrimary" BOOLEAN NOT NULL DEFAULT false,
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "CustomerContact_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "products" (
  "id" TEXT NOT NULL,
  "sku" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "category" TEXT[],
  "price" DECIMAL(65,30) NOT NULL,
  "isActive" BOOLEAN NOT NULL DEFAULT true,
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "products_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "ProductRelationship" (
  "id" TEXT NOT NULL,
  "sourceProductId" TEXT NOT NULL,
  "targetProductId" TEXT NOT NULL,
  "type" "RelationshipType" NOT NULL,
  CONSTRAINT "ProductRelationship_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "proposals" (
  "id" TEXT NOT NULL,
  "title" TEXT NOT NULL,
  "status" "ProposalStatus" NOT NULL DEFAULT 'DRAFT',
  "priority" "Priority" NOT NULL DEFAULT 'MEDIUM',
  "customerId" TEXT NOT NULL,
  "createdBy" TEXT NOT NULL,
  "assignedTo" TEXT,
  "value" DOUBLE PRECISION,
  "currency" TEXT NOT NULL DEFAULT 'USD',
  "dueDate" TIMESTAMP(3),
  "approvedAt" TIMESTAMP(3),
  "metadata" JSONB,
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "updatedAt" TIMESTAMP(3) NOT NULL,
  CONSTRAINT "proposals_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "ProposalProduct" (
  "id" TEXT NOT NULL,
  "proposalId" TEXT NOT NULL,
  "productId" TEXT NOT NULL,
  "quantity" INTEGER NOT NULL DEFAULT 1,
  "unitPrice" DOUBLE PRECISION NOT NULL,
  "total" DOUBLE PRECISION NOT NULL,
  CONSTRAINT "ProposalProduct_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "proposal_sections" (
  "id" TEXT NOT NULL,
  "proposalId" TEXT NOT NULL,
  "position" INTEGER NOT NULL,
  "title" TEXT NOT NULL,
  "sectionType" "SectionType" NOT NULL DEFAULT 'TEXT',
  "wordCount" INTEGER NOT NULL DEFAULT 0,
  CONSTRAINT "proposal_sections_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "content" (
  "id" TEXT NOT NULL,
  "title" TEXT NOT NULL,
  "type" "ContentType" NOT NULL,
  "category" TEXT[],
  "isActive" BOOLEAN NOT NULL DEFAULT true,
  "tags" TEXT[],
  "qualityScore" DOUBLE PRECISION,
  "usageCount" INTEGER NOT NULL DEFAULT 0,
  "createdBy" TEXT NOT NULL,
  "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "content_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "ApprovalWorkflow" (
  "id" TEXT NOT NULL,
  "name" TEXT NOT NULL,
  "entityType" "EntityType" NOT NULL,
  CONSTRAINT "ApprovalWorkflow_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "ApprovalExecution" (
  "id" TEXT NOT NULL,
  "workflowId" TEXT NOT NULL,
  "proposalId" TEXT NOT NULL,
  "status" "ExecutionStatus" NOT NULL DEFAULT 'PENDING',
  "currentStage" INTEGER NOT NULL DEFAULT 1,
  "initiatedBy" TEXT NOT NULL,
  "startedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "completedAt" TIMESTAMP(3),
  CONSTRAINT "ApprovalExecution_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "validation_issues" (
  "id" TEXT NOT NULL,
  "ruleId" TEXT NOT NULL,
  "entityType" "EntityType" NOT NULL,
  "entityId" TEXT NOT NULL,
  "severity" "Severity" NOT NULL,
  "status" "ValidationStatus" NOT NULL DEFAULT 'OPEN',
  "message" TEXT NOT NULL,
  "detectedAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  "resolvedAt" TIMESTAMP(3),
  CONSTRAINT "validation_issues_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "hypothesis_validation_events" (
  "id" TEXT NOT NULL,
  "userId" TEXT NOT NULL,
  "hypothesis" "HypothesisType" NOT NULL,
  "componentId" TEXT NOT NULL,
  "action" TEXT NOT NULL,
  "targetValue" DOUBLE PRECISION NOT NULL,
  "actualValue" DOUBLE PRECISION,
  "performanceImprovement" DOUBLE PRECISION,
  "timestamp" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "hypothesis_validation_events_pkey" PRIMARY KEY ("id")
);

CREATE TABLE "AuditTrail" (
  "id" TEXT NOT NULL,
  "userId" TEXT,
  "action" TEXT NOT NULL,
  "entity" TEXT NOT NULL,
  "entityId" TEXT NOT NULL,
  "changes" JSONB,
  "ipAddress" TEXT,
  "userAgent" TEXT,
  "success" BOOLEAN NOT NULL DEFAULT true,
  "timestamp" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
  CONSTRAINT "AuditTrail_pkey" PRIMARY KEY ("id")
);

-- What last year's proposals were moved to: the same name, off the search_path.
CREATE SCHEMA "archive";
CREATE TABLE "archive"."proposals" (LIKE "proposals" INCLUDING ALL);

-- Rows: a few thousand in all, the same every time, from 2024-01-01 on.

CREATE FUNCTION pg_temp.at(share float8) RETURNS timestamp(3) LANGUAGE sql IMMUTABLE AS
  $$SELECT timestamp '2024-01-01 00:00:00.737' + floor(share * 730 * 24 * 60) * interval '1 minute'$$;

INSERT INTO "users" SELECT 'canary-u' || n, 'canary' || n || '@example.com', 'Canary ' || n,
  (ARRAY['ADMIN', 'MANAGER', 'SALES', 'VIEWER'])[1 + n % 4]::"UserRole", 'canary-department-' || n % 5, n % 9 > 0,
  pg_temp.at(n / 25.0), pg_temp.at(0), pg_temp.at(n / 25.0)
FROM generate_series(1, 24) n;

INSERT INTO "customers" SELECT 'canary-c' || n, 'Canary Inc ' || n, 'canary-office' || n || '@example.com',
  'canary-country-' || n % 6, (ARRAY['STANDARD', 'STANDARD', 'SILVER', 'GOLD', 'ENTERPRISE'])[1 + n % 5]::"CustomerTier",
  ARRAY['canary-tag'], 'canary-u' || 1 + n % 24, pg_temp.at(0), pg_temp.at(n / 61.0)
FROM generate_series(1, 60) n;

INSERT INTO "CustomerContact" SELECT 'canary-k' || n, 'canary-c' || 1 + n % 60, 'Canary Contact ' || n,
  'canary-contact' || n || '@example.com', n <= 60, pg_temp.at(n / 121.0)
FROM generate_series(1, 120) n;

INSERT INTO "products" SELECT 'canary-d' || n, 'canary-sku-' || n, 'Canary Product ' || n,
  ARRAY['canary-category-' || n % 4], 10 + n * 7.31, n % 10 > 0, pg_temp.at(0)
FROM generate_series(1, 60) n;

INSERT INTO "ProductRelationship" SELECT 'canary-r' || n, 'canary-d' || n, 'canary-d' || 1 + n % 60,
  (ARRAY['REQUIRES', 'RECOMMENDS', 'EXCLUDES'])[1 + n % 3]::"RelationshipType"
FROM generate_series(1, 60) n;

-- Three of them break the rule that values are positive.
INSERT INTO "proposals" SELECT 'canary-p' || n, 'Canary proposal ' || n,
  (ARRAY['ACCEPTED', 'ACCEPTED', 'REJECTED', 'APPROVED', 'DRAFT', 'SUBMITTED', 'IN_REVIEW'])[1 + n * n % 7]::"ProposalStatus",
  (ARRAY['MEDIUM', 'MEDIUM', 'LOW', 'HIGH', 'URGENT'])[1 + n % 5]::"Priority",
  'canary-c' || 1 + (n * n * 7) % 60, 'canary-u' || 1 + n % 24, CASE WHEN n % 9 > 0 THEN 'canary-u' || 1 + n % 7 END,
  CASE WHEN n % 200 = 77 THEN -31415.926 WHEN n % 11 > 0 THEN n * 271.828 END, 'USD', pg_temp.at((n + 20) / 640.0),
  CASE WHEN n % 7 < 4 THEN pg_temp.at((n + 5) / 640.0) END, '{"source": "canary"}', pg_temp.at(n / 640.0),
  pg_temp.at((n + 9) / 640.0)
FROM generate_series(1, 600) n;

INSERT INTO "archive"."proposals" SELECT * FROM "proposals" WHERE "createdAt" < '2024-02-01';

INSERT INTO "ProposalProduct" SELECT 'canary-i' || n, 'canary-p' || 1 + n / 2, 'canary-d' || 1 + n % 60,
  1 + n % 20, 27.18 + n, (1 + n % 20) * (27.18 + n)
FROM generate_series(1, 1100) n;

INSERT INTO "proposal_sections" SELECT 'canary-s' || n, 'canary-p' || 1 + n / 3, n % 3, 'Canary section ' || n,
  (ARRAY['TEXT', 'TEXT', 'PRODUCTS', 'TERMS'])[1 + n % 4]::"SectionType", n % 700
FROM generate_series(1, 1200) n;

INSERT INTO "content" SELECT 'canary-t' || n, 'Canary content ' || n,
  (ARRAY['TEXT_BLOCK', 'TEXT_BLOCK', 'TEMPLATE', 'IMAGE', 'CONTRACT'])[1 + n % 5]::"ContentType",
  CASE WHEN n % 3 = 0 THEN ARRAY['canary-legal', 'canary-commercial'] ELSE ARRAY['canary-technical'] END, n % 6 > 0,
  ARRAY['canary-emea'], n % 100 / 10.0, n % 50, 'canary-u' || 1 + n % 24, pg_temp.at(n / 500.0)
FROM generate_series(1, 480) n;

INSERT INTO "ApprovalWorkflow" SELECT 'canary-w' || n, 'Canary workflow ' || n, 'PROPOSAL' FROM generate_series(1, 8) n;

INSERT INTO "ApprovalExecution" SELECT 'canary-x' || n, 'canary-w' || 1 + n * n % 8, 'canary-p' || 1 + n % 600,
  (ARRAY['APPROVED', 'APPROVED', 'APPROVED', 'REJECTED', 'PENDING', 'IN_PROGRESS'])[1 + n % 6]::"ExecutionStatus",
  1 + n % 3, 'canary-u' || 1 + n % 24, pg_temp.at(n / 910.0), CASE WHEN n % 6 < 4 THEN pg_temp.at((n + 7) / 910.0) END
FROM generate_series(1, 900) n;

INSERT INTO "validation_issues" SELECT 'canary-v' || n, 'canary-rule-' || n % 12,
  (ARRAY['PROPOSAL', 'PROPOSAL', 'CONTENT', 'PRODUCT'])[1 + n % 4]::"EntityType", 'canary-p' || n,
  (ARRAY['LOW', 'LOW', 'MEDIUM', 'HIGH', 'CRITICAL'])[1 + n % 5]::"Severity",
  (ARRAY['RESOLVED', 'RESOLVED', 'DISMISSED', 'OPEN'])[1 + n % 4]::"ValidationStatus", 'Canary issue ' || n,
  pg_temp.at(n / 1010.0), CASE WHEN n % 4 < 3 THEN pg_temp.at((n + 5) / 1010.0) END
FROM generate_series(1, 1000) n;

INSERT INTO "hypothesis_validation_events" SELECT 'canary-e' || n, 'canary-u' || 1 + n * n % 24,
  (ARRAY['H7', 'H7', 'H4', 'H1', 'H3', 'H6'])[1 + n % 6]::"HypothesisType", 'canary-component-' || n % 9, 'canary-action',
  n % 40, CASE WHEN n % 3 > 0 THEN n % 47 END, CASE WHEN n % 3 > 0 THEN n % 90 - 30 END, pg_temp.at(n / 2010.0)
FROM generate_series(1, 2000) n;

INSERT INTO "AuditTrail" SELECT 'canary-a' || n, CASE WHEN n % 20 > 0 THEN 'canary-u' || 1 + n * n % 24 END,
  'canary-' || (ARRAY['CREATE', 'UPDATE', 'UPDATE', 'DELETE', 'VIEW'])[1 + n % 5],
  'canary-' || (ARRAY['PROPOSAL', 'PROPOSAL', 'CONTENT', 'CUSTOMER'])[1 + n % 4], 'canary-p' || 1 + n % 300,
  CASE WHEN n % 4 > 0 THEN '{"field": "canary"}'::jsonb END, '192.0.2.' || n % 250, 'canary-agent', n % 50 > 0,
  pg_temp.at(n / 2510.0)
FROM generate_series(1, 2500) n;

-- Keys and indexes, as `@@unique` and `@@index` make them. One does already what an index of the plan would.

CREATE UNIQUE INDEX "users_email_key" ON "users"("email");
CREATE UNIQUE INDEX "products_sku_key" ON "products"("sku");
CREATE UNIQUE INDEX "ProposalProduct_proposalId_productId_key" ON "ProposalProduct"("proposalId", "productId");
CREATE UNIQUE INDEX "proposal_sections_proposalId_position_key" ON "proposal_sections"("proposalId", "position");
CREATE UNIQUE INDEX "validation_issues_entityType_severity_status_detectedAt_ent_key"
  ON "validation_issues"("entityType", "severity", "status", "detectedAt" DESC, "entityId");
CREATE INDEX "proposals_status_idx" ON "proposals"("status");
CREATE INDEX "proposals_customerId_idx" ON "proposals"("customerId");
CREATE INDEX "content_type_idx" ON "content"("type");
CREATE INDEX "content_category_idx" ON "content" USING GIN ("category");
CREATE INDEX "ApprovalExecution_workflowId_idx" ON "ApprovalExecution"("workflowId");
CREATE INDEX "hypothesis_validation_events_userId_idx" ON "hypothesis_validation_events"("userId");
CREATE INDEX "AuditTrail_userId_idx" ON "AuditTrail"("userId");
CREATE INDEX "AuditTrail_timestamp_idx" ON "AuditTrail"("timestamp");

ALTER TABLE "customers" ADD CONSTRAINT "customers_accountOwnerId_fkey"
  FOREIGN KEY ("accountOwnerId") REFERENCES "users"("id") ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE "CustomerContact" ADD CONSTRAINT "CustomerContact_customerId_fkey"
  FOREIGN KEY ("customerId") REFERENCES "customers"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "proposals" ADD CONSTRAINT "proposals_customerId_fkey"
  FOREIGN KEY ("customerId") REFERENCES "customers"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "proposals" ADD CONSTRAINT "proposals_createdBy_fkey"
  FOREIGN KEY ("createdBy") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "ProposalProduct" ADD CONSTRAINT "ProposalProduct_proposalId_fkey"
  FOREIGN KEY ("proposalId") REFERENCES "proposals"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "proposal_sections" ADD CONSTRAINT "proposal_sections_proposalId_fkey"
  FOREIGN KEY ("proposalId") REFERENCES "proposals"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "ApprovalExecution" ADD CONSTRAINT "ApprovalExecution_workflowId_fkey"
  FOREIGN KEY ("workflowId") REFERENCES "ApprovalWorkflow"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "ApprovalExecution" ADD CONSTRAINT "ApprovalExecution_proposalId_fkey"
  FOREIGN KEY ("proposalId") REFERENCES "proposals"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "hypothesis_validation_events" ADD CONSTRAINT "hypothesis_validation_events_userId_fkey"
  FOREIGN KEY ("userId") REFERENCES "users"("id") ON DELETE RESTRICT ON UPDATE CASCADE;
ALTER TABLE "AuditTrail" ADD CONSTRAINT "AuditTrail_userId_fkey"
  FOREIGN KEY ("userId") REFERENCES "users"("id") ON DELETE SET NULL ON UPDATE CASCADE;
