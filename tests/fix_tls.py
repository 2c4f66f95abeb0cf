"""A PostgreSQL 15 server that speaks TLS on the loopback, with a certificate of its own that may be let expire."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.servers import DEBIAN_15, Postgres, folder, free_port, required


class Tls:
    """The server with its certificate, which is its own authority: `root` is what a client trusts."""

    def __init__(self, server: Postgres, root: Path, port: int) -> None:
        self.server, self.root, self.port = server, root, port

    def url(self, **parameters: str) -> str:
        """Its URL over TCP, with the password."""
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://postgres:{self.server.password}@127.0.0.1:{self.port}/postgres?{query}"

    @contextmanager
    def expired(self) -> Iterator[None]:
        """The server shows a certificate that was good until yesterday."""
        self._renew(-1)
        try:
            yield
        finally:
            self._renew(7)

    def _renew(self, days: int) -> None:
        certify(self.server, self.root, days)
        self.server.restart()


def certify(server: Postgres, root: Path, days: int) -> None:
    """A new key and a certificate for 127.0.0.1, good for so many days; below 0 it has expired."""
    key, request, extensions = (root.with_name(f"server.{kind}") for kind in ("key", "csr", "ext"))
    extensions.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=playbook tests"]
    signed = ["-req", "-in", request, "-signkey", key, "-days", str(days), "-extfile", extensions]
    for command in (["req", "-new", *new, "-keyout", key, "-out", request], ["x509", *signed, "-out", root]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    for path in (key, root):
        server.account.give(path)
    key.chmod(0o600)


@pytest.fixture(scope="session")
def tls() -> Iterator[Tls]:
    """The server, with a good certificate."""
    if not (DEBIAN_15 / "postgres").exists():
        required("PostgreSQL 15", "apt-get install postgresql-15")
    with folder("playbook-pg-") as place:
        port, root = free_port(), place / "server.crt"
        encrypted = {"ssl": "on", "ssl_cert_file": str(root), "ssl_key_file": str(place / "server.key")}
        server = Postgres(DEBIAN_15, place, {**encrypted, "listen_addresses": "127.0.0.1", "port": str(port)})
        server.port = port
        server.initialize()
        certify(server, root, 7)
        try:
            server.start()
            yield Tls(server, root, port)
        finally:
            server.stop()
