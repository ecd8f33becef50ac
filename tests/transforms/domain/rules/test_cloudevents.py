"""Kafka actions' headers, against the CloudEvents 1.0 specification and its Kafka binding."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from tests.builders import NOW_MS, Shard, batch, event, fetched, rule
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.cloudevents import default_source, headers_of, is_source
from transforms.domain.rules.model import KafkaAction
from transforms.domain.rules.state import HeldAction
from transforms.domain.shard.step_input import Answer
from transforms.domain.shard.step_result import StepResult

HOUR = 3_600_000
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
REQUIRED = {"ce_specversion", "ce_id", "ce_source", "ce_type"}


def headers(user_id: str = "u1", at_ms: int = NOW_MS) -> dict[str, str]:
    fired = FiredAction("0f", user_id, "r", 2, KafkaAction(type="kafka"), b"{}", 3, at_ms)
    pairs = headers_of(fired, "here")
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value.decode("utf-8") for name, value in pairs}


def test_an_action_has_every_required_attribute_under_its_name_in_the_binding() -> None:
    attributes = headers()
    assert set(attributes) >= REQUIRED
    assert all(attributes.values())
    assert (attributes["ce_specversion"], attributes["content-type"]) == ("1.0", "application/json")
    # In the binding, such a content type would mean structured mode.
    assert not attributes["content-type"].startswith("application/cloudevents")
    assert all(re.fullmatch(r"ce_[a-z0-9]{1,20}", name) for name in attributes if name.startswith("ce_"))


@pytest.mark.parametrize("at_ms", [1, 999, 951_782_400_123, NOW_MS, 32_503_680_000_000, 253_402_300_799_999])
def test_the_time_is_the_firing_s_to_the_millisecond(at_ms: int) -> None:
    text = headers(at_ms=at_ms)["ce_time"]
    assert RFC_3339.fullmatch(text)
    assert round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000) == at_ms


@pytest.mark.parametrize("user_id", ["u1", "Zoë 7", "用户", "a/b?c", "\U0001f600", " "])
def test_the_subject_is_the_user(user_id: str) -> None:
    assert headers(user_id)["ce_subject"] == user_id


@pytest.mark.parametrize("user_id", ["a\nb", "\x00", "\x7f", "\x85", "\x9f", "\ufdd0", "\ufffe", "\U0010ffff"])
def test_a_user_id_with_invalid_characters_is_no_subject(user_id: str) -> None:
    attributes = headers(user_id)
    assert "ce_subject" not in attributes
    assert set(attributes) >= REQUIRED


@pytest.mark.parametrize("job_name", ["event-trigger", "my job", "a/b", "käse", "100%"])
def test_the_default_source_is_valid_and_names_the_job(job_name: str) -> None:
    source = default_source(job_name)
    assert is_source(source)
    assert unquote(source) == f"event-trigger/{job_name}"


@pytest.mark.parametrize(
    "source", ["https://example.org/shop", "/shop/triggers", "urn:uuid:6e8bc430", "a%20b", "1-555"]
)
def test_a_uri_reference_is_a_source(source: str) -> None:
    assert is_source(source)


@pytest.mark.parametrize("source", ["", "a b", "a\n", "käse", "a%2", "a|b", "<a>", 'a"b', "a\\b", "a^b", "a`b", "{a}"])
def test_a_text_that_is_not_a_uri_reference_is_no_source(source: str) -> None:
    assert not is_source(source)


def times(step_result: StepResult) -> list[int]:
    return [action.at_ms for action in step_result.actions]


def loaded(*rules: object) -> Shard:
    shard = Shard(*rules, ttl_ms=48 * HOUR)  # type: ignore[arg-type]
    shard.step(batch(event("u", event_name="hello")))
    shard.step(answers=[Answer("u", fetched({"profile": {}, "visit": None, "history": []}))])
    return shard


def test_the_time_is_the_event_s_whenever_it_is_handled() -> None:
    shard = loaded(rule("r", 'event.event_name == "go"'))
    late = event("u", event_name="go", timestamp=NOW_MS - 7 * HOUR - 3)
    assert times(shard.step(batch(late), now_ms=NOW_MS + 5 * HOUR)) == [NOW_MS - 7 * HOUR - 3]


def test_the_time_of_a_sequence_that_nothing_followed_is_its_end() -> None:
    sequence = {"not_followed_by": 'event.event_name == "stop"', "within": "30m"}
    shard = loaded(rule("r", 'event.event_name == "go"', sequence=sequence))
    shard.step(batch(event("u", event_name="go", timestamp=NOW_MS - 5)))
    assert times(shard.step(now_ms=NOW_MS + HOUR, stream_ms=NOW_MS + HOUR)) == [NOW_MS - 5 + HOUR // 2]


def test_an_action_held_by_quiet_hours_keeps_its_time_through_a_restore() -> None:
    quiet = rule("r", 'event.event_name == "go"', quiet_hours={"start": "00:00", "end": "08:00"})
    shard = loaded(quiet)  # it is midnight
    assert times(shard.step(batch(event("u", event_name="go", timestamp=NOW_MS + 1)))) == []
    shard.restore()
    assert times(shard.step(now_ms=NOW_MS + 8 * HOUR)) == [NOW_MS + 1]


def test_an_action_held_under_an_earlier_release_has_no_time() -> None:
    stored = ["r", 1, b'{"type":"kafka"}', "0f", "e1", NOW_MS, "UTC", b"{}", 0]
    assert HeldAction(*stored).at_ms == 0
    assert "ce_time" not in headers(at_ms=0)
