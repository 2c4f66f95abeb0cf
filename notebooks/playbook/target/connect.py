"""Targets: how one is named, how it is connected to, what the server says of itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from playbook.errors import Unreachable, Unsupported, UsageError, one_line

SUPPORTED = range(13, 19)
"""Major versions that are accepted."""
TESTED = (15, 16, 18)
"""Major versions that the project's own tests cover; others are named as untested at connect."""
CONNECT_TIMEOUT_S = 10

# What ORMs add to a URL and libpq refuses: `schema` becomes the search_path, the rest concerns their own pools.
_ORM_PARAMETERS = frozenset(
    "schema connection_limit pool_timeout pgbouncer statement_cache_size socket_timeout sslaccept sslidentity "
    "max_idle_connection_lifetime single_use_connections".split()
)


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
    """The database worked on. Its `repr` shows no password and `label` is safe to print."""

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
        port = self.conninfo.get("port") or os.environ.get("PGPORT", "5432")
        database = self.server.database if self.server else self.conninfo.get("dbname", "")
        user = self.server.user if self.server else self.conninfo.get("user", "")
        return f"{user}@{host}:{port}/{database}"

    def connect(
        self, *, autocommit: bool = True, application_name: str = "playbook", dbname: str | None = None
    ) -> psycopg.Connection[Any]:
        """A new session, times in UTC, statements never prepared on the server.

        Behind a transaction pooler nothing is SET on the session: the next client would inherit it.

        Raises:
            Unreachable: no connection; the message says why and holds no password.
        """
        parameters: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S, **self.conninfo}
        parameters["application_name"] = application_name
        if dbname:
            parameters["dbname"] = dbname
        try:
            connection = psycopg.connect(**parameters, autocommit=autocommit, prepare_threshold=None)
        except (psycopg.Error, ValueError, OSError) as error:
            raise Unreachable(self._why_unreachable(str(error))) from None
        if not (self.server and self.server.pooled):
            self._set_session(connection)
        return connection

    def _set_session(self, connection: psycopg.Connection[Any]) -> None:
        settings = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "extra_float_digits": "1"}
        if self.search_path:
            settings["search_path"] = self.search_path
        connection.execute(
            "SELECT " + ", ".join(["set_config(%s, %s, false)"] * len(settings)),
            [text for pair in settings.items() for text in pair],
        )
        if not connection.autocommit:
            connection.commit()

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
        if not (url := environ.get(name, "").strip()):
            raise UsageError(f"target {spec}: the environment variable {name} is not set; set it to a database URL")
        return _from_url(spec, url)
    if spec.startswith("service:"):
        return Target(spec=spec, conninfo={"service": spec.removeprefix("service:")})
    if "://" not in spec:
        raise UsageError(
            "the target is none of: embedded · env:NAME · service:NAME · postgresql://user@host/database; "
            "put a connection string into an environment variable and name it with env:"
        )
    target = _from_url("url", spec)
    if "password" in target.conninfo:
        raise UsageError(
            "the target URL holds a password, and a notebook's parameters are written into its output file: delete "
            "that file, change the password, put the URL into an environment variable and pass target=env:NAME"
        )
    return replace(target, spec=target.label)


def holds_password(spec: str) -> bool:
    """Whether `spec` is a URL with a password in it, in whatever place."""
    return "://" in spec and (":" in urlsplit(spec).netloc.rpartition("@")[0] or "password=" in spec)


def _from_url(spec: str, url: str) -> Target:
    scheme, colon, rest = url.partition("://")
    if not colon or scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise UsageError(f"target {spec}: not a PostgreSQL URL; write postgresql://user@host:5432/database")
    try:
        parts = urlsplit("postgresql://" + rest)
        query = parse_qsl(parts.query, keep_blank_values=True)
        known = urlencode([(key, value) for key, value in query if key not in _ORM_PARAMETERS])
        conninfo = conninfo_to_dict(urlunsplit(parts._replace(query=known)))
    except (psycopg.Error, ValueError):
        # libpq quotes the part it could not read, and that may be the password.
        raise UsageError(
            f"target {spec}: the URL cannot be read; percent-encode @ : / ? # in its user and password, and pass only "
            "libpq's parameters after the ?"
        ) from None
    return Target(spec=spec, conninfo=conninfo, search_path=dict(query).get("schema"))


def identify(target: Target) -> Target:
    """Connects once and returns the target with what its server says of itself.

    Raises:
        Unreachable: no connection.
        Unsupported: the server is older or newer than the versions accepted, or not PostgreSQL.
    """
    with target.connect(application_name="playbook identify") as connection:
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
    """`text` without the password of `conninfo`, in whatever form it stands there."""
    password = str(conninfo.get("password") or "")
    for form in sorted({password, urlencode({"": password})[1:]}, key=len, reverse=True):
        if form:
            text = text.replace(form, "********")
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:********@", text)


def _remedy(cause: str) -> str:
    for pattern, remedy in (
        (r"password authentication failed|no password supplied", "check user and password (~/.pgpass works too)"),
        (r'database "[^"]*" does not exist', "check the database name in the URL"),
        (r'role "[^"]*" does not exist', "check the user in the URL"),
        (r"certificate|SSL", "check sslmode, sslrootcert and the server's certificate"),
        (r"no pg_hba.conf entry", "the server's pg_hba.conf admits no such client; ask its administrator"),
        (r"definition of service", "check the name against pg_service.conf (PGSERVICEFILE)"),
        (r"timeout|refused|No such file|could not translate|resolve", "check host and port, and that the server runs"),
    ):
        if re.search(pattern, cause, re.IGNORECASE):
            return remedy
    return "check the target's URL"
