"""Where a webhook may go: URLs and the addresses of their hosts, checked before anything connects (SSRF).

A URL is read once, by one strict grammar, so that no two parts of the program can understand it differently. Its host
is looked up here, the answers are checked, and ``attempts`` connects to an address that passed, never to the name.

::

    BlockedError
    LookupFailedError
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final

from transforms.domain.threads import DaemonThreads
from transforms.domain.webhooks.addresses import Address, is_private, is_public

_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?"
)
_UNSAFE_IN_PATH: Final = re.compile(r"[\\\"<>^`{|}#]")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# Resolvers read such names as addresses: 2130706433, 0177.0.0.1, 0x7f000001, 127.1.
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_LOCAL_NAME: Final = re.compile(r"(?:.*\.)?(?:localhost|localdomain|local|internal)", re.IGNORECASE)
_MAX_URL: Final = 2048
_HTTPS_PORT: Final = 443
_FIRST_USER_PORT: Final = 1024
_DEFAULT_PORTS: Final = {"https": _HTTPS_PORT, "http": 80}

Resolve = Callable[[str], list[str]]


class BlockedError(ValueError):
    """Nothing may be sent there; says why, without the URL's path or credentials."""


class LookupFailedError(Exception):
    """The host has no address now; ``timed_out`` if nobody said so in time."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Where webhooks may go at all.

    ``allowed_hosts`` are names, or ``*.`` and a domain for all names below it; None allows every public host. With
    ``allow_private`` (development) loopback and private networks are allowed too, and plain http.
    """

    allowed_hosts: tuple[str, ...] | None = None
    allow_private: bool = False

    def allows_host(self, host: str) -> bool:
        """Whether the list of hosts, if there is one, has this one."""
        if self.allowed_hosts is None:
            return True
        name = host.lower()
        return any(
            name.endswith(one[1:].lower()) if one.startswith("*.") else name == one.lower()
            for one in self.allowed_hosts
        )

    def allows_address(self, address: Address) -> bool:
        """Whether webhooks may connect to it."""
        return is_public(address) or (self.allow_private and is_private(address))


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed: ``host`` is a name or an address (IPv6 without brackets), ``path`` has its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, policy: EgressPolicy) -> Target:
    """The parts of a URL to which webhooks may go, as far as that shows without looking the host up.

    Raises:
        BlockedError: they may not.
    """
    parts = _URL.fullmatch(url) if len(url) <= _MAX_URL else None
    if parts is None or _UNSAFE_IN_PATH.search(parts["path"] or ""):
        raise BlockedError(
            "not a URL of the allowed form: https://host[:port][/path][?query], visible ASCII (other characters"
            f" percent-encoded, host names as xn--…), no user, no fragment, at most {_MAX_URL} characters"
        )
    allowed_schemes = ("https", "http") if policy.allow_private else ("https",)
    if parts["scheme"] not in allowed_schemes:
        raise BlockedError(f"scheme is {parts['scheme']!r}, allowed is https")
    port = int(parts["port"] or _DEFAULT_PORTS[parts["scheme"]])
    well_known = port in (_HTTPS_PORT, 80 if policy.allow_private else _HTTPS_PORT)
    if not (well_known or _FIRST_USER_PORT <= port <= 65_535):
        raise BlockedError(f"port is {port}, allowed are {_HTTPS_PORT} and {_FIRST_USER_PORT} to 65535")
    host = parts["host"].strip("[]")
    _check_host(host, policy)
    return Target(parts["scheme"], host, port, parts["path"] or "/")


def _check_host(host: str, policy: EgressPolicy) -> None:
    literal = _literal(host)
    if literal is not None:
        _check_address(literal, policy)
    elif _ENDS_IN_NUMBER.fullmatch(host) or ":" in host:
        raise BlockedError(f"host is {host!r}: not an address as it is usually written, like 203.0.113.7")
    elif not _NAME.fullmatch(host) or len(host) > 253:
        raise BlockedError(
            f"host is {host[:300]!r}: not a host name (labels of letters, digits and -, no dot at the end)"
        )
    elif not policy.allow_private and ("." not in host or _LOCAL_NAME.fullmatch(host)):
        raise BlockedError(f"host is {host!r}: a local name")
    if not policy.allows_host(host):
        raise BlockedError(f"host is {host!r}: not in the list of allowed hosts")


def _literal(host: str) -> Address | None:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None


def _check_address(address: Address, policy: EgressPolicy) -> None:
    if not policy.allows_address(address):
        raise BlockedError(f"address {address} is not public")


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
        self._literal = _literal(target.host)
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
            _check_address(ip_address(one.partition("%")[0]), self._policy)
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
