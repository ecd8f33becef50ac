"""Where ``transforms.kafka`` starts to read, off Flink."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from transforms import kafka
from transforms.kafka import ReadSettings, _starts

SETTINGS = ReadSettings("t", {}, "group", "committed", 1, 128)


class Group:
    """A consumer whose group has offset 7 of partition 0 and none of 1, once the broker has answered with errors."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.codes:
            raise KafkaException(KafkaError(self.codes.pop(0)))
        return [TopicPartition(one.topic, one.partition, 7 if one.partition == 0 else -1001) for one in partitions]


def starts(group: Any) -> dict[int, int]:
    return _starts(group, "t", SETTINGS, {0: 2, 1: 3}, {0: 9, 1: 9})


def test_a_group_s_coordinator_that_is_not_there_yet_is_waited_for() -> None:
    codes = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert starts(Group(*codes)) == {0: 7, 1: 3}


def test_a_coordinator_is_waited_for_no_longer_than_it_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_COORDINATOR_S", -1.0)
    with pytest.raises(KafkaException, match="NOT_COORDINATOR"):
        starts(Group(KafkaError.NOT_COORDINATOR))


def test_another_error_is_raised_at_once() -> None:
    group = Group(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.NOT_COORDINATOR)
    with pytest.raises(KafkaException, match="GROUP_AUTHORIZATION_FAILED"):
        starts(group)
    assert group.codes == [KafkaError.NOT_COORDINATOR]
