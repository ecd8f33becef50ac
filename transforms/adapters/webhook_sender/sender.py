"""One attempt to deliver a webhook: a signed POST to a checked address, and the meaning of its answer."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import certifi
import urllib3
from urllib3 import exceptions

from transforms.adapters.http.calls import CallError, TimedPool, TimedTlsPool, check_ca_file, open_answer, retry_after_s
from transforms.adapters.secrets import Secret
from transforms.adapters.webhook_sender.checked_host import CheckedHost, Resolve, system_addresses
from transforms.domain.base.secret_references import SecretError
from transforms.domain.users.fetched_user import BAD_ANSWER, STATUS
from transforms.domain.webhooks.destinations import Destination, SecretValue, is_header_value
from transforms.domain.webhooks.results import Outcome, SendResult
from transforms.domain.webhooks.signatures import SIGNATURE_HEADER, parse_keys, signature_headers
from transforms.domain.webhooks.url_policy import BlockedError, EgressPolicy, Target, parse_target

# Kinds of errors beside those of ``domain.users.fetched_user``.
BLOCKED: Final = "blocked"  # the URL or an address of its host is not allowed
REDIRECT: Final = "redirect"
UNSIGNED: Final = "unsigned"  # a secret cannot be read, so nothing was sent

MAX_ANSWER_BYTES: Final = 65_536
_CHUNK: Final = 16_384
_EXCERPT: Final = 500
_USER_AGENT: Final = "event-trigger"
_SLOWEST_CONNECT_S: Final = 5.0
_POOLS: Final = 4  # addresses of one host to which connections are kept


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """The TLS context of all destinations, as reading CAs is slow; it trusts ``ca_file`` (PEM) or the public CAs.

    Raises:
        CaFileError: ``ca_file`` cannot be used.
    """
    if ca_file is not None:
        check_ca_file(ca_file)
    context = ssl.create_default_context(cafile=ca_file or certifi.where())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Sender:
    """Makes the attempts for one destination over pooled connections. Thread-safe; raises nothing for network errors.

    Once its secrets are read, an attempt takes at most the destination's ``timeout``, whatever the receiver does. It
    follows no redirect, uses no proxy, cookie or netrc, and verifies certificates.
    """

    def __init__(
        self,
        destination: Destination,
        policy: EgressPolicy,
        tls: ssl.SSLContext,
        *,
        resolve: Resolve = system_addresses,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._timeout_s = destination.timeout.ms / 1000
        self._longest_retry_after_s = destination.retry.longest.ms / 1000
        self._wall_clock = wall_clock
        self._keys = [Secret(reference, parse_keys) for reference in destination.secrets]
        self._secret_headers = {
            name: Secret(value.secret, _check_header)
            for name, value in destination.headers.items()
            if isinstance(value, SecretValue)
        }
        self._headers = {name: value for name, value in destination.headers.items() if isinstance(value, str)}
        self._connections: _Connections | BlockedError
        try:
            target = parse_target(destination.url, policy)
        except BlockedError as error:
            self._connections = error
            return
        self._connections = _Connections(target, CheckedHost(target, policy, resolve), destination.max_in_flight, tls)
        self._path = target.path
        self._headers |= {"Host": target.host_header, "Content-Type": "application/json", "User-Agent": _USER_AGENT}

    def attempt(self, webhook_id: str, body: bytes) -> SendResult:
        """Send a webhook with a JSON body once.

        Raises:
            ValueError: a signature cannot have this id.
        """
        if isinstance(self._connections, BlockedError):
            return SendResult(Outcome.REFUSED, 0, error_kind=BLOCKED, error=str(self._connections))
        try:
            keys = [key for secret in self._keys for key in parse_keys(secret.text())]
            secret_headers = {name: secret.text() for name, secret in self._secret_headers.items()}
        except SecretError as error:
            return SendResult(Outcome.RETRY, 0, error_kind=UNSIGNED, error=str(error), healthy=False)
        signed = signature_headers(keys, webhook_id, int(self._wall_clock()), body)
        hidden = (*secret_headers.values(), *signed[SIGNATURE_HEADER].split())
        headers = {**self._headers, **secret_headers, **signed}
        began_s = time.monotonic()
        result = self._post(self._connections, headers, body, began_s + self._timeout_s, hidden)
        took_s = time.monotonic() - began_s
        healthy = result.healthy and took_s <= self._timeout_s / 2
        return replace(result, latency_ms=round(took_s * 1000), healthy=healthy)

    def _post(
        self, connections: _Connections, headers: dict[str, str], body: bytes, ends_s: float, hidden: Iterable[str]
    ) -> SendResult:
        address = None
        try:
            address, pool = connections.pool(self._timeout_s)
            remaining_s = ends_s - time.monotonic()
            # For connecting and for the TLS handshake: both together fit into the remaining time.
            connect_s = min(_SLOWEST_CONNECT_S, remaining_s / 2)
            with open_answer(
                pool.urlopen, "POST", self._path, headers, remaining_s, body=body, connect_s=connect_s
            ) as response:
                return self._result(response.status, response.headers.get("Retry-After"), _excerpt(response, hidden))
        except BlockedError as error:
            return SendResult(Outcome.REFUSED, 0, error_kind=BLOCKED, error=str(error))
        except CallError as error:
            if address is not None:
                connections.failed(address)
            return SendResult(Outcome.RETRY, error_kind=error.kind, error=str(error), healthy=False)

    def _result(self, status: int, retry_after: str | None, excerpt: str) -> SendResult:
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


class _Connections:
    """A connection pool for each address of a host: it connects to the address, and TLS checks the host's name."""

    def __init__(self, target: Target, host: CheckedHost, size: int, tls: ssl.SSLContext) -> None:
        self._target = target
        self._host = host
        self._size = size
        self._tls = tls
        self._lock = threading.Lock()
        self._pools: dict[str, urllib3.HTTPConnectionPool] = {}
        self._failed: str | None = None

    def pool(self, timeout_s: float) -> tuple[str, urllib3.HTTPConnectionPool]:
        """An address that is checked now, and its pool; an address with connections first, one that just failed last.

        Raises:
            BlockedError: an address is not allowed.
            CallError: there is no address.
        """
        addresses = self._host.addresses(timeout_s)
        with self._lock:
            usable = [address for address in addresses if address != self._failed] or addresses
            address = next((address for address in usable if address in self._pools), usable[0])
            if address not in self._pools:
                if len(self._pools) >= _POOLS:
                    self._pools.pop(next(iter(self._pools))).close()
                self._pools[address] = self._new_pool(address)
            return address, self._pools[address]

    def failed(self, address: str) -> None:
        """Note that a call had no answer: the next one goes to another address, if there is one."""
        self._host.forget()
        with self._lock:
            self._failed = address

    def _new_pool(self, address: str) -> urllib3.HTTPConnectionPool:
        if self._target.scheme == "http":
            return TimedPool(address, self._target.port, maxsize=self._size)
        return TimedTlsPool(
            address, self._target.port, maxsize=self._size, ssl_context=self._tls, server_hostname=self._target.host
        )


def _check_header(text: str) -> None:
    if not is_header_value(text):
        raise SecretError("empty, too long, or with characters that are not visible ASCII or a space inside")


def _excerpt(response: urllib3.BaseHTTPResponse, hidden: Iterable[str]) -> str:
    """The beginning of the answer without secrets; reads on up to a cap, so that its connection can be used again."""
    body = bytearray()
    # The status counts even if the rest of the answer does not come.
    with contextlib.suppress(exceptions.HTTPError, OSError):
        while len(body) < MAX_ANSWER_BYTES and (chunk := response.read1(_CHUNK, decode_content=False)):
            body += chunk
    text = body.decode(errors="replace")
    for secret in hidden:
        text = text.replace(secret, "[hidden]")
    return "".join(char if char.isprintable() else " " for char in text[:_EXCERPT]).strip()
