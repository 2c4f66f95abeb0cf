"""What the service writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from playbook.service.filters import Decision, ProposalChange, Resolution
from playbook.service.models import ApprovalExecution, Proposal, ValidationIssue
from playbook.service.reads import NotThere


@dataclass(frozen=True)
class Write:
    """One thing that can be written: `write(session, key, body)` changes rows and answers what JSON can hold."""

    path: str
    write: Callable[[Session, str, Any], Any]


def change_proposal(session: Session, key: str, body: ProposalChange) -> Any:
    """Sets the fields that are given."""
    proposal = _existing(session, Proposal, key)
    for name, value in body.model_dump(exclude_unset=True, exclude_none=True).items():
        setattr(proposal, name, value)
    proposal.updated_at = datetime.now(UTC)
    return {"id": key, "status": proposal.status, "priority": proposal.priority, "due_date": proposal.due_date}


def decide_approval(session: Session, key: str, body: Decision) -> Any:
    """Records what an approver decided."""
    execution = _existing(session, ApprovalExecution, key)
    execution.status = body.status
    execution.comments = body.comments if body.comments is not None else execution.comments
    execution.completed_at = None if body.status == "IN_PROGRESS" else datetime.now(UTC)
    return {"id": key, "status": body.status}


def resolve_issue(session: Session, key: str, body: Resolution) -> Any:
    """Records how an issue was settled."""
    issue = _existing(session, ValidationIssue, key)
    issue.status = body.status
    issue.resolved_at = None if body.status == "OPEN" else datetime.now(UTC)
    return {"id": key, "status": body.status}


def _existing(session: Session, model: type[Any], key: str) -> Any:
    found = session.get(model, key, with_for_update=True)
    if found is None:
        raise NotThere(f"there is no {model.__tablename__} row {key}")
    return found


CHANGE_PROPOSAL = Write("/proposals/{key}", change_proposal)
DECIDE_APPROVAL = Write("/approvals/{key}/decision", decide_approval)
RESOLVE_ISSUE = Write("/validation-issues/{key}/resolution", resolve_issue)
WRITES = (CHANGE_PROPOSAL, DECIDE_APPROVAL, RESOLVE_ISSUE)
