"""How rows become JSON: one function a kind of row. Reading an attribute here is what triggers a lazy load."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from playbook.service.models import ApprovalExecution, Content, Proposal, ProposalProduct, ValidationIssue


def encode(payload: Any) -> bytes:
    """`payload` as JSON, always the same bytes for the same values: decimals as text, moments in ISO 8601."""
    return json.dumps(payload, default=_plain, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in an answer")


def proposal(row: Proposal) -> dict[str, Any]:
    """As the list shows it: with customer, products and sections."""
    return {
        "id": row.id,
        "title": row.title,
        "status": row.status,
        "priority": row.priority,
        "value": row.value,
        "currency": row.currency,
        "due_date": row.due_date,
        "created_at": row.created_at,
        "customer": {"id": row.customer.id, "name": row.customer.name, "tier": row.customer.tier},
        "products": [_line(each) for each in row.products],
        "sections": [
            {"position": each.position, "title": each.title, "type": each.section_type, "words": each.word_count}
            for each in row.sections
        ],
    }


def proposal_in_full(row: Proposal) -> dict[str, Any]:
    """As its own page shows it: with people, contacts, texts and approvals too."""
    return {
        **proposal(row),
        "metadata": row.details,
        "created_by": row.creator.name,
        "assigned_to": row.assignee.name if row.assignee else None,
        "contacts": [
            {"name": each.name, "email": each.email, "role": each.role, "primary": each.is_primary}
            for each in row.customer.contacts
        ],
        "texts": [{"position": each.position, "body": each.body} for each in row.sections],
        "approvals": [
            {
                "id": each.id,
                "workflow": each.workflow.name,
                "status": each.status,
                "stage": each.current_stage,
                "initiated_by": each.initiator.name,
                "started_at": each.started_at,
            }
            for each in row.approvals
        ],
    }


def _line(row: ProposalProduct) -> dict[str, Any]:
    return {
        "sku": row.product.sku,
        "name": row.product.name,
        "quantity": row.quantity,
        "unit_price": row.unit_price,
        "discount": row.discount,
        "total": row.total,
    }


def content(row: Content) -> dict[str, Any]:
    """A hit of the content search."""
    return {
        "id": row.id,
        "title": row.title,
        "type": row.type,
        "category": row.category,
        "tags": row.tags,
        "quality": row.quality_score,
        "used": row.usage_count,
        "created_at": row.created_at,
        "created_by": row.creator.name,
    }


def approval(row: ApprovalExecution) -> dict[str, Any]:
    """A row of an approver's queue."""
    return {
        "id": row.id,
        "status": row.status,
        "stage": row.current_stage,
        "stages": row.workflow.stages,
        "workflow": row.workflow.name,
        "sla_hours": row.workflow.sla_hours,
        "proposal": {"id": row.proposal.id, "title": row.proposal.title, "value": row.proposal.value},
        "customer": row.proposal.customer.name,
        "initiated_by": row.initiator.name,
        "started_at": row.started_at,
        "comments": row.comments,
    }


def issue(row: ValidationIssue, entity: str | None) -> dict[str, Any]:
    """A row of the validation page; `entity` names what it speaks of."""
    return {
        "id": row.id,
        "rule": row.rule.code,
        "category": row.rule.category,
        "entity_id": row.entity_id,
        "entity": entity,
        "severity": row.severity,
        "status": row.status,
        "message": row.message,
        "detected_at": row.detected_at,
        "resolved_by": row.resolver.name if row.resolver else None,
    }


def total(row: Any) -> dict[str, Any]:
    """All proposals of one status."""
    status, proposals, value = row
    return {"status": status, "proposals": proposals, "value": value}


def daily(row: Any) -> dict[str, Any]:
    """The proposals of one day and status."""
    day, *rest, average = row
    return {"day": day.date(), **total(rest), "average": average}


def result(row: Any) -> dict[str, Any]:
    """One user's results for a hypothesis."""
    name, department, measured, target, actual, reached = row
    return {
        "user": name,
        "department": department,
        "measured": measured,
        "target": target,
        "actual": actual,
        "reached": reached,
    }


def baseline(row: Any) -> dict[str, Any]:
    """The latest baseline of one metric."""
    metric, value, improvement, environment, collected = row
    return {
        "metric": metric,
        "value": value,
        "target_improvement": improvement,
        "environment": environment,
        "collected": collected,
    }
