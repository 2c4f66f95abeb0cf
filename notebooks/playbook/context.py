"""What every step of one opening works with: target, plan, catalog, journal, and who is told of progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg

from playbook.changes import kinds
from playbook.errors import Busy, Interrupted, Unsupported, one_line
from playbook.file_store import FileStore
from playbook.journal import Journal
from playbook.plan import model
from playbook.plan.mapping import check_use
from playbook.plan.model import Plan
from playbook.plan.names import Names
from playbook.saved import SavedPlan
from playbook.saved import read as read_saved
from playbook.settings import Settings
from playbook.target import catalog as catalogs
from playbook.target.catalog import Catalog
from playbook.target.connect import Target
from playbook.target.execute import LockPolicy
from playbook.target.opening import open_target
from playbook.target.sessions import Sessions
from playbook.target_store import TargetStore

if TYPE_CHECKING:
    from playbook.service.standing import Standing

Progress = Callable[[str], None]


def silent(text: str) -> None:
    """Progress that nobody asked for."""


@dataclass
class Context:
    """`saved` is the plan as it was reviewed, where the run is held to one."""

    settings: Settings
    target: Target
    plan: Plan
    catalog: Catalog
    names: Names
    journal: Journal
    sessions: Sessions
    policy: LockPolicy = field(default_factory=LockPolicy)
    progress: Progress = silent
    saved: SavedPlan | None = None
    _held: list[psycopg.Connection[Any]] = field(default_factory=list, repr=False)

    @property
    def run_id(self) -> str:
        """The run that all this belongs to."""
        return self.settings.run_id

    @property
    def shows_values(self) -> bool:
        """Whether values of the target's rows may stand in outputs: on the sample, or where they were asked for."""
        return self.target.embedded or self.settings.show_values

    @cached_property
    def services(self) -> Standing:
        """The reference services on the embedded sample, for as long as this context is in use."""
        # Imported here: the ORM takes a third of a second to load, and most commands need none.
        from playbook.service.standing import Standing

        return Standing(self.target)

    def close(self) -> None:
        """Ends the services that were started; what is wanted later is started anew."""
        if "services" in vars(self):
            self.services.close()

    def connect(self) -> psycopg.Connection[Any]:
        """A session named after the run, so that whoever meets it in pg_stat_activity knows it."""
        return self.sessions.connect()

    def refresh(self) -> None:
        """Reads the catalog anew."""
        with self.connect() as connection:
            self.catalog = catalogs.read(connection)
        self.names = Names(self.catalog, self.settings.map, self.plan.map)

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Holds the target for this process: `apply` while statements run, `run` for a whole headless run.

        While statements run, sessions are used again.

        Raises:
            Busy: another process holds it; the message says who.
            Unsupported: nothing can be changed there; see `check_changeable`.
        """
        check_changeable(self.target)
        with self.connect() as connection:
            key = [f"playbook {what}"]
            row = connection.execute("SELECT pg_try_advisory_lock(hashtext('playbook'), hashtext(%s))", key).fetchone()
            if not (row and row[0]):
                raise Busy(f"{self.target.label} is held by {_holder(connection, key)}; wait for it or stop it")
            connection.execute(
                "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
            )
            self._held.append(connection)
            try:
                with self.sessions.kept() if what == "apply" else nullcontext():
                    yield
            finally:
                self._held.remove(connection)

    def ensure_held(self) -> None:
        """Asked before each statement, since the lock goes with its connection: a server that restarts drops it.

        Raises:
            Interrupted: the lock is lost.
        """
        try:
            for connection in self._held:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            raise Interrupted(
                f"the lock that keeps other runs away was lost with its connection ({one_line(error)}); run again to "
                "go on"
            ) from error


def open_context(settings: Settings, progress: Progress = silent) -> Context:
    """Reads the plan, connects, takes one snapshot of the catalog and resolves names; changes nothing.

    Raises:
        PlanError, TargetError, UsageError: each with its remedy; steps that may be applied on a target on which nothing
            can be changed are refused here, before any work is done in vain.
    """
    plan = model.load(settings.plan, {name: kind.Spec for name, kind in kinds().items()})
    target = open_target(settings.target, settings.scale, progress)
    if settings.applies:
        check_changeable(target)
    with target.connect() as connection:
        catalog = catalogs.read(connection)
    sessions = Sessions(target, f"playbook {settings.run_id}"[:63])
    store = FileStore(settings.journal, target.connect) if settings.journal else TargetStore(sessions.connect)
    names = Names(catalog, settings.map, plan.map)
    names.check_mapping()
    check_use(settings.map, plan, catalog)
    saved = read_saved(settings.saved) if settings.saved else None
    journal = Journal(store, plan.name)
    return Context(settings, target, plan, catalog, names, journal, sessions, progress=progress, saved=saved)


def check_changeable(target: Target) -> None:
    """Refuses a target on which nothing can be changed safely, or at all.

    Raises:
        Unsupported: a transaction pooler stands in between, where no lock of a session would hold; or it is a standby.
    """
    server = target.server
    if server is not None and server.pooled:
        raise Unsupported(
            f"{target.label} is reached through a transaction pooler, in which locks and settings do not hold; name "
            "the database's direct URL to apply anything"
        )
    if server is not None and server.standby:
        raise Unsupported(f"{target.label} is a standby, which is read-only; name the primary to apply anything")


def _holder(connection: psycopg.Connection[Any], key: list[str]) -> str:
    row = connection.execute(
        "SELECT l.pid, a.application_name, a.client_addr::text, a.backend_start::timestamp(0)::text "
        "FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = hashtext('playbook')::oid "
        "AND l.objid = hashtext(%s)::oid",
        key,
    ).fetchone()
    if row is None:
        return "another run that has just ended"
    pid, application, address, since = row
    return f"{application or 'another run'} (backend {pid}, from {address or 'this machine'}, since {since} UTC)"
