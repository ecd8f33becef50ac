"""Client credentials: how a token is requested, kept and renewed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.raw_http import Send, ok, raw_server
from tests.transforms.adapters.webhook_sender.test_sender import BODY, HERE, SECRET, Attempts, destination, headers_of
from transforms.domain.webhooks.destinations import DestinationError, OAuth2, SecretValue, load_destinations
from transforms.domain.webhooks.results import Outcome
from transforms.domain.webhooks.url_policy import EgressPolicy


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", SECRET)
    monkeypatch.setenv("CLIENT_SECRET", "s3cr3t+/ =")


class Servers:
    """A receiver and an authorization server, which numbers its tokens."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.sent: list[str] = []
        self.accepted = {"t1"}
        self.answer: Callable[[int], bytes] = lambda number: token(f"t{number}")
        self.url = ""

    def handle(self, path: str, request: str, send: Send) -> None:
        if path == "/token":
            self.requests.append(request)
            send(self.answer(len(self.requests)))
            return
        bearer = headers_of(request)["authorization"].removeprefix("Bearer ")
        self.sent.append(bearer)
        send(ok(bearer.encode(), status="200 OK" if bearer in self.accepted else "401 Unauthorized"))

    def attempts(self, **more: Any) -> Attempts:
        oauth2 = OAuth2(token_url=f"{self.url}/token", client_id="crm", client_secret="env:CLIENT_SECRET", **more)
        return Attempts(destination(f"{self.url}/hook", oauth2=oauth2))


def token(text: str, **more: Any) -> bytes:
    return ok(orjson.dumps({"access_token": text, "token_type": "Bearer", "expires_in": 3600} | more))


@pytest.fixture
def servers() -> Iterator[Servers]:
    servers = Servers()
    with raw_server(servers.handle) as server:
        servers.url = server.url
        yield servers


def test_a_token_is_requested_by_rfc_6749_and_kept(servers: Servers) -> None:
    sender = servers.attempts(scope="events:write contacts")
    assert [sender.attempt(f"msg_{number}", BODY).outcome for number in range(3)] == [Outcome.DELIVERED] * 3
    assert servers.sent == ["t1"] * 3
    (request,) = servers.requests
    assert request.startswith("POST /token HTTP/1.1\r\n")
    headers = headers_of(request)
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"crm:s3cr3t%2B%2F+%3D"
    assert request.endswith("\r\n\r\ngrant_type=client_credentials&scope=events%3Awrite+contacts")


def test_a_client_id_may_be_a_secret(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_ID", "from-a-secret")
    oauth2 = OAuth2(
        token_url=f"{servers.url}/token",
        client_id=SecretValue(secret="env:CLIENT_ID"),
        client_secret="env:CLIENT_SECRET",
    )
    Attempts(destination(f"{servers.url}/hook", oauth2=oauth2)).attempt("msg_1", BODY)
    login = base64.b64decode(headers_of(servers.requests[0])["authorization"].removeprefix("Basic "))
    assert login.startswith(b"from-a-secret:")


def test_a_token_is_renewed_before_its_end(servers: Servers) -> None:
    now_s = [1000.0]
    sender = servers.attempts()
    sender.sender._oauth2._clock = lambda: now_s[0]  # type: ignore[union-attr]
    servers.accepted = {"t1", "t2"}
    for seconds in (0, 3500, 80, 60):
        now_s[0] += seconds
        assert sender.attempt("msg_1", BODY).outcome is Outcome.DELIVERED
    assert servers.sent == ["t1", "t1", "t2", "t2"]


def test_a_token_is_requested_on_a_connection_of_its_own_because_kept_ones_may_be_dead() -> None:
    servers = Servers()
    servers.accepted = {"t1", "t2"}

    def kept(path: str, request: str, send: Send) -> None:
        servers.handle(path, request, lambda answer: send(answer.replace(b"Connection: close\r\n", b"")))

    with raw_server(kept, keep_alive=True) as server:
        servers.url = server.url
        sender = servers.attempts()
        assert sender.attempt("msg_1", BODY).outcome is Outcome.DELIVERED
        assert server.connections == 1
        sender.sender._oauth2.renew("t1")  # type: ignore[union-attr]
        assert sender.attempt("msg_2", BODY).outcome is Outcome.DELIVERED
        assert (servers.sent, server.connections) == (["t1", "t2"], 2)


def test_a_token_that_the_destination_no_longer_takes_is_renewed(servers: Servers) -> None:
    now_s = [1000.0]
    sender = servers.attempts()
    sender.sender._oauth2._clock = lambda: now_s[0]  # type: ignore[union-attr]
    assert sender.attempt("msg_1", BODY).outcome is Outcome.DELIVERED
    servers.accepted = {"t2"}
    now_s[0] += 60
    refused = sender.attempt("msg_2", BODY)
    assert (refused.outcome, refused.status, refused.excerpt) == (Outcome.RETRY, 401, "[hidden]")
    assert sender.attempt("msg_2", BODY).outcome is Outcome.DELIVERED
    assert servers.sent == ["t1", "t1", "t2"]


def test_a_destination_that_refuses_new_tokens_refuses_the_webhook(servers: Servers) -> None:
    servers.accepted = set()
    result = servers.attempts().attempt("msg_1", BODY)
    assert (result.outcome, result.status) == (Outcome.REFUSED, 401)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ok(b'{"error":"invalid_client"}', status="401 X"), "token: HTTP 401, invalid_client"),
        (ok(b'{"error":"a\\u001b[31m"}', status="400 X"), "token: HTTP 400"),
        (ok(b"no JSON", status="500 X"), "token: HTTP 500"),
        (ok(b"", "Location: http://127.0.0.1:1/", status="302 X"), "token: HTTP 302"),
        (ok(b"no JSON"), "token: not an answer of RFC 6749, section 5.1"),
        (ok(b"[" * 9000), "token: not an answer of RFC 6749, section 5.1"),
        (token("t1", token_type="mac"), "token: not a bearer token of visible ASCII"),
        (token("t1\r\nX-B: 1"), "token: not a bearer token of visible ASCII"),
        (token(""), "token: not a bearer token of visible ASCII"),
        (b"", "token: Empty reply from server"),
    ],
)
def test_without_a_token_nothing_is_sent_and_it_is_tried_again(servers: Servers, answer: bytes, error: str) -> None:
    servers.answer = lambda number: answer if number == 1 else token("t1")
    sender = servers.attempts()
    result = sender.attempt("msg_1", BODY)
    assert (result.outcome, result.attempts, result.error_kind, result.error) == (
        Outcome.RETRY,
        0,
        "unauthorized",
        error,
    )
    assert not result.healthy
    assert servers.sent == []
    assert sender.attempt("msg_1", BODY).outcome is Outcome.DELIVERED


def test_the_authorization_server_obeys_the_same_policy(servers: Servers) -> None:
    oauth2 = OAuth2(token_url=f"{servers.url}/token", client_id="crm", client_secret="env:CLIENT_SECRET")
    result = Attempts(destination("https://hooks.example.com/", oauth2=oauth2), EgressPolicy()).attempt("msg_1", BODY)
    assert (result.outcome, result.error_kind) == (Outcome.REFUSED, "blocked")
    assert servers.requests == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("token_url: ftp://a/, client_id: a, client_secret: env:B", "oauth2: token_url: scheme is 'ftp'"),
        ("token_url: http://127.0.0.1/, client_id: a, client_secret: plain", "a reference to a secret, never"),
        ("token_url: http://127.0.0.1/, client_secret: env:B", "client_id"),
    ],
)
def test_a_destinations_file_with_a_wrong_login_is_refused(tmp_path: Path, lines: str, problem: str) -> None:
    path = tmp_path / "destinations.yaml"
    path.write_text(
        f"destinations:\n- name: crm\n  url: http://127.0.0.1/\n  secrets: [env:KEY]\n  oauth2: {{{lines}}}\n"
    )
    with pytest.raises(DestinationError, match=problem) as caught:
        load_destinations(path, HERE)
    assert "plain" not in str(caught.value)
