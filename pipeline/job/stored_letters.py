"""The dead letter topic: its letters, and the markers of those that were sent again (docs/dead-letters.md)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from confluent_kafka import Message

from pipeline.kafka.topics import open_reader, topic_errors
from transforms.domain.events.dead_letter import DeadLetter
from transforms.domain.events.letter_signature import letter_id

_MARKER_BEGINS: Final = b'{"redriven":'


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter on its topic: partition, offset and record time [ms since the epoch]."""

    partition: int
    offset: int
    at_ms: int
    letter: DeadLetter

    @property
    def place(self) -> str:
        """PARTITION/OFFSET, the argument of ``dead-letters show``."""
        return f"{self.partition}/{self.offset}"

    @property
    def user(self) -> str | None:
        """The user that the letter is about; None if it names none."""
        if self.letter.action is not None:
            return self.letter.action.user_id
        return None if self.letter.key is None else self.letter.key.decode(errors="replace")

    @property
    def destination(self) -> str | None:
        """The destination of the letter's action; None without one."""
        return None if self.letter.action is None else self.letter.action.destination


class _Marker(msgspec.Struct, rename={"letter_id": "redriven"}):
    """The record beside a letter that was sent again; ``letter`` is its place."""

    letter_id: str
    letter: str
    time: int


def redriven_marker(stored: StoredLetter, now_ms: int) -> bytes:
    """The record that says that a letter was sent again."""
    return msgspec.json.encode(_Marker(letter_id(stored.letter), stored.place, now_ms))


def redriven_ids(messages: Iterable[Message]) -> dict[str, int]:
    """The ids of the letters that were sent again, and when [ms since the epoch]."""
    markers = filter(None, (_marker(message.value() or b"") for message in messages))
    return {marker.letter_id: marker.time for marker in markers}


def _marker(value: bytes) -> _Marker | None:
    if not value.startswith(_MARKER_BEGINS):
        return None
    try:
        return _marker_decoder.decode(value)
    except (ValueError, RecursionError):
        return None


def stored_letters(messages: Iterable[Message], unreadable: list[str]) -> Iterator[StoredLetter]:
    """Decode a topic's letters; ``unreadable`` gets a message for each record that is neither letter nor marker."""
    for message in messages:
        value = message.value() or b""
        try:
            letter = DeadLetter.of_json(value)
        except ValueError as error:
            if _marker(value) is None:
                unreadable.append(f"{message.partition()}/{message.offset()}: {error}")
        else:
            yield StoredLetter(message.partition(), message.offset(), message.timestamp()[1], letter)


def read_place(text: str) -> tuple[int, int] | None:
    """Partition and offset of a ``StoredLetter.place``; None if the text is none."""
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,18})", text)
    return None if match is None else (int(match[1]), int(match[2]))


def letter_at(
    config: Mapping[str, str], topic: str, place: tuple[int, int], unreadable: list[str]
) -> StoredLetter | None:
    """The dead letter at a partition and offset, or None if there is none; ``unreadable`` as of ``stored_letters``.

    Raises:
        TopicError: Kafka does not answer.
    """
    with topic_errors(f"dead letters topic {topic!r}", config), open_reader(config, topic) as reader:
        message = reader.record(*place)
    return next(stored_letters([] if message is None else [message], unreadable), None)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Selects letters. An empty criterion selects all; times are record times [ms], ``until_ms`` is exclusive."""

    reasons: Collection[str] = ()
    rules: Collection[str] = ()
    destinations: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    places: Collection[tuple[int, int]] = ()

    def matches(self, stored: StoredLetter) -> bool:
        """Whether all criteria select the letter."""
        return (
            (not self.places or (stored.partition, stored.offset) in self.places)
            and (not self.reasons or stored.letter.reason in self.reasons)
            and (not self.rules or stored.letter.rule in self.rules)
            and (not self.destinations or stored.destination in self.destinations)
            and (self.since_ms is None or stored.at_ms >= self.since_ms)
            and (self.until_ms is None or stored.at_ms < self.until_ms)
        )


_marker_decoder = msgspec.json.Decoder(_Marker)
