"""Resolving a host and checking its addresses, with a resolver that the test controls."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from transforms.adapters.http.calls import CallError
from transforms.adapters.webhook_sender.checked_host import CheckedHost, system_addresses
from transforms.domain.users.fetched_user import CONNECTION, TIMEOUT
from transforms.domain.webhooks.url_policy import BlockedError, EgressPolicy, Target

PUBLIC = EgressPolicy()
HOOKS = Target("https", "hooks.example.com", 443, "/")


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Resolver:
    """Answers each look-up with its next answer; the last answer repeats."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.lookups: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.lookups.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise type(answer)(*answer.args)  # a raised parameter would keep the host alive through its traceback
        return answer


def test_the_addresses_of_a_name_are_in_the_resolver_s_order() -> None:
    resolver = Resolver(["2606:4700::1111", "1.1.1.1", "1.1.1.1"])
    assert CheckedHost(HOOKS, PUBLIC, resolver).addresses(10) == ("2606:4700::1111", "1.1.1.1")
    assert resolver.lookups == ["hooks.example.com"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:a00:1", "fe80::1%eth0", "fd00::1", "2002:a00:1::"],
)
def test_a_host_with_any_address_that_is_not_public_is_blocked(address: str) -> None:
    for answer in ([address], ["1.1.1.1", address], [address, "1.1.1.1"]):
        with pytest.raises(BlockedError, match=rf"^address {address.partition('%')[0]} is not public$"):
            CheckedHost(HOOKS, PUBLIC, Resolver(answer)).addresses(10)


def test_a_host_is_looked_up_and_checked_again_after_its_lifetime_or_a_failure() -> None:
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
    assert len(resolver.lookups) == 4


def test_an_address_is_not_looked_up() -> None:
    resolver = Resolver(["127.0.0.1"])
    assert CheckedHost(Target("https", "1.1.1.1", 443, "/"), PUBLIC, resolver).addresses(10) == ("1.1.1.1",)
    assert resolver.lookups == []


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
def test_a_name_without_address_fails_and_is_looked_up_again(answer: list[str] | Exception, reason: str) -> None:
    host = CheckedHost(HOOKS, PUBLIC, Resolver(answer, ["1.1.1.1"]))
    with pytest.raises(CallError) as caught:
        host.addresses(10)
    assert (str(caught.value), caught.value.kind) == (reason, CONNECTION)
    assert host.addresses(10) == ("1.1.1.1",)


def test_a_hanging_resolver_is_called_once_and_callers_wait_no_longer_than_their_timeout() -> None:
    proceed, lookups = threading.Event(), []

    def hang(host: str) -> list[str]:
        lookups.append(host)
        assert proceed.wait(10)
        return ["1.1.1.1"]

    host = CheckedHost(HOOKS, PUBLIC, hang)
    with ThreadPoolExecutor(8) as callers:
        started_s = time.monotonic()
        for future in [callers.submit(host.addresses, 0.1) for _ in range(8)]:
            with pytest.raises(CallError) as caught:
                future.result(10)
            assert caught.value.kind == TIMEOUT
        assert time.monotonic() - started_s < 5
        waiting = callers.submit(host.addresses, 10)
        proceed.set()
        assert waiting.result(10) == ("1.1.1.1",)
    assert lookups == ["hooks.example.com"]


def test_the_system_knows_this_machine() -> None:
    assert set(system_addresses("localhost")) <= {"127.0.0.1", "::1"}
    assert system_addresses("127.1") == ["127.0.0.1"]  # parse_target refuses such names
