from __future__ import annotations

import pytest

from pipeline.ui.throttle import FREE, Throttle


def test_waits_double_up_to_a_minute_and_end_with_success() -> None:
    throttle = Throttle(lambda: 100.0)
    waits = []
    for _ in range(FREE + 8):
        throttle.failed("192.0.2.1")
        waits.append(throttle.wait_s("192.0.2.1"))
    assert waits == [0.0] * (FREE - 1) + [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert throttle.wait_s("192.0.2.2") == 0.0
    throttle.succeeded("192.0.2.1")
    assert throttle.wait_s("192.0.2.1") == 0.0


def test_a_wait_passes_and_old_failures_are_forgotten() -> None:
    now_s = [0.0]
    throttle = Throttle(lambda: now_s[0])
    for _ in range(FREE + 1):
        throttle.failed("192.0.2.1")
    now_s[0] = 1.5
    assert throttle.wait_s("192.0.2.1") == 0.5
    now_s[0] = 1000.0
    assert throttle.failed("192.0.2.1") == 1


def test_addresses_of_one_ipv6_network_share_their_failures() -> None:
    throttle = Throttle(lambda: 0.0)
    for number in range(FREE):
        throttle.failed(f"2001:db8::{number}")
    assert throttle.wait_s("2001:db8::ffff") == 1.0
    assert throttle.wait_s("2001:db8:0:1::1") == 0.0
    for _ in range(FREE):
        throttle.failed("::ffff:192.0.2.1")
    assert throttle.wait_s("192.0.2.1") == 1.0


@pytest.mark.parametrize(
    "same", ["[2001:db8::1]:{}", "[2001:db8::{}]", "fe80::1%eth{}", "unknown{}", "192.0.2.1{}{}{}", ""]
)
def test_no_way_to_write_an_address_makes_more_of_it(same: str) -> None:
    throttle = Throttle(lambda: 0.0)
    for number in range(FREE):
        throttle.failed(same.format(number, number, number))
    assert throttle.wait_s(same.format(9, 9, 9)) == 1.0
    assert throttle.wait_s("192.0.2.77") == 0.0


def test_failures_of_a_million_addresses_take_no_more_room_than_of_a_thousand() -> None:
    throttle = Throttle(lambda: 0.0)
    for number in range(5000):
        throttle.failed(f"192.0.{number // 256}.{number % 256}")
    assert len(throttle._failures) == 1000
    throttle.failed("no address" * 1000)
    assert max(map(len, throttle._failures)) < 100
