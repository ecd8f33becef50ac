from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, event, record, rule
from transforms.domain.events.event import EventLimits, parse_event
from transforms.domain.rules.actions import action_id, enriched_event
from transforms.domain.shard.trigger import Trigger
from transforms.domain.users.history import History, Row
from transforms.domain.users.user import UserState
from transforms.domain.users.visit import Visit


def test_an_action_id_is_the_same_for_ever() -> None:
    # Receivers deduplicate by this id: if it changes, every replay of an older action is new to them.
    assert action_id("u1", "e1", "welcome", 1, "debug") == "d5877bc91a147434407669ad53e15c33"


def test_each_part_changes_the_action_id() -> None:
    ids = {
        action_id(*parts)
        for parts in (
            ("u1", "e1", "r", 1, "a"),
            ("u2", "e1", "r", 1, "a"),
            ("u1", "e2", "r", 1, "a"),
            ("u1", "e1", "q", 1, "a"),
            ("u1", "e1", "r", 2, "a"),
            ("u1", "e1", "r", 1, "b"),
            ("u1e", "1", "r", 1, "a"),
        )
    }
    assert len(ids) == 7


def test_a_rule_fires_all_its_actions_in_order_with_one_body() -> None:
    twice = rule("r", version=3, actions=[{"type": "kafka", "topic": "t"}, {"type": "debug"}])
    parsed = parse_event(record(event(event_id="e1")), NOW_MS, EventLimits())
    user = UserState(0, "fetched", b"{}", History(5))
    trigger = Trigger("u1", "e1", parsed.fields, user, None, "events", record(parsed.fields))
    fired = list(trigger.actions(twice, 0, NOW_MS))
    body = enriched_event(parsed.fields, None, user)
    assert [
        (action.rule, action.rule_version, action.action.name, action.user_id, action.body) for action in fired
    ] == [
        ("r", 3, "kafka", "u1", body),
        ("r", 3, "debug", "u1", body),
    ]
    assert [item.action_id for item in fired] == [action_id("u1", "e1", "r", 3, name) for name in ("kafka", "debug")]


@pytest.mark.parametrize(
    ("enrichment", "profile_json", "shown", "fifth"),
    [
        ("fetched", b'{"a":"enrichment"}', {"a": "enrichment"}, None),
        ("fetched", b'{"a":{"enrichment":1}}', {"a": {"enrichment": 1}}, None),
        ("fetched", b'{"enrichment":"unknown"}', {"enrichment": "unknown"}, "fetched"),
        ("fetched", b'{"enrichm\\u0065nt":null}', {"enrichment": None}, "fetched"),
        ("unknown", b"{}", {"enrichment": "unknown"}, None),
    ],
)
def test_only_a_profile_with_a_field_enrichment_makes_a_fifth_key(
    enrichment: str, profile_json: bytes, shown: Any, fifth: str | None
) -> None:
    body = orjson.loads(enriched_event({}, None, UserState(0, enrichment, profile_json, History(5))))
    assert (body["userProfile"], body.get("enrichment")) == (shown, fifth)
    assert len(body) == (4 if fifth is None else 5)


def test_a_profile_with_a_number_that_only_some_readers_take_has_a_body() -> None:
    profile_json = b'{"a":' + b"9" * 400 + b',"b":"\\n"}'
    assert profile_json in enriched_event({}, None, UserState(0, "fetched", profile_json, History(5)))


def test_the_body_has_the_four_keys_of_the_spec() -> None:
    parsed = parse_event(record(event(event_id="e1", mood="good")), NOW_MS, EventLimits())
    history = History(5)
    history.add(Row(NOW_MS - 1, "e0", "session_start"))
    visit = Visit("v", NOW_MS - 5, 5, False)
    body = enriched_event(parsed.fields, visit, UserState(0, "fetched", b'{"country":"US"}', history))
    assert orjson.loads(body) == {
        "event": parsed.fields,
        "userProfile": {"country": "US"},
        "currentVisit": {"visit_id": "v", "start_time": NOW_MS - 5, "page_count": 5, "is_first_visit": False},
        "eventHistory": [{"event_id": "e0", "event_name": "session_start", "timestamp": NOW_MS - 1}],
    }
