from __future__ import annotations

import pytest

from transforms.domain.webhooks.url_policy import (
    BlockedError,
    EgressPolicy,
    Target,
    parse_target,
)

PUBLIC = EgressPolicy()
DEVELOPMENT = EgressPolicy(allow_private=True)
HOOKS = Target("https", "hooks.example.com", 443, "/")


@pytest.mark.parametrize(
    ("url", "target", "host_header"),
    [
        ("https://hooks.example.com", HOOKS, "hooks.example.com"),
        ("https://hooks.example.com:443/", HOOKS, "hooks.example.com"),
        ("https://Hooks.example.com:8443/a/b?c=d&e=%20", ("Hooks.example.com", 8443, "/a/b?c=d&e=%20"), None),
        ("https://xn--bcher-kva.example/x", ("xn--bcher-kva.example", 443, "/x"), None),
        ("https://1.1.1.1/", ("1.1.1.1", 443, "/"), "1.1.1.1"),
        ("https://[2606:4700::1111]:8443/x", ("2606:4700::1111", 8443, "/x"), "[2606:4700::1111]:8443"),
        ("https://a.b:1024/", ("a.b", 1024, "/"), "a.b:1024"),
        ("https://a.b:65535/", ("a.b", 65_535, "/"), "a.b:65535"),
    ],
)
def test_urls_that_are_allowed(url: str, target: Target | tuple[str, int, str], host_header: str | None) -> None:
    expected = target if isinstance(target, Target) else Target("https", *target)
    parsed = parse_target(url, PUBLIC)
    assert parsed == expected
    assert parsed.host_header == (host_header or f"{expected.host}:{expected.port}".removesuffix(":443"))


FORM = "not a URL of the allowed form"
BLOCKED = {
    "": FORM,
    "hooks.example.com": FORM,
    "//hooks.example.com/": FORM,
    "https:/hooks.example.com/": FORM,
    "https:///path": FORM,
    "HTTPS://hooks.example.com/": FORM,
    " https://hooks.example.com/": FORM,
    "https://hooks.example.com/\n": FORM,
    "https://hooks.example.com/a b": FORM,
    "https://hooks.example.com/ä": FORM,
    "https://bücher.example/": FORM,
    "https://\uff11\uff12\uff17.0.0.1/": FORM,
    "https://ⓛocalhost/": FORM,
    "https://127。0。0。1/": FORM,
    "https://hooks.example.com/#part": FORM,
    "https://hooks.example.com?query": FORM,
    "https://hooks.example.com\\@127.0.0.1/": FORM,
    "https://user@hooks.example.com/": FORM,
    "https://user:s3cr3t@hooks.example.com/": FORM,
    "https://127.0.0.1%2f@hooks.example.com/": FORM,
    "https://hooks.example.com%00.internal/": FORM,
    "https://hooks_1.example.com/": FORM,
    "https://[fe80::1%25eth0]/": FORM,
    "https://[::1/": FORM,
    "https://hooks.example.com:/": FORM,
    "https://hooks.example.com:443443/": FORM,
    "https://hooks.example.com:+443/": FORM,
    "https://hooks.example.com:٤٤٣/": FORM,
    "https://hooks.example.com/" + "x" * 2048: FORM,
    "http://hooks.example.com/": "scheme is 'http', allowed is https",
    "file:///etc/passwd": FORM,
    "gopher://hooks.example.com/": "scheme is 'gopher', allowed is https",
    "https://hooks.example.com:0/": "port is 0, allowed are 443 and 1024 to 65535",
    "https://hooks.example.com:22/": "port is 22, ",
    "https://hooks.example.com:80/": "port is 80, ",
    "https://hooks.example.com:1023/": "port is 1023, ",
    "https://hooks.example.com:65536/": "port is 65536, ",
    "https://localhost/": "host is 'localhost': a local name",
    "https://LOCALHOST/": "a local name",
    "https://intranet/": "a local name",
    "https://a.localhost/": "a local name",
    "https://metadata.google.internal/": "a local name",
    "https://printer.local/": "a local name",
    "https://localhost.localdomain/": "a local name",
    "https://localhost./": "not a host name",
    "https://hooks.example.com./": "not a host name",
    "https://-a.example/": "not a host name",
    "https://a-.example/": "not a host name",
    "https://a..b/": "not a host name",
    "https://" + "a" * 64 + ".example/": "not a host name",
    "https://" + "a." * 127 + "ab/": "not a host name",
    "https://2130706433/": "not an address as it is usually written",
    "https://017700000001/": "not an address",
    "https://0x7f000001/": "not an address",
    "https://0x7f.1/": "not an address",
    "https://0177.0.0.1/": "not an address",
    "https://127.1/": "not an address",
    "https://127.0.0.01/": "not an address",
    "https://127.0.0.0x1/": "not an address",
    "https://127.0.0.256/": "not an address",
    "https://1.2.3.4.5/": "not an address",
    "https://a.1/": "not an address",
    "https://a.0x/": "not an address",
    "https://[::1]:1]/": FORM,
    "https://[:::]/": "not an address",
    "https://[127.0.0.1]/": "address 127.0.0.1 is not public",
    "https://127.0.0.1/": "address 127.0.0.1 is not public",
    "https://0.0.0.0/": "address 0.0.0.0 is not public",
    "https://169.254.169.254/latest/meta-data/": "address 169.254.169.254 is not public",
    "https://[::]/": "address :: is not public",
    "https://[::1]/": "address ::1 is not public",
    "https://[::ffff:127.0.0.1]/": "is not public",
    "https://[0:0:0:0:0:ffff:7f00:1]/": "is not public",
    "https://[64:ff9b::7f00:1]/": "is not public",
    "https://[fd00:ec2::254]/": "is not public",
}


@pytest.mark.parametrize("url", BLOCKED)
def test_urls_that_are_not(url: str) -> None:
    with pytest.raises(BlockedError) as caught:
        parse_target(url, PUBLIC)
    assert BLOCKED[url] in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8080/x", "http://127.0.0.1/", "https://[::1]/", "http://receiver:1234/", "https://10.1.2.3/"],
)
def test_development_allows_this_machine_and_private_networks_without_tls(url: str) -> None:
    assert parse_target(url, DEVELOPMENT).scheme == url.partition(":")[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://100.100.100.200/",
        "http://0.0.0.0:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://224.0.0.1/",
        "http://2130706433/",
        "http://user:s3cr3t@localhost/",
        "http://localhost:22/",
        "ftp://localhost/",
    ],
)
def test_development_does_not_allow_everything(url: str) -> None:
    with pytest.raises(BlockedError):
        parse_target(url, DEVELOPMENT)


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        (("hooks.example.com",), "hooks.example.com", True),
        (("hooks.example.com",), "HOOKS.example.COM", True),
        (("hooks.example.com",), "a.hooks.example.com", False),
        (("hooks.example.com",), "hooks.example.com.evil.org", False),
        (("hooks.example.com",), "xhooks.example.com", False),
        (("*.example.com",), "a.b.example.com", True),
        (("*.example.com",), "example.com", False),
        (("*.example.com",), "evilexample.com", False),
        (("a.org", "*.B.org"), "x.b.org", True),
        (("1.1.1.1",), "1.1.1.1", True),
        (("1.1.1.1",), "1.0.0.1", False),
        ((), "hooks.example.com", False),
    ],
)
def test_a_list_of_hosts_allows_only_its_hosts(allowed: tuple[str, ...], host: str, expected: bool) -> None:
    policy = EgressPolicy(allowed_hosts=allowed)
    if expected:
        assert parse_target(f"https://{host}/", policy).host == host
    else:
        with pytest.raises(BlockedError, match="not in the list of allowed hosts"):
            parse_target(f"https://{host}/", policy)


def test_a_list_of_hosts_makes_no_private_address_public() -> None:
    with pytest.raises(BlockedError, match="not public"):
        parse_target("https://10.0.0.1/", EgressPolicy(allowed_hosts=("10.0.0.1",)))
