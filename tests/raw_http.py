"""An HTTP server that answers with bytes, so that a test can send what no HTTP library would."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Send = Callable[[bytes], None]


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(kw_only=True)
class LocalServer:
    """Handles each connection in a thread of its own; ``connections`` counts those that were accepted.

    ``ended`` is set once it serves no more, for what waits.
    """

    url: str = ""
    tls: ssl.SSLContext | None = None
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def handle(self, connection: socket.socket, number: int) -> None:
        """Handle the connection with this number, from 1 on."""
        raise NotImplementedError

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serves while the context is open."""
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{listening.getsockname()[1]}"
            thread = threading.Thread(target=self._accept, args=(listening,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                self.ended.set()
                listening.shutdown(socket.SHUT_RDWR)
                thread.join(10)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        # A client that has had enough hangs up in the middle of an answer.
        with contextlib.suppress(OSError), self._secured(connection) as connection:
            self.handle(connection, number)

    def _secured(self, connection: socket.socket) -> socket.socket:
        return connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True)


@dataclass
class RawServer(LocalServer):
    """Calls ``answer`` with each request's path, its whole text (latin-1) and a function that sends; then hangs up.

    With ``keep_alive`` it hangs up after the client.
    """

    answer: Callable[[str, str, Send], None]
    keep_alive: bool = field(default=False, kw_only=True)
    paths: list[str] = field(default_factory=list, kw_only=True)

    def handle(self, connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            path = request.split(b" ", 2)[1].decode()
            self.paths.append(path)
            self.answer(path, request.decode("latin-1"), connection.sendall)
            if not self.keep_alive:
                return


def read_request(connection: socket.socket) -> bytes:
    """Head and body of the next request; nothing when the client has hung up."""
    received, missing = b"", 1
    while missing > 0:
        more = connection.recv(65_536)
        if not more:
            return b""
        received += more
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        missing = (int(length[1]) if length else 0) - len(body) if end else 1
    return received


@contextmanager
def raw_server(
    answer: Callable[[str, str, Send], None], tls: ssl.SSLContext | None = None, *, keep_alive: bool = False
) -> Iterator[RawServer]:
    """Serves while the context is open; its ``ended`` is set afterwards, for answers that wait."""
    server = RawServer(answer, tls=tls, keep_alive=keep_alive)
    with server.serving():
        yield server


def certificate(folder: Path, *hosts: str) -> Path:
    """A certificate for hosts (127.0.0.1) that nobody vouches for but itself, with its key, as PEM."""
    hosts = hosts or ("127.0.0.1",)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_name_of(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path = folder / "pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem))
    return path


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def tempt(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Name a login for 127.0.0.1 and proxies where clients look for them; the netrc lies in ``folder``."""
    netrc = folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def server_tls(path: Path) -> ssl.SSLContext:
    """A server's side of TLS with a certificate and its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
