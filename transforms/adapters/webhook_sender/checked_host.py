"""Looks up the addresses of a destination's host and checks each before anything connects (SSRF)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address

from transforms.adapters.threads import DaemonThreads
from transforms.domain.base.errors import EventTriggerError
from transforms.domain.webhooks.url_policy import EgressPolicy, Target, check_address, literal_address

Resolve = Callable[[str], list[str]]


class LookupFailedError(EventTriggerError):
    """The host has no address now; ``timed_out`` if nobody said so in time."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


def system_addresses(host: str) -> list[str]:
    """What the system's resolver says, in its order; takes as long as that does."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


class CheckedHost:
    """The addresses of a target's host, checked each time they are asked for. Thread-safe.

    A look-up is used for ``kept_s``, so that a busy destination does not take up the resolver. It is made in a thread
    of its own, so that no caller waits longer than it may.
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
        self._found: tuple[str, ...] = ()
        self._until_s = 0.0

    def addresses(self, timeout_s: float) -> tuple[str, ...]:
        """At least one address, all of them allowed.

        Raises:
            BlockedError: one of them is not; it makes no difference that others are.
            LookupFailedError: there are none within ``timeout_s``.
        """
        if self._literal is not None:
            found: tuple[str, ...] = (str(self._literal),)
        else:
            found = self._kept() or self._look_up(timeout_s)
        for one in found:
            # A scope (fe80::1%eth0) makes it no other address.
            check_address(ip_address(one.partition("%")[0]), self._policy)
        return found

    def forget(self) -> None:
        """Look up again next time: connecting failed."""
        with self._lock:
            self._found = ()

    def _kept(self) -> tuple[str, ...]:
        with self._lock:
            return self._found if self._clock() < self._until_s else ()

    def _look_up(self, timeout_s: float) -> tuple[str, ...]:
        future = self._threads.submit(self._fetch)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise LookupFailedError(f"no address of {self._host} in time", timed_out=True) from None
        except (OSError, UnicodeError) as error:
            raise LookupFailedError(f"no address of {self._host}: {_reason(error)}") from None

    def _fetch(self) -> tuple[str, ...]:
        """In the thread; whoever waited for its turn uses what the one before found."""
        found = self._kept()
        if not found:
            found = tuple(dict.fromkeys(self._resolve(self._host)))
            if not found:
                raise OSError(None, "no answer")
            with self._lock:
                self._found, self._until_s = found, self._clock() + self._kept_s
        return found


def _reason(error: Exception) -> str:
    return str((error.strerror if isinstance(error, OSError) else None) or type(error).__name__)
