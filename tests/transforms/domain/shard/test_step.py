from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from tests.builders import NOW_MS, Shard, batch, control, event, fetched, record, rule
from tests.oracle import DEFAULTS
from transforms.domain.events.record import Record
from transforms.domain.shard.facts import IdleUsersForgotten
from transforms.domain.shard.step import idle_due_ms, step
from transforms.domain.shard.step_input import Answer, StepContext, StepInput
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.fetched_user import STATUS, unavailable

US = {"profile": {"country": "US"}, "visit": None, "history": []}


def ids(done: StepResult) -> list[str]:
    """The events that actions are for, in order."""
    return [orjson.loads(action.body)["event"]["event_id"] for action in done.actions]


def loaded(shard: Shard, *user_ids: str, known: Any = None) -> Shard:
    """The shard, these users loaded by an event each."""
    for user_id in user_ids:
        shard.step(batch(event(user_id)))
        shard.step(answers=[Answer(user_id, fetched(known))])
    return shard


def test_a_miss_waits_and_asks_for_the_user_once() -> None:
    shard = Shard(rule())
    done = shard.step(batch(event("u1"), event("u1"), event("u2")))
    assert list(done.users_to_fetch) == ["u1", "u2"]
    assert done.actions == []
    assert done.counts["state_misses"] == 2
    assert list(shard.step(batch(event("u1"))).users_to_fetch) == []
    assert len(shard.state.parked["u1"].records) == 3


def test_events_that_waited_run_in_their_order_when_the_answer_comes() -> None:
    shard = Shard(rule())
    shard.step(batch(event("u1", event_id="a"), event("u2", event_id="x"), event("u1", event_id="b")))
    shard.step(batch(event("u1", event_id="c")))
    done = shard.step(batch(event("u1", event_id="d")), [Answer("u1", fetched(US))])
    assert ids(done) == ["a", "b", "c", "d"]
    assert orjson.loads(done.actions[0].body)["userProfile"] == {"country": "US"}
    assert (done.counts["users_loaded"], done.counts["users_fetched"]) == (1, 1)
    assert "u2" in shard.state.parked


def test_other_users_flow_on_while_one_waits() -> None:
    shard = loaded(Shard(rule()), "u1")
    done = shard.step(batch(event("u2"), event("u1", event_id="a")))
    assert ids(done) == ["a"]


def test_a_hit_is_handled_at_once() -> None:
    shard = loaded(Shard(rule()), "u1")
    done = shard.step(batch(event("u1", event_id="a")))
    assert ids(done) == ["a"]
    assert list(done.users_to_fetch) == []
    assert (done.counts["state_hits"], done.counts["events_handled"], done.counts["events"]) == (1, 1, 1)


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    shard = loaded(Shard(rule(), ttl_ms=1000), "u1")
    shard.now_ms += 1000  # gone, if not swept yet
    assert shard.state.users
    done = shard.step(answers=[Answer("u1", fetched(US)), Answer("u9", fetched(US))], now_ms=shard.now_ms)
    assert [type(fact) for fact in done.facts] == [IdleUsersForgotten]
    assert dict(done.counts) == {"users_expired": 1}
    assert (shard.state.users, done.actions) == ({}, [])


def test_each_event_sees_the_ones_before_it_and_not_itself() -> None:
    shard = loaded(Shard(rule()), "u1")
    shard.step(control({"forget": "u1"}))
    shard.step(batch(event("u1", event_id="a"), event("u1", event_id="b")))
    done = shard.step(batch(event("u1", event_id="c")), [Answer("u1", fetched(None))])
    seen = [[row["event_id"] for row in orjson.loads(action.body)["eventHistory"]] for action in done.actions]
    assert seen == [[], ["a"], ["a", "b"]]


def test_the_body_of_an_action_is_the_enriched_event() -> None:
    shard = Shard(rule(), history_fields=("platform",))
    known = {
        "profile": {"country": "US", "tags": ["a"]},
        "visit": {"visit_id": "v", "start_time": 5, "page_count": 2, "is_first_visit": True},
        "history": [{"event_id": "old", "event_name": "n", "timestamp": 4, "platform": "ios"}],
    }
    sent = event("u1", event_type="pageview", mood="good")
    shard.step(batch(sent))
    (action,) = shard.step(answers=[Answer("u1", fetched(known, ("platform",)))]).actions
    assert orjson.loads(action.body) == {
        "event": {**DEFAULTS, **sent},
        "userProfile": known["profile"],
        "currentVisit": {"visit_id": "v", "start_time": 5, "page_count": 3, "is_first_visit": True},
        "eventHistory": known["history"],
    }


def test_a_part_of_a_field_is_in_the_history_where_the_event_has_it() -> None:
    named = ("parameters.category", "parameters.cart.total")
    filter_ = 'history[1].parameters.category == "shoes" and history[2].parameters.category == "hats"'
    shard = Shard(rule(filter_=f"#history == 2 and {filter_}"), history_fields=named)
    old = {"event_id": "old", "event_name": "n", "timestamp": 4, "parameters": {"category": "shoes", "price": 1}}
    parameters = {"category": "hats", "price": 2, "cart": {"id": "c", "total": 9}}
    shard.step(batch(event("u1", event_id="a", parameters=parameters)))
    shard.step(answers=[Answer("u1", fetched(US | {"history": [old]}, named))])
    (action,) = shard.step(batch(event("u1", event_id="b"))).actions
    assert orjson.loads(action.body)["eventHistory"] == [
        old | {"parameters": {"category": "shoes"}},
        {
            "event_id": "a",
            "event_name": "page_view",
            "timestamp": NOW_MS,
            "parameters": {"category": "hats", "cart": {"total": 9}},
        },
    ]


def test_a_duplicate_is_counted_and_not_acted_on() -> None:
    shard = loaded(Shard(rule()), "u1")
    sent = event("u1")
    assert len(shard.step(batch(sent)).actions) == 1
    done = shard.step(batch(sent, sent | {"timestamp": NOW_MS + 5}))
    assert (done.actions, done.facts) == ([], [])
    assert (done.counts["duplicates"], done.counts["events_handled"]) == (2, 0)


def test_the_same_id_of_another_user_is_no_duplicate() -> None:
    shard = loaded(Shard(rule()), "u1", "u2")
    assert len(shard.step(batch(event("u1", event_id="a"), event("u2", event_id="a"))).actions) == 2


def test_an_event_that_waits_twice_acts_once() -> None:
    shard = Shard(rule())
    sent = event("u1")
    shard.step(batch(sent, sent))
    done = shard.step(answers=[Answer("u1", fetched(None))])
    assert (len(done.actions), done.counts["duplicates"]) == (1, 1)


def test_the_api_s_history_does_not_make_a_waiting_event_a_duplicate_of_itself() -> None:
    shard = Shard(rule())
    first, second = event("u1", event_id="a"), event("u1", event_id="b", timestamp=NOW_MS + 1)
    past = [{"event_id": name, "event_name": "n", "timestamp": NOW_MS - 1} for name in ("a", "old", "b")]
    shard.step(batch(first, second))
    done = shard.step(answers=[Answer("u1", fetched(US | {"history": past}))])
    assert ids(done) == ["a", "b"]
    assert [row["event_id"] for row in shard.inspect("u1")["eventHistory"]] == ["old", "a", "b"]


def test_an_unsorted_history_of_the_api_keeps_its_newest() -> None:
    shard = Shard(rule(), history_size=3)
    past = [{"event_id": f"p{n}", "event_name": "n", "timestamp": NOW_MS - n} for n in range(1, 7)]  # newest first
    shard.step(batch(event("u1", event_id="a")))
    (action,) = shard.step(answers=[Answer("u1", fetched(US | {"history": past}))]).actions
    assert [row["event_id"] for row in orjson.loads(action.body)["eventHistory"]] == ["p3", "p2", "p1"]


def test_after_the_deadline_events_run_with_an_empty_profile() -> None:
    shard = Shard(rule("r", 'user.enrichment == "unavailable"'), enrichment_deadline_ms=100)
    shard.step(batch(event("u1", event_id="a")))
    shard.step(batch(event("u1", event_id="b")), now_ms=NOW_MS + 60)
    assert shard.step(now_ms=NOW_MS + 99).actions == []
    done = shard.step(now_ms=NOW_MS + 100)  # the deadline is the first event's
    assert ids(done) == ["a", "b"]
    assert orjson.loads(done.actions[0].body)["userProfile"] == {"enrichment": "unavailable"}
    assert done.counts["users_unavailable"] == done.counts["enrichment_errors_timeout"] == 1
    assert shard.state.parked == {}


def test_time_in_which_nobody_asked_does_not_count_towards_the_deadline() -> None:
    shard = Shard(rule(), enrichment_deadline_ms=100)
    shard.step(batch(event("u1", event_id="a")))
    asked = {"u1": NOW_MS + 5000}  # a restore took so long

    def later(ms: int) -> StepResult:
        given = StepInput(NOW_MS + ms, fetch_started_ms=asked)
        return step(shard.state, StepContext(shard.settings, shard.filters), given)

    assert later(5000).facts == later(5099).facts == []
    assert later(5100).counts["users_unavailable"] == 1


def test_an_unknown_user_has_an_empty_profile_and_is_not_asked_for_again() -> None:
    shard = loaded(Shard(rule("r", 'user.enrichment == "unknown" and user.country == nil')), "u1")
    done = shard.step(batch(event("u1", event_id="a")))
    assert (ids(done), done.users_to_fetch) == (["a"], {})


def test_an_api_error_is_unavailable_at_once() -> None:
    shard = Shard(rule())
    shard.step(batch(event("u1")))
    done = shard.step(answers=[Answer("u1", unavailable(STATUS, "HTTP 500"))])
    (action,) = done.actions
    assert done.counts["users_unavailable"] == done.counts["enrichment_errors_status"] == 1
    assert orjson.loads(action.body)["userProfile"] == {"enrichment": "unavailable"}


# Time


@pytest.mark.parametrize(("waited", "found"), [(999, True), (1000, False), (1001, False)])
def test_idle_user_is_forgotten(waited: int, found: bool) -> None:
    shard = loaded(Shard(ttl_ms=1000), "u1", known=US)
    done = shard.step(now_ms=NOW_MS + waited)
    assert ("u1" in shard.state.users) is found
    assert done.counts["users_expired"] == (0 if found else 1)
    assert shard.inspect("u1")["found"] is found


def test_an_event_at_the_very_end_of_the_ttl_is_a_miss_with_nothing_left_over() -> None:
    shard = loaded(Shard(rule(), ttl_ms=1000), "u1", known=US)
    done = shard.step(batch(event("u1", event_id="a")), now_ms=NOW_MS + 1000)
    assert list(done.users_to_fetch) == ["u1"]
    (action,) = shard.step(answers=[Answer("u1", fetched(None))]).actions
    assert orjson.loads(action.body)["eventHistory"] == []
    assert orjson.loads(action.body)["currentVisit"]["visit_id"] == "a"


def test_an_event_keeps_its_user_for_another_ttl() -> None:
    shard = loaded(Shard(ttl_ms=1000), "u1", "u2")
    shard.step(batch(event("u1")), now_ms=NOW_MS + 900)
    shard.step(now_ms=NOW_MS + 1899)
    assert list(shard.state.users) == ["u1"]
    shard.step(now_ms=NOW_MS + 1900)
    assert list(shard.state.users) == []


def test_forgotten_history_no_longer_finds_duplicates() -> None:
    shard = loaded(Shard(rule(), ttl_ms=1000), "u1")
    sent = event("u1")
    shard.step(batch(sent))
    shard.step(now_ms=NOW_MS + 1000)
    shard.step(batch(sent))
    assert len(shard.step(answers=[Answer("u1", fetched(None))]).actions) == 1


def test_events_that_wait_do_not_expire() -> None:
    shard = Shard(rule(), ttl_ms=10, enrichment_deadline_ms=1000)
    shard.step(batch(event("u1")))
    shard.step(now_ms=NOW_MS + 500)
    assert len(shard.step(answers=[Answer("u1", fetched(None))]).actions) == 1


def test_the_first_ttl_to_end_is_known() -> None:
    shard = Shard(ttl_ms=1000)
    assert idle_due_ms(shard.state, shard.settings) is None
    loaded(shard, "u1")
    shard.step(now_ms=NOW_MS + 5)
    loaded(shard, "u2")
    assert idle_due_ms(shard.state, shard.settings) == NOW_MS + 1000
    shard.step(batch(event("u1")), now_ms=NOW_MS + 7)
    assert idle_due_ms(shard.state, shard.settings) == NOW_MS + 1005


# Dead letters


def test_a_bad_event_becomes_a_dead_letter_and_its_neighbours_are_unaffected() -> None:
    shard = loaded(Shard(rule()), "u1")
    bad = Record(3, 17, 99, b"u1", b"\xff not JSON")
    done = shard.step(batch(event("u1", event_id="a"), bad, event("u1", event_id="b")))
    assert ids(done) == ["a", "b"]
    (letter,) = done.dead_letters
    shown = orjson.loads(letter.to_json())
    assert base64.b64decode(shown.pop("value")) == b"\xff not JSON"
    assert base64.b64decode(shown.pop("key")) == b"u1"
    assert shown.pop("detail")
    assert shown == {
        "reason": "not_json", "stage": "input", "rule": None, "cut": False,
        "topic": "events", "partition": 3, "offset": 17, "timestamp": 99,
    }  # fmt: skip
    assert (done.counts["events_rejected"], done.counts["dead_letters"], done.counts["events"]) == (1, 1, 3)


def test_a_record_without_key_has_none_in_its_dead_letter() -> None:
    (letter,) = Shard().step(batch(record(event("u1"), None))).dead_letters
    assert letter.reason == "key_mismatch"
    assert orjson.loads(letter.to_json())["key"] is None


def test_a_failing_rule_is_a_dead_letter_of_its_own_and_the_event_is_handled() -> None:
    shard = loaded(Shard(rule("good"), rule("bad", "event.nothing.more")), "u1")
    done = shard.step(batch(event("u1", event_id="a")))
    assert [action.rule for action in done.actions] == ["good"]
    assert [(letter.reason, letter.rule) for letter in done.dead_letters] == [("rule_error", "bad")]
    assert (done.counts["rule_errors"], done.counts["events_handled"], done.counts["events_rejected"]) == (1, 1, 0)
    assert shard.inspect("u1")["eventHistory"][-1]["event_id"] == "a"


def test_every_event_is_handled_or_a_duplicate_or_rejected() -> None:
    shard = loaded(Shard(rule()), "u1")
    sent = event("u1")
    done = shard.step(batch(sent, sent, record(b"", b"u1"), event("u1")))
    counts = done.counts
    assert counts["events"] == counts["events_handled"] + counts["duplicates"] + counts["events_rejected"] == 4


# Control records


def test_a_forgotten_user_is_gone_with_all_that_waits() -> None:
    shard = loaded(Shard(rule()), "u1")
    shard.step(batch(event("u2")))
    done = shard.step(control({"forget": "u1"}, {"forget": "u2"}, {"forget": "nobody"}))
    assert done.counts["users_forgotten"] == 3
    assert (dict(shard.state.users), shard.state.parked) == ({}, {})
    assert shard.step(answers=[Answer("u2", fetched(US))]).actions == []
    assert list(shard.step(batch(event("u1"))).users_to_fetch) == ["u1"]


def test_an_inspection_leaves_out_what_kafka_would_not_take() -> None:
    profile = {"country": "US", "note": "x" * 880_000}
    shard = loaded(Shard(), "u1", known={"profile": profile, "visit": None, "history": []})
    assert shard.inspect("u1")["userProfile"] == profile
    shard.step(batch(*(event("u1", event_id=f"{n}" + "y" * 1000) for n in range(20))))
    shown = shard.inspect("u1")
    assert (shown["left_out"], shown["eventHistory"], shown["userProfile"]) == (["eventHistory"], None, profile)


def test_an_inspection_changes_nothing() -> None:
    shard = loaded(Shard(), "u1", known=US)
    done = shard.step(control({"inspect": "u1"}, {"inspect": "u2"}), now_ms=NOW_MS + 5)
    assert done.facts == []
    assert [(one.user_id, orjson.loads(one.body)["found"]) for one in done.inspections] == [("u1", True), ("u2", False)]
    assert shard.state.users["u1"].last_seen_ms == NOW_MS


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\xff", b"[", [], {}, "forget", 7, None, {"forget": 7}, {"inspect": None}, {"forget": ["u1"]},
        {"forget": "u1", "inspect": "u1"}, {"FORGET": "u1"}, {"rules": []}, {"destination": {}},
        b"[" * 5000, b'{"forget":"\xff"}', rb'{"forget":"\ud800"}',
    ],
    ids=repr,
)  # fmt: skip
def test_a_bad_control_record_is_a_dead_letter_and_nothing_else(value: Any) -> None:
    shard = loaded(Shard(), "u1")
    done = shard.step(control(value, {"inspect": "u1"}))
    done.include_shared_dead_letters()
    assert [(letter.reason, letter.topic) for letter in done.dead_letters] == [("bad_control_record", "control")]
    assert done.counts["dead_letters"] == 1
    assert done.facts == []
    assert len(done.inspections) == 1
    assert done.counts["events_rejected"] == 0


def test_a_step_without_anything_to_do_does_nothing() -> None:
    done = Shard(rule()).step()
    assert done == StepResult()


def test_answers_come_before_the_batch_and_expiry_after_it() -> None:
    shard = loaded(Shard(rule(), ttl_ms=1000), "u1", "u2")
    done = shard.step(batch(event("u1", event_id="a")), now_ms=NOW_MS + 999)
    assert ids(done) == ["a"]
    done = shard.step(batch(event("u3")), now_ms=NOW_MS + 1500)
    assert list(shard.state.users) == ["u1"]
    done = shard.step(batch(event("u3", event_id="late")), [Answer("u3", fetched(None))])
    assert ids(done)[-1] == "late"
