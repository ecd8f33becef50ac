"""Calls over libcurl: what comes of an answer that drips, is cut off, lies."""

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
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.raw_http import LocalServer, RawServer, Send, certificate, ok, raw_server, read_request, tempt
from tests.waiting import eventually
from transforms.adapters.http.calls import CaFileError, CallError
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.transport import Ending, Request, Response, Rules, Transport


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Send], None]], RawServer]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(raw_server(lambda path, head, send: answer(send)))


Start = Callable[[Callable[[Send], None]], RawServer]


class Client:
    """A transport with a thread of its own, called from the test's thread."""

    def __init__(self, rules: Rules, ca_file: str | None = None, **more: Any) -> None:
        self.io = IoThread("http-test")
        self.transport = Transport(self.io, rules, ca_file, **more)

    def call(self, url: str, within_s: float = 5.0, body: bytes | None = None) -> Ending:
        ending: Future[Ending] = Future()
        self.io.submit(self.transport.start, Request(url, [], within_s, body), ending.set_result)
        return ending.result(60)


GET = Rules(1000)
POST = Rules(1000, needs_body=False, check=lambda address: None)
both = pytest.mark.parametrize("rules", [GET, POST], ids=["GET", "POST"])


def call(server: RawServer, rules: Rules = GET, within_s: float = 5.0) -> Ending:
    return Client(rules).call(f"{server.url}/x", within_s, None if rules is GET else b"{}")


def body_of(server: RawServer) -> bytes:
    ending = call(server)
    assert isinstance(ending, Response)
    return ending.body


def error_of(server: RawServer, rules: Rules = GET, within_s: float = 5.0) -> CallError:
    ending = call(server, rules, within_s)
    assert isinstance(ending, CallError)
    return ending


def drip(send: Send, server: list[RawServer], start: bytes) -> None:
    send(start)
    while not server[0].ended.wait(0.02):
        send(b"a")


@both
@pytest.mark.parametrize("beginning", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX-Endless: "])
def test_headers_that_drip_end_with_the_call_s_time(start: Start, beginning: bytes, rules: Rules) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: drip(send, server, beginning)))
    began = time.monotonic()
    error = error_of(server[0], rules, within_s=0.25)
    assert 0.2 < time.monotonic() - began < 1.5
    assert (error.kind, error.passing) == ("timeout", True)


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n384\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["length", "until closed", "chunk", "chunk size"],
)
def test_a_body_that_drips_ends_with_the_call_s_time(start: Start, beginning: bytes) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: drip(send, server, beginning)))
    for rules in (GET, POST):
        began = time.monotonic()
        ending = call(server[0], rules, within_s=0.25)
        assert 0.2 < time.monotonic() - began < 1.5
        if rules is GET:
            assert isinstance(ending, CallError)
            assert (ending.kind, ending.passing) == ("timeout", True)
        else:
            assert isinstance(ending, Response)
            assert ending.status == 200


@both
def test_an_error_whose_body_drips_is_still_that_error(start: Start, rules: Rules) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: drip(send, server, b"HTTP/1.1 503 Unavailable\r\nContent-Length: 900\r\n\r\n")))
    began = time.monotonic()
    ending = call(server[0], rules, within_s=0.25)
    assert isinstance(ending, Response)
    assert (ending.status, time.monotonic() - began < 1.5) == (503, True)


@both
def test_nothing_at_all_is_a_timeout(start: Start, rules: Rules) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: print(server[0].ended.wait(10))))
    assert error_of(server[0], rules, within_s=0.1).kind == "timeout"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
)
@both
def test_headers_cut_off_midway_are_a_connection_error_worth_another_try(
    start: Start, answer: bytes, rules: Rules
) -> None:
    error = error_of(start(lambda send: send(answer)), rules)
    assert (error.kind, error.passing, error.down) == ("connection", True, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
        ok(gzip.compress(bytes(500))[:-1], "Content-Encoding: gzip"),
    ],
)
def test_a_body_cut_off_midway_matters_only_if_it_is_needed(start: Start, answer: bytes) -> None:
    server = start(lambda send: send(answer))
    error = error_of(server)
    assert (error.kind, error.passing, error.down) == ("connection", True, True)
    ending = call(server, POST)
    assert isinstance(ending, Response)
    assert ending.status == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n123",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2_000_000 + b"\r\n\r\n",
    ],
)
@both
def test_headers_that_cannot_be_used_are_a_bad_answer(start: Start, answer: bytes, rules: Rules) -> None:
    error = error_of(start(lambda send: send(answer)), rules)
    assert (error.kind, error.passing, error.down) == ("bad_answer", False, False)


@both
def test_a_port_without_a_listener_is_a_connection_error(rules: Rules) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        server = RawServer(lambda path, head, send: None, url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        error = error_of(server, rules)
    assert (error.kind, error.passing) == ("connection", True)


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_a_body_up_to_the_cap_is_an_answer(start: Start, size: int) -> None:
    assert body_of(start(lambda send: send(ok(b"x" * size)))) == b"x" * size


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


def test_a_large_body_that_is_not_needed_is_cut(start: Start) -> None:
    ending = call(start(endless), POST)
    assert isinstance(ending, Response)
    assert (ending.status, len(ending.body) >= 1000) == (200, True)


@pytest.mark.parametrize("members", [1, 3])
def test_gzip_is_decoded(start: Start, members: int) -> None:
    answer = ok(b"".join(gzip.compress(b"part") for _ in range(members)), "Content-Encoding: gzip")
    assert body_of(start(lambda send: send(answer))) == b"part" * members


def test_broken_gzip_is_a_bad_answer(start: Start) -> None:
    packed = bytearray(gzip.compress(bytes(500)))
    packed[12] ^= 255
    error = error_of(start(lambda send: send(ok(bytes(packed), "Content-Encoding: gzip"))))
    assert (error.kind, error.passing) == ("bad_answer", False)


@both
def test_a_redirect_is_not_followed(rules: Rules) -> None:
    def answer(path: str, head: str, send: Send) -> None:
        send(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        for _ in itertools.count():
            send(b"x" * 65_536)

    with raw_server(answer) as server:
        ending = call(server, rules)
        assert isinstance(ending, Response)
        assert ending.status == 302
        assert server.paths == ["/x"]


@both
def test_retry_after_is_read(start: Start, rules: Rules) -> None:
    ending = call(start(lambda send: send(ok(b"", "Retry-After: 7", status="503 X"))), rules)
    assert ending == Response(503, b"", "7")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "x", "", "http://"])
def test_no_other_protocol_is_spoken(url: str) -> None:
    assert isinstance(Client(GET).call(url), CallError)


def test_a_call_that_cannot_be_started_ends_with_an_error() -> None:
    ending = Client(GET).call("http://127.0.0.1/\ud800")
    assert isinstance(ending, CallError)
    assert ending.kind == "other"


@both
def test_a_path_is_sent_as_it_is(rules: Rules) -> None:
    with raw_server(lambda path, head, send: send(ok(b""))) as server:
        Client(rules).call(f"{server.url}/users/../%2e%2e/./x?a=%41", body=None if rules is GET else b"{}")
        assert server.paths == ["/users/../%2E%2E/./x?a=%41"]


def test_proxies_netrc_and_cookies_play_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tempt(monkeypatch, tmp_path)
    heads: list[str] = []

    def answer(path: str, head: str, send: Send) -> None:
        heads.append(head.lower())
        send(ok(b"1", "Set-Cookie: seen=1"))

    with raw_server(answer) as server:
        client = Client(GET)
        for _ in range(2):
            assert client.call(server.url) == Response(200, b"1")
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
        error = error_of(server)
        assert (error.kind, error.passing, error.down) == ("connection", False, True)
        assert str(error) == "SSL certificate OpenSSL verify result: self-signed certificate (18)"
        assert server.paths == []
        trusting = Client(GET, str(path))
        assert trusting.call(f"{server.url}/x") == Response(200, b"1")
        began = time.monotonic()
        late = trusting.call(f"{server.url}/dripping", 0.25)
        assert isinstance(late, CallError)
        assert (late.kind, time.monotonic() - began < 1.5) == ("timeout", True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_is_1_2_or_newer(tmp_path: Path, version: ssl.TLSVersion) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TLS 1.1 is deprecated
        context.minimum_version = context.maximum_version = version
    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        ending = Client(GET, str(path)).call(server.url)
    assert isinstance(ending, CallError if version == ssl.TLSVersion.TLSv1_1 else Response)


def test_with_a_ca_file_the_public_cas_are_not_trusted(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(ours))
    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        ending = Client(GET, str(certificate(others))).call(server.url)
        assert isinstance(ending, CallError)
        assert "SSL certificate" in str(ending)


def test_a_ca_file_that_is_replaced_counts_from_then_on_and_one_that_is_gone_as_before(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    path, other = certificate(ours), certificate(others)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    now_s = [time.monotonic()]

    def trusted(client: Client, url: str) -> bool:
        now_s[0] += 2
        ending = client.call(url)
        if isinstance(ending, CallError):
            assert (ending.kind, ending.passing) == ("connection", False)
        return ending == Response(200, b"1")

    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        used = tmp_path / "used"
        used.write_bytes(other.read_bytes())
        client = Client(GET, str(used), clock=lambda: now_s[0])
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
        Client(GET, str(path))
    assert str(caught.value) == f"{path}: {trouble}"


def test_connections_are_used_again_and_closed_with_the_client() -> None:
    def answer(path: str, head: str, send: Send) -> None:
        send(ok(b"1", status="200 OK" if path == "/x" else "404 X").replace(b"Connection: close\r\n", b""))

    with raw_server(answer, keep_alive=True) as server:
        client = Client(GET)
        for path in ("/x", "/none", "/x"):
            client.call(f"{server.url}{path}")
        assert server.connections == 1
        del client
        gc.collect()
        eventually(lambda: "http-test" not in {thread.name for thread in threading.enumerate()}, "the thread has ended")


def test_a_name_is_looked_up(start: Start) -> None:
    server = start(lambda send: send(ok(b"1")))
    assert Client(GET).call(server.url.replace("127.0.0.1", "localhost")) == Response(200, b"1")


@both
def test_an_unknown_host_name_is_a_connection_error(rules: Rules) -> None:
    error = Client(rules).call("http://users.invalid/x")
    assert isinstance(error, CallError)
    assert (error.kind, error.passing, error.down) == ("connection", True, True)


def test_a_get_on_a_kept_connection_that_has_died_is_sent_again_unseen() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
    with raw_server(lambda path, head, send: send(answer)) as server:  # which hangs up without notice
        client = Client(GET)
        assert [client.call(server.url) for _ in range(10)] == [Response(200, b"1")] * 10


_LOOKUPS = """
import os
import threading
from concurrent.futures import Future
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.transport import Request, Rules, Transport

io = IoThread()
uses = [Transport(io, Rules(10)), Transport(io, Rules(10, needs_body=False, check=lambda address: None))]
endings = [Future() for _ in range(300)]
for number, ending in enumerate(endings):
    io.submit(uses[number % 2].start, Request(f"http://name-{number}.invalid/", [], 10.0), ending.set_result)
most = 0
while not all(ending.done() for ending in endings):
    most = max(most, len(os.listdir("/proc/self/task")))
print(threading.active_count(), most)
"""


@pytest.mark.parametrize("last", [b"", b"HTTP/1.1 408 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"])
def test_many_posts_find_their_kept_connections_dead_and_each_is_handled_once(last: bytes) -> None:
    kept: list[socket.socket] = []
    handled: list[bytes] = []
    everybody = threading.Barrier(40)

    class Server(LocalServer):
        def handle(self, connection: socket.socket, number: int) -> None:
            kept.append(connection)
            while request := read_request(connection):
                handled.append(request)
                everybody.wait(60)  # so that each has a connection of its own
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    client, server = Client(POST), Server()

    def posts() -> set[Ending]:
        endings: list[Future[Ending]] = [Future() for _ in range(everybody.parties)]
        for ending in endings:
            client.io.submit(client.transport.start, Request(server.url, [], 60, b"{}"), ending.set_result)
        return {ending.result(60) for ending in endings}

    with server.serving():
        assert posts() == {Response(200, b"")}
        for connection in kept:
            connection.sendall(last)
            connection.shutdown(socket.SHUT_RDWR)
        assert posts() == {Response(200, b"")}
        assert len(handled) == server.connections == 2 * everybody.parties


def test_both_uses_are_busy_in_one_thread_of_ours_and_at_most_20_of_libcurl_s_each() -> None:
    """libcurl looks names up in threads of its own, which Python does not count."""
    done = subprocess.run([sys.executable, "-c", _LOOKUPS], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    ours, all_of_them = map(int, done.stdout.split())
    assert ours == 2  # with the main thread
    assert all_of_them <= ours + 2 * 20


_PROGRAM = """
import socket
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.transport import Request, Rules, Transport

io = IoThread()
listening = socket.create_server(("127.0.0.1", 0))
url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
io.submit(Transport(io, Rules(10)).start, Request(url, [], 600.0), lambda ending: None)
listening.accept()
print("accepted")
"""


def test_a_process_ends_though_a_call_is_in_flight() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "accepted\n", "")
