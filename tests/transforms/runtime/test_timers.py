from __future__ import annotations

import pytest

from transforms.runtime.outbox import Outbox
from transforms.runtime.settings import HandleSettings
from transforms.runtime.shard_memory import ShardMemory
from transforms.runtime.timers import idle_timer_ms, next_poll_ms, pending_timer_ms, stream_timer_ms

NOW_MS = 1_000_000
SETTINGS = HandleSettings((), fetch_poll_ms=25, delivery_poll_ms=100)


@pytest.mark.parametrize(
    ("due_ms", "set_ms", "expected_ms"),
    [
        (None, None, None),
        (None, NOW_MS, None),
        (NOW_MS + 60_000, None, NOW_MS + 61_000),
        (NOW_MS - 60_000, None, NOW_MS + 1000),
        (NOW_MS + 60_000, NOW_MS + 61_000, None),
        (NOW_MS + 60_000, NOW_MS + 61_001, NOW_MS + 61_000),
    ],
)
def test_the_idle_timer_fires_a_tick_after_the_first_ttl_has_ended(
    due_ms: int | None, set_ms: int | None, expected_ms: int | None
) -> None:
    assert idle_timer_ms(due_ms, set_ms, NOW_MS, 1000) == expected_ms


@pytest.mark.parametrize(
    ("due_ms", "set_ms", "expected_ms"),
    [(None, None, None), (1500, None, 2000), (2000, None, 3000), (1500, 2500, None), (1500, 2501, 2000)],
)
def test_the_stream_timer_fires_at_the_first_tick_after_what_is_due(
    due_ms: int | None, set_ms: int | None, expected_ms: int | None
) -> None:
    assert stream_timer_ms(due_ms, set_ms, 1000) == expected_ms


def test_the_pause_between_polls_doubles_up_to_sixteen_times_while_they_bring_nothing() -> None:
    pauses_ms = [next_poll_ms(NOW_MS, 25, empty_polls) - NOW_MS for empty_polls in range(7)]
    assert pauses_ms == [25, 50, 100, 200, 400, 400, 400]


class FixedOutbox(Outbox):
    """An outbox whose next attempt is due at a time, with or without a delivery in flight."""

    def __init__(self, attempt_ms: int | None, in_flight: bool) -> None:
        super().__init__({})
        self.in_flight = {"a1": "u1"} if in_flight else {}
        self.attempt_ms = attempt_ms

    def next_ms(self) -> int | None:
        return self.attempt_ms


@pytest.mark.parametrize(
    ("clock_due_ms", "memory", "expected_ms"),
    [
        (None, ShardMemory(FixedOutbox(None, False)), None),
        (NOW_MS + 7, ShardMemory(FixedOutbox(None, False)), NOW_MS + 7),
        (NOW_MS + 70, ShardMemory(FixedOutbox(None, False), fetch_started_ms={"u1": NOW_MS}), NOW_MS + 25),
        (
            None,
            ShardMemory(FixedOutbox(None, False), fetch_started_ms={"u1": NOW_MS}, empty_fetch_polls=2),
            NOW_MS + 100,
        ),
        (None, ShardMemory(FixedOutbox(NOW_MS, True)), NOW_MS + 100),
        (None, ShardMemory(FixedOutbox(NOW_MS, False)), NOW_MS + 100),
        (None, ShardMemory(FixedOutbox(NOW_MS + 5000, False)), NOW_MS + 5000),
        (
            None,
            ShardMemory(FixedOutbox(None, False), has_unpublished_size=True, published_ms=NOW_MS - 400),
            NOW_MS + 4600,
        ),
        (None, ShardMemory(FixedOutbox(None, False), has_unpublished_size=True), NOW_MS),
    ],
)
def test_the_pending_timer_fires_for_whatever_is_first(
    clock_due_ms: int | None, memory: ShardMemory, expected_ms: int | None
) -> None:
    assert pending_timer_ms(clock_due_ms, memory, SETTINGS, NOW_MS) == expected_ms


def test_the_pending_timer_is_only_ever_set_to_an_earlier_time() -> None:
    memory = ShardMemory(FixedOutbox(None, False))
    for set_ms, expected_ms in ((NOW_MS + 6, None), (NOW_MS + 7, None), (NOW_MS + 8, NOW_MS + 7)):
        memory.pending_due_ms = set_ms
        assert pending_timer_ms(NOW_MS + 7, memory, SETTINGS, NOW_MS) == expected_ms
