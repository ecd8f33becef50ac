"""``begun`` in the Lua of a sequence's steps: the event that began it, for each open sequence by itself."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, event, fetched, filter_set
from transforms.adapters.lua.engines import Isolation
from transforms.domain.rules.model import Rule
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult

MINUTE_MS = 60_000
CHEAPER = 'event.event_name == "buy" and event.parameters.price < begun.parameters.price'


def rule(sequence: dict[str, Any], **fields: Any) -> Rule:
    document = {
        "name": "r",
        "version": 1,
        "filter": 'event.event_name == "see"',
        "actions": [{"type": "kafka", "body": {"event": "${event.event_id}", "begun": "${begun.event_id}"}}],
        "sequence": sequence,
    }
    return Rule.model_validate(document | fields)


class Bodies:
    """A shard whose users are known, and the bodies that come out of it."""

    def __init__(self, *rules: Rule) -> None:
        self.shard = Shard(*rules)
        self.at_ms = NOW_MS
        self.errors = 0

    def say(self, event_id: str, name: str, **parameters: Any) -> list[Any]:
        self.at_ms += MINUTE_MS
        made = event("u", event_id=event_id, event_name=name, timestamp=self.at_ms, parameters=parameters)
        bodies = self._bodies(self.shard.step(batch(made), now_ms=self.at_ms))
        while self.shard.fetch_started_ms:
            bodies += self._bodies(self.shard.step(answers=[Answer("u", fetched(None))]))
        return bodies

    def end(self) -> list[Any]:
        return self._bodies(self.shard.step(stream_ms=self.at_ms + 24 * 60 * MINUTE_MS))

    def _bodies(self, done: StepResult) -> list[Any]:
        self.errors += done.counts["rule_errors"]
        return [orjson.loads(action.body) for action in done.actions]


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_step_compares_the_event_with_the_one_that_began(isolation: Isolation) -> None:
    cheaper = rule({"followed_by": CHEAPER, "within": "1h"})
    bodies = Bodies(cheaper)
    bodies.shard.filters = filters = filter_set((cheaper,), isolation=isolation)
    bodies.say("a", "see", price=10)
    assert bodies.say("b", "buy", price=10) == []
    assert bodies.say("c", "buy", price=9) == [{"event": "c", "begun": "a"}]
    assert bodies.say("d", "buy", price=8) == []
    assert bodies.errors == 0
    filters.close()


def test_each_open_sequence_is_asked_by_itself() -> None:
    items = {"begun": "parameters.sku", "followed": "parameters.items[].sku"}
    bodies = Bodies(rule({"not_followed_by": CHEAPER, "within": "1h", "match": items}))
    bodies.say("a", "see", sku=1, price=10)
    bodies.say("b", "see", sku=2, price=20)
    bodies.say("c", "see", sku=3, price=30)
    bodies.say("d", "buy", items=[{"sku": 1}, {"sku": 2}], price=15)  # cheaper than b; c is not among the items
    assert bodies.end() == [{"event": "a", "begun": "a"}, {"event": "c", "begun": "c"}]


@pytest.mark.parametrize("restores", [False, True])
def test_a_later_step_sees_the_event_that_began_the_first(restores: bool) -> None:
    steps = [
        {"followed_by": 'event.event_name == "buy"', "within": "1h"},
        {"followed_by": 'event.event_name == "rate" and count{} == 2 and begun.parameters.stars', "within": "1h"},
    ]
    bodies = Bodies(rule({"steps": steps}))
    bodies.say("a", "see", stars=True)
    bodies.say("b", "buy")
    if restores:
        bodies.shard.restore()
    assert bodies.say("c", "rate") == [{"event": "c", "begun": "a"}]


def test_without_an_open_sequence_the_condition_does_not_run() -> None:
    bodies = Bodies(rule({"followed_by": 'begun.parameters.x.y == 1 or error("bad")', "within": "1h"}))
    bodies.say("a", "buy")
    assert bodies.errors == 0
    bodies.say("b", "see", x={"y": 2})
    bodies.say("c", "buy")
    assert bodies.errors == 1


def test_of_a_sequence_that_an_older_set_began_only_the_id_is_known() -> None:
    body = [{"type": "kafka", "body": {"event": "${event.event_id}"}}]
    follows = 'event.event_name == "buy"'
    bodies = Bodies(rule({"followed_by": follows, "within": "1h"}, actions=body))
    bodies.say("a", "see", price=10)
    newer = f'{follows} and begun.event_id == "a" and not begun.parameters.price'
    bodies.shard.filters = filter_set((rule({"followed_by": newer, "within": "1h"}, actions=body),))
    assert bodies.say("b", "buy") == [{"event": "b"}]


def test_what_a_condition_changes_in_begun_is_gone_with_its_call() -> None:
    changes = """begun.event_name = "changed"
begun.parameters.n = (begun.parameters.n or 0) + 1
return event.event_name == "buy" and begun.parameters.n == 1"""
    bodies = Bodies(rule({"followed_by": changes, "within": "1h"}))
    bodies.say("a", "see")
    bodies.say("b", "other")
    assert bodies.say("c", "buy") == [{"event": "c", "begun": "a"}]


def test_a_global_of_this_name_stays_the_rules_own() -> None:
    own = 'begun = 5\nreturn event.event_name == "buy" and begun == 5'
    bodies = Bodies(rule({"followed_by": own, "within": "1h"}))
    bodies.say("a", "see")
    assert bodies.say("b", "buy") == [{"event": "b", "begun": "a"}]
