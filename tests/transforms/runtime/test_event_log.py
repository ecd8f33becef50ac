from __future__ import annotations

import logging
from typing import Any

import pytest

from transforms.domain.base.user_hash import UserHash
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.record import Record
from transforms.domain.rules.actions import FiredAction
from transforms.domain.rules.model import KafkaAction
from transforms.domain.shard.facts import DeliveryQueued
from transforms.domain.shard.step_result import Erasure, StepResult
from transforms.domain.webhooks.delivery_queue import Delivery
from transforms.runtime.event_log import LOG, EventLog

STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    written = [
        (line.levelname, line.getMessage(), {k: v for k, v in vars(line).items() if k not in STANDARD})
        for line in caplog.records
    ]
    caplog.clear()
    return written


def letter(reason: str = "not_json", action: LostAction | None = None) -> DeadLetter:
    topic = "" if action is not None else "events"
    return DeadLetter(reason, "detail of alice@example.com", topic, 1, 42, 0, b"alice", b"{", None, action)


@pytest.fixture(autouse=True)
def _log_from_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG.name)


def test_rare_events_are_logged_with_ids(caplog: pytest.LogCaptureFixture) -> None:
    record = Record(0, 7, 0, b"alice", b"")
    lost = LostAction("ab12", 1, "webhook", "crm", "alice", "e1", b"{}", 0)
    result = StepResult(
        applied_rule_sets=[4], gone_destinations=["crm"], dead_letters=[letter(), letter("undelivered", lost)]
    )
    result.erasures.append(Erasure("alice", True, 0, "control", record))
    result.rule_counts["slow", "tripped"] += 2
    result.counts["rules_tripped"] += 2
    event_log = EventLog()
    event_log.user_hash = UserHash(b"key")
    event_log.step(result, 3, 0)
    alice = {"user_id": "alice", "user_hash": UserHash(b"key")("alice")}
    assert lines(caplog) == [
        ("INFO", "rule set live", {"rule_set": 4, "shard": 3}),
        ("INFO", "user forgotten", alice | {"found": True}),
        ("WARNING", "destination wants no more", {"destination": "crm"}),
        ("WARNING", "rule hit a limit", {"rule": "slow", "times": 2}),
        ("INFO", "dead letter", {"reason": "not_json", "topic": "events", "partition": 1, "offset": 42} | alice),
        ("INFO", "dead letter", {"reason": "undelivered", "action_id": "ab12", "destination": "crm"} | alice),
    ]


def test_a_flood_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    event_log = EventLog(per_minute=2)
    for _ in range(5):
        event_log.step(StepResult(dead_letters=[letter()]), None, 59_999)
    assert len(lines(caplog)) == 2
    event_log.step(StepResult(dead_letters=[letter()]), None, 60_000)
    assert [fields["left_out"] for _, _, fields in lines(caplog)] == [3]
    event_log.step(StepResult(dead_letters=[letter()]), None, 60_000)
    assert ["left_out" in fields for _, _, fields in lines(caplog)] == [False]


def test_actions_are_logged_at_debug_only(caplog: pytest.LogCaptureFixture) -> None:
    fired = FiredAction("ab12", "alice", "welcome", 2, KafkaAction(type="kafka"), b'{"secret": 1}', 5)
    delivery = Delivery("cd34", "crm", "welcome", 2, "webhook", "e1", b"{}", 0, 0)
    result = StepResult(actions=[fired], facts=[DeliveryQueued("alice", delivery)])
    EventLog().step(result, 0, 0)
    assert lines(caplog) == []

    caplog.set_level(logging.DEBUG, LOG.name)
    event_log = EventLog()
    event_log.step(result, 0, 0)
    same = {"rule": "welcome", "rule_version": 2, "user_id": "alice", "user_hash": event_log.user_hash("alice")}
    assert lines(caplog) == [
        ("DEBUG", "action decided", same | {"rule_set": 5, "action": "kafka", "action_id": "ab12"}),
        ("DEBUG", "action decided", same | {"destination": "crm", "action": "webhook", "action_id": "cd34"}),
    ]


def test_a_breaker_is_logged_when_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    event_log = EventLog()
    for is_open in (False, True, True, False, False):
        event_log.breaker("the user API", is_open, 0)
    assert [(level, event) for level, event, _ in lines(caplog)] == [
        ("WARNING", "breaker opened"),
        ("INFO", "breaker closed"),
    ]
