"""Targets: how one is named, how it is connected to, what the server says of itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from playbook.errors import Unreachable, Unsupported, UsageError, one_line
from playbook.target import url as urls
from playbook.target.pooling import PooledConnection
from playbook.target.sql import OWN, literal

SUPPORTED = range(13, 19)
"""Major versions that are accepted."""
TESTED = (15, 16, 18)
"""Major versions that the project's own tests cover; others are named as untested at connect."""
CONNECT_TIMEOUT_S = 10
_SETTINGS = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "extra_float_digits": "1"}
"""What every session, or behind a pooler every transaction, works with."""


@dataclass(frozen=True)
class Server:
    """What the server said of itself at the first connection."""

    version: str
    version_num: int
    database: str
    user: str
    standby: bool
    pooled: bool

    @property
    def major(self) -> int:
        """The major version, 18 for 18.6."""
        return self.version_num // 10000

    @property
    def tested(self) -> bool:
        """Whether the project's own tests cover this major version."""
        return self.major in TESTED


@dataclass(frozen=True)
class Target:
    """The database worked on. Its `repr` shows no password and `label` is safe to print.

    `search_path` is a list of names as SQL has them, quoted.
    """

    spec: str
    conninfo: Mapping[str, Any] = field(repr=False)
    embedded: bool = False
    scale: float | None = None
    search_path: str | None = None
    server: Server | None = None
    lease: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """`user@host:port/database`, without a password."""
        if self.embedded:
            return f"embedded sample {self.conninfo.get('dbname')}"
        if service := self.conninfo.get("service"):
            return f"service {service}"
        host = self.conninfo.get("host") or os.environ.get("PGHOST", "localhost")
        host = f"[{host}]" if ":" in host and "," not in host else host
        port = self.conninfo.get("port") or os.environ.get("PGPORT", "5432")
        database = self.server.database if self.server else self.conninfo.get("dbname", "")
        user = self.server.user if self.server else self.conninfo.get("user", "")
        return f"{user}@{host}:{port}/{database}"

    def connect(
        self,
        *,
        autocommit: bool = True,
        application_name: str = "playbook",
        dbname: str | None = None,
        kind: type[psycopg.Connection[Any]] | None = None,
    ) -> psycopg.Connection[Any]:
        """A new session, times in UTC, statements never prepared on the server.

        Behind a transaction pooler nothing is SET on the session, since the next client would inherit it: there each
        transaction sets the same for itself, whatever `kind` of connection is asked for.

        Raises:
            Unreachable: no connection; the message says why and holds no password.
        """
        pooled = self.server is not None and self.server.pooled
        connection = self._open(autocommit, application_name, dbname, PooledConnection if pooled else kind)
        if isinstance(connection, PooledConnection):
            settings = {name: literal(text) for name, text in _SETTINGS.items()} | self._path
            connection.local = "; ".join(f"SET LOCAL {name} = {text}" for name, text in settings.items())
        else:
            self.settle(connection)
            if not autocommit:
                connection.commit()
        return connection

    def settle(self, connection: psycopg.Connection[Any]) -> None:
        """Sets what every session works with."""
        settings = _SETTINGS | self._path
        connection.execute(
            f"{OWN} " + ", ".join(["set_config(%s, %s, false)"] * len(settings)),
            [text for pair in settings.items() for text in pair],
        )

    @property
    def _path(self) -> dict[str, str]:
        return {"search_path": self.search_path} if self.search_path else {}

    def _open(
        self, autocommit: bool, application_name: str, dbname: str | None, kind: type[psycopg.Connection[Any]] | None
    ) -> psycopg.Connection[Any]:
        """A session on which nothing was done yet."""
        parameters: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **self.conninfo}
        parameters["application_name"] = application_name
        if dbname:
            parameters["dbname"] = dbname
        try:
            return (kind or psycopg.Connection).connect(**parameters, autocommit=autocommit, prepare_threshold=None)
        except (psycopg.Error, ValueError, OSError) as error:
            raise Unreachable(self._why_unreachable(str(error))) from None

    def _why_unreachable(self, cause: str) -> str:
        remedy = _remedy(cause)
        return f"cannot connect to {self.spec} ({self.label}): {scrub(one_line(cause), self.conninfo)}; {remedy}"


def parse(spec: str, environ: Mapping[str, str] = os.environ) -> Target:
    """The target that `spec` names, not yet connected to; `embedded` is not for this function.

    `env:NAME` (a URL in that environment variable) · `service:NAME` (pg_service.conf) · a URL without a password.

    Raises:
        UsageError: not one of these forms, the variable is not set, or the URL holds a password.
    """
    if spec.startswith("env:"):
        name = spec.removeprefix("env:")
        # Some loaders of .env files leave the quotes.
        if not (url := environ.get(name, "").strip().strip("'\"")):
            raise UsageError(f"target {spec}: the environment variable {name} is not set; set it to a database URL")
        return _from_url(spec, url)
    if spec.startswith("service:"):
        if not (service := spec.removeprefix("service:")):
            raise UsageError("target service: names no service; write service:NAME, a section of pg_service.conf")
        return Target(spec=spec, conninfo={"service": service})
    if "://" not in spec:
        raise UsageError(
            "the target is none of: embedded · env:NAME · service:NAME · postgresql://user@host/database; "
            "put a connection string into an environment variable and name it with env:"
        )
    target = _from_url("URL", spec)
    if urls.secrets_of(target.conninfo):
        raise UsageError(
            "the target URL holds a password, and a notebook's parameters are written into its output file: delete "
            "that file, change the password, put the URL into an environment variable and pass target=env:NAME"
        )
    return replace(target, spec=target.label)


def _from_url(spec: str, url: str) -> Target:
    conninfo, search_path = urls.read(spec, url)
    return Target(spec=spec, conninfo=conninfo, search_path=search_path)


def identify(target: Target) -> Target:
    """Connects once and returns the target with what its server says of itself.

    Raises:
        Unreachable: no connection.
        Unsupported: the server is older or newer than the versions accepted, or not PostgreSQL.
    """
    # Nothing is set on this session, since it may turn out to be somebody else's as well.
    with target._open(True, "playbook identify", None, None) as connection:
        try:
            row = connection.execute(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int, "
                "current_database()::text, current_user::text, pg_is_in_recovery(), pg_backend_pid(), version()"
            ).fetchone()
        except psycopg.Error as error:
            raise Unsupported(f"{target.label} does not answer as PostgreSQL does: {one_line(error)}") from None
        assert row is not None
        version, version_num, database, user, standby, backend_pid, banner = row
        pooled = connection.info.backend_pid != backend_pid
    server = Server(version.split()[0], version_num, database, user, standby, pooled)
    if server.major not in SUPPORTED or not banner.startswith("PostgreSQL"):
        raise Unsupported(
            f"{target.label} runs {banner.split(',')[0]}; supported is PostgreSQL {SUPPORTED.start} to "
            f"{SUPPORTED.stop - 1}"
        )
    return replace(target, server=server)


def scrub(text: str, conninfo: Mapping[str, Any]) -> str:
    """`text` without the secrets of `conninfo`, in whatever form they stand there."""
    for form in urls.secrets_of(conninfo):
        text = text.replace(form, "********")
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:********@", text)


def _remedy(cause: str) -> str:
    for pattern, remedy in (
        (r"password authentication failed|no password supplied", "check user and password (~/.pgpass works too)"),
        (r'database "[^"]*" does not exist', "check the database name in the URL"),
        (r'role "[^"]*" does not exist', "check the user in the URL"),
        (
            r"certificate verify failed|certificate has expired",
            "the server's certificate has expired, or nobody in sslrootcert vouches for it; "
            "openssl s_client -starttls postgres shows it",
        ),
        (r"certificate|SSL", "check sslmode, sslrootcert and the server's certificate"),
        (r"no pg_hba.conf entry", "the server's pg_hba.conf admits no such client; ask its administrator"),
        (r"definition of service", "check the name against pg_service.conf (PGSERVICEFILE)"),
        (r"too many clients|remaining connection slots", "wait for a free connection, or raise max_connections"),
        (r"starting up|shutting down|recovery mode", "wait until the server has started, and try again"),
        (r"timeout|refused|No such file|could not translate|resolve", "check host and port, and that the server runs"),
    ):
        if re.search(pattern, cause, re.IGNORECASE):
            return remedy
    return "check the target's URL"
