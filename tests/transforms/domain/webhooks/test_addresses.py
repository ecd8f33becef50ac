from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import examples
from transforms.domain.webhooks.addresses import is_private, is_public

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0"),
    *("192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
    *("2606:4700::1111", "2a00:1450:4001::200e", "2001:200::", "2001:4860:4860::8888", "3ffe::1"),
    *("64:ff9b::8.8.8.8",),
]
NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2"),
    *("172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.254", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8"),
    *("::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::169.254.169.254"),
    *("64:ff9b::168.63.129.16", "64:ff9b:1::8.8.8.8", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1"),
    *("2002:7f00:1::", "2002:a00:1::", "2002:808:808::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254"),
    *("fd12:3456::1", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1"),
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public(text: str) -> None:
    assert is_public(ip_address(text))
    assert not is_private(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "::1", "fd00::1"])
def test_private(text: str) -> None:
    assert is_private(ip_address(text))


@pytest.mark.parametrize(
    "text", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "fe80::1", "0.0.0.0", "224.0.0.1"]
)
def test_metadata_and_link_local_addresses_are_not_even_private(text: str) -> None:
    assert not is_private(ip_address(text))


edges = st.sampled_from([ip_address(text) for text in PUBLIC + NOT_PUBLIC])
near = st.tuples(edges, st.integers(-2, 2)).map(
    lambda pair: type(pair[0])((int(pair[0]) + pair[1]) % (2 ** pair[0].max_prefixlen))
)


@examples(2000, same=500)
@given(st.ip_addresses() | near)
@example(ip_address("192.88.99.2"))
def test_no_address_that_python_calls_special_is_public(address: IPv4Address | IPv6Address) -> None:
    """Only in this direction: we refuse more addresses than Python does."""
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and address not in ipaddress.ip_network("64:ff9b::/96"))
        or (isinstance(address, IPv6Address) and (address.is_site_local or address.sixtofour or address.teredo))
    )
    if is_public(address):
        assert not special


@given(st.ip_addresses(v=4))
def test_an_embedded_ipv4_address_is_public_only_in_nat64_and_if_it_is_public_itself(inner: IPv4Address) -> None:
    bits = int(inner)
    embedded = {
        "mapped": 0xFFFF << 32 | bits,
        "compatible": bits,
        "translated": 0xFFFF << 48 | bits,
        "NAT64": 0x0064FF9B << 96 | bits,
        "local NAT64": 0x0064FF9B0001 << 80 | bits,
        "6to4": 0x2002 << 112 | bits << 80,
        "Teredo server": 0x20010000 << 96 | bits << 64,
        "Teredo client": 0x20010000 << 96 | (bits ^ 0xFFFF_FFFF),
    }
    public = {name for name, value in embedded.items() if is_public(IPv6Address(value))}
    assert public == ({"NAT64"} if is_public(inner) else set())
