"""Both uses of the transport against servers as they are in the field, over fresh and over kept connections."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.raw_http import certificate, server_tls
from tests.transforms.adapters.http.behaviours import ANSWERS, GOOD, MAX_ANSWER_BYTES, PROFILE, Behaviour, message
from tests.transforms.adapters.http.hostile_server import BAD, HostileServer, hostile_server
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

CALM_S, SHORT_S = 20.0, 0.3


class RecordingBreaker(Breaker):
    def __init__(self) -> None:
        super().__init__()
        self.healthy: list[bool] = []

    def leave(self, permit: Permit, healthy: bool) -> None:
        self.healthy.append(healthy)
        super().leave(permit, healthy)


class Api:
    def __init__(self, io: IoThread, url: str, ca_file: str | None, timeout_s: float) -> None:
        self.breaker = RecordingBreaker()
        settings = UserApiSettings(url, timeout_s, max_answer_bytes=MAX_ANSWER_BYTES, ca_file=ca_file, layout="one")
        self._api = HttpUserApi(settings, CALM_S, io=io, breaker=self.breaker, chance=lambda: 0.0)
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
    def __init__(self, io: IoThread, url: str, ca_file: str | None, timeout_s: float) -> None:
        self.breaker = RecordingBreaker()
        self._results: list[SendResult] = []
        policy = EgressPolicy(allow_private=True)
        destination = Destination(name="crm", url=url, secrets=("env:KEY",), timeout=Duration(round(timeout_s * 1000)))
        sender = Sender(destination, policy, io, webhook_transport(io, policy, ca_file))
        start = sender.start

        def watched(webhook_id: str, body: bytes, done: SendDone) -> None:
            def end(result: SendResult) -> None:
                self._results.append(result)
                done(result)

            start(webhook_id, body, end)

        sender.start = watched  # type: ignore[method-assign]
        self._lane = Lane(destination, sender, io, 1, 10, breaker=self.breaker, chance=lambda: 0.0)

    def begin(self, name: str) -> Future[SendResult]:
        return self._lane.submit(name, b"{}")

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
def io() -> IoThread:
    return IoThread("hostile")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def meaning(
    use: type[Api] | type[Hooks], server: HostileServer, io: IoThread, behaviour: Behaviour, mode: str, pem: Path
) -> Callable[[], str]:
    client = use(io, server.url, str(pem) if server.tls else None, SHORT_S if behaviour.is_slow else CALM_S)
    if mode != "fresh":
        client.begin("warm").result(CALM_S)
        client.forget()
    future: Any = client.begin(BAD)

    def end() -> str:
        words = client.meaning(future.result(60))
        if mode == "fresh":
            assert server.over[0] == 1
        attempts = len(client.breaker.healthy)
        kept = mode == "fresh" or server.over[:1] == [1]
        assert kept, "the connection was not kept"
        extra = len(server.over) - attempts
        return words + " resent" * extra

    return end


@pytest.mark.parametrize("mode", ["fresh", "kept", "kept TLS"])
@pytest.mark.parametrize("behaviour", ANSWERS, ids=lambda behaviour: behaviour.name)
def test_what_a_server_does_means(behaviour: Behaviour, mode: str, io: IoThread, pem: Path) -> None:
    tls = server_tls(pem) if mode == "kept TLS" else None
    with ExitStack() as stack:
        ends = [
            meaning(
                use,
                stack.enter_context(hostile_server(behaviour.act, message(GOOD), behaviour.after_good, tls)),
                io,
                behaviour,
                mode,
                pem,
            )
            for use in (Api, Hooks)
        ]
        api, hook = [end() for end in ends]
    kept = mode != "fresh"
    expected_api = (kept and behaviour.kept_api) or behaviour.api
    expected_hook = (kept and behaviour.kept_hook) or behaviour.hook
    assert f"{api} | {hook}" == f"{expected_api} | {expected_hook}"
