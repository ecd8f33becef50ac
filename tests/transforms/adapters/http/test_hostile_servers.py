"""Both uses of the transport against servers as they are in the field, over fresh and over kept connections."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.raw_http import certificate, read_request, server_tls
from tests.transforms.adapters.http.behaviours import (
    ANSWERS,
    GOOD,
    LEFTOVERS,
    MAX_ANSWER_BYTES,
    OVER_TLS,
    PROFILE,
    Behaviour,
    message,
    raw,
    says,
)
from tests.transforms.adapters.http.hostile_server import BAD, HostileServer, Wire, hostile_server
from tests.waiting import eventually
from transforms.adapters.http.breaker import Breaker, Permit
from transforms.adapters.http.calls import CallError
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.transport import Done, Ending, Request
from transforms.adapters.user_api.client import HttpUserApi, UserApiSettings
from transforms.adapters.webhook_sender.lanes import Lane
from transforms.adapters.webhook_sender.sender import SendDone, Sender, webhook_transport
from transforms.domain.base.durations import Duration
from transforms.domain.users.fetched_user import FetchedUser
from transforms.domain.webhooks.destinations import Destination
from transforms.domain.webhooks.results import Outcome, SendResult
from transforms.domain.webhooks.url_policy import EgressPolicy

CALM_S, SHORT_S = 20.0, 0.25


class RecordingBreaker(Breaker):
    def __init__(self) -> None:
        super().__init__()
        self.healthy: list[bool] = []

    def leave(self, permit: Permit, healthy: bool) -> None:
        self.healthy.append(healthy)
        super().leave(permit, healthy)


class Api:
    def __init__(
        self, io: IoThread, url: str, ca_file: str | None, timeout_s: float, deadline_s: float = CALM_S
    ) -> None:
        self.breaker = RecordingBreaker()
        settings = UserApiSettings(url, timeout_s, max_answer_bytes=MAX_ANSWER_BYTES, ca_file=ca_file, layout="one")
        self._api = HttpUserApi(settings, deadline_s, io=io, breaker=self.breaker, chance=lambda: 0.0)
        self._endings: list[Ending] = []
        start = self._api._transport.start

        def watched(request: Request, done: Done) -> None:
            def end(ending: Ending) -> None:
                self._endings.append(ending)
                done(ending)

            start(request, end)

        self._api._transport.start = watched  # type: ignore[method-assign]

    def begin(self, name: str) -> Future[FetchedUser]:
        return self._api.start(name)

    def warm_up(self) -> None:
        self.begin("warm").result(60)
        self.forget()

    def first(self, future: Future[FetchedUser]) -> str | None:
        """The kind of the first attempt's error."""
        future.result(60)
        eventually(lambda: self._endings, "the first attempt has ended")
        ending = self._endings[0]
        return ending.kind if isinstance(ending, CallError) else None

    def meaning(self, found: FetchedUser) -> str:
        first = self._endings[0]
        if found.enrichment == "fetched":
            assert orjson.loads(found.profile_json) == PROFILE
        words = []
        if len(self._endings) > 1:
            assert found.enrichment == "fetched"
            words = [first.kind if isinstance(first, CallError) else "status", "again"]
        elif found.enrichment == "unavailable":
            words = [str(found.error_kind)]
        else:
            words = ["known" if found.enrichment == "fetched" else "unknown"]
        return " ".join(words + ["down"] * (not self.breaker.healthy[0]))

    def forget(self) -> None:
        del self._endings[:], self.breaker.healthy[:]


class Hooks:
    def __init__(
        self, io: IoThread, url: str, ca_file: str | None, timeout_s: float, deadline_s: float = CALM_S
    ) -> None:
        self.breaker = RecordingBreaker()
        self._results: list[SendResult] = []
        policy = EgressPolicy(allow_private=True)
        destination = Destination(name="crm", url=url, secrets=("env:KEY",), timeout=Duration(round(timeout_s * 1000)))
        sender = Sender(destination, policy, io, webhook_transport(io, policy, ca_file))
        start = sender.start

        def watched(webhook_id: str, body: bytes, done: SendDone, may_send: Any = None) -> None:
            def end(result: SendResult) -> None:
                self._results.append(result)
                done(result)

            start(webhook_id, body, end, may_send)

        sender.start = watched  # type: ignore[method-assign]
        self._lane = Lane(destination, sender, io, 1, 10, breaker=self.breaker, chance=lambda: 0.0)

    def begin(self, name: str) -> Future[SendResult]:
        return self._lane.submit(name, b"{}")

    def warm_up(self) -> None:
        self.begin("warm").result(60)
        self.forget()

    def first(self, future: Future[SendResult]) -> str | None:
        """The kind of the first attempt's error."""
        future.result(60)
        return self._results[0].error_kind

    def meaning(self, last: SendResult) -> str:
        first = self._results[0]
        words = [first.outcome.value] + [first.error_kind] * (first.error_kind is not None)
        if len(self._results) > 1:
            assert last.outcome is Outcome.DELIVERED
            words.append("again")
        return " ".join(words + ["down"] * (not self.breaker.healthy[0]))

    def forget(self) -> None:
        del self._results[:], self.breaker.healthy[:]


@pytest.fixture(scope="module")
def io() -> Iterator[IoThread]:
    yield IoThread("hostile")
    gc.collect()  # connections, which are in cycles with their clients, before the thread that closes them


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


USES = [pytest.param(Api, id="user API"), pytest.param(Hooks, id="webhook")]
Use = type[Api] | type[Hooks]


def begin_badly(client: Api | Hooks, server: HostileServer) -> Callable[[], str]:
    """Begin a call; the function waits for its end and says what it means."""
    future: Any = client.begin(BAD)

    def end() -> str:
        words = client.meaning(future.result(60))
        return words + " resent" * (len(server.over) - len(client.breaker.healthy))

    return end


@pytest.mark.parametrize(
    ("behaviour", "mode"),
    [
        pytest.param(behaviour, mode, id=f"{behaviour.name}, {mode}")
        for mode, behaviours in (("fresh", ANSWERS), ("kept", ANSWERS), ("kept TLS", OVER_TLS))
        for behaviour in behaviours
    ],
)
def test_what_a_server_does_means(behaviour: Behaviour, mode: str, io: IoThread, pem: Path) -> None:
    tls = server_tls(pem) if mode == "kept TLS" else None
    timeout_s = SHORT_S if behaviour.is_slow else CALM_S
    with ExitStack() as stack:
        servers = [stack.enter_context(hostile_server(behaviour.act, message(GOOD), tls=tls)) for _ in (Api, Hooks)]
        ends = []
        uses: tuple[Use, Use] = (Api, Hooks)
        for use, server in zip(uses, servers, strict=True):
            client = use(io, server.url, str(pem) if tls else None, timeout_s)
            if mode != "fresh":
                client.warm_up()
            ends.append(begin_badly(client, server))
        found = " | ".join(end() for end in ends)
    if mode == "fresh":
        assert found == f"{behaviour.api} | {behaviour.hook}"
    else:
        assert [server.over[0] for server in servers] == [1, 1]  # over the connection of the warm-up
        assert found == f"{behaviour.kept_api or behaviour.api} | {behaviour.kept_hook or behaviour.hook}"


@pytest.mark.parametrize("when", ["with the answer", "later"])
@pytest.mark.parametrize("leftover", LEFTOVERS.values(), ids=LEFTOVERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("use", USES)
def test_what_nobody_asked_for_answers_no_later_request(
    use: Use, scheme: str, leftover: bytes, when: str, io: IoThread, pem: Path
) -> None:
    tls = server_tls(pem) if scheme == "https" else None
    warm, later = (message(GOOD) + leftover, b"") if when == "with the answer" else (message(GOOD), leftover)
    with hostile_server(says(message(GOOD)), warm, later, tls) as server:
        client = use(io, server.url, str(pem) if tls else None, CALM_S)
        client.warm_up()
        server.good = message(GOOD)
        server.go.set()
        assert not later or server.left.wait(60)
        assert begin_badly(client, server)() == ("known" if use is Api else "delivered")
        assert len(server.over) == 1


def test_over_tls_a_body_without_length_needs_the_notice_of_its_end(io: IoThread, pem: Path) -> None:
    def cut(wire: Wire) -> None:
        wire.send(raw("HTTP/1.1 200 OK") + GOOD)
        wire.hang_up()

    for use, words in ((Api, "connection again down"), (Hooks, "delivered")):
        with hostile_server(cut, message(GOOD), tls=server_tls(pem)) as server:
            assert begin_badly(use(io, server.url, str(pem), CALM_S), server)() == words


Greet = Callable[[socket.socket], None]
PIECE = b"\x16\x03\x01\x02\x00"  # where a handshake begins


def hang_up(connection: socket.socket) -> None:
    connection.close()


def say_nothing(connection: socket.socket) -> None:
    read_request(connection)  # which never comes


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def drip_a_handshake(connection: socket.socket) -> None:
    connection.sendall(PIECE)
    with contextlib.suppress(OSError):
        for _ in range(1000):
            connection.sendall(b"\x01")
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("scheme", "greet", "kind"),
    [
        ("http", lambda connection: None, "timeout"),
        ("http", hang_up, "connection"),
        ("http", reset, "connection"),
        ("http", lambda connection: connection.sendall(b"220 mail.example.com ESMTP\r\n"), "bad_answer"),
        ("http", lambda connection: connection.sendall(message(GOOD)), None),
        ("https", lambda connection: None, "timeout"),
        ("https", hang_up, "connection"),
        ("https", reset, "connection"),
        ("https", lambda connection: connection.sendall(message(GOOD)), "connection"),
        ("https", lambda connection: connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28"), "connection"),
        ("https", drip_a_handshake, "timeout"),
    ],
    ids=[
        *("silence", "hangs up", "resets", "another protocol", "answers before the request", "no handshake"),
        *("hangs up, TLS", "resets, TLS", "speaks plainly", "an alert", "a handshake that drips"),
    ],
)
@pytest.mark.parametrize("use", USES)
def test_what_a_server_does_before_any_request_means(
    use: Use, scheme: str, greet: Greet, kind: str | None, io: IoThread
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    kept.append(connection)
                    greet(connection)

        threading.Thread(target=serve, daemon=True).start()
        url = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        client = use(io, url, None, SHORT_S if kind == "timeout" else CALM_S, deadline_s=2 * SHORT_S)
        first = client.first(client.begin(BAD))
        listening.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()
    assert first == kind


KEPT = 10


class OneAnswerAConnection:
    """Answers the first request of each connection once ``together`` are there, and treats a second one badly."""

    def __init__(self, together: int, second: Callable[[socket.socket], None]) -> None:
        self.barrier = threading.Barrier(together)
        self.second = second
        self.requests = 0

    def serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.answer, args=(listening.accept()[0],), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            read_request(connection)
            self.requests += 1
            if self.requests <= KEPT:
                self.barrier.wait(20)
            connection.sendall(message(GOOD))
            if read_request(connection):
                self.requests += 1
                self.second(connection)


@pytest.mark.parametrize(
    ("second", "words"), [(hang_up, "known"), (reset, "known"), (say_nothing, "timeout again down")]
)
def test_however_many_kept_connections_have_died_a_call_meets_one_of_them(
    second: Greet, words: str, io: IoThread
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        server = OneAnswerAConnection(KEPT, second)
        threading.Thread(target=server.serve, args=(listening,), daemon=True).start()
        timeout_s = 1.0 if "timeout" in words else CALM_S
        client = Api(io, f"http://127.0.0.1:{listening.getsockname()[1]}", None, timeout_s)
        warm = [client.begin(f"warm {number}") for number in range(KEPT)]
        for future in warm:
            future.result(60)
        client.forget()
        seen = server.requests
        assert client.meaning(client.begin(BAD).result(60)) == words
        listening.shutdown(socket.SHUT_RDWR)
    assert server.requests - seen == 2
