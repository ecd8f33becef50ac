"""Two of the lies that `make test-health` tries, on the shared stack: a missing topic, a destination nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.job.health import DOWN, HEALTHY
from runners.flink.local.broker import LocalKafka
from runners.flink.local.cluster import LocalFlink
from tests.health.job import Asked, a_rule, run
from tests.integration.jobs import Topics, running
from tests.kafka_broker import KafkaBroker

pytestmark = pytest.mark.stack


def test_a_launch_with_a_typo_is_refused(kafka: LocalKafka, flink: LocalFlink, tmp_path: Path) -> None:
    topics = Topics(kafka)
    where = ["--runner=FlinkRunner", f"--flink_master={flink.flink_master}", f"--job_name=typo-{topics.tag}"]
    typo = f"--decisions_topic={topics.audit[:-1]}"
    done = run(*where, "--detached", f"--rules={a_rule(tmp_path)}", *topics.options(), typo)
    assert done.returncode == 2
    wanted = f"error: --decisions_topic is '{topics.audit[:-1]}' (did you mean {topics.audit}?), allowed: a topic that"
    assert wanted in done.stderr
    assert [job for job in flink.rest.jobs() if job["name"] == f"typo-{topics.tag}"] == []


def test_a_topic_that_is_deleted_is_the_cause(kafka: KafkaBroker, flink: LocalFlink, tmp_path: Path) -> None:
    topics = Topics(kafka)
    kafka.create_topic(f"decisions-{topics.tag}")
    decisions = f"--decisions_topic=decisions-{topics.tag}"
    with running(flink, topics, a_rule(tmp_path), decisions, "--checkpointing_interval_ms=5000"):
        asked = Asked(flink, topics, decisions)
        asked.until((HEALTHY, None, 0), deadline_s=60)
        kafka.delete_topic(f"decisions-{topics.tag}")
        asked.until((DOWN, "TopicMissing", 2), deadline_s=60)
        assert asked.cause.startswith(f"topic 'decisions-{topics.tag}' of --decisions_topic ")
