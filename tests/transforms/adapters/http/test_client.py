"""Calls over both of the HTTP libraries: what each does with an answer that drips, is cut off, lies."""

from __future__ import annotations

import gc
import gzip
import itertools
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import certifi
import pytest
import urllib3
from transforms.adapters.http.client import HttpClient

from tests.raw_http import RawServer, Send, certificate, ok, raw_server, tempt
from tests.waiting import eventually
from transforms.adapters.http.calls import CaFileError, CallError, TimedPool, TimedTlsPool, open_answer

NOW_S = 1_784_894_400.0  # Fri, 24 Jul 2026 12:00:00 GMT


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Send], None]], RawServer]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(raw_server(lambda path, head, send: answer(send)))


Start = Callable[[Callable[[Send], None]], RawServer]


def get(server: RawServer, within_s: float = 5.0, max_bytes: int = 1000) -> bytes | None:
    client = HttpClient(max_bytes, wall_clock=lambda: NOW_S)
    return fetched(client, f"{server.url}/x", within_s)


def fetched(client: HttpClient, url: str, within_s: float = 5.0) -> bytes | None:
    return client.start(client.get(url, {}, time.monotonic() + within_s)).result()


def error_of(server: RawServer, within_s: float = 5.0, max_bytes: int = 1000) -> CallError:
    with pytest.raises(CallError) as caught:
        get(server, within_s, max_bytes)
    return caught.value


def pooled(server: RawServer, within_s: float = 5.0, ca_file: str | None = None, path: str = "/x") -> bytes:
    pools = urllib3.PoolManager(ca_certs=ca_file or certifi.where())
    pools.pool_classes_by_scheme = {"http": TimedPool, "https": TimedTlsPool}
    headers = {"Accept-Encoding": "gzip, deflate"}
    with open_answer(pools.urlopen, "GET", f"{server.url}{path}", headers, within_s) as response:
        return response.read()


def pooled_error_of(server: RawServer, within_s: float = 5.0) -> CallError:
    with pytest.raises(CallError) as caught:
        pooled(server, within_s)
    return caught.value


ErrorOf = Callable[..., CallError]
over_both = pytest.mark.parametrize("error_of", [error_of, pooled_error_of], ids=["HttpClient", "open_answer"])


def drip(send: Send, server: list[RawServer], start: bytes) -> None:
    send(start)
    while not server[0].ended.wait(0.02):
        send(b"a")


@over_both
@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\nX-Endless: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n384\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["status line", "header", "length", "until closed", "chunk", "chunk size"],
)
def test_an_answer_that_drips_ends_with_the_call_s_time(start: Start, beginning: bytes, error_of: ErrorOf) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: drip(send, server, beginning)))
    began = time.monotonic()
    error = error_of(server[0], within_s=0.25)
    assert 0.2 < time.monotonic() - began < 1.5
    assert (error.kind, error.passing) == ("timeout", True)


def test_an_error_whose_body_drips_is_still_that_error(start: Start) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: drip(send, server, b"HTTP/1.1 503 Unavailable\r\nContent-Length: 900\r\n\r\n")))
    began = time.monotonic()
    assert (error_of(server[0], within_s=0.25).status, time.monotonic() - began < 1.5) == (503, True)


@over_both
def test_nothing_at_all_is_a_timeout(start: Start, error_of: ErrorOf) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: print(server[0].ended.wait(10))))
    assert error_of(server[0], within_s=0.1).kind == "timeout"


@over_both
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
def test_an_answer_cut_off_midway_is_a_connection_error_worth_another_try(
    start: Start, answer: bytes, error_of: ErrorOf
) -> None:
    error = error_of(start(lambda send: send(answer)))
    assert (error.kind, error.passing, error.down) == ("connection", True, True)


@over_both
def test_a_port_without_a_listener_is_a_connection_error(error_of: ErrorOf) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        server = RawServer(lambda path, head, send: None, f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = error_of(server)
    assert (error.kind, error.passing) == ("connection", True)


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_a_body_up_to_the_cap_is_an_answer(start: Start, size: int) -> None:
    assert get(start(lambda send: send(ok(b"x" * size)))) == b"x" * size


def endless(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in itertools.count():
        send(b"x" * 65_536)


@pytest.mark.parametrize(
    "answer",
    [
        lambda send: send(ok(b"x" * 1001)),
        lambda send: send(ok(gzip.compress(bytes(50_000_000)), "Content-Encoding: gzip")),
        endless,
    ],
    ids=["by one", "gzip", "endless"],
)
def test_a_larger_body_is_an_error_and_not_read(start: Start, answer: Callable[[Send], None]) -> None:
    error = error_of(start(answer))
    assert (error.kind, error.passing, error.down, str(error)) == ("too_large", False, False, "over 1000 bytes")


@over_both
def test_a_body_that_is_not_in_its_encoding_is_a_bad_answer(start: Start, error_of: ErrorOf) -> None:
    assert error_of(start(lambda send: send(ok(b"no gzip", "Content-Encoding: gzip")))).kind == "bad_answer"


def test_404_is_nothing(start: Start) -> None:
    assert get(start(lambda send: send(ok(b"{}", status="404 Not Found")))) is None


def test_a_redirect_is_neither_followed_nor_read(start: Start) -> None:
    def answer(send: Send) -> None:
        send(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        for _ in itertools.count():
            send(b"x" * 65_536)

    server = start(answer)
    began = time.monotonic()
    error = error_of(server)
    assert (error.kind, error.status, error.passing) == ("status", 302, False)
    assert time.monotonic() - began < 2
    assert server.paths == ["/x"]


@pytest.mark.parametrize(
    ("status", "passing", "down"),
    [
        (408, True, False),
        (429, True, True),
        (500, True, True),
        (599, True, True),
        (204, False, False),
        (301, False, False),
        (400, False, False),
        (401, False, False),
        (403, False, False),
        (410, False, False),
    ],
)
def test_other_statuses_are_errors_some_of_which_pass(start: Start, status: int, passing: bool, down: bool) -> None:
    error = error_of(start(lambda send: send(ok(b"", status=f"{status} X"))))
    assert (error.kind, error.passing, error.down, str(error)) == ("status", passing, down, f"HTTP {status}")


@pytest.mark.parametrize(("status", "down"), [(429, False), (503, True)])
def test_the_server_s_wish_to_wait_is_heard(start: Start, status: int, down: bool) -> None:
    after = "Retry-After: Fri, 24 Jul 2026 12:00:07 GMT"
    error = error_of(start(lambda send: send(ok(b"", after, status=f"{status} X"))))
    assert (error.retry_after_s, error.passing, error.down) == (7.0, True, down)


def test_proxies_netrc_and_cookies_play_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tempt(monkeypatch, tmp_path)
    heads: list[str] = []

    def answer(path: str, head: str, send: Send) -> None:
        heads.append(head.lower())
        send(ok(b"1", "Set-Cookie: seen=1"))

    with raw_server(answer) as server:
        client = HttpClient(10)
        for _ in range(2):
            assert fetched(client, f"{server.url}/x") == b"1"
    assert len(heads) == 2
    assert not [head for head in heads if "cookie" in head or "authorization" in head]


def test_over_tls_certificates_are_verified_and_time_is_kept_too(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    servers: list[RawServer] = []

    def answer(path: str, head: str, send: Send) -> None:
        if path == "/x":
            send(ok(b"1"))
        else:
            drip(send, servers, b"HTTP/1.1 200 OK\r\n\r\n")

    with raw_server(answer, context) as server:
        servers.append(server)
        for error in (error_of(server), pooled_error_of(server)):
            assert (error.kind, error.passing, error.down) == ("connection", False, True)
            assert str(error) == "SSLError: self-signed certificate"
        assert server.paths == []
        trusting = HttpClient(1000, str(path))
        assert fetched(trusting, f"{server.url}/x") == b"1"
        assert pooled(server, ca_file=str(path)) == b"1"
        for drips in (
            lambda: fetched(trusting, f"{server.url}/dripping", 0.25),
            lambda: pooled(server, 0.25, str(path), "/dripping"),
        ):
            began = time.monotonic()
            with pytest.raises(CallError, match="TimeoutError") as caught:
                drips()
            assert (caught.value.kind, time.monotonic() - began < 1.5) == ("timeout", True)


def test_with_a_ca_file_the_public_cas_are_not_trusted(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(ours))
    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        client = HttpClient(1000, str(certificate(others)))
        with pytest.raises(CallError, match="SSLError"):
            fetched(client, f"{server.url}/x")


def test_a_ca_file_that_is_replaced_counts_from_then_on_and_one_that_is_gone_as_before(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    path, other = certificate(ours), certificate(others)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    now_s = [time.monotonic()]

    def trusted(client: HttpClient, url: str) -> bool:
        now_s[0] += 2
        try:
            return client.start(client.get(url, {}, now_s[0] + 5)).result() == b"1"
        except CallError as error:
            assert (error.kind, error.passing) == ("connection", False)  # noqa: PT017 - trusting is the other outcome
            return False

    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        used = tmp_path / "used"
        used.write_bytes(other.read_bytes())
        client = HttpClient(1000, str(used), clock=lambda: now_s[0])
        assert not trusted(client, server.url)
        used.unlink()
        assert not trusted(client, server.url)
        used.write_bytes(path.read_bytes())
        assert trusted(client, server.url)
        used.write_bytes(b"no certificate")
        assert trusted(client, server.url)
        used.unlink()
        assert trusted(client, server.url)
        os.replace(other, used)
        assert not trusted(client, server.url)


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (None, "No such file or directory"),
        (b"", "no certificates as PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificates as PEM"),
        (bytes(range(256)), "no certificates as PEM"),
    ],
)
def test_a_ca_file_without_certificates_is_an_error_when_the_client_is_made(
    tmp_path: Path, content: bytes | None, trouble: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaFileError) as caught:
        HttpClient(1000, str(path))
    assert str(caught.value) == f"{path}: {trouble}"


def test_connections_are_used_again_and_closed_with_the_client() -> None:
    def answer(path: str, head: str, send: Send) -> None:
        send(ok(b"1", status="200 OK" if path == "/x" else "404 X").replace(b"Connection: close\r\n", b""))

    with raw_server(answer, keep_alive=True) as server:
        client = HttpClient(10, name="closed-with-its-client")
        for path in ("/x", "/none", "/x"):
            fetched(client, f"{server.url}{path}")
        assert server.connections == 1
        del client
        gc.collect()
        eventually(
            lambda: "closed-with-its-client" not in {one.name for one in threading.enumerate()}, "the thread has ended"
        )


def test_a_name_is_looked_up(start: Start) -> None:
    server = start(lambda send: send(ok(b"1")))
    assert fetched(HttpClient(10), f"{server.url.replace('127.0.0.1', 'localhost')}/x") == b"1"


def test_an_unknown_host_name_is_a_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CallError) as caught:
        fetched(HttpClient(10), "http://users.internal/x")
    assert (caught.value.kind, caught.value.passing, caught.value.down) == ("connection", True, True)


_PROGRAM = """
import socket, time
from transforms.adapters.http.client import HttpClient

client = HttpClient(10)
listening = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
pending = client.start(client.get(url, {}, time.monotonic() + 600))
listening.accept()
print("asked")
"""


def test_a_process_ends_though_a_call_is_under_way() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "asked\n", "")
