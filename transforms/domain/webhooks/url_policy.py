"""Decides where webhooks may go: checks URLs and addresses before the first connection (SSRF protection).

A URL is parsed by one strict grammar, which refuses whatever two parsers could read differently. The transport
(``adapters/http/transport.py``) has each address checked before it connects, and again before each request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from transforms.domain.base.errors import EventTriggerError
from transforms.domain.webhooks.addresses import Address, is_private, is_public

_URL: Final = re.compile(
    r"(?P<scheme>[a-z]+)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<path>/[!-~]*)?"
)
_UNSAFE_IN_PATH: Final = re.compile(r"[\\\"<>^`{|}#]")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# Resolvers parse such names as addresses: 2130706433, 0177.0.0.1, 0x7f000001, 127.1.
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_LOCAL_NAME: Final = re.compile(r"(?:.*\.)?(?:localhost|localdomain|local|internal)", re.IGNORECASE)
_MAX_URL: Final = 2048
_HTTPS_PORT: Final = 443
_FIRST_USER_PORT: Final = 1024
_DEFAULT_PORTS: Final = {"https": _HTTPS_PORT, "http": 80}


class BlockedError(EventTriggerError, ValueError):
    """A URL or address that webhooks may not use; the message says why, without the URL's path or credentials."""


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Where webhooks may go.

    Attributes:
        allowed_hosts: host names, or ``*.`` and a domain for all names below it; None allows every public host.
        allow_private: allows loopback, private networks and plain http, for development.
    """

    allowed_hosts: tuple[str, ...] | None = None
    allow_private: bool = False

    def allows_host(self, host: str) -> bool:
        """Whether ``allowed_hosts`` contains the host; True without a list."""
        if self.allowed_hosts is None:
            return True
        name = host.lower()
        return any(
            name.endswith(pattern[1:].lower()) if pattern.startswith("*.") else name == pattern.lower()
            for pattern in self.allowed_hosts
        )

    def allows_address(self, address: Address) -> bool:
        """Whether webhooks may connect to the address."""
        return is_public(address) or (self.allow_private and is_private(address))


@dataclass(frozen=True, slots=True)
class Target:
    """An allowed URL: ``host`` is a name or an address (IPv6 without brackets), ``path`` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def host_header(self) -> str:
        """The value of the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, policy: EgressPolicy) -> Target:
    """Parse a URL and check all that can be checked without resolving the host.

    Raises:
        BlockedError: the policy does not allow the URL.
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
    literal = literal_address(host)
    if literal is not None:
        check_address(literal, policy)
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


def literal_address(host: str) -> Address | None:
    """Return the address of a host that is written as an IP address, None for a name."""
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None


def check_address(address: Address, policy: EgressPolicy) -> None:
    """Check one address of a host.

    Raises:
        BlockedError: the policy does not allow it.
    """
    if not policy.allows_address(address):
        raise BlockedError(f"address {address} is not public")
