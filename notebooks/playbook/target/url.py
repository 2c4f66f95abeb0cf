"""Database URLs as libpq, ORMs and JDBC write them, turned into libpq's parameters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote_plus, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from playbook.errors import UsageError
from playbook.target.sql import quote

_FORM = re.compile(r"(?P<jdbc>jdbc:)?postgres(?:ql)?(?:\+\w+)?://(?P<rest>.*)", re.DOTALL)
_LIBPQ = frozenset(option.keyword.decode() for option in Conninfo.get_defaults())
# What ORMs and drivers add for themselves: it concerns their own pools, caches and retries, and not this session.
_OTHERS = frozenset(
    """
    connection_limit pool_timeout pgbouncer statement_cache_size socket_timeout max_idle_connection_lifetime
    single_use_connections prepared_statement_cache_size prepared_statement_name_func async_fallback pool pool_size
    max_overflow pool_recycle pool_pre_ping conn_max_age conn_health_checks checkout_timeout reaping_frequency
    prepared_statements statement_limit uselibpqcompat prepareThreshold preparedStatementCacheQueries
    preparedStatementCacheSizeMiB defaultRowFetchSize reWriteBatchedInserts tcpKeepAlive socketTimeout binaryTransfer
    stringtype readOnly autosave logServerErrorDetail
    """.split()
)
_RENAMED = {
    "ApplicationName": "application_name",
    "connectTimeout": "connect_timeout",
    "loginTimeout": "connect_timeout",
}
_SSL_MODES = {"true": "require", "1": "require", "false": "disable", "0": "disable", "no-verify": "require"}
_SECRETS = ("password", "sslpassword")


def read(where: str, url: str) -> tuple[dict[str, Any], str | None]:
    """libpq's parameters for `url`, and the search_path that it asks for; `where` names the URL in messages.

    Understood are several hosts, IPv6 addresses in brackets, socket folders (percent-encoded, or as `host=`),
    SQLAlchemy's `postgresql+driver://` and repeated `host=`, Prisma's and JDBC's parameters. What secures the
    connection is passed on or translated, never dropped; what concerns other clients' pools is dropped.

    Raises:
        UsageError: it is no such URL, or holds a parameter that is not known; the message shows nothing of it.
    """
    if not (form := _FORM.fullmatch(url)):
        raise UsageError(f"target {where}: not a PostgreSQL URL; write postgresql://user@host:5432/database")
    base, _, query = form["rest"].partition("?")
    try:
        parameters = list(_parameters(query))
        known = _known(where, parameters, jdbc=bool(form["jdbc"]))
        conninfo = conninfo_to_dict(f"postgresql://{base}", **known)
        return {name: value for name, value in conninfo.items() if value != ""}, _search_path(dict(parameters))
    except (psycopg.Error, ValueError, UnicodeError):
        # libpq quotes the part it could not read, and that may be the password.
        raise UsageError(
            f"target {where}: the URL cannot be read; percent-encode @ : / ? # & in its user and password, and pass "
            "only libpq's parameters after the ?"
        ) from None


def holds_secret(text: str) -> bool:
    """Whether `text` is a URL with a password in it, in whatever place; when in doubt it is."""
    _, slashes, rest = text.partition("://")
    return bool(slashes) and (":" in rest.rpartition("@")[0] or any(f"{name}=" in unquote(rest) for name in _SECRETS))


def secrets_of(conninfo: Mapping[str, Any]) -> list[str]:
    """The secrets among libpq's parameters, in every form in which they may stand in a text, the longest first."""
    secrets = [str(conninfo[name]) for name in _SECRETS if conninfo.get(name)]
    forms = {form for secret in secrets for form in (secret, quote_plus(secret), repr(secret)[1:-1])}
    return sorted(forms, key=len, reverse=True)


def _parameters(query: str) -> Iterable[tuple[str, str]]:
    # As libpq reads them: in its URLs a plus is a plus.
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        if part:
            yield unquote(name), unquote(value) if equals else ""


def _search_path(given: Mapping[str, str]) -> str | None:
    """Prisma's `schema` is a name as it is, JDBC's `currentSchema` a list in which only quotes keep capitals."""
    if schema := given.get("schema"):
        return quote(schema)
    names = [name.strip() for name in given.get("currentSchema", "").split(",")]
    return ", ".join(quote(name.strip('"') if name.startswith('"') else name.lower()) for name in names if name) or None


def _known(where: str, parameters: Iterable[tuple[str, str]], *, jdbc: bool) -> dict[str, str]:
    known: dict[str, str] = {}
    hosts: list[str] = []
    ours: dict[str, str] = {}
    for written, value in parameters:
        name = _RENAMED.get(written, written)
        if name == "host":
            hosts += value.split(",")
        elif name in {"ssl", "sslaccept", "sslidentity", "schema", "currentSchema"}:
            ours[name] = value
        elif name in _LIBPQ:
            known[name] = value
        elif name not in _OTHERS:
            raise ValueError("neither libpq's parameter nor one of those that ORMs add")
    if ours.get("sslidentity"):
        raise UsageError(
            f"target {where}: sslidentity names a PKCS#12 file, which libpq does not read: split it with openssl "
            "pkcs12 and pass sslcert and sslkey"
        )
    return known | _hosts(hosts) | _security(known, ours, jdbc=jdbc)


def _hosts(hosts: list[str]) -> dict[str, str]:
    """Several hosts as libpq has them, each with its port if any of them names one."""
    found = [_host(host) for host in hosts]
    ports = {"port": ",".join(port for _, port in found)} if any(port for _, port in found) else {}
    return {"host": ",".join(host for host, _ in found)} | ports if found else {}


def _host(text: str) -> tuple[str, str]:
    """Host and port of SQLAlchemy's `host=a:5432`; a socket folder and a bare IPv6 address keep their colons."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address, port.lstrip(":")
    host, colon, port = text.partition(":")
    return (host, port) if colon and port.isdecimal() and not host.startswith("/") else (text, "")


def _security(known: Mapping[str, str], ours: Mapping[str, str], *, jdbc: bool) -> dict[str, str]:
    """What asks for encryption in other words than libpq's, never taken for less than it means."""
    secured: dict[str, str] = {}
    if "sslaccept" in ours and known.get("sslcert") and not known.get("sslkey"):
        secured |= {"sslrootcert": known["sslcert"], "sslcert": ""}  # Prisma's word for the server's certificate
    mode = known.get("sslmode") or ("verify-full" if jdbc and ours.get("ssl") == "true" else ours.get("ssl")) or ""
    mode = _SSL_MODES.get(mode, mode)
    if ours.get("sslaccept") == "strict" and mode not in {"disable", "verify-ca"}:
        mode = "verify-full"
    trusted = known.get("sslrootcert") or secured.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    if mode == "verify-full" != known.get("sslmode") and not trusted:
        secured["sslrootcert"] = "system"  # as the clients do whose words these are
    return secured | ({"sslmode": mode} if mode else {})
