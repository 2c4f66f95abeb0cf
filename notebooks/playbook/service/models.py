"""The plan's domain as SQLAlchemy maps it. Every relationship is lazy unless a query says otherwise, as by default."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ARRAY, ForeignKey, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What all of them share: PostgreSQL's types for Python's."""

    type_annotation_map = {  # noqa: RUF012
        str: Text,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        list[str]: ARRAY(Text),
    }


class User(Base):
    """Somebody who works with proposals."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str]
    role: Mapped[str]
    department: Mapped[str]


class Customer(Base):
    """Who a proposal is for."""

    __tablename__ = "customers"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    industry: Mapped[str]
    country: Mapped[str]
    tier: Mapped[str]
    contacts: Mapped[list[CustomerContact]] = relationship(order_by="CustomerContact.id")


class CustomerContact(Base):
    """A person at a customer."""

    __tablename__ = "customer_contacts"
    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    name: Mapped[str]
    email: Mapped[str]
    role: Mapped[str | None]
    is_primary: Mapped[bool]


class Product(Base):
    """What is sold."""

    __tablename__ = "products"
    id: Mapped[str] = mapped_column(primary_key=True)
    sku: Mapped[str]
    name: Mapped[str]
    category: Mapped[str]
    price: Mapped[Decimal]
    currency: Mapped[str]


class Proposal(Base):
    """An offer to a customer."""

    __tablename__ = "proposals"
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    status: Mapped[str]
    priority: Mapped[str]
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    assigned_to: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    value: Mapped[Decimal | None]
    currency: Mapped[str]
    due_date: Mapped[datetime | None]
    approved_at: Mapped[datetime | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    customer: Mapped[Customer] = relationship()
    creator: Mapped[User] = relationship(foreign_keys=[created_by])
    assignee: Mapped[User | None] = relationship(foreign_keys=[assigned_to])
    products: Mapped[list[ProposalProduct]] = relationship(order_by="ProposalProduct.id")
    sections: Mapped[list[ProposalSection]] = relationship(order_by="ProposalSection.position")
    approvals: Mapped[list[ApprovalExecution]] = relationship(
        order_by="ApprovalExecution.id", back_populates="proposal"
    )


class ProposalProduct(Base):
    """One line of a proposal."""

    __tablename__ = "proposal_products"
    id: Mapped[str] = mapped_column(primary_key=True)
    proposal_id: Mapped[str] = mapped_column(ForeignKey("proposals.id"))
    product_id: Mapped[str] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int]
    unit_price: Mapped[Decimal]
    discount: Mapped[Decimal]
    total: Mapped[Decimal]
    product: Mapped[Product] = relationship()


class ProposalSection(Base):
    """One section of a proposal's text."""

    __tablename__ = "proposal_sections"
    id: Mapped[str] = mapped_column(primary_key=True)
    proposal_id: Mapped[str] = mapped_column(ForeignKey("proposals.id"))
    position: Mapped[int]
    title: Mapped[str]
    section_type: Mapped[str]
    body: Mapped[str]
    word_count: Mapped[int]


class Content(Base):
    """A piece of text or picture that proposals are made of."""

    __tablename__ = "content"
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    type: Mapped[str]
    category: Mapped[str]
    is_active: Mapped[bool]
    tags: Mapped[list[str]]
    quality_score: Mapped[float | None]
    usage_count: Mapped[int]
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]
    creator: Mapped[User] = relationship()


class ApprovalWorkflow(Base):
    """The way that an approval goes."""

    __tablename__ = "approval_workflows"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    entity_type: Mapped[str]
    stages: Mapped[list[Any]]
    sla_hours: Mapped[int | None]


class ApprovalExecution(Base):
    """One proposal on its way through a workflow."""

    __tablename__ = "approval_executions"
    id: Mapped[str] = mapped_column(primary_key=True)
    workflow_id: Mapped[str] = mapped_column(ForeignKey("approval_workflows.id"))
    proposal_id: Mapped[str] = mapped_column(ForeignKey("proposals.id"))
    status: Mapped[str]
    current_stage: Mapped[int]
    initiated_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    comments: Mapped[str | None]
    workflow: Mapped[ApprovalWorkflow] = relationship()
    proposal: Mapped[Proposal] = relationship(back_populates="approvals")
    initiator: Mapped[User] = relationship()


class ValidationRule(Base):
    """What is checked."""

    __tablename__ = "validation_rules"
    id: Mapped[str] = mapped_column(primary_key=True)
    code: Mapped[str]
    name: Mapped[str]
    category: Mapped[str]


class ValidationIssue(Base):
    """One breach of a rule. `entity_id` names a row of the table that `entity_type` says: no foreign key holds it."""

    __tablename__ = "validation_issues"
    id: Mapped[str] = mapped_column(primary_key=True)
    rule_id: Mapped[str] = mapped_column(ForeignKey("validation_rules.id"))
    entity_type: Mapped[str]
    entity_id: Mapped[str]
    severity: Mapped[str]
    status: Mapped[str]
    message: Mapped[str]
    detected_at: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    rule: Mapped[ValidationRule] = relationship()
    resolver: Mapped[User | None] = relationship()


class HypothesisEvent(Base):
    """One measurement of what a user did."""

    __tablename__ = "hypothesis_validation_events"
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    hypothesis: Mapped[str]
    target_value: Mapped[float]
    actual_value: Mapped[float | None]
    timestamp: Mapped[datetime]


class PerformanceBaseline(Base):
    """What a metric was before."""

    __tablename__ = "performance_baselines"
    id: Mapped[str] = mapped_column(primary_key=True)
    hypothesis: Mapped[str]
    metric_name: Mapped[str]
    baseline_value: Mapped[float]
    target_improvement: Mapped[float]
    environment: Mapped[str]
    collection_date: Mapped[datetime]
