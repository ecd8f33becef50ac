"""Dead letters, and a dead letter topic without Kafka."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.job import redriving
from pipeline.job.redriving import Plan, Redrive, RedriveResult, RedriveSettings
from pipeline.job.stored_letters import LetterFilter, StoredLetter
from pipeline.kafka.transactional_writer import TopicRecord
from transforms.domain.events.dead_letter import DeadLetter, LostAction
from transforms.domain.events.letter_signature import LetterSigner

ACTION = LostAction("0" * 32, 2, "webhook", "crm", "ü", "e", b"body", 5, 3, 400)
LOST = DeadLetter("undelivered", "HTTP 400", "", -1, -1, 9, b"u", b"", "r", ACTION)
EVENT = DeadLetter("key_mismatch", "why", "events", 1, 7, 9, b"\xff", b"\x00event")
KEYS = (b"n" * 32, b"o" * 32)
SIGNER = LetterSigner(lambda: KEYS)


def stored(letter: DeadLetter = LOST, at_ms: int = 100) -> StoredLetter:
    return StoredLetter(0, 5, at_ms, letter)


@dataclass(frozen=True)
class StoredRecord:
    """As a ``confluent_kafka.Message``."""

    body: bytes
    at: int = 0

    def value(self) -> bytes:
        return self.body

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000 + self.at


@dataclass
class LetterTopic:
    """A dead letter topic, and a writer that keeps what is written; it refuses groups with a value in ``refused``."""

    records: list[bytes] = field(default_factory=list)
    written: list[TopicRecord] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)
    groups: int = 0
    share_read = 1.0

    def records_of(self) -> list[StoredRecord]:
        return [StoredRecord(value, at) for at, value in enumerate(self.records)]

    @contextmanager
    def reading(self, *_: Any) -> Iterator[Any]:
        topic = self

        class Reader:
            share_read = 1.0

            def records(self) -> Iterator[StoredRecord]:
                return iter(topic.records_of())

        yield Reader()

    def write(self, records: Sequence[TopicRecord]) -> str | None:
        self.groups += 1
        if any(record.value in self.refused for record in records):
            return "too large"
        self.written += [record for record in records if record.topic != "letters"]
        self.records += [record.value for record in records if record.topic == "letters"]
        return None

    def use(self, monkeypatch: pytest.MonkeyPatch) -> LetterTopic:
        """Put it in the place of Kafka; the events topic is ``events``, with two partitions."""
        monkeypatch.setattr(redriving, "existing_topic", self.reading)
        monkeypatch.setattr(redriving, "_partitions", lambda *_: 2)
        return self

    def add(self, *letters: DeadLetter) -> None:
        self.records += [letter.to_json() for letter in letters]

    def redrive(
        self, selected: LetterFilter | None = None, limit: int | None = None, **settings: Any
    ) -> tuple[Plan, RedriveResult]:
        """Plan and send."""
        redrive = Redrive({}, settings_of(**settings), selected or LetterFilter(), limit)
        plan = redrive.plan()
        return plan, redrive.send(plan, self)


def settings_of(**settings: Any) -> RedriveSettings:
    return RedriveSettings(**{"control_topic": "control", "signer": SIGNER} | settings, **TOPICS)


TOPICS = {"dead_letters_topic": "letters", "events_topic": "events"}
