"""One attempt to deliver a webhook: a signed POST to a checked address, and the meaning of its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from transforms.adapters.http.calls import CallError, retry_after_s
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.http.transport import Ending, Request, Response, Rules, Transport
from transforms.adapters.secrets import Secret
from transforms.adapters.threads import DaemonThreads
from transforms.adapters.webhook_sender.oauth2 import ClientCredentials, check_header_secret
from transforms.domain.base.secret_references import SecretError
from transforms.domain.users.fetched_user import BAD_ANSWER, OTHER, STATUS
from transforms.domain.webhooks.destinations import Destination, SecretValue
from transforms.domain.webhooks.results import Outcome, SendResult
from transforms.domain.webhooks.signatures import SIGNATURE_HEADER, parse_keys, signature_headers
from transforms.domain.webhooks.url_policy import BlockedError, EgressPolicy, check_address, parse_target

# Kinds of errors beside those of ``domain.users.fetched_user``.
BLOCKED: Final = "blocked"  # the URL or an address of its host is not allowed
REDIRECT: Final = "redirect"
NOT_SENT: Final = "not_sent"  # the caller does not let it be sent any more, or not yet
UNAUTHORIZED: Final = "unauthorized"  # the authorization server gave no token, so nothing was sent
UNSIGNED: Final = "unsigned"  # a secret cannot be read, so nothing was sent

MAX_ANSWER_BYTES: Final = 65_536
_EXCERPT: Final = 500
_NOT_SENT_S: Final = 0.5
_SLOWEST_CONNECT_S: Final = 5.0
_HEADERS: Final = ("Content-Type: application/json", "Accept: */*")

SendDone = Callable[[SendResult], None]


def webhook_transport(io: IoThread, policy: EgressPolicy, ca_file: str | None = None) -> Transport:
    """The connections of all destinations, to addresses that the policy allows; they trust ``ca_file`` (PEM).

    Raises:
        CaFileError: ``ca_file`` cannot be used.
    """

    def check(address: str) -> None:
        # Without its scope (fe80::1%eth0), which does not matter for the policy.
        check_address(ip_address(address.partition("%")[0]), policy)

    return Transport(io, Rules(MAX_ANSWER_BYTES, needs_body=False, check=check), ca_file)


class Sender:
    """Makes the attempts for one destination; no network error is raised. Only used in the transport's I/O thread.

    Once its secrets are read, an attempt takes at most the destination's ``timeout``, whatever the receiver does. It
    follows no redirect, uses no proxy, cookie or netrc, and verifies certificates.
    """

    def __init__(
        self,
        destination: Destination,
        policy: EgressPolicy,
        io: IoThread,
        transport: Transport,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._io = io
        self._transport = transport
        self._url = destination.url
        self._timeout_s = destination.timeout.ms / 1000
        self._longest_retry_after_s = destination.retry.longest.ms / 1000
        self._wall_clock = wall_clock
        self._keys = [Secret(reference, parse_keys) for reference in destination.secrets]
        self._secret_headers = {
            name: Secret(value.secret, check_header_secret)
            for name, value in destination.headers.items()
            if isinstance(value, SecretValue)
        }
        self._headers = [f"{name}: {value}" for name, value in destination.headers.items() if isinstance(value, str)]
        self._oauth2 = None
        if destination.oauth2 is not None:
            self._oauth2 = ClientCredentials(destination.oauth2, transport, self._timeout_s)
        self._secrets = (*self._keys, *self._secret_headers.values(), *(self._oauth2.secrets if self._oauth2 else ()))
        self._secret_reader = DaemonThreads(1, "webhook-secrets")
        self._is_lost = False  # the last request had no answer: kept connections may be dead
        self._blocked: BlockedError | None = None
        try:
            parse_target(destination.url, policy)
            if destination.oauth2 is not None:
                parse_target(destination.oauth2.token_url, policy)
        except BlockedError as error:
            self._blocked = error

    def start(self, webhook_id: str, body: bytes, done: SendDone, may_send: Callable[[], bool] | None = None) -> None:
        """Send a webhook with a JSON body once; ``done`` gets the result, in this thread.

        ``may_send`` is asked at the last moment before the request.
        """
        if self._blocked is not None:
            done(SendResult(Outcome.REFUSED, 0, error_kind=BLOCKED, error=str(self._blocked)))
        elif all(secret.is_fresh() for secret in self._secrets):
            self._send(webhook_id, body, done, may_send)
        else:
            # Reading a secret may block for as long as a file system or another service does.
            reading = self._secret_reader.submit(self._read_secrets)
            reading.add_done_callback(lambda _: self._io.submit(self._send, webhook_id, body, done, may_send))

    def _read_secrets(self) -> None:
        for secret in self._secrets:
            secret.text()

    def _send(self, webhook_id: str, body: bytes, done: SendDone, may_send: Callable[[], bool] | None) -> None:
        if self._oauth2 is None:
            self._post(webhook_id, body, None, done, may_send)
            return

        def post(token: str | CallError) -> None:
            if isinstance(token, CallError):
                done(SendResult(Outcome.RETRY, 0, error_kind=UNAUTHORIZED, error=str(token), healthy=False))
            else:
                self._post(webhook_id, body, token, done, may_send)

        self._oauth2.request(post)

    def _post(
        self, webhook_id: str, body: bytes, token: str | None, done: SendDone, may_send: Callable[[], bool] | None
    ) -> None:
        if may_send is not None and not may_send():
            error = "expired or stopped, or by the ledger of deliveries another worker may be sending"
            done(SendResult(Outcome.RETRY, 0, error_kind=NOT_SENT, error=error, retry_after_s=_NOT_SENT_S))
            return
        try:
            keys = [key for secret in self._keys for key in parse_keys(secret.text())]
            secret_headers = {name: secret.text() for name, secret in self._secret_headers.items()}
            signed = signature_headers(keys, webhook_id, int(self._wall_clock()), body)
        except SecretError as error:
            done(SendResult(Outcome.RETRY, 0, error_kind=UNSIGNED, error=str(error), healthy=False))
            return
        except ValueError as error:
            done(SendResult(Outcome.RETRY, 0, error_kind=OTHER, error=f"ValueError: {error}", healthy=False))
            return
        hidden = [*secret_headers.values(), *signed[SIGNATURE_HEADER].split()]
        if token is not None:
            hidden.append(token)
            secret_headers["Authorization"] = f"Bearer {token}"
        headers = [*_HEADERS, *self._headers, *(f"{name}: {text}" for name, text in (secret_headers | signed).items())]
        connect_s = min(_SLOWEST_CONNECT_S, self._timeout_s)
        request = Request(self._url, headers, self._timeout_s, body, connect_s, self._is_lost)
        began_s = time.monotonic()

        def end(ending: Ending) -> None:
            took_s = time.monotonic() - began_s
            self._is_lost = not isinstance(ending, Response)
            result = self._result(ending, hidden)
            if result.status == 401 and self._oauth2 is not None and token is not None and self._oauth2.renew(token):
                result = replace(result, outcome=Outcome.RETRY)
            healthy = result.healthy and took_s <= self._timeout_s / 2
            done(replace(result, latency_ms=round(took_s * 1000), healthy=healthy))

        self._transport.start(request, end)

    def _result(self, ending: Ending, hidden: Iterable[str]) -> SendResult:
        if isinstance(ending, Response):
            return self._meaning(ending.status, ending.retry_after, _excerpt(ending.body, hidden))
        if isinstance(ending, BlockedError):
            return SendResult(Outcome.REFUSED, error_kind=BLOCKED, error=str(ending))
        kind = ending.kind if isinstance(ending, CallError) else OTHER
        return SendResult(Outcome.RETRY, error_kind=kind, error=str(ending), healthy=False)

    def _meaning(self, status: int, retry_after: str | None, excerpt: str) -> SendResult:
        """The meaning of a status (Standard Webhooks, "Response status codes")."""
        if 200 <= status < 300:
            return SendResult(Outcome.DELIVERED, status=status)
        refused = SendResult(Outcome.REFUSED, 1, status, STATUS, f"HTTP {status}", excerpt=excerpt)
        if status == 410:
            return replace(refused, outcome=Outcome.GONE)
        if 300 <= status < 400:
            return replace(refused, error_kind=REDIRECT, error=f"HTTP {status}: a redirect, never followed")
        if status in (408, 425, 429) or 500 <= status < 600:
            after_s = retry_after_s(retry_after, self._wall_clock())
            after_s = None if after_s is None else min(after_s, self._longest_retry_after_s)
            # A 429 with Retry-After is an answer; without it, it means that no call gets through.
            healthy = status in (408, 425) or (status == 429 and after_s is not None)
            return replace(refused, outcome=Outcome.RETRY, retry_after_s=after_s, healthy=healthy)
        if 400 <= status < 500:
            return refused
        error = f"HTTP {status}: no such status"
        return replace(refused, outcome=Outcome.RETRY, error_kind=BAD_ANSWER, error=error, healthy=False)


def _excerpt(body: bytes, hidden: Iterable[str]) -> str:
    """The beginning of an answer in one line, without secrets."""
    text = body.decode(errors="replace")
    for secret in hidden:
        text = text.replace(secret, "[hidden]")
    return "".join(char if char.isprintable() else " " for char in text[:_EXCERPT]).strip()
