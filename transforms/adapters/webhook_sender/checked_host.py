"""Looks up the addresses of a destination's host, and checks each one before a connection is made (SSRF)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address

from transforms.adapters.http.calls import CallError
from transforms.adapters.threads import DaemonThreads
from transforms.domain.users.fetched_user import CONNECTION, TIMEOUT
from transforms.domain.webhooks.url_policy import EgressPolicy, Target, check_address, literal_address

Resolve = Callable[[str], list[str]]


def system_addresses(host: str) -> list[str]:
    """The addresses of the system's resolver in its order; blocks as long as the resolver does.

    Raises:
        OSError: the name cannot be resolved.
    """
    infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


class CheckedHost:
    """The addresses of a target's host, checked against the policy on each use. Thread-safe.

    A look-up is used for ``kept_s``, so that a busy destination does not load the resolver. It runs in a thread of its
    own, so that no caller waits longer than its timeout.
    """

    def __init__(
        self,
        target: Target,
        policy: EgressPolicy,
        resolve: Resolve = system_addresses,
        kept_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = target.host
        self._literal = literal_address(target.host)
        self._policy = policy
        self._resolve = resolve
        self._kept_s = kept_s
        self._clock = clock
        self._threads = DaemonThreads(1, "webhook-lookup")
        self._lock = threading.Lock()
        self._addresses: tuple[str, ...] = ()
        self._until_s = 0.0

    def addresses(self, timeout_s: float) -> tuple[str, ...]:
        """At least one address, all of them allowed.

        Raises:
            BlockedError: an address is not allowed, even if others are.
            CallError: there is no address within ``timeout_s``.
        """
        if self._literal is not None:
            addresses: tuple[str, ...] = (str(self._literal),)
        else:
            addresses = self._kept() or self._look_up(timeout_s)
        for address in addresses:
            # Without its scope (fe80::1%eth0), which does not matter for the policy.
            check_address(ip_address(address.partition("%")[0]), self._policy)
        return addresses

    def forget(self) -> None:
        """Look up again next time, because connecting failed."""
        with self._lock:
            self._addresses = ()

    def _kept(self) -> tuple[str, ...]:
        with self._lock:
            return self._addresses if self._clock() < self._until_s else ()

    def _look_up(self, timeout_s: float) -> tuple[str, ...]:
        future = self._threads.submit(self._fetch)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise CallError(TIMEOUT, f"no address of {self._host} in time") from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise CallError(CONNECTION, f"no address of {self._host}: {reason}") from None

    def _fetch(self) -> tuple[str, ...]:
        """Runs in the thread; callers that waited meanwhile use the same look-up."""
        addresses = self._kept()
        if not addresses:
            addresses = tuple(dict.fromkeys(self._resolve(self._host)))
            if not addresses:
                raise OSError(None, "no answer")
            with self._lock:
                self._addresses, self._until_s = addresses, self._clock() + self._kept_s
        return addresses
