"""A running job and what authors of rules can do to it: rule sets that cannot be used, and topics that go away."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from pipeline.cli.main import main
from tests.builders import NOW_MS, Shard, event, filter_set, rule
from tests.flink_cluster import FlinkCluster, restarts
from tests.hostile.test_corpus import sets_by_hand
from tests.integration.jobs import Topics, reading, running
from tests.kafka_broker import KafkaBroker
from tests.waiting import eventually
from transforms.domain.events.micro_batch import CONTROL, VERSION, MicroBatch
from transforms.domain.events.record import Record
from transforms.domain.rules.action_topics import ActionTopics
from transforms.domain.rules.live_sets import RuleSets
from transforms.domain.rules.sets import RuleSet

pytestmark = pytest.mark.stack

JUNK = (b"", b"{", b"null", b"\xff\xfe", b'{"rules": {"version": 1, "number": 9}}', b"[" * 100_000)


def bad_sets() -> list[bytes]:
    """The records of the corpus that a shard refuses."""
    sets = RuleSets(RuleSet(0, (rule(),)), filter_set, "rules")
    bad = []
    for value in (*JUNK, *sets_by_hand()):
        shard = Shard(filters=sets, action_topics=ActionTopics((), ("actions",)))
        done = shard.step(MicroBatch(VERSION, CONTROL, "rules", [Record(0, 0, NOW_MS, b"set", value)]))
        if not done.applied_rule_sets:
            bad.append(value)
    return bad


def test_bad_sets_and_a_deleted_topic_are_letters_and_the_job_runs_on(
    kafka: KafkaBroker, flink: FlinkCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics, bad = Topics(kafka), bad_sets()
    rules_topic, elsewhere = f"rules-{topics.tag}", f"elsewhere-{topics.tag}"
    kafka.create_topic(rules_topic, config={"cleanup.policy": "compact"})
    kafka.create_topic(elsewhere)
    files, published = tmp_path / "rules", tmp_path / "published.yaml"
    files.mkdir()
    (files / "here.yaml").write_text("name: here\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n")
    (files / "there.yaml").write_text(
        f"name: there\nversion: 1\nfilter: 'true'\nactions: [{{type: kafka, topic: {elsewhere}}}]\n"
    )
    published.write_text("name: later\nversion: 1\nfilter: 'true'\nactions: [{type: kafka}]\n")
    options = [f"--rules_topic={rules_topic}", "--checkpointing_interval_ms=1000"]

    def send(event_id: str) -> None:
        topics.produce([(b"u", orjson.dumps(event("u", event_id=event_id)))])

    with (
        running(flink, topics, files, *options) as job_id,
        reading(kafka, topics.actions) as actions,
        reading(kafka, elsewhere) as others,
        reading(kafka, topics.dead_letters) as dead_letters,
    ):
        topics.produce([(b"bad-%d" % number, value) for number, value in enumerate(bad)], rules_topic)
        letters = [orjson.loads(message.value()) for message in dead_letters.until(len(bad), 180)]
        assert {(letter["reason"], letter["topic"]) for letter in letters} == {("bad_control_record", rules_topic)}
        assert len({letter["offset"] for letter in letters}) == len(bad)

        send("e1")
        actions.until(1, 60)
        others.until(1, 60)
        kafka.delete_topic(elsewhere)
        warning = f"topic '{elsewhere}' of Kafka actions does not exist"
        eventually(
            lambda: sum(warning in log.read_text() for log in flink.log_dir.glob("worker-*.log")) == 2,
            "both workers know",
            120,
        )
        send("e2")
        letter = orjson.loads(dead_letters.until(len(bad) + 1, 60)[-1].value())
        assert (letter["reason"], letter["rule"]) == ("action_topic_missing", "there")
        actions.until(2, 60)

        where = [f"--rules_topic={rules_topic}", f"--bootstrap_servers={kafka.bootstrap_servers}"]
        assert main(["rules", "publish", str(published), *where]) == 0
        assert re.search(r"^published set \d+$", capsys.readouterr().out, re.MULTILINE)
        assert main(["rules", "status", *where, f"--audit_topic={topics.audit}", "--wait=120"]) == 0
        send("e3")
        headers = dict(actions.until(3, 60)[-1].headers())
        assert headers["rule"] == b"later"
        assert len(dead_letters.settle(1)) == len(bad) + 1
        assert restarts(flink.rest, job_id) == 0
