"""Control records, sent to a running job over its control topic."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.kafka.topics import TopicError, TopicWriter, topic_errors


def send_control_record(config: Mapping[str, str], topic: str, key: bytes, value: bytes) -> None:
    """Send a record and wait until the broker has it.

    Raises:
        TopicError: the topic does not exist, or Kafka refuses the record or does not answer.
    """
    description = f"control topic {topic!r}"
    errors: list[str] = []
    with topic_errors(description):
        writer = TopicWriter(config)
        if topic not in writer.topics():
            raise TopicError(f"{description} does not exist")
        writer.write(topic, key, value, on_result=lambda error: errors.append(error) if error else None)
        if writer.flush():
            errors.append("no answer")
    if errors:
        raise TopicError(f"{description}: {errors[0]}")
