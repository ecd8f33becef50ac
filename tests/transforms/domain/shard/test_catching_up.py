"""A job that catches up is given events of hours in a moment: a user's sequences end as if time had passed between."""

from __future__ import annotations

import pytest

from tests.builders import NOW_MS, Shard, batch, event, fetched, rule
from transforms.domain.events.dead_letter import RULE_STATE_FULL
from transforms.domain.rules.actions import action_id
from transforms.domain.shard.step_input import Answer

HOUR_MS = 3_600_000
CARTS = 300
ABANDONED = {"not_followed_by": 'event.event_name == "checkout"', "within": "10m", "match": "event_id"}


@pytest.mark.parametrize("user_key", ["record", "field"])
def test_more_sequences_than_may_be_open_are_settled_on_the_way(user_key: str) -> None:
    shard = Shard(
        rule("abandoned", 'event.event_name == "cart"', sequence=ABANDONED),
        user_key=user_key,
        ttl_ms=CARTS * HOUR_MS * 2,
    )
    shard.step(batch(event()), now_ms=NOW_MS)
    shard.step(answers=[Answer("u1", fetched(None))], now_ms=NOW_MS)
    times = [NOW_MS + number * HOUR_MS for number in range(CARTS)]
    carts = [event(event_id=f"cart-{at_ms}", event_name="cart", timestamp=at_ms) for at_ms in times]
    caught_up = shard.step(batch(*carts), now_ms=times[-1])
    ended = shard.step(now_ms=times[-1] + HOUR_MS, stream_ms=times[-1] + HOUR_MS)

    fired = [action.action_id for step in (caught_up, ended) for action in step.actions]
    letters = [letter.reason for letter in caught_up.dead_letters]
    if user_key == "record":
        due = [action_id("u1", cart["event_id"], "abandoned", 1, "debug") for cart in carts]
        assert (fired, letters) == (due, [])
    else:
        # The user's events may be in several partitions, and only the stream's time knows about the others.
        assert letters == [RULE_STATE_FULL] * (CARTS - 100)
