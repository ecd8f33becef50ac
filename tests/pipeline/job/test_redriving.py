"""Which dead letters are meant, how each is sent again, and how fast."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from pipeline.job.redriving import (
    ACTIONS,
    EVENTS,
    LetterFilter,
    Pace,
    Redriver,
    Route,
    SkippedError,
    StoredLetter,
    route,
)
from transforms.domain.events.dead_letter import STAGES, DeadLetter, LostAction

ACTION = LostAction("0" * 32, 2, "webhook", "crm", "ü", "e", b"body", 5, 3, 400)
LOST = DeadLetter("undelivered", "HTTP 400", "", -1, -1, 9, b"u", b"", "r", ACTION)
EVENT = DeadLetter("not_json", "why", "events", 1, 7, 9, b"\xff", b"\x00event")
TOPICS = {"events": 2, "control": 1}


def stored(letter: DeadLetter = LOST, at_ms: int = 100) -> StoredLetter:
    return StoredLetter(0, 5, at_ms, letter)


def test_an_action_goes_to_the_control_topic_by_its_user() -> None:
    target = route(LOST, "control", TOPICS)
    assert (target.kind, target.topic, target.partition, target.key) == (ACTIONS, "control", None, "ü".encode())
    assert orjson.loads(target.value) == {
        "redrive": "ü",
        "action": {
            "action_id": "0" * 32,
            "rule": "r",
            "rule_version": 2,
            "action": "webhook",
            "destination": "crm",
            "user_id": "ü",
            "event_id": "e",
            "body": "Ym9keQ==",
            "decided_ms": 5,
            "attempts": 3,
            "status": 400,
        },
    }


def test_an_action_of_a_known_event_goes_there_too() -> None:
    queue_full = replace(LOST, reason="delivery_queue_full", topic="events", partition=0, offset=1, value=b"{}")
    assert route(queue_full, "control", TOPICS).kind == ACTIONS


@pytest.mark.parametrize("reason", [reason for reason, stage in STAGES.items() if stage in ("input", "rule")])
def test_an_event_goes_where_it_was_as_it_was(reason: str) -> None:
    letter = replace(EVENT, reason=reason)
    assert route(letter, None, TOPICS) == Route(EVENTS, "events", 1, b"\xff", b"\x00event")


@pytest.mark.parametrize(
    ("letter", "cause"),
    [
        (replace(EVENT, reason="bad_control_record", topic="control"), "control records, which are not redriven"),
        (replace(EVENT, reason="rule_state_full", topic="", partition=-1), "decided by a timer"),
        (replace(EVENT, topic="gone"), "topic 'gone' or its partition is not there"),
        (replace(EVENT, partition=2), "topic 'events' or its partition is not there"),
        (replace(EVENT, reason="of_tomorrow"), "reason of_tomorrow, which this release does not know"),
        (replace(EVENT, reason="undelivered"), "reason undelivered, which"),
        (replace(LOST, rule=None), "actions of an unknown rule"),
        (replace(LOST, cut=True), "too long"),
        (replace(EVENT, cut=True), "too long"),
    ],
)
def test_a_letter_that_is_not_sent_again_has_a_cause(letter: DeadLetter, cause: str) -> None:
    with pytest.raises(SkippedError, match=cause):
        route(letter, "control", TOPICS)


@pytest.mark.parametrize(
    ("selected", "matches"),
    [
        (LetterFilter(), True),
        (LetterFilter(reasons=["not_json", "undelivered"]), True),
        (LetterFilter(reasons=["not_json"]), False),
        (LetterFilter(rules=["r"], destinations=["crm"]), True),
        (LetterFilter(rules=["q"], destinations=["crm"]), False),
        (LetterFilter(rules=["r"], destinations=["ads"]), False),
        (LetterFilter(since_ms=100, until_ms=101), True),
        (LetterFilter(since_ms=101), False),
        (LetterFilter(until_ms=100), False),
    ],
)
def test_all_criteria_of_a_filter_have_to_match(selected: LetterFilter, matches: bool) -> None:
    assert selected.matches(stored()) is matches


def test_a_letter_without_action_has_no_destination_and_its_key_is_the_user() -> None:
    assert (stored(EVENT).destination, stored(EVENT).user) == (None, "\ufffd")
    assert stored(replace(EVENT, key=None)).user is None
    assert not LetterFilter(destinations=["crm"]).matches(stored(EVENT))


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now_s += seconds


def test_a_rate_is_kept_evenly_and_time_that_passed_is_not_caught_up_with() -> None:
    clock = Clock()
    pace = Pace(4.0, lambda: clock.now_s, clock.sleep)
    for _ in range(3):
        pace.wait()
    assert clock.slept == [0.25, 0.25]
    clock.now_s += 10
    pace.wait()
    pace.wait()
    assert clock.slept == [0.25, 0.25, 0.25]
    free = Pace(None, lambda: clock.now_s, clock.sleep)
    free.wait()
    free.wait()
    assert len(clock.slept) == 3


class Written:
    """A writer that keeps records and refuses those for a given partition."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.left = 0

    def write(self, *record: Any) -> None:
        *fields, on_result = record
        self.records.append(tuple(fields))
        on_result("refused" if fields[3] == 1 else None)

    def flush(self) -> int:
        return self.left


def redriver(**options: Any) -> tuple[Redriver, Written]:
    written = Written()
    arguments = {"control_topic": "control", "dry_run": False} | options
    return Redriver(written, TOPICS, pace=Pace(None), **arguments), written  # type: ignore[arg-type]


def test_sent_skipped_and_refused_letters_are_counted_by_cause() -> None:
    sender, written = redriver()
    failed_in_a_rule = replace(EVENT, reason="rule_error", partition=0)
    for letter in (LOST, LOST, failed_in_a_rule, EVENT, replace(EVENT, topic="gone")):
        sender.send(letter)
    sender.flush()
    result = sender.result
    assert result.sent == {ACTIONS: 2, EVENTS: 1}
    assert result.may_be_duplicates == 1
    assert result.skipped == {"topic 'gone' or its partition is not there any more": 1}
    assert result.failed == {"refused": 1}
    assert str(result) == "3 sent, 1 skipped, 1 failed"
    assert [record[0] for record in written.records] == ["control", "control", "events", "events"]


def test_a_letter_without_the_broker_s_answer_has_failed() -> None:
    sender, written = redriver()
    written.left = 3
    sender.flush()
    assert sender.result.failed == {"the broker did not answer": 3}


def test_a_dry_run_counts_and_writes_nothing() -> None:
    sender, written = redriver(dry_run=True)
    for letter in (LOST, EVENT, replace(EVENT, topic="gone")):
        sender.send(letter)
    assert (sender.result.sent, sender.result.skipped.total()) == ({ACTIONS: 1, EVENTS: 1}, 1)
    assert written.records == []
