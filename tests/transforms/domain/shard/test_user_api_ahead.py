"""A user API that has seen other events than the stream has: later ones, the same, none of the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.builders import NOW_MS, Shard, batch, event, fetched, record, rule
from tests.examples import examples
from transforms.domain.shard.facts import EventObserved, UserLoaded
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult
from transforms.domain.users.history import Row
from transforms.domain.users.visit import Visit

HOURS_20_MS = 20 * 3600 * 1000


def seen(done: StepResult) -> dict[str, dict[str, Any]]:
    """The bodies of actions, by the event that they are for."""
    bodies = [orjson.loads(action.body) for action in done.actions]
    return {body["event"]["event_id"]: body for body in bodies}


def ids(body: dict[str, Any]) -> list[str]:
    return [row["event_id"] for row in body["eventHistory"]]


def received(made: dict[str, Any], at: int = 0) -> Any:
    """A record that reached Kafka ``at`` ms after NOW_MS."""
    return msgspec.structs.replace(record(made), timestamp_ms=NOW_MS + at)


def page(event_id: str, at: int, **fields: Any) -> dict[str, Any]:
    return event(event_id=event_id, timestamp=NOW_MS + at, event_type="pageview", **fields)


def known(visit: tuple[int, int] | None = None, **times: int) -> Any:
    """What the API says: start and pages of the visit ``api``, and the time of each event, after NOW_MS."""
    shown = visit and {
        "visit_id": "api",
        "start_time": NOW_MS + visit[0],
        "page_count": visit[1],
        "is_first_visit": True,
    }
    rows = [{"event_id": name, "event_name": "n", "timestamp": NOW_MS + at} for name, at in times.items()]
    return fetched({"profile": {}, "visit": shown, "history": rows})


@pytest.mark.parametrize("policy", ["wait", "run"])
def test_an_event_that_comes_a_day_late_leaves_the_history_whole(policy: str) -> None:
    shard = Shard(rule(on_missing_profile=policy))
    shard.step(batch(received(page("old", -HOURS_20_MS))))
    answered = shard.step(answers=[Answer("u1", known((-9, 2), h=-3_600_000, ahead=1))])
    bodies = seen(answered) | seen(shard.step(batch(received(page("now", 0), 5))))
    assert ids(bodies["now"]) == ["old", "h"]
    assert bodies["now"]["currentVisit"] == {
        "visit_id": "api",
        "start_time": NOW_MS - 9,
        "page_count": 3,
        "is_first_visit": True,
    }
    if policy == "wait":
        assert (ids(bodies["old"]), bodies["old"]["currentVisit"]) == (["h"], None)


def test_a_late_event_among_those_that_wait_does_not_cut_the_history_either() -> None:
    shard = Shard(rule())
    shard.step(batch(received(page("a", 0), 3), received(page("old", -HOURS_20_MS), 4), received(page("b", 5), 6)))
    bodies = seen(shard.step(answers=[Answer("u1", known(None, p=-9, b=5, fresh=2, later=7))]))
    assert {name: ids(body) for name, body in bodies.items()} == {
        "a": ["p", "fresh"],
        "old": ["p", "a", "fresh"],
        "b": ["old", "p", "a", "fresh"],
    }


def test_without_a_usable_kafka_time_the_event_s_own_timestamp_counts() -> None:
    shard = Shard(rule())
    shard.step(batch(msgspec.structs.replace(record(page("a", 0)), timestamp_ms=-1)))
    bodies = seen(shard.step(answers=[Answer("u1", known(None, p=0, later=1))]))
    assert ids(bodies["a"]) == ["p"]


@pytest.mark.parametrize("policy", ["wait", "run"])
def test_an_event_gets_no_visit_that_starts_after_it_reached_kafka(policy: str) -> None:
    shard = Shard(rule(on_missing_profile=policy))
    handled = seen(shard.step(batch(received(page("a", 0), 3))))
    handled |= seen(shard.step(answers=[Answer("u1", known((4, 2), a=0, b=4, c=5))]))
    done = shard.step(batch(received(page("b", 4, is_first_in_visit=True), 8), received(page("c", 5), 9)))
    visits = {name: body["currentVisit"] for name, body in (handled | seen(done)).items()}
    assert {name: (visit["visit_id"], visit["page_count"]) for name, visit in visits.items()} == {
        "a": ("a", 1),
        "b": ("b", 1),
        "c": ("b", 2),
    }


def test_of_a_user_of_an_earlier_release_the_oldest_event_says_what_is_taken() -> None:
    """It stored no Kafka time, and of pages only their number."""
    shard = Shard(rule(on_missing_profile="run"))
    visit = Visit("a", NOW_MS + 2, 1, False, assumed=True)
    old = [UserLoaded("u1", "pending", b"{}", None, []), EventObserved("u1", Row(NOW_MS + 2, "a", "n"), visit)]
    for fact in old:
        shard.state.apply(NOW_MS, fact)
    shard.step(answers=[Answer("u1", known((1, 2), p=2, later=3))])
    shown = shard.inspect("u1")
    assert [row["event_id"] for row in shown["eventHistory"]] == ["p", "a"]
    assert (shown["currentVisit"]["visit_id"], shown["currentVisit"]["page_count"]) == ("api", 3)


def test_a_sequence_s_end_sees_nothing_of_the_api_that_the_stream_has_yet_to_bring() -> None:
    """The user was forgotten meanwhile: no event says how far the stream is, but the stream's time does."""
    sequence = {"within": "1m", "not_followed_by": 'event.event_name == "never"'}
    shard = Shard(rule(sequence=sequence), ttl_ms=1000, allowed_lateness_ms=0)
    shard.step(batch(received(page("a", 0))), now_ms=NOW_MS)
    shard.step(answers=[Answer("u1", known())], now_ms=NOW_MS)
    shard.step(stream_ms=NOW_MS + 60_000, now_ms=NOW_MS + 5000)
    done = shard.step(answers=[Answer("u1", known((60_001, 1), p=59_999, later=60_001))], now_ms=NOW_MS + 5000)
    [body] = seen(done).values()
    assert (ids(body), body["currentVisit"]) == (["p"], None)


# Whenever the API answers and whatever it has seen by then, in the end the state is that of the stream


Visits = list[list[str]]


def stream_of(visits: Visits, flags: Sequence[tuple[bool, bool]]) -> list[dict[str, Any]]:
    """Events of visits, 10 ms apart; ``flags``: whether a visit's first and last event say so."""
    made: list[dict[str, Any]] = []
    for kinds, (says_first, says_last) in zip(visits, flags, strict=True):
        for number, kind in enumerate(kinds):
            sent = event(
                event_id=f"e{len(made)}",
                timestamp=NOW_MS + 10 * len(made),
                event_type=kind,
                is_first_in_visit=number == 0 and says_first,
                is_last_in_visit=number == len(kinds) - 1 and says_last,
                is_first_event=not made,
            )
            made.append(sent)
    return made


def visit_after(events: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The visit of events in order, as simple as can be."""
    visit: dict[str, Any] | None = None
    for number, each in enumerate(events):
        if number == 0 or each["is_first_in_visit"] or events[number - 1]["is_last_in_visit"]:
            visit = {
                "visit_id": each["event_id"],
                "start_time": each["timestamp"],
                "page_count": 0,
                "is_first_visit": each["is_first_event"],
            }
        assert visit is not None
        visit = visit | {"page_count": visit["page_count"] + (each["event_type"] == "pageview")}
    return visit


VISITS = st.lists(st.lists(st.sampled_from(["pageview", "click"]), min_size=1, max_size=4), min_size=1, max_size=3)


@examples(2000, same=500)
@given(st.data(), VISITS, st.sampled_from(["wait", "run"]))
def test_a_user_ends_up_as_the_stream_says_whatever_the_api_has_seen(
    data: st.DataObject, visits: Visits, policy: str
) -> None:
    events = stream_of(visits, [data.draw(st.tuples(st.booleans(), st.booleans())) for _ in visits])
    first = data.draw(st.integers(0, len(events) - 1), label="events before are older than the state")
    # The user API does not say that a visit has ended. An event after that has to say that it begins the next.
    assume(first == 0 or not events[first - 1]["is_last_in_visit"] or events[first]["is_first_in_visit"])
    answered = data.draw(st.integers(first + 1, len(events)), label="events that came before the answer")
    api_has = data.draw(st.integers(first, len(events)), label="events that the API has seen")
    api = {"profile": {}, "visit": visit_after(events[:api_has]), "history": events[:api_has]}
    records = [received(each, 10 * number + 9) for number, each in enumerate(events)]
    shard = Shard(rule(on_missing_profile=policy))
    bodies = seen(shard.step(batch(*records[first:answered])))
    bodies |= seen(shard.step(answers=[Answer("u1", fetched(api))]))
    bodies |= seen(shard.step(batch(*records[answered:])))

    for number, each in enumerate(events[first:], first):
        body = bodies[each["event_id"]]
        has_answer = policy == "wait" or number >= answered
        assert ids(body) == [past["event_id"] for past in events[(0 if has_answer else first) : number]]
        assert body["currentVisit"]["start_time"] <= each["timestamp"]
    shown = shard.inspect("u1")
    assert [row["event_id"] for row in shown["eventHistory"]] == [each["event_id"] for each in events]
    assert shown["currentVisit"] == visit_after(events)
