from __future__ import annotations

import contextlib
import gc
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pycurl
import pytest
from standardwebhooks import Webhook

from tests.host_names import host_names
from tests.raw_http import RawServer, Send, certificate, ok, raw_server, server_tls, tempt
from tests.waiting import eventually
from transforms.adapters.http import transport
from transforms.adapters.http.calls import CaFileError
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.webhook_sender.sender import Sender, webhook_transport
from transforms.domain.base.durations import Duration
from transforms.domain.webhooks.destinations import Destination, SecretValue
from transforms.domain.webhooks.results import Outcome, SendResult
from transforms.domain.webhooks.retries import RetrySchedule
from transforms.domain.webhooks.url_policy import EgressPolicy

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_c29tZSBvdGhlciBzZWNyZXQgb2YgMzIgYnl0ZXMh"
BODY = b'{"event":{"event_id":"e1"}}'
HERE = EgressPolicy(allow_private=True)
PUBLIC = EgressPolicy()
NOW_S = 1_784_894_400.0  # Fri, 24 Jul 2026 12:00:00 GMT


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", SECRET)


def destination(url: str, timeout_s: float = 5.0, **more: Any) -> Destination:
    fields = {"secrets": ("env:KEY",), "timeout": Duration(round(timeout_s * 1000))} | more
    return Destination(name="crm", url=url, **fields)


class Attempts:
    """A sender with a thread and connections of its own, called from the test's thread."""

    def __init__(
        self,
        destination: Destination,
        policy: EgressPolicy = HERE,
        ca: Path | None = None,
        resolve: Callable[[str], list[str]] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.io = IoThread("webhooks-test")
        transport = webhook_transport(self.io, policy, str(ca) if ca else None)
        self.resolve = resolve
        self.sender = Sender(destination, policy, self.io, transport, wall_clock=wall_clock)

    def attempt(self, webhook_id: str, body: bytes) -> SendResult:
        result: Future[SendResult] = Future()
        with nullcontext() if self.resolve is None else host_names(self.resolve):
            self.io.submit(self.sender.start, webhook_id, body, result.set_result)
            return result.result(90)


def sender(
    url: str,
    policy: EgressPolicy = HERE,
    *,
    ca: Path | None = None,
    resolve: Callable[[str], list[str]] | None = None,
    **more: Any,
) -> Attempts:
    return Attempts(destination(url, **more), policy, ca, resolve)


def attempt(url: str, **more: Any) -> SendResult:
    return sender(url, **more).attempt("msg_1", BODY)


def answering(answer: bytes) -> Callable[[str, str, Send], None]:
    return lambda path, request, send: send(answer)


def headers_of(request: str) -> dict[str, str]:
    lines = request.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


# What is sent


def test_a_webhook_is_a_signed_post_of_its_body() -> None:
    requests: list[str] = []

    def answer(path: str, request: str, send: Send) -> None:
        requests.append(request)
        send(ok(b"thanks", status="202 Accepted"))

    with raw_server(answer) as server:
        result = attempt(f"{server.url}/hooks?a=b", headers={"X-Source": "events"})
    (request,) = requests
    assert request.startswith("POST /hooks?a=b HTTP/1.1\r\n")
    assert request.encode("latin-1").endswith(b"\r\n\r\n" + BODY)
    headers = headers_of(request)
    Webhook(SECRET).verify(BODY, headers)
    assert headers.keys() == {
        *("host", "accept", "content-length", "content-type", "user-agent", "x-source"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert (headers["webhook-id"], headers["content-type"]) == ("msg_1", "application/json")
    assert (headers["host"], headers["x-source"]) == (server.url.removeprefix("http://"), "events")
    assert (result.outcome, result.status, result.attempts, result.healthy) == (Outcome.DELIVERED, 202, 1, True)


def test_nothing_is_sent_without_the_lease_of_the_ledger() -> None:
    requests: list[str] = []

    def answer(path: str, request: str, send: Send) -> None:
        requests.append(request)
        send(ok(b""))

    with raw_server(answer) as server:
        made = sender(server.url)
        results: list[SendResult] = []
        for may_send in (False, True):
            ended: Future[SendResult] = Future()
            made.io.submit(made.sender.start, "msg_1", BODY, ended.set_result, lambda may_send=may_send: may_send)
            results.append(ended.result(90))
    assert (results[0].outcome, results[0].attempts, results[0].error_kind) == (Outcome.RETRY, 0, "not_sent")
    assert results[1].outcome == Outcome.DELIVERED
    assert len(requests) == 1


def test_each_attempt_has_its_own_time_and_the_same_id() -> None:
    requests: list[str] = []

    def answer(path: str, request: str, send: Send) -> None:
        requests.append(request)
        send(ok(b""))

    times = iter([NOW_S, NOW_S + 9.9])
    with raw_server(answer) as server:
        one = Attempts(destination(server.url), wall_clock=lambda: next(times))
        for _ in range(2):
            one.attempt("msg_1", BODY)
    first, second = map(headers_of, requests)
    assert first["webhook-id"] == second["webhook-id"] == "msg_1"
    assert [first["webhook-timestamp"], second["webhook-timestamp"]] == ["1784894400", "1784894409"]
    assert first["webhook-signature"] != second["webhook-signature"]


def test_while_keys_are_rotated_receivers_with_either_verify(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{OTHER_SECRET}\n")
    requests: list[str] = []

    def answer(path: str, request: str, send: Send) -> None:
        requests.append(request)
        send(ok(b""))

    with raw_server(answer) as server:
        attempt(server.url, secrets=("env:KEY", f"file:{tmp_path}/key"))
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(BODY, headers_of(requests[0]))


def test_a_header_may_be_a_secret_which_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH", "Bearer s3cr3t")
    requests: list[str] = []

    def echo(path: str, request: str, send: Send) -> None:
        requests.append(request)
        send(ok(request.encode(), status="400 Bad"))

    with raw_server(echo) as server:
        one = sender(server.url, headers={"Authorization": SecretValue(secret="env:AUTH")})
        result = one.attempt("msg_1", BODY)
    headers = headers_of(requests[0])
    assert headers["authorization"] == "Bearer s3cr3t"
    assert result.excerpt.startswith("POST / HTTP/1.1")
    for text in (repr(result), repr(one)):
        assert "s3cr3t" not in text
        assert headers["webhook-signature"] not in text


@pytest.mark.parametrize(
    ("key", "auth", "error"),
    [
        (None, "x", "env:KEY: no such environment variable"),
        ("s3cr3t", "x", "env:KEY: a key that does not begin with whsec_"),
        (SECRET, None, "env:AUTH: no such environment variable"),
        (SECRET, "s3cr3t\r\nX-B: 1", "env:AUTH: empty, too long, or with characters that are not visible ASCII"),
    ],
)
def test_nothing_is_sent_while_a_secret_is_missing_and_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, key: str | None, auth: str | None, error: str
) -> None:
    for name, value in (("KEY", key), ("AUTH", auth)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with raw_server(answering(ok(b""))) as server:
        one = sender(server.url, headers={"Authorization": SecretValue(secret="env:AUTH")})
        result = one.attempt("msg_1", BODY)
        assert server.paths == []
        assert (result.outcome, result.attempts, result.error_kind) == (Outcome.RETRY, 0, "unsigned")
        assert result.error is not None
        assert result.error.startswith(error)
        assert "s3cr3t" not in repr(result)
        monkeypatch.setenv("KEY", SECRET)
        monkeypatch.setenv("AUTH", "x")
        assert one.attempt("msg_1", BODY).outcome is Outcome.DELIVERED


# What an answer means


@pytest.mark.parametrize(
    ("status", "outcome", "kind", "healthy"),
    [
        *((status, Outcome.DELIVERED, None, True) for status in (200, 201, 202, 204, 299)),
        *((status, Outcome.REFUSED, "redirect", True) for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, Outcome.REFUSED, "status", True) for status in (400, 401, 403, 404, 405, 413, 422, 451, 499)),
        (410, Outcome.GONE, "status", True),
        (408, Outcome.RETRY, "status", True),
        (425, Outcome.RETRY, "status", True),
        (429, Outcome.RETRY, "status", False),
        *((status, Outcome.RETRY, "status", False) for status in (500, 501, 502, 503, 504, 599)),
        (600, Outcome.RETRY, "bad_answer", False),
    ],
)
def test_what_a_status_means(status: int, outcome: Outcome, kind: str | None, healthy: bool) -> None:
    with raw_server(answering(ok(b"", "Location: /elsewhere", status=f"{status} X"))) as server:
        result = attempt(server.url)
        assert server.paths == ["/"]  # no redirect is followed
    assert (result.outcome, result.status, result.error_kind, result.healthy) == (outcome, status, kind, healthy)
    assert (result.error or f"HTTP {status}").startswith(f"HTTP {status}")


def test_a_redirect_is_called_one() -> None:
    with raw_server(answering(ok(b"", "Location: http://127.0.0.1:1/", status="307 X"))) as server:
        assert attempt(server.url).error == "HTTP 307: a redirect, never followed"


@pytest.mark.parametrize(
    ("header", "status", "seconds"),
    [
        ("120", 429, 120.0),
        ("Fri, 24 Jul 2026 12:00:30 GMT", 503, 30.0),
        ("0", 429, 0.0),
        ("999999", 503, 3600.0),
        ("Fri, 24 Jul 2036 12:00:30 GMT", 503, 3600.0),
        ("soon", 429, None),
        ("120", 400, None),
        ("120", 200, None),
    ],
)
def test_what_the_receiver_asks_for_is_heard_up_to_the_longest_pause(
    header: str, status: int, seconds: float | None
) -> None:
    retry = RetrySchedule(longest=Duration.parse("1h"))
    with raw_server(answering(ok(b"", f"Retry-After: {header}", status=f"{status} X"))) as server:
        one = Attempts(destination(server.url, retry=retry), wall_clock=lambda: NOW_S)
        result = one.attempt("msg_1", BODY)
    assert result.retry_after_s == seconds
    if status == 429:
        assert result.healthy is (seconds is not None)


@pytest.mark.parametrize(
    ("body", "excerpt"),
    [
        (b'{"error": "no such user"}', '{"error": "no such user"}'),
        (b" a\r\n\x00\x1b[31mb\xff\xe2\x80\xae ", "a    [31mb\N{REPLACEMENT CHARACTER}"),
        (b"x" * 501, "x" * 500),
        (b"", ""),
    ],
)
def test_of_the_answer_to_a_failure_an_excerpt_is_kept_in_one_line(body: bytes, excerpt: str) -> None:
    with raw_server(answering(ok(body, status="500 X"))) as server:
        assert attempt(server.url).excerpt == excerpt


def endless(path: str, request: str, send: Send) -> None:
    send(b"HTTP/1.1 500 X\r\n\r\n")
    for _ in itertools.count():
        send(b"x" * 65_536)


def test_an_endless_answer_is_cut_off() -> None:
    with raw_server(endless) as server:
        began_s = time.monotonic()
        result = attempt(server.url)
        assert time.monotonic() - began_s < 2
    assert (result.status, len(result.excerpt)) == (500, 500)


# What it may cost


def drip(send: Send, ended: threading.Event, start: bytes) -> None:
    send(start)
    while not ended.wait(0.02):
        send(b"a")


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX-Endless: ",
        b"HTTP/1.1 200",
    ],
)
def test_an_answer_that_drips_ends_with_the_timeout(start: bytes) -> None:
    servers: list[RawServer] = []
    with raw_server(lambda path, request, send: drip(send, servers[0].ended, start)) as server:
        servers.append(server)
        began_s = time.monotonic()
        result = attempt(server.url, timeout_s=0.25)
        assert 0.2 < time.monotonic() - began_s < 1.5
    assert (result.outcome, result.error_kind, result.healthy) == (Outcome.RETRY, "timeout", False)
    assert result.latency_ms >= 200


@pytest.mark.parametrize("status", [200, 503, 410])
def test_a_status_counts_though_its_body_drips_but_that_is_too_slow(status: int) -> None:
    servers: list[RawServer] = []
    start = f"HTTP/1.1 {status} X\r\nContent-Length: 900\r\n\r\n".encode()
    with raw_server(lambda path, request, send: drip(send, servers[0].ended, start)) as server:
        servers.append(server)
        began_s = time.monotonic()
        result = attempt(server.url, timeout_s=0.25)
        assert time.monotonic() - began_s < 1.5
    assert (result.status, result.healthy) == (status, False)
    assert result.outcome is {200: Outcome.DELIVERED, 503: Outcome.RETRY, 410: Outcome.GONE}[status]


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Takes connections and says nothing, not even a handshake; the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_says_nothing_costs_the_timeout(scheme: str) -> None:
    with silent() as port:
        began_s = time.monotonic()
        result = attempt(f"{scheme}://127.0.0.1:{port}/", timeout_s=0.3)
        assert time.monotonic() - began_s < 1.5
    assert (result.outcome, result.error_kind) == (Outcome.RETRY, "timeout")


def test_a_receiver_that_does_not_read_costs_the_timeout_on_a_used_connection_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = sender(f"http://127.0.0.1:{listening.getsockname()[1]}/", timeout_s=1.0)
        results: list[SendResult] = []
        first = threading.Thread(target=lambda: results.append(one.attempt("msg_1", BODY)))
        first.start()
        connection, _ = listening.accept()
        with connection:
            while BODY not in connection.recv(65_536):
                pass
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            first.join(10)
            began_s = time.monotonic()
            results.append(one.attempt("msg_2", b"x" * 50_000_000))
            assert 0.9 < time.monotonic() - began_s < 3
    assert [result.outcome for result in results] == [Outcome.DELIVERED, Outcome.RETRY]
    assert results[1].error_kind == "timeout"


def test_a_name_that_does_not_exist_is_tried_again() -> None:
    result = attempt("https://hooks.example.invalid/", policy=PUBLIC)
    assert (result.outcome, result.error_kind) == (Outcome.RETRY, "connection")
    assert result.error is not None
    assert result.error.startswith("Could not resolve host")


def test_a_slow_answer_is_delivered_but_not_healthy() -> None:
    def slowly(path: str, request: str, send: Send) -> None:
        time.sleep(1.05)
        send(ok(b""))

    with raw_server(slowly) as server:
        result = attempt(server.url, timeout_s=2.0)
    assert (result.outcome, result.healthy) == (Outcome.DELIVERED, False)


def test_connections_are_used_again() -> None:
    with raw_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), keep_alive=True) as server:
        one = sender(server.url)
        for number in range(20):
            assert one.attempt(f"msg_{number}", BODY).outcome is Outcome.DELIVERED
        assert (len(server.paths), server.connections) == (20, 1)


def test_proxies_netrc_and_cookies_play_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tempt(monkeypatch, tmp_path)
    requests: list[str] = []

    def answer(path: str, request: str, send: Send) -> None:
        requests.append(request.lower())
        send(ok(b"", "Set-Cookie: seen=1"))

    with raw_server(answer) as server:
        one = sender(server.url)
        for _ in range(2):
            assert one.attempt("msg_1", BODY).outcome is Outcome.DELIVERED
    assert not [request for request in requests if "cookie" in request or "authorization" in request]


def test_an_id_that_no_header_can_have_is_not_sent() -> None:
    with raw_server(answering(ok(b""))) as server:
        result = sender(server.url).attempt("a\r\nb", BODY)
        assert server.paths == []
    assert (result.outcome, result.attempts, result.error_kind) == (Outcome.RETRY, 0, "other")


# Where it goes


@pytest.fixture
def hooks_tls(tmp_path: Path) -> Path:
    return certificate(tmp_path, "hooks.example.com")


def port_of(server: RawServer) -> int:
    return int(server.url.rpartition(":")[2])


def test_over_tls_the_connection_is_to_the_address_and_everything_else_is_the_name_s(hooks_tls: Path) -> None:
    tls = server_tls(hooks_tls)
    names: list[str | None] = []
    tls.sni_callback = lambda socket, name, context: names.append(name)
    requests: list[str] = []

    def answer(path: str, request: str, send: Send) -> None:
        requests.append(request)
        send(ok(b""))

    with raw_server(answer, tls) as server:
        url = f"https://hooks.example.com:{port_of(server)}/x"
        result = attempt(url, ca=hooks_tls, resolve=lambda host: ["127.0.0.1"])
    assert result.outcome is Outcome.DELIVERED
    assert names == ["hooks.example.com"]
    assert headers_of(requests[0])["host"] == f"hooks.example.com:{port_of(server)}"


def test_a_certificate_must_be_for_the_name_and_from_a_known_ca(hooks_tls: Path) -> None:
    with raw_server(answering(ok(b"")), server_tls(hooks_tls)) as server:
        reasons = {}
        for host, ca in (("hooks.example.com", None), ("other.example.com", hooks_tls), ("127.0.0.1", hooks_tls)):
            url = f"https://{host}:{port_of(server)}/"
            result = attempt(url, ca=ca, resolve=lambda host: ["127.0.0.1"])
            assert (result.outcome, result.error_kind) == (Outcome.RETRY, "connection")
            reasons[host] = result.error
        assert server.paths == []
    assert reasons == {
        "hooks.example.com": "SSL certificate OpenSSL verify result: self-signed certificate (18)",
        "other.example.com": "SSL: no alternative certificate subject name matches target hostname 'other.example.com'",
        "127.0.0.1": "SSL: no alternative certificate subject name matches target IPv4 address '127.0.0.1'",
    }


def test_a_ca_file_without_certificates_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name, trouble in (("ca.pem", "no certificates as PEM"), ("none", "No such file or directory")):
        with pytest.raises(CaFileError, match=trouble):
            webhook_transport(IoThread(), PUBLIC, str(tmp_path / name))


def test_an_address_in_the_url_has_a_certificate_too(tmp_path: Path) -> None:
    path = certificate(tmp_path, "127.0.0.1")
    with raw_server(answering(ok(b"")), server_tls(path)) as server:
        assert attempt(server.url, ca=path).outcome is Outcome.DELIVERED


def test_when_one_address_does_not_answer_the_attempt_goes_to_another() -> None:
    with raw_server(answering(ok(b""))) as server:
        one = sender(f"http://hooks.example.com:{port_of(server)}/", resolve=lambda host: ["127.0.0.9", "127.0.0.1"])
        assert one.attempt("msg_1", BODY).outcome is Outcome.DELIVERED


@contextlib.contextmanager
def trap() -> Iterator[tuple[int, Callable[[], int]]]:
    """Listens on every address of this machine; its port and how many connections it has seen."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        listening.settimeout(0)

        def seen() -> int:
            count = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    listening.accept()[0].close()
                    count += 1
            return count

        yield listening.getsockname()[1], seen


LOCAL_HOSTS = [
    *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", "localhost", "LOCALHOST", "localhost."),
    *("a.localhost", "localhost.localdomain", "ip6-localhost", "2130706433", "0x7f000001", "017700000001", "127.1"),
    *("127.0.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f.1", "127.0.0.0x1", "0", "0x0", "127.0.0.1.", "00000177.0.0.1"),
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
    *("[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[::ffff:0:127.0.0.1]", "[fe80::1%25lo]"),
    *("\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u24dbocalhost", "%31%32%37.0.0.1", "127.0.0.1%00"),
    *("user@127.0.0.1", "hooks.example.com@127.0.0.1", "127.0.0.1#@hooks.example.com", "127.0.0.1\\@a.example"),
    *("127.0.0.1\t", " 127.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal"),
]


def test_no_form_of_a_local_url_is_called() -> None:
    assert len(LOCAL_HOSTS) >= 30
    with trap() as (port, seen):
        for host in ("127.0.0.1", "2130706433", "\uff11\uff12\uff17.0.0.1", "::1"):
            socket.create_connection((host, port), 5).close()
        assert seen() == 4  # the trap is one, and the system understands such forms
        for host in LOCAL_HOSTS:
            for scheme in ("https", "http"):
                result = attempt(f"{scheme}://{host}:{port}/", policy=PUBLIC, timeout_s=1.0)
                assert (result.outcome, result.error_kind) == (Outcome.REFUSED, "blocked"), host
                assert result.attempts == 0
        assert seen() == 0


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["0.0.0.0"], ["1.1.1.1", "127.0.0.1"], ["127.1.2.3"]]
)
def test_a_public_name_with_a_local_address_is_not_called(addresses: list[str]) -> None:
    with trap() as (port, seen):
        url = f"https://hooks.example.com:{port}/"
        result = attempt(url, policy=PUBLIC, resolve=lambda host: addresses)
        assert (result.outcome, result.error_kind) == (Outcome.REFUSED, "blocked")
        assert seen() == 0
        attempt(url, policy=HERE, resolve=lambda host: ["127.0.0.1"], timeout_s=0.2)
        assert seen() == 1


def test_a_name_that_is_rebound_between_check_and_connection_makes_no_difference() -> None:
    """The resolver is the attacker's: what it says after the check is never heard."""
    answers = itertools.chain([["127.0.0.1"]], itertools.repeat(["127.0.0.5"]))
    asked: list[str] = []

    def rebinding(host: str) -> list[str]:
        asked.append(host)
        return next(answers)

    with raw_server(answering(ok(b""))) as server:
        url = f"http://hooks.example.com:{port_of(server)}/"
        with socket.create_server(("127.0.0.5", port_of(server))) as other:
            other.settimeout(0)
            assert attempt(url, resolve=rebinding).outcome is Outcome.DELIVERED
            with pytest.raises(BlockingIOError):
                other.accept()
    assert asked == ["hooks.example.com"]


def test_no_socket_is_made_for_an_address_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def unreachable(*kind: Any) -> socket.socket:
        made.append(kind)
        raise OSError("unreachable")

    monkeypatch.setattr(transport, "socket", SimpleNamespace(socket=unreachable))
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"]])
    one = sender("https://hooks.example.com/", policy=PUBLIC, resolve=lambda host: next(answers))
    results = [one.attempt("msg_1", BODY) for _ in range(4)]
    assert [result.error_kind for result in results] == ["connection", "blocked", "blocked", "blocked"]
    assert len(made) == 1


def test_a_kept_connection_is_checked_before_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), keep_alive=True) as server:
        one = sender(server.url)
        assert one.attempt("msg_1", BODY).outcome is Outcome.DELIVERED
        monkeypatch.setattr(EgressPolicy, "allows_address", lambda policy, address: False)
        result = one.attempt("msg_2", BODY)
        assert (result.outcome, result.error_kind) == (Outcome.REFUSED, "blocked")
        assert len(server.paths) == 1


def test_a_name_with_new_addresses_is_not_called_at_the_old_one_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    options = [option for option in transport._OPTIONS if option[0] != pycurl.MAXLIFETIME_CONN]
    monkeypatch.setattr(transport, "_OPTIONS", (*options, (pycurl.MAXLIFETIME_CONN, 1)))
    addresses = ["127.0.0.1"]
    with raw_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), keep_alive=True) as server:
        one = sender(f"http://hooks.example.com:{port_of(server)}/", resolve=lambda host: addresses)
        assert one.attempt("msg_1", BODY).outcome is Outcome.DELIVERED
        addresses[:] = ["169.254.169.254"]
        eventually(lambda: one.attempt("msg_2", BODY).error_kind == "blocked", "the name is looked up again", 20, 0.1)


def test_a_post_is_not_repeated_on_another_connection() -> None:
    """libcurl would send it again by itself when a kept connection has died."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = sender(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        results: list[SendResult] = []

        def send_two() -> None:
            results.extend(one.attempt(f"msg_{number}", BODY) for number in range(2))

        sending = threading.Thread(target=send_two)
        sending.start()
        connection, _ = listening.accept()
        with connection:
            receive(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            receive(connection)  # the second one may have been handled
        sending.join(10)
        listening.settimeout(0)
        with contextlib.suppress(BlockingIOError), listening.accept()[0] as other:
            assert other.recv(1) == b""  # closed before anything was sent
    assert [(result.outcome, result.error_kind) for result in results] == [
        (Outcome.DELIVERED, None),
        (Outcome.RETRY, "connection"),
    ]


def receive(connection: socket.socket) -> None:
    """Read a request with ``BODY``."""
    received = b""
    while BODY not in received:
        part = connection.recv(65_536)
        assert part
        received += part


def test_a_redirect_into_the_network_is_not_followed() -> None:
    with trap() as (port, seen):
        for status, host in itertools.product((301, 302, 303, 307, 308), ("127.0.0.1", "[::1]", "localhost")):
            answer = ok(b"", f"Location: http://{host}:{port}/", status=f"{status} X")
            with raw_server(answering(answer)) as server:
                assert attempt(server.url).error_kind == "redirect"
        assert seen() == 0


def test_a_sender_without_references_keeps_no_thread() -> None:
    others = set(threading.enumerate())
    attempt("https://hooks.example.invalid/", policy=PUBLIC)
    until_s = time.monotonic() + 10
    while [thread for thread in set(threading.enumerate()) - others if thread.name.startswith("webhook")]:
        assert time.monotonic() < until_s
        gc.collect()
        time.sleep(0.002)


def test_an_excerpt_hides_what_was_signed() -> None:
    def echo(path: str, request: str, send: Send) -> None:
        (signature,) = re.findall("webhook-signature: (.*)\r\n", request)
        send(ok(f"bad signature: {signature}".encode(), status="401 X"))

    with raw_server(echo) as server:
        assert attempt(server.url).excerpt == "bad signature: [hidden]"
