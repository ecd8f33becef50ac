from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from transforms.adapters.webhook_sender.checked_host import CheckedHost, LookupFailedError, system_addresses
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
    found = parse_target(url, PUBLIC)
    assert found == expected
    assert found.host_header == (host_header or f"{expected.host}:{expected.port}".removesuffix(":443"))


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
def test_development_may_go_to_this_machine_and_private_networks_in_the_clear(url: str) -> None:
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
def test_not_even_development_may_go_everywhere(url: str) -> None:
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
def test_a_list_of_hosts_allows_those_and_no_others(allowed: tuple[str, ...], host: str, expected: bool) -> None:
    policy = EgressPolicy(allowed_hosts=allowed)
    if expected:
        assert parse_target(f"https://{host}/", policy).host == host
    else:
        with pytest.raises(BlockedError, match="not in the list of allowed hosts"):
            parse_target(f"https://{host}/", policy)


def test_a_list_of_hosts_makes_no_private_address_public() -> None:
    with pytest.raises(BlockedError, match="not public"):
        parse_target("https://10.0.0.1/", EgressPolicy(allowed_hosts=("10.0.0.1",)))


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Resolver:
    """Answers each look-up with the next of its answers, the last one for ever."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_addresses_of_a_name_are_in_the_resolver_s_order() -> None:
    resolver = Resolver(["2606:4700::1111", "1.1.1.1", "1.1.1.1"])
    assert CheckedHost(HOOKS, PUBLIC, resolver).addresses(10) == ("2606:4700::1111", "1.1.1.1")
    assert resolver.asked == ["hooks.example.com"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:a00:1", "fe80::1%eth0", "fd00::1", "2002:a00:1::"],
)
def test_one_address_that_is_not_public_is_one_too_many(address: str) -> None:
    for found in ([address], ["1.1.1.1", address], [address, "1.1.1.1"]):
        with pytest.raises(BlockedError, match=rf"^address {address.partition('%')[0]} is not public$"):
            CheckedHost(HOOKS, PUBLIC, Resolver(found)).addresses(10)


def test_a_host_is_looked_up_again_after_a_while_or_a_failure_and_checked_each_time() -> None:
    clock = FakeClock()
    resolver = Resolver(["1.1.1.1"], ["1.0.0.1"], ["8.8.8.8"], ["127.0.0.1"])
    host = CheckedHost(HOOKS, PUBLIC, resolver, 5.0, clock)
    assert host.addresses(10) == host.addresses(10) == ("1.1.1.1",)
    clock.now_s += 5
    assert host.addresses(10) == ("1.0.0.1",)
    host.forget()
    assert host.addresses(10) == ("8.8.8.8",)
    clock.now_s += 5
    for _ in range(2):
        with pytest.raises(BlockedError):
            host.addresses(10)
    assert len(resolver.asked) == 4


def test_an_address_is_not_looked_up() -> None:
    resolver = Resolver(["127.0.0.1"])
    assert CheckedHost(Target("https", "1.1.1.1", 443, "/"), PUBLIC, resolver).addresses(10) == ("1.1.1.1",)
    assert resolver.asked == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            socket.gaierror(-2, "Name or service not known"),
            "no address of hooks.example.com: Name or service not known",
        ),
        ([], "no address of hooks.example.com: no answer"),
        (UnicodeError("label too long"), "no address of hooks.example.com: UnicodeError"),
    ],
)
def test_a_name_without_address_fails_and_is_asked_for_again(answer: list[str] | Exception, reason: str) -> None:
    host = CheckedHost(HOOKS, PUBLIC, Resolver(answer, ["1.1.1.1"]))
    with pytest.raises(LookupFailedError) as caught:
        host.addresses(10)
    assert (str(caught.value), caught.value.timed_out) == (reason, False)
    assert host.addresses(10) == ("1.1.1.1",)


def test_a_resolver_that_hangs_keeps_nobody_longer_than_it_may_and_is_asked_once() -> None:
    go, asked = threading.Event(), []

    def hang(host: str) -> list[str]:
        asked.append(host)
        assert go.wait(10)
        return ["1.1.1.1"]

    host = CheckedHost(HOOKS, PUBLIC, hang)
    with ThreadPoolExecutor(8) as callers:
        began_s = time.monotonic()
        for future in [callers.submit(host.addresses, 0.1) for _ in range(8)]:
            with pytest.raises(LookupFailedError) as caught:
                future.result(10)
            assert caught.value.timed_out
        assert time.monotonic() - began_s < 5
        waiting = callers.submit(host.addresses, 10)
        go.set()
        assert waiting.result(10) == ("1.1.1.1",)
    assert asked == ["hooks.example.com"]


def test_the_system_knows_this_machine() -> None:
    assert set(system_addresses("localhost")) <= {"127.0.0.1", "::1"}
    assert system_addresses("127.1") == ["127.0.0.1"]  # which is why such names do not get as far as here
