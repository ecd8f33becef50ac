"""Looks at the job that the options of a launch describe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from pipeline.job.jobs import newest_job
from pipeline.job.kafka_look import KafkaLooks
from pipeline.job.looks import Looks
from pipeline.job.snapshot import JobSnapshot, take_snapshot
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.launch.options import Settings
from runners.flink.rest import FlinkRest

# A Flink that takes longer than this does not answer: two such looks are over in 15 s.
_ANSWER_S: Final = 4.0


def look_source(settings: Settings) -> Callable[[], JobSnapshot]:
    """A function that looks at the newest job of the options' name, and at Kafka if they name brokers."""
    rest, kafka = FlinkRest(f"http://{settings.flink_master}", _ANSWER_S), None
    if settings.bootstrap_servers is not None:
        kafka = KafkaLooks(for_librdkafka(settings.client_config(), settings.kafka_access()), settings.needed_topics)

    def look() -> JobSnapshot:
        at_s = time.monotonic()
        snapshot = take_snapshot(rest, newest_job(rest, settings.job_name), at_s)
        return snapshot if kafka is None else replace(snapshot, kafka=kafka.look(snapshot.writes_actions_topic))

    return look


def looks_at(settings: Settings, every_s: float) -> Looks:
    """Looks at that job, to be taken every ``every_s`` seconds."""
    return Looks(look_source(settings), (settings.flink_master or "", settings.job_name), every_s)
