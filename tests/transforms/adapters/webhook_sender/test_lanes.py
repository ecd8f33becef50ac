from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.transforms.adapters.webhook_sender.test_sender import destination
from transforms.adapters.http.breaker import Breaker
from transforms.adapters.http.io_thread import IoThread
from transforms.adapters.webhook_sender.lanes import FullError, Lane
from transforms.adapters.webhook_sender.sender import SendDone, Sender
from transforms.domain.webhooks.results import Outcome, SendResult

DELIVERED = SendResult(Outcome.DELIVERED, status=200)
FAILED = SendResult(Outcome.RETRY, status=500, error_kind="status", error="HTTP 500", healthy=False)
BUSY = SendResult(Outcome.RETRY, status=408, error_kind="status", error="HTTP 408")


class FakeTime(IoThread):
    """An I/O thread without a thread, whose time passes only in pauses."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def submit(self, callback: Callable[..., None], *args: Any) -> None:
        callback(*args)

    def later(self, pause_s: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        self.pauses.append(pause_s)
        self.now_s += pause_s
        callback(*args)
        return None  # type: ignore[return-value]


class FakeSender(Sender):
    """Answers with the next of its results, the last one for ever; ``at_s`` says when attempts began."""

    def __init__(self, time: FakeTime, *results: SendResult | Exception, took_s: float = 0.0) -> None:
        self._results = list(results)
        self._time = time
        self._took_s = took_s
        self.at_s: list[float] = []

    def start(self, webhook_id: str, body: bytes, done: SendDone, may_send: Any = None) -> None:
        self.at_s.append(self._time.now_s)
        self._time.now_s += self._took_s
        result = self._results.pop(0) if len(self._results) > 1 else self._results[0]
        if isinstance(result, Exception):
            raise result
        done(result)


class FakeLane(Lane):
    def send(self, webhook_id: str, body: bytes) -> SendResult:
        return self.submit(webhook_id, body).result(0)


def lane(
    time: FakeTime, *results: SendResult | Exception, took_s: float = 0.0, harnesses: int = 1, **more: Any
) -> tuple[FakeLane, FakeSender]:
    sender = FakeSender(time, *results, took_s=took_s)
    injected = {name: more.pop(name) for name in ("breaker", "wall_clock") if name in more}
    made = FakeLane(
        destination("https://hooks.example.com/", **more),
        sender,
        time,
        harnesses,
        10,
        clock=time.clock,
        chance=lambda: 1.0,
        **injected,
    )
    return made, sender


@pytest.mark.parametrize(
    ("results", "attempts", "pauses"),
    [
        ([DELIVERED], 1, []),
        ([BUSY, DELIVERED], 2, [0.25]),
        ([BUSY, BUSY, DELIVERED], 3, [0.25, 0.5]),
        ([BUSY, BUSY, BUSY, DELIVERED], 3, [0.25, 0.5]),
        ([BUSY, SendResult(Outcome.GONE, status=410)], 2, [0.25]),
        ([SendResult(Outcome.REFUSED, status=400)], 1, []),
        ([SendResult(Outcome.REFUSED, 0, error_kind="blocked")], 0, []),
        ([SendResult(Outcome.RETRY, 0, error_kind="unsigned"), DELIVERED], 0, []),
        ([replace(BUSY, retry_after_s=2.0), DELIVERED], 2, [2.25]),
        ([replace(BUSY, retry_after_s=4.8), DELIVERED], 1, []),
        ([replace(BUSY, retry_after_s=0.0), DELIVERED], 2, [0.25]),
    ],
)
def test_what_fails_for_now_is_tried_again_twice_within_seconds(
    results: list[SendResult], attempts: int, pauses: list[float]
) -> None:
    time = FakeTime()
    made, sender = lane(time, *results)
    result = made.send("a", b"")
    assert (result.attempts, len(sender.at_s), time.pauses) == (attempts, max(attempts, 1), pauses)
    assert result == replace(results[max(attempts, 1) - 1], attempts=attempts)


class Guard:
    def __init__(self) -> None:
        self.results: list[SendResult] = []

    def may_send(self) -> bool:
        return True

    def ended(self, result: SendResult) -> None:
        self.results.append(result)


def test_a_guard_hears_the_result_before_the_caller_does() -> None:
    made, _ = lane(FakeTime(), BUSY, DELIVERED)
    guard = Guard()
    future = made.submit("a", b"", guard=guard)
    assert guard.results == [future.result(0)] == [replace(DELIVERED, attempts=2)]


@pytest.mark.parametrize(("took_s", "attempts"), [(1.0, 3), (2.4, 2), (4.8, 1), (10.0, 1)])
def test_a_try_that_takes_long_leaves_no_time_for_others(took_s: float, attempts: int) -> None:
    made, _ = lane(FakeTime(), BUSY, took_s=took_s)
    assert made.send("a", b"").attempts == attempts


@pytest.mark.parametrize("status", [429, 503])
def test_when_the_receiver_asks_to_wait_nothing_is_sent_until_then(status: int) -> None:
    time = FakeTime()
    made, sender = lane(time, SendResult(Outcome.RETRY, status=status, retry_after_s=60.0), DELIVERED)
    assert made.send("a", b"").retry_after_s == 60.0
    time.now_s += 20
    held = made.send("b", b"")
    assert (held.outcome, held.attempts, held.error_kind, held.retry_after_s) == (Outcome.RETRY, 0, "paused", 40.0)
    time.now_s += 40
    assert made.send("b", b"") == DELIVERED
    assert len(sender.at_s) == 2


def test_another_status_with_a_wish_holds_up_its_own_webhook_only() -> None:
    made, _ = lane(FakeTime(), replace(FAILED, retry_after_s=60.0), DELIVERED)
    assert made.send("a", b"").retry_after_s == 60.0
    assert made.send("b", b"") == DELIVERED


SLOW = SendResult(Outcome.DELIVERED, status=200, healthy=False)


@pytest.mark.parametrize("result", [FAILED, SLOW, ValueError("broken")], ids=["fails", "is slow", "raises"])
def test_a_destination_that_fails_or_is_slow_is_left_alone_but_for_a_probe(result: SendResult | Exception) -> None:
    time = FakeTime()
    made, sender = lane(time, *([result] * 20), DELIVERED, breaker=Breaker(first_pause_s=10.0, clock=time.clock))
    while len(sender.at_s) < 20:
        made.send("a", b"")
    held = [made.send("b", b"") for _ in range(100)]
    assert {(one.outcome, one.attempts, one.error_kind) for one in held} == {(Outcome.RETRY, 0, "breaker_open")}
    assert len(sender.at_s) == 20
    time.now_s += 10
    assert made.send("c", b"") == DELIVERED
    assert made.send("d", b"") == DELIVERED


def test_answers_that_are_wrong_for_one_webhook_do_not_count_against_the_destination() -> None:
    made, sender = lane(FakeTime(), SendResult(Outcome.REFUSED, status=400))
    assert [made.send("a", b"").error_kind for _ in range(100)] == [None] * 100
    assert len(sender.at_s) == 100


def test_when_the_breaker_opens_between_attempts_the_failure_is_the_result() -> None:
    time = FakeTime()
    made, sender = lane(time, FAILED, breaker=Breaker(failures=1, first_pause_s=10.0, clock=time.clock))
    assert made.send("a", b"") == FAILED
    assert len(sender.at_s) == 1


def test_a_sender_that_raises_loses_nothing() -> None:
    made, _ = lane(FakeTime(), ValueError("broken"))
    result = made.send("a", b"")
    assert (result.outcome, result.error_kind, result.error) == (Outcome.RETRY, "other", "ValueError: broken")


@pytest.mark.parametrize("harnesses", [1, 4])
def test_attempts_keep_to_the_rate_which_is_divided_by_the_harnesses(harnesses: int) -> None:
    time = FakeTime()
    made, sender = lane(time, BUSY, DELIVERED, rate=2.0, harnesses=harnesses)
    for _ in range(9):
        made.send("a", b"")
    gaps = [later - earlier for earlier, later in itertools.pairwise(sender.at_s)]
    assert gaps == pytest.approx([harnesses / 2.0] * 9)  # tries count


def test_an_open_breaker_uses_up_no_rate() -> None:
    time = FakeTime()
    made, _ = lane(time, FAILED, DELIVERED, rate=1.0, breaker=Breaker(failures=1, clock=time.clock))
    made.send("a", b"")
    for _ in range(100):
        assert made.send("b", b"").error_kind == "breaker_open"
    time.now_s += 1
    assert made.send("c", b"") == DELIVERED
    assert time.pauses == [0.25]


class HeldSender(Sender):
    """Attempts end when the test says so."""

    def __init__(self) -> None:
        self.began: dict[str, SendDone] = {}

    def start(self, webhook_id: str, body: bytes, done: SendDone, may_send: Any = None) -> None:
        self.began[webhook_id] = done


def test_no_more_are_in_flight_than_allowed_and_no_more_wait() -> None:
    sender = HeldSender()
    made = Lane(destination("https://hooks.example.com/", max_in_flight=3), sender, FakeTime(), 1, 2)
    futures = [made.submit(f"w{number}", b"") for number in range(5)]
    with pytest.raises(FullError):
        made.submit("w5", b"")
    assert list(sender.began) == ["w0", "w1", "w2"]
    assert not futures[0].cancel()
    assert futures[4].cancel()
    futures[4] = made.submit("w5", b"")  # in the room of the one that does not wait any more
    with pytest.raises(FullError):
        made.submit("w6", b"")
    sender.began["w1"](DELIVERED)
    assert list(sender.began) == ["w0", "w1", "w2", "w3"]
    for name in ("w0", "w2", "w3", "w5"):
        sender.began[name](DELIVERED)
    assert [future.result(0) for future in futures] == [DELIVERED] * 5
    assert list(sender.began) == ["w0", "w1", "w2", "w3", "w5"]
    made.submit("w6", b"")
    assert "w6" in sender.began


def test_no_attempt_is_made_of_what_has_expired() -> None:
    time = FakeTime()
    made, sender = lane(time, BUSY, DELIVERED, wall_clock=time.clock)
    expired = SendResult(Outcome.RETRY, 0, error_kind="stopped", error="expired")
    assert made.submit("late", b"", 1_000_000).result(0) == expired
    assert sender.at_s == []
    # The first attempt is in time, the next would come a quarter of a second later.
    assert made.submit("soon over", b"", 1_000_100).result(0) == BUSY
    assert sender.at_s == [1000.0]


def test_what_expires_or_is_stopped_while_a_sender_reads_its_secrets_is_not_sent() -> None:
    for seconds, is_stopped, may_send in ((0.1, False, True), (0.2, False, False), (0.0, True, False)):
        time = FakeTime()
        made, sender = lane(time, DELIVERED, wall_clock=time.clock)
        asked = []

        def slow(webhook_id: str, body: bytes, done: SendDone, may_send: Callable[[], bool]) -> None:
            time.now_s += seconds  # noqa: B023
            if is_stopped:  # noqa: B023
                made.stop(webhook_id)  # noqa: B023
            asked.append(may_send())  # noqa: B023
            done(DELIVERED)

        sender.start = slow  # type: ignore[method-assign,assignment]
        made.submit("w", b"", 1_000_150)
        assert asked == [may_send]


def test_what_is_stopped_is_not_tried_again() -> None:
    time = FakeTime()
    made, sender = lane(time, BUSY, DELIVERED)
    start = sender.start

    def stopped_meanwhile(webhook_id: str, body: bytes, done: SendDone, may_send: Any = None) -> None:
        made.stop(webhook_id)
        start(webhook_id, body, done, may_send)

    sender.start = stopped_meanwhile  # type: ignore[method-assign]
    assert made.submit("w", b"").result(0) == BUSY
    assert len(sender.at_s) == 1
    made.stop("w")  # it has ended
    sender.start = start  # type: ignore[method-assign]
    assert made.submit("w", b"").result(0) == DELIVERED


class FirstHeldSender(Sender):
    """Holds the first calls; those that follow end at once, without a request."""

    def __init__(self, held: int) -> None:
        self._held = held
        self.dones: list[SendDone] = []
        self.at_once = 0

    def start(self, webhook_id: str, body: bytes, done: SendDone, may_send: Any = None) -> None:
        if len(self.dones) < self._held:
            self.dones.append(done)
        else:
            self.at_once += 1
            done(SendResult(Outcome.RETRY, 0, error_kind="not_sent", error="another worker"))


@pytest.mark.parametrize("breaker_opens", [False, True])
def test_a_long_queue_that_ends_at_once_ends_once_for_each_webhook(breaker_opens: bool) -> None:
    time, sender, breaker = FakeTime(), FirstHeldSender(8), Breaker()
    made = Lane(destination("https://hooks.example.com/", max_in_flight=8), sender, time, 1, 5000, breaker=breaker)
    futures = [made.submit(f"{number}", b"") for number in range(5000)]
    if breaker_opens:
        breaker.allows = lambda: False  # type: ignore[method-assign]
    for done in sender.dones:
        done(DELIVERED)
    results = [future.result(0) for future in futures]
    assert [result.outcome for result in results[:8]] == [Outcome.DELIVERED] * 8
    assert {(result.outcome, result.attempts) for result in results[8:]} == {(Outcome.RETRY, 0)}
    assert sender.at_once == (0 if breaker_opens else 4992)
    assert made._free == 8
