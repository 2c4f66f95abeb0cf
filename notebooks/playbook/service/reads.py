"""What each endpoint reads, as the plan found it and optimized; both answer the same JSON.

As found, what belongs to a row is asked for row by row: lazy loads, `session.get` and statements in loops. With the
switch `eager_load` the same comes with one statement, or one for each relationship, and `raiseload` turns a lazy load
that was forgotten into an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel
from sqlalchemy import Numeric, Select, cast, func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session
from sqlalchemy.orm.interfaces import ORMOption

from playbook.service import eager, views
from playbook.service.filters import (
    ApprovalFilters,
    ContentFilters,
    DashboardFilters,
    IssueFilters,
    ProposalFilters,
    ResultFilters,
)
from playbook.service.models import (
    ApprovalExecution,
    ApprovalWorkflow,
    Base,
    Content,
    Customer,
    HypothesisEvent,
    PerformanceBaseline,
    Product,
    Proposal,
    User,
    ValidationIssue,
)
from playbook.service.parts import Part
from playbook.service.switches import Switches


class NotThere(LookupError):
    """There is no row of that key; the service answers 404."""


@dataclass(frozen=True)
class Endpoint:
    """One thing that can be read: `find(session, switches, filters, key)` answers what JSON can hold.

    `tables` are those that the answer depends on, and `parts` say for each one that the service writes, on what of it.
    `sample_filters` and `sample_key` make an example that has an answer on the sample of any scale.
    """

    name: str
    path: str
    tables: tuple[str, ...]
    find: Callable[[Session, Switches, Any, str], Any]
    sample_filters: BaseModel | None = None
    sample_key: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def example(self) -> str:
        """`/proposals?limit=50`."""
        given = self.sample_filters.model_dump(exclude_unset=True) if self.sample_filters else {}
        query = f"?{urlencode(given)}" if given else ""
        return self.path.replace("{key}", self.sample_key) + query

    def read(self, session: Session, switches: Switches, filters: Any, key: str) -> Any:
        """What JSON can hold, read in the way of the techniques that are on."""

        def find() -> Any:
            return self.find(session, switches, filters, key)

        for technique in switches.techniques():
            if read := technique.reads.get(self.path):
                return read(session, filters, key, find)
        return find()

    def read_example(self, session: Session, switches: Switches) -> Any:
        """What the example answers, without HTTP."""
        return self.read(session, switches, self.sample_filters, self.sample_key)


PROPOSAL_LIST_OPTIONS = eager.options(Proposal, ("customer", "products.product", "sections"), ("sections.body",))
PROPOSAL_DETAIL_OPTIONS = eager.options(
    Proposal,
    (
        *("customer.contacts", "creator", "assignee", "products.product", "sections"),
        *("approvals.workflow", "approvals.initiator"),
    ),
)
CONTENT_OPTIONS = eager.options(Content, ("creator",))
APPROVAL_OPTIONS = eager.options(ApprovalExecution, ("workflow", "initiator", "proposal.customer"))
ISSUE_OPTIONS = eager.options(ValidationIssue, ("rule", "resolver"))
# The column that names a row of each kind of entity that an issue may speak of.
ENTITY_NAMES: Mapping[str, tuple[type[Base], str]] = {
    "PROPOSAL": (Proposal, "title"),
    "CONTENT": (Content, "title"),
    "PRODUCT": (Product, "name"),
    "CUSTOMER": (Customer, "name"),
    "WORKFLOW": (ApprovalWorkflow, "name"),
}


def list_proposals(session: Session, switches: Switches, filters: ProposalFilters, _: str) -> Any:
    """The latest proposals that match, each with its customer, products and sections."""
    asked = {
        Proposal.status: filters.status,
        Proposal.customer_id: filters.customer_id,
        Proposal.priority: filters.priority,
    }
    query = select(Proposal).where(*(column == value for column, value in asked.items() if value is not None))
    if filters.min_value is not None:
        query = query.where(Proposal.value >= filters.min_value)
    query = _page(query.order_by(Proposal.created_at.desc(), Proposal.id), filters)
    found = session.scalars(query.options(*_eager(switches, PROPOSAL_LIST_OPTIONS)))
    return {"proposals": [views.proposal(each) for each in found]}


def show_proposal(session: Session, switches: Switches, _: None, key: str) -> Any:
    """One proposal with all that belongs to it."""
    query = select(Proposal).where(Proposal.id == key).options(*_eager(switches, PROPOSAL_DETAIL_OPTIONS))
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotThere(f"there is no proposal {key}")
    return views.proposal_in_full(found)


def show_dashboard(session: Session, switches: Switches, filters: DashboardFilters, _: str) -> Any:
    """How many proposals of what value stand in each status, and by day."""
    day = func.date_trunc("day", Proposal.created_at, "UTC")
    newest = session.scalar(select(func.max(day)))
    daily = (
        session.execute(
            select(day.label("day"), Proposal.status, *_sums(), func.round(func.avg(Proposal.value), 2))
            .where(Proposal.created_at >= newest - timedelta(days=filters.days - 1))
            .group_by(day, Proposal.status)
            .order_by(day.desc(), Proposal.status)
        )
        if newest
        else []
    )
    totals: Iterable[Any]
    if "eager_load" in switches:
        totals = session.execute(select(Proposal.status, *_sums()).group_by(Proposal.status).order_by(Proposal.status))
    else:
        statuses = session.scalars(select(Proposal.status).distinct().order_by(Proposal.status)).all()
        totals = [
            (status, *session.execute(select(*_sums()).where(Proposal.status == status)).one()) for status in statuses
        ]
    return {"totals": [views.total(row) for row in totals], "daily": [views.daily(row) for row in daily]}


def search_content(session: Session, switches: Switches, filters: ContentFilters, _: str) -> Any:
    """The latest content that matches, with who made it."""
    query = select(Content).where(Content.is_active == filters.is_active)
    if filters.type is not None:
        query = query.where(Content.type == filters.type)
    if filters.category is not None:
        query = query.where(Content.category == filters.category)
    if filters.text:
        query = query.where(Content.title.icontains(filters.text, autoescape=True))
    query = _page(query.order_by(Content.created_at.desc(), Content.id), filters)
    found = session.scalars(query.options(*_eager(switches, CONTENT_OPTIONS)))
    return {"content": [views.content(each) for each in found]}


def list_approvals(session: Session, switches: Switches, filters: ApprovalFilters, _: str) -> Any:
    """An approver's queue: the latest executions, with workflow, proposal, customer and initiator."""
    query = select(ApprovalExecution).where(ApprovalExecution.status == filters.status)
    if filters.workflow_id is not None:
        query = query.where(ApprovalExecution.workflow_id == filters.workflow_id)
    query = _page(query.order_by(ApprovalExecution.started_at.desc(), ApprovalExecution.id), filters)
    found = session.scalars(query.options(*_eager(switches, APPROVAL_OPTIONS)))
    return {"approvals": [views.approval(each) for each in found]}


def list_issues(session: Session, switches: Switches, filters: IssueFilters, _: str) -> Any:
    """The latest validation issues, with rule, resolver and the name of the entity that they speak of."""
    query = select(ValidationIssue).where(
        ValidationIssue.entity_type == filters.entity_type, ValidationIssue.status == filters.status
    )
    if filters.severity is not None:
        query = query.where(ValidationIssue.severity == filters.severity)
    query = _page(query.order_by(ValidationIssue.detected_at.desc(), ValidationIssue.id), filters)
    found = session.scalars(query.options(*_eager(switches, ISSUE_OPTIONS))).all()
    names = _entity_names(session, switches, filters.entity_type, [each.entity_id for each in found])
    return {"issues": [views.issue(each, names.get(each.entity_id)) for each in found]}


def _entity_names(session: Session, switches: Switches, kind: str, keys: list[str]) -> dict[str, str]:
    if kind not in ENTITY_NAMES:
        return {}
    model, name = ENTITY_NAMES[kind]
    if "eager_load" in switches:
        key = model.__table__.c.id
        return {row[0]: row[1] for row in session.execute(select(key, getattr(model, name)).where(key.in_(keys)))}
    found = {key: session.get(model, key) for key in keys}
    return {key: getattr(entity, name) for key, entity in found.items() if entity is not None}


def show_results(session: Session, switches: Switches, filters: ResultFilters, key: str) -> Any:
    """What a hypothesis came to: its busiest users' results, and the latest baseline of each metric."""
    event = HypothesisEvent
    measured = (event.hypothesis == key, event.actual_value.is_not(None))
    # Averages of numeric are exact whatever order the rows come in; those of double precision are not.
    figures = (
        func.count().label("measured"),
        func.round(func.avg(cast(event.target_value, Numeric)), 4),
        func.round(func.avg(cast(event.actual_value, Numeric)), 4),
        func.count().filter(event.actual_value >= event.target_value),
    )
    busiest = [func.count().desc(), event.user_id]
    users: Iterable[Any]
    if "eager_load" in switches:
        users = session.execute(
            select(User.name, User.department, *figures)
            .join(User, User.id == event.user_id)
            .select_from(event)
            .where(*measured)
            .group_by(event.user_id, User.id)
            .order_by(*busiest)
            .limit(filters.users)
        )
    else:
        keys = session.scalars(
            select(event.user_id).where(*measured).group_by(event.user_id).order_by(*busiest).limit(filters.users)
        ).all()
        users = [_result_of_user(session, user_id, figures, measured) for user_id in keys]
    return {
        "hypothesis": key,
        "users": [views.result(row) for row in users],
        "baselines": [views.baseline(row) for row in _baselines(session, switches, key)],
    }


def _result_of_user(session: Session, user_id: str, figures: tuple[Any, ...], measured: tuple[Any, ...]) -> Any:
    user = session.get_one(User, user_id)
    row = session.execute(select(*figures).where(*measured, HypothesisEvent.user_id == user_id)).one()
    return (user.name, user.department, *row)


def _baselines(session: Session, switches: Switches, hypothesis: str) -> list[Any]:
    baseline = PerformanceBaseline
    columns = (
        baseline.metric_name,
        baseline.baseline_value,
        baseline.target_improvement,
        baseline.environment,
        baseline.collection_date,
    )
    if "eager_load" in switches:
        latest = (
            select(*columns)
            .ext(distinct_on(baseline.metric_name))
            .where(baseline.hypothesis == hypothesis)
            .order_by(baseline.metric_name, baseline.collection_date.desc(), baseline.id)
        )
        return list(session.execute(latest))
    metrics = session.scalars(
        select(baseline.metric_name).where(baseline.hypothesis == hypothesis).distinct().order_by(baseline.metric_name)
    ).all()
    latest_of_metric = text(
        "SELECT metric_name, baseline_value, target_improvement, environment, collection_date "
        "FROM performance_baselines WHERE hypothesis = :hypothesis AND metric_name = :metric "
        "ORDER BY collection_date DESC, id LIMIT 1"
    )
    return [session.execute(latest_of_metric, {"hypothesis": hypothesis, "metric": metric}).one() for metric in metrics]


def _sums() -> tuple[Any, ...]:
    return (
        func.count().label("proposals"),
        func.sum(Proposal.value).label("value"),
    )


def _page(query: Select[Any], filters: Any) -> Select[Any]:
    return query.limit(filters.limit).offset(filters.offset)


def _eager(switches: Switches, options: tuple[ORMOption, ...]) -> tuple[ORMOption, ...]:
    return options if "eager_load" in switches else ()


_PROPOSAL_TABLES = ("proposals", "customers", "proposal_products", "products", "proposal_sections")
_LISTED = frozenset({"id", "title", "value", "currency", "due_date", "created_at"})
PROPOSALS = Endpoint(
    "proposal list",
    "/proposals",
    _PROPOSAL_TABLES,
    list_proposals,
    ProposalFilters(limit=50),
    parts=(Part(Proposal, {"status": "status", "customer_id": "customer_id", "priority": "priority"}, _LISTED),),
)
PROPOSAL = Endpoint(
    "proposal detail",
    "/proposals/{key}",
    (*_PROPOSAL_TABLES, "customer_contacts", "users", "approval_executions", "approval_workflows"),
    show_proposal,
    sample_key="p0000010",
    parts=(Part(Proposal, {"id": "key"}), Part(ApprovalExecution, {"proposal_id": "key"})),
)
DASHBOARD = Endpoint(
    "analytics dashboard",
    "/dashboard",
    ("proposals",),
    show_dashboard,
    DashboardFilters(days=30),
    parts=(Part(Proposal, {}, frozenset({"created_at", "status", "value"})),),
)
CONTENT = Endpoint("content search", "/content", ("content", "users"), search_content, ContentFilters(limit=50))
APPROVALS = Endpoint(
    "approval queue",
    "/approvals",
    ("approval_executions", "approval_workflows", "proposals", "customers", "users"),
    list_approvals,
    ApprovalFilters(limit=50),
    parts=(
        Part(ApprovalExecution, {"status": "status", "workflow_id": "workflow_id"}),
        Part(Proposal, {}, frozenset({"id", "title", "value", "customer_id"})),
    ),
)
ISSUES = Endpoint(
    "validation issues",
    "/validation-issues",
    ("validation_issues", "validation_rules", "users", *(model.__tablename__ for model, _ in ENTITY_NAMES.values())),
    list_issues,
    IssueFilters(limit=50),
    parts=(
        Part(ValidationIssue, {"entity_type": "entity_type", "severity": "severity", "status": "status"}),
        Part(Proposal, {}, frozenset({"id", "title"})),
    ),
)
RESULTS = Endpoint(
    "hypothesis results",
    "/hypotheses/{key}/results",
    ("hypothesis_validation_events", "users", "performance_baselines"),
    show_results,
    ResultFilters(users=20),
    "H1",
)
ENDPOINTS = (PROPOSALS, PROPOSAL, DASHBOARD, CONTENT, APPROVALS, ISSUES, RESULTS)
