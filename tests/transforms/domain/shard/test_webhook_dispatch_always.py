"""Whatever happens to webhooks and their destinations: each ends once, and none overtakes another of its user."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.builders import control, rule
from tests.examples import examples
from tests.transforms.domain.shard.test_webhook_dispatch import WEBHOOK, WebhookShard, switch
from transforms.domain.webhooks.delivery_queue import DELAYED, DELIVERED, GONE, REFUSED, RETRY, Delivery
from transforms.runtime.outbox import Outbox

USERS = ("u", "v")
DESTINATIONS = ("crm", "ads")
RULE = rule("r", actions=[WEBHOOK | {"name": name, "destination": name} for name in DESTINATIONS])

DO = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(USERS)),
    st.tuples(st.just("say"), st.sampled_from(USERS)),
    st.tuples(
        st.just("end"), st.sampled_from([DELIVERED, DELIVERED, RETRY, RETRY, REFUSED, GONE, DELAYED]), st.integers(0, 9)
    ),
    st.tuples(st.just("end"), st.sampled_from([DELIVERED, RETRY]), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from([1, 5_000, 60_000, 700_000, 80_000_000])),
    st.tuples(st.just("restore")),
    st.tuples(st.just("forget"), st.sampled_from(USERS)),
    st.tuples(st.just("switch"), st.sampled_from(DESTINATIONS), st.booleans()),
)


class Watched(WebhookShard):
    """Remembers what was handed to the pool and what came of it."""

    def __init__(self) -> None:
        super().__init__(RULE, compact_bytes=1500)
        self.load("v")
        self.numbers = iter(range(10_000))
        self.said: dict[str, list[str]] = defaultdict(list)
        self.in_flight: list[tuple[str, Delivery]] = []
        self.handed: list[tuple[str, str, str]] = []
        self.delivered: Counter[str] = Counter()
        self.forgotten: set[str] = set()

    def start_all_due(self) -> None:
        deliveries = self.shard.state.deliveries
        for user_id, one in self.outbox.due(deliveries, self.shard.now_ms):
            self.outbox.sent(deliveries, user_id, one.action_id)
            self.in_flight.append((user_id, one))
            self.handed.append((user_id, one.destination, one.event_id))

    def do(self, what: str, *how: Any) -> None:
        if what == "say":
            event_id = f"{how[0]}-{next(self.numbers):04d}"
            self.said[how[0]].append(event_id)
            self.send_event(event_id, how[0])
        elif what == "end" and self.in_flight:
            _, one = self.in_flight.pop(how[1] % len(self.in_flight))
            if how[0] == DELIVERED:
                self.delivered[f"{one.destination}:{one.event_id}"] += 1
            self.end(one, how[0], retry_after_s=3.0 if how[0] == DELAYED else None)
        elif what == "wait":
            self.shard.now_ms += how[0]
            self.step()
        elif what == "restore":
            self.shard.restore()
            self.outbox = Outbox(self.shard.state.deliveries)
            self.in_flight.clear()
        elif what == "forget":
            waiting = self.shard.state.deliveries.get(how[0], ())
            self.forgotten |= {f"{delivery.destination}:{delivery.event_id}" for delivery in waiting}
            self.step(control({"forget": how[0]}))
            # As the worker does: what has not begun is not sent, and nobody waits for what has.
            for _, one in [one for one in self.in_flight if one[0] == how[0]]:
                self.outbox.in_flight.pop(one.action_id)
            self.in_flight = [one for one in self.in_flight if one[0] != how[0]]
            self.load(how[0])
        elif what == "switch":
            self.step(switch(*how))
        self.start_all_due()


@examples(150)
@given(st.lists(DO, min_size=10, max_size=80))
def test_each_webhook_ends_once_and_in_order(doing: list[tuple[Any, ...]]) -> None:
    watched = Watched()
    for what, *how in doing:
        watched.do(what, *how)
    while watched.shard.state.deliveries or watched.in_flight:
        for number in range(len(watched.in_flight)):
            watched.do("end", (DELIVERED, RETRY)[number % 2], 0)
        watched.do("wait", 80_000_000)

    lost = Counter(
        f"{letter.action.destination}:{letter.action.event_id}" for letter in watched.letters if letter.action
    )
    assert set(lost.values()) <= {1}
    every = {f"{name}:{one}" for said in watched.said.values() for one in said for name in DESTINATIONS}
    assert set(lost) | set(watched.delivered) | watched.forgotten == every
    # What was under way when its destination was disabled may have arrived as well.
    is_switched_off = any(what == "switch" and not how[1] for what, *how in doing)
    assert is_switched_off or not set(lost) & set(watched.delivered)
    assert watched.in_flight == []

    # The first time each was handed over is in the order in which they were decided.
    for user_id in USERS:
        for name in DESTINATIONS:
            first = list(dict.fromkeys(one for user, to, one in watched.handed if (user, to) == (user_id, name)))
            assert first == sorted(first)
