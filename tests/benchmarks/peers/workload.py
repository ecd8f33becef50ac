"""What every row of the comparison is given: users, events of about 650 B, and which of them must lead to an action.

A run of events starts with one of every user, so that users are in state before anything is measured, and may hold a
share of users whom nobody has seen: each of those is a miss. Everything follows from a seed.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import orjson

from tests.benchmarks.shards import EVENT
from tests.benchmarks.user_api import SLOW_PREFIX, profile

Keys = Literal["zipf", "uniform"]

PARTITIONS: Final = 4
HISTORY: Final = 100
# The user API is asked about nobody else, and takes this long to answer about them: the prefix makes it slow.
STUB_DELAY_S: Final = 0.02
# Of the events so many are triggerable; a quarter of the users are from the US.
_TRIGGERABLE: Final = 0.2
# Runs of events in one topic differ in it, so that no event id comes twice.
_RUN_IDS: Final = 1 << 16

FILTER: Final = 'event.triggerable and user.country == "US"'
RULE: Final = f"name: bench\nversion: 1\nfilter: {FILTER}\nactions: [{{type: kafka}}]\n"
WEBHOOK_RULE: Final = RULE.replace("[{type: kafka}]", "[{type: kafka}, {type: webhook, destination: receiver}]")
# Of its ten rules nine do their work without an action: a cap and a sequence that no event ends in an hour.
TEN_RULES: Final = RULE + "".join(
    f"---\nname: rule-{number}\nversion: 1\nfilter: {FILTER}\nactions: [{{type: debug}}]\n{more}\n"
    for number, more in enumerate(
        [
            *["cap: {count: 1, window: 1d}"] * 5,
            *["sequence: {not_followed_by: event.event_name == 'checkout', within: 1h}"] * 4,
        ],
        2,
    )
)


@dataclass(frozen=True)
class Workload:
    """``misses`` is the share of events whose user is new."""

    keys: Keys
    users: int
    misses: float = 0.0
    seed: int = 7

    def known_users(self) -> list[bytes]:
        """Users who come again and again."""
        return [b"%b_known_%06d" % (SLOW_PREFIX.encode(), number) for number in range(self.users)]

    def first_events(self) -> Iterator[tuple[bytes, bool]]:
        """User and triggerable of one event of each known user."""
        return ((user, True) for user in self.known_users())

    def events(self, run: int) -> Iterator[tuple[bytes, bool]]:
        """User and triggerable of event after event, endlessly."""
        chance = random.Random(f"{self.seed} {run}")
        known, strangers = self.known_users(), _strangers(run)
        # Zipf with exponent 1: the n-th user comes 1/n as often as the first.
        weights = [1 / (rank + 1) if self.keys == "zipf" else 1.0 for rank in range(self.users)]
        cumulative = list(itertools.accumulate(weights))
        while True:
            for user in chance.choices(known, cum_weights=cumulative, k=1000):
                new = self.misses > 0 and chance.random() < self.misses
                yield next(strangers) if new else user, chance.random() < _TRIGGERABLE


def _strangers(run: int) -> Iterator[bytes]:
    return (b"%b_new_%d_%07d" % (SLOW_PREFIX.encode(), run, number) for number in itertools.count())


def encode(run: int, number: int, user: bytes, triggerable: bool, at_ms: int) -> bytes:
    """The event as JSON. ``run`` and ``number`` make its id."""
    if not 0 <= run < _RUN_IDS:
        raise ValueError(f"run is {run}, allowed: 0 to {_RUN_IDS - 1}")
    event_id = b"%08x-%04x-4000-8000-0123456789ab" % (number, run)
    true, false = b"true", b"false"
    return EVENT % (
        event_id, user, b"page_view", number % 90_000, at_ms, true if triggerable else false, false, false,
        time.time_ns() // 1000,
    )  # fmt: skip


@lru_cache(maxsize=200_000)
def country(user_id: str) -> str:
    """Where the user API says that a user lives."""
    return str(orjson.loads(profile(user_id.encode()))["country"])


def fires(event: dict[str, Any]) -> bool:
    """Whether the rule fires: the oracle, in Python."""
    return event["triggerable"] and country(event["user_id"]) == "US"
