from __future__ import annotations

import gzip
import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.raw_http import RawServer, Send, certificate, ok, raw_server
from transforms.domain.calls import Backoff, CaFileError, CallError, HttpClient, retry_after_s

NOW_S = 1_784_894_400.0  # Fri, 24 Jul 2026 12:00:00 GMT


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Send], None]], RawServer]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(raw_server(lambda path, head, send: answer(send)))


Start = Callable[[Callable[[Send], None]], RawServer]


def get(server: RawServer, within_s: float = 5.0, max_bytes: int = 1000) -> bytes | None:
    client = HttpClient(2, max_bytes, wall_clock=lambda: NOW_S)
    return client.get(f"{server.url}/x", {}, time.monotonic() + within_s)


def error_of(server: RawServer, within_s: float = 5.0, max_bytes: int = 1000) -> CallError:
    with pytest.raises(CallError) as caught:
        get(server, within_s, max_bytes)
    return caught.value


def drip(send: Send, server: list[RawServer], start: bytes) -> None:
    send(start)
    while not server[0].ended.wait(0.02):
        send(b"a")


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Endless: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n384\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["status line", "header", "length", "until closed", "chunk", "chunk size"],
)
def test_an_answer_that_drips_ends_with_the_call_s_time(start: Start, beginning: bytes) -> None:
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


def test_nothing_at_all_is_a_timeout(start: Start) -> None:
    server: list[RawServer] = []
    server.append(start(lambda send: print(server[0].ended.wait(10))))
    assert error_of(server[0], within_s=0.1).kind == "timeout"


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
def test_an_answer_cut_off_midway_is_a_connection_error_worth_another_try(start: Start, answer: bytes) -> None:
    error = error_of(start(lambda send: send(answer)))
    assert (error.kind, error.passing, error.down) == ("connection", True, True)


def test_nobody_listening_is_a_connection_error() -> None:
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


def test_a_body_that_is_not_in_its_encoding_is_a_bad_answer(start: Start) -> None:
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


def test_proxies_netrc_and_cookies_play_no_part(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    heads: list[str] = []

    def answer(path: str, head: str, send: Send) -> None:
        heads.append(head.lower())
        send(ok(b"1", "Set-Cookie: seen=1"))

    with raw_server(answer) as server:
        client = HttpClient(1, 10)
        for _ in range(2):
            assert client.get(f"{server.url}/x", {}, time.monotonic() + 5) == b"1"
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
        assert str(error) == "SSLError: self-signed certificate"
        assert server.paths == []
        trusting = HttpClient(1, 1000, str(path))
        assert trusting.get(f"{server.url}/x", {}, time.monotonic() + 5) == b"1"
        began = time.monotonic()
        with pytest.raises(CallError, match="TimeoutError") as caught:
            trusting.get(f"{server.url}/dripping", {}, began + 0.25)
        assert (caught.value.kind, time.monotonic() - began < 1.5) == ("timeout", True)


def test_with_a_ca_file_the_public_cas_vouch_for_nobody(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(ours))
    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        client = HttpClient(1, 1000, str(certificate(others)))
        with pytest.raises(CallError, match="SSLError"):
            client.get(f"{server.url}/x", {}, time.monotonic() + 5)


def test_a_ca_file_that_is_replaced_or_gone_counts_for_new_connections(tmp_path: Path) -> None:
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with raw_server(lambda path, head, send: send(ok(b"1")), context) as server:
        client = HttpClient(1, 1000, str(path))
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(CallError) as caught:
            client.get(f"{server.url}/x", {}, time.monotonic() + 5)
        assert (caught.value.kind, caught.value.passing) == ("connection", False)
        path.write_bytes(content)
        assert client.get(f"{server.url}/x", {}, time.monotonic() + 5) == b"1"


@pytest.mark.parametrize(
    ("content", "trouble"),
    [
        (None, "No such file or directory"),
        (b"", "no certificates as PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificates as PEM"),
        (bytes(range(256)), "no certificates as PEM"),
    ],
)
def test_a_ca_file_that_is_none_is_told_when_the_client_is_made(
    tmp_path: Path, content: bytes | None, trouble: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaFileError) as caught:
        HttpClient(1, 1000, str(path))
    assert str(caught.value) == f"{path}: {trouble}"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, 999_999_999_999.0),
        ("Fri, 24 Jul 2026 12:00:30 GMT", 30.0),
        ("Fri, 24 Jul 2026 11:00:00 GMT", 0.0),
        ("Fri, 24 Jul 2026 14:00:30 +0200", 30.0),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("Fri, 24 Jul 99999 12:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW_S) == seconds


def test_pauses_have_full_jitter_under_a_bound_that_doubles() -> None:
    backoff = Backoff(0.1, 2.0)
    assert [round(backoff.pause_s(tries, None, 1.0), 3) for tries in (1, 2, 3, 4, 5, 6, 7, 5000)] == [
        *(0.1, 0.2, 0.4, 0.8, 1.6),
        *(2.0, 2.0, 2.0),
    ]
    assert backoff.pause_s(3, None, 0.0) == 0
    assert backoff.pause_s(3, None, 0.5) == pytest.approx(0.2)


def test_a_pause_is_never_shorter_than_the_server_asked_for() -> None:
    assert Backoff(0.1, 2.0).pause_s(1, 7.0, 0.0) == 7.0
    assert Backoff(0.1, 2.0).pause_s(1, 7.0, 1.0) == pytest.approx(7.1)
