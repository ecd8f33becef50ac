"""A job that catches up is given events of hours in a moment: a user's sequences end as if time had passed between."""

from __future__ import annotations

from typing import Any

from tests.builders import NOW_MS, Shard, batch, event, fetched, rule
from transforms.domain.events.dead_letter import RULE_STATE_FULL
from transforms.domain.rules.actions import action_id
from transforms.domain.shard.step_input import Answer

HOUR_MS = 3_600_000
CARTS = 300
ABANDONED = {"not_followed_by": 'event.event_name == "checkout"', "within": "10m", "match": "event_id"}


CHECKED_OUT = {
    "steps": [
        {"followed_by": 'event.event_name == "order"', "within": "5m"},
        {"not_followed_by": 'event.event_name == "checkout"', "within": "10m"},
    ],
    "match": "event_id",
}


def caught_up(sequence: dict[str, Any], parameters: dict[str, Any], **settings: Any) -> tuple[list[str], list[str]]:
    """The actions and the reasons of dead letters when a user's carts of 300 hours come at once and then time ends."""
    shard = Shard(
        rule("abandoned", 'event.event_name == "cart"', sequence=sequence), ttl_ms=CARTS * HOUR_MS * 2, **settings
    )
    shard.step(batch(event()), now_ms=NOW_MS)
    shard.step(answers=[Answer("u1", fetched(None))], now_ms=NOW_MS)
    times = [NOW_MS + number * HOUR_MS for number in range(CARTS)]
    carts = [
        event(event_id=f"cart-{number}", event_name="cart", timestamp=at_ms, parameters=parameters)
        for number, at_ms in enumerate(times)
    ]
    steps = [shard.step(batch(*carts), now_ms=times[-1])]
    steps.append(shard.step(now_ms=times[-1] + HOUR_MS, stream_ms=times[-1] + HOUR_MS))
    return (
        [action.action_id for step in steps for action in step.actions],
        [letter.reason for step in steps for letter in step.dead_letters],
    )


ALL_FIRED = [action_id("u1", f"cart-{number}", "abandoned", 1, "debug") for number in range(CARTS)]


def test_more_sequences_than_may_be_open_are_settled_on_the_way() -> None:
    assert caught_up(ABANDONED, {}) == (ALL_FIRED, [])


def test_fewer_sequences_of_more_bytes_than_may_be_open_are_settled_on_the_way() -> None:
    assert caught_up(ABANDONED, {"note": "x" * 30_000}, max_event_bytes=40_000) == (ALL_FIRED, [])


def test_records_that_may_be_out_of_order_by_days_end_nothing() -> None:
    fired, reasons = caught_up(ABANDONED, {}, out_of_order_ms=1000 * HOUR_MS)
    assert set(reasons) == {RULE_STATE_FULL}
    assert len(fired) + len(reasons) == CARTS


def test_sequences_that_end_without_firing_make_room_too() -> None:
    assert caught_up(CHECKED_OUT, {}) == ([], [])


def test_with_the_user_in_a_field_only_the_streams_time_settles() -> None:
    # The user's events may be in several partitions, and only the stream's time knows about the others.
    fired, letters = caught_up(ABANDONED, {}, user_key="field")
    assert (fired, letters) == (ALL_FIRED[:100], [RULE_STATE_FULL] * (CARTS - 100))
