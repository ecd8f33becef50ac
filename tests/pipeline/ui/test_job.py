"""What the page gets from Kafka, on a real broker."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from pipeline.job.decision_log import DecisionFilter
from pipeline.launch.options import parse
from pipeline.ui.job import JobError, RunningJob
from runners.flink.local.broker import LocalKafka
from tests.builders import NOW_MS
from tests.integration.jobs import Topics, reading
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.shard.decisions import Decision

pytestmark = pytest.mark.stack

GONE = "there is no such letter any more"
RULE = "name: offer\nversion: 3\nfilter: 'true'\nactions: [{type: debug}]\n"
LOST = DeadLetter(
    "undelivered", "HTTP 400", *("", -1, -1, 9, b"u2", b""), rule="offer",
    action=LostAction("0" * 32, 3, "webhook", "crm", "u2", "e", b"{}", 5, 3, 400),
)  # fmt: skip


@pytest.fixture
def topics(kafka: LocalKafka) -> Topics:
    return Topics(kafka)


def a_job(topics: Topics, *options: str) -> RunningJob:
    return RunningJob(parse([*topics.options(), "--flink_master=x:1", *options], rules_required=False))


def decision(seconds: int, user_id: str, rule: str = "offer", **fields: str) -> tuple[bytes, bytes]:
    decision = Decision(
        decision="fired", time=NOW_MS + seconds, user_id=user_id, event_id=f"e{seconds}", rule=rule, **fields
    )
    return user_id.encode(), decision.to_json()


def test_decisions_are_the_newest_selected_ones(topics: Topics) -> None:
    topics.kafka.create_topic(log := f"decisions-{topics.tag}", 3)
    records = [decision(n, f"u{n % 4}", "offer" if n % 2 else "other", action_id=f"a{n}") for n in range(40)]
    topics.produce([*records, (b"u1", b"no decision")], log)
    job = a_job(topics, f"--decisions_topic={log}")

    def found(most: int = 5, **criteria: str) -> list[str] | None:
        decisions = job.decisions(DecisionFilter(**criteria), most)
        return None if decisions is None else [decision.event_id for decision in decisions]

    assert found() == ["e39", "e38", "e37", "e36", "e35"]
    assert found(user="u1") == ["e37", "e33", "e29", "e25", "e21"]
    assert found(user="u1", rule="other") == []
    assert found(action="a7") == ["e7"]
    assert a_job(topics).decisions(DecisionFilter(), 5) is None


def test_letters_are_the_latest_and_are_sent_again(topics: Topics) -> None:
    event = DeadLetter("key_mismatch", "no", topics.events, 2, 7, 9, b"u1", b"event")
    topics.produce([(b"u1", event.to_json()), (b"u1", b"no letter"), (b"u2", LOST.to_json())], topics.dead_letters)
    job = a_job(topics, f"--control_topic={topics.control}")
    assert [stored.place for stored, _ in job.letters(5)] == ["0/2", "0/0"]
    assert [stored.place for stored, _ in job.letters(1)] == ["0/2"]
    assert job.letter(0, 1) is None
    assert job.letter(0, 9) is None

    places = [(0, 0), (0, 2), (0, 9)]
    plan, result = job.redrive(places, execute=True)
    assert result is not None
    assert (result.sent, plan.skipped) == ({}, {"unsigned: the job may not have written it": 2, GONE: 1})
    plan, result = job.redrive(places, execute=False, accept_unsigned=True)
    assert (plan.of_kind("actions"), plan.of_kind("events"), result) == (1, 1, None)
    _, result = job.redrive(places, execute=True, accept_unsigned=True)
    assert result is not None
    assert result.sent == {"actions": 1, "events": 1}
    plan, _ = job.redrive(places, execute=True, accept_unsigned=True)
    assert plan.skipped == {"redriven before": 2, GONE: 1}
    assert [sent_ms is not None for _, sent_ms in job.letters(5)] == [True, True]
    with reading(topics.kafka, topics.events) as events, reading(topics.kafka, topics.control) as control:
        (again,) = events.until(1, 10)
        (record,) = control.until(1, 10)
    assert (again.partition(), again.key(), again.value()) == (2, b"u1", b"event")
    assert orjson.loads(record.value())["redrive"] == "u2"
    plan, _ = a_job(topics).redrive([(0, 2)], execute=True)
    assert plan.skipped == {"actions, which need --control_topic": 1}


def test_rules_are_those_of_the_files(topics: Topics, tmp_path: Path) -> None:
    (tmp_path / "offer.yaml").write_text(RULE)
    rule_set = a_job(topics, f"--rules={tmp_path}").rule_set()
    assert rule_set is not None
    assert [(rule.name, rule.version) for rule in rule_set.rules] == [("offer", 3)]
    assert a_job(topics).rule_set() is None
    (tmp_path / "offer.yaml").write_text("name: [")
    with pytest.raises(JobError, match=r"offer\.yaml"):
        a_job(topics, f"--rules={tmp_path}").rule_set()


def test_what_is_missing_is_named(topics: Topics) -> None:
    job = a_job(topics, "--decisions_topic=d", "--dead_letters_topic=l", "--control_topic=c", "--inspections_topic=i")
    with pytest.raises(JobError, match="decisions topic 'd' does not exist"):
        job.decisions(DecisionFilter(), 5)
    with pytest.raises(JobError, match="dead letters topic 'l' does not exist"):
        job.letters(5)
    with pytest.raises(JobError, match="inspections topic 'i' does not exist"):
        job.inspect("u1")
    with pytest.raises(JobError, match="start the page with the job's --control_topic"):
        a_job(topics).inspect("u1")


def test_a_broker_that_is_away_is_an_error_soon(topics: Topics) -> None:
    job = a_job(topics, "--bootstrap_servers=127.0.0.1:1")
    started_s = time.monotonic()
    with pytest.raises(JobError, match=r"dead letters topic 'dead-letters-\w+': "):
        job.letters(5)
    assert time.monotonic() - started_s < 30
