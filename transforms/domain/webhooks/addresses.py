"""Decides which IP addresses are public: a webhook to any other address could reach internal services (SSRF).

The networks are those of the IANA registries of special-purpose addresses (iana-ipv4-special-registry,
iana-ipv6-special-registry). They are written out here because ``ipaddress.is_global`` differs between Python releases.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, texts))


_NOT_PUBLIC_4: Final = _networks(
    "0.0.0.0/8",  # this network; Linux connects to itself at 0.0.0.0
    "10.0.0.0/8",
    "100.64.0.0/10",  # carrier-grade NAT
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local, and the metadata services of clouds
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",  # documentation, like two below
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",  # relays of 6to4
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
)
_GLOBAL_UNICAST_6: Final = IPv6Network("2000::/3")  # mapped, loopback, link-local, unique local, multicast are outside
_NOT_PUBLIC_6: Final = _networks(
    "2001::/23",  # protocols, among them Teredo, which embeds an IPv4 address
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4, which embeds an IPv4 address
    "2620:4f:8000::/48",
    "3fff::/20",  # documentation
)
# A resolver with DNS64 maps IPv4 addresses into this network: they reach the same host as the IPv4 address.
_NAT64: Final = IPv6Network("64:ff9b::/96")

_PRIVATE: Final = _networks("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
# Metadata services and agents of clouds outside 169.254.0.0/16; two are in networks that are otherwise allowed.
_METADATA: Final = frozenset(
    (IPv4Address("100.100.100.200"), IPv4Address("168.63.129.16"), IPv6Address("fd00:ec2::254"))
)


def is_public(address: Address) -> bool:
    """Whether the address can be reached from anywhere on the internet."""
    if address in _METADATA:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _GLOBAL_UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_private(address: Address) -> bool:
    """Whether the address is loopback or in a private network; metadata and link-local addresses are not."""
    return address not in _METADATA and any(address in network for network in _PRIVATE)
