from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import apache_beam as beam
import orjson
import pytest
import requests
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that

from pipeline.embedded.read import ReadBundledEvents
from pipeline.embedded.stream import FIRST_EVENT_MS, Visitors, bundled_records
from pipeline.embedded.user_api import UserApi, profile_of
from tests.oracle import Oracle
from transforms.domain.events.micro_batch import decode_batch, key_of

# spec/event-dispatch.md, "Raw Event JSON Schema"
SPEC_FIELDS = {
    "event_id", "user_id", "domain", "is_first_in_visit", "is_last_in_visit", "is_first_event", "is_current",
    "event_name", "event_displayname", "integration", "app", "platform", "is_https", "event_type", "duration",
    "timestamp", "triggerable", "parameters",
}  # fmt: skip


def bundled_events() -> list[dict[str, Any]]:
    """The good ones."""
    return [orjson.loads(value) for number, (_, value) in enumerate(bundled_records()) if number % 100 != 99]


def test_the_bundled_stream_is_the_same_every_time() -> None:
    assert list(bundled_records()) == list(bundled_records())
    assert list(bundled_records(seed=8)) != list(bundled_records(seed=7))


def test_the_bundled_stream_is_large_enough_to_show_something() -> None:
    events = bundled_events()
    assert len(events) >= 2000
    assert len({event["user_id"] for event in events}) >= 100
    assert len({event["event_id"] for event in events}) == len(events)
    assert {event["event_name"] for event in events} == {"page_view", "add_to_cart", "checkout"}


def test_every_event_has_every_field_of_the_spec() -> None:
    for event in bundled_events():
        assert set(event) == SPEC_FIELDS
        assert set(event["parameters"]) <= {"custom_params", "utm_source", "utm_medium", "utm_campaign"}
        assert set(event["parameters"]["custom_params"]) == {"page_title", "page_url", "referrer"}


def test_time_goes_on_from_the_spec_s_example() -> None:
    times = [event["timestamp"] for event in bundled_events()]
    assert times == sorted(times)
    assert FIRST_EVENT_MS < times[0] < FIRST_EVENT_MS + 10_000


def test_visits_begin_and_end() -> None:
    by_user: dict[str, list[dict[str, Any]]] = defaultdict(list)
    visitors = Visitors(1, 20)
    for number in range(1500):
        event = visitors.next_event(FIRST_EVENT_MS + number)
        by_user[event["user_id"]].append(event)
    for events in by_user.values():
        assert [event["is_first_event"] for event in events] == [True] + [False] * (len(events) - 1)
        # A visit's first event comes at the very start and right after a last one, and nowhere else.
        assert [event["is_first_in_visit"] for event in events] == [True] + [
            event["is_last_in_visit"] for event in events[:-1]
        ]


def test_one_record_in_a_hundred_is_bad_in_one_of_five_ways() -> None:
    oracle = Oracle([])
    for key, value in bundled_records():
        oracle.feed(key, value)
    assert len(oracle.dead_letters) == len(list(bundled_records())) // 100
    assert {letter.reason for letter in oracle.dead_letters} == {
        "not_json", "missing_field", "wrong_type", "key_mismatch", "too_large"
    }  # fmt: skip


@pytest.mark.parametrize("user_shards", [0, 16])
def test_the_bundled_stream_is_read_as_micro_batches_by_shard(user_shards: int) -> None:
    def check(batches: list[tuple[bytes, bytes]]) -> None:
        records = []
        for key, payload in batches:
            batch = decode_batch(payload)
            assert batch.topic == "events"
            assert all(key_of(record.key or b"", user_shards) == key for record in batch.records)
            records += batch.records
        found = {record.offset: (record.key, record.value) for record in records}
        assert [found[offset] for offset in range(len(found))] == list(bundled_records())

    with beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([])) as pipeline:
        assert_that(pipeline | ReadBundledEvents("events", user_shards, "record"), check)


def test_one_user_in_ten_or_so_is_unknown_and_the_others_are_always_the_same() -> None:
    users = [f"user_{number:05d}" for number in range(1000)]
    known = [profile_of(user) for user in users]
    assert 50 < known.count(None) < 200
    assert known == [profile_of(user) for user in users]
    assert {profile["country"] for profile in known if profile} == {"US", "DE", "TR", "FR"}


def test_the_user_api_answers_over_http() -> None:
    chance = random.Random(3)
    users = [f"user_{chance.randrange(1000):05d}" for _ in range(20)]
    with UserApi() as api, requests.Session() as session:
        for user in users:
            answers = [
                session.get(f"{api.url}/users/{user}/{what}", timeout=5) for what in ("profile", "visit", "history")
            ]
            if profile_of(user) is None:
                assert [answer.status_code for answer in answers] == [404] * 3
                continue
            profile, visit, history = (answer.json() for answer in answers)
            assert profile == profile_of(user)
            assert set(visit) == {"visit_id", "start_time", "page_count", "is_first_visit"}
            assert [event["timestamp"] for event in history] == sorted(event["timestamp"] for event in history)
        for path in ("", "/users", "/users/x", "/users/user_00001/nothing", "/other/user_00001/profile"):
            assert session.get(f"{api.url}{path}", timeout=5).status_code == 404
    with pytest.raises(requests.ConnectionError):
        requests.get(api.url, timeout=1)
