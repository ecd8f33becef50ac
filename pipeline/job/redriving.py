"""Selecting dead letters and sending them again (docs/dead-letters.md)."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from confluent_kafka import Message

from pipeline.errors import PipelineError
from pipeline.kafka.topics import TopicError, TopicWriter, open_reader, topic_errors
from transforms.domain.events.dead_letter import CONTROL, INPUT, RULE, DeadLetter
from transforms.domain.webhooks.redrive import redrive_record

ACTIONS: Final = "actions"
EVENTS: Final = "events"


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


def stored_letters(messages: Iterable[Message], unreadable: list[str]) -> Iterator[StoredLetter]:
    """Decode a topic's records. ``unreadable`` gets a message for each record that is no dead letter."""
    for message in messages:
        try:
            letter = DeadLetter.of_json(message.value() or b"")
        except ValueError as error:
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
    with topic_errors(f"dead letters topic {topic!r}"), open_reader(config, topic) as reader:
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

    def matches(self, stored: StoredLetter) -> bool:
        """Whether all criteria select the letter."""
        return (
            (not self.reasons or stored.letter.reason in self.reasons)
            and (not self.rules or stored.letter.rule in self.rules)
            and (not self.destinations or stored.destination in self.destinations)
            and (self.since_ms is None or stored.at_ms >= self.since_ms)
            and (self.until_ms is None or stored.at_ms < self.until_ms)
        )


@dataclass(frozen=True, slots=True)
class Route:
    """How a letter is sent again: as ``ACTIONS`` or ``EVENTS``, and the record that does it.

    A ``partition`` of None leaves the choice to the key.
    """

    kind: str
    topic: str
    partition: int | None
    key: bytes | None
    value: bytes


class SkippedError(PipelineError, ValueError):
    """A letter that is not sent again; the message is the same for all letters with that cause."""


def route(letter: DeadLetter, control_topic: str | None, topics: Mapping[str, int]) -> Route:
    """How a letter is sent again.

    Args:
        letter: the dead letter.
        control_topic: the job's control topic, which actions need.
        topics: the number of partitions of each existing topic.

    Raises:
        SkippedError: the letter cannot be sent again.
    """
    if letter.cut:
        raise SkippedError("too long to be in a dead letter as a whole")
    action = letter.action
    if action is not None:
        if letter.rule is None:
            raise SkippedError("actions of an unknown rule")
        if control_topic is None:
            raise SkippedError("actions, which need --control_topic")
        return Route(
            ACTIONS, control_topic, None, action.user_id.encode("utf-8", "replace"), redrive_record(action, letter.rule)
        )
    if letter.stage == CONTROL:
        raise SkippedError("control records, which are not redriven")
    if letter.stage not in (INPUT, RULE):
        raise SkippedError(f"reason {letter.reason}, which this release does not know how to redrive")
    if not letter.topic:
        raise SkippedError("decided by a timer: there is no record to send again")
    if letter.partition not in range(topics.get(letter.topic, 0)):
        raise SkippedError(f"topic {letter.topic!r} or its partition is not there any more")
    # The same partition as before, because a user's events are in order only within a partition.
    return Route(EVENTS, letter.topic, letter.partition, letter.key, letter.value)


class Pace:
    """Limits a loop to ``rate`` turns a second, spread evenly; None does not limit it."""

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pause_s = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._sleep = sleep
        self._next_s = clock()

    def wait(self) -> None:
        """Sleep until the next turn is due."""
        now_s = self._clock()
        if self._next_s > now_s:
            self._sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + self._pause_s


@dataclass(slots=True)
class RedriveResult:
    """Counts of a redrive: ``sent`` by kind, ``skipped`` and ``failed`` by cause.

    ``may_be_duplicates`` counts sent events that only a rule failed on: they may still be in their user's history.
    """

    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    may_be_duplicates: int = 0

    def add(self, other: RedriveResult) -> None:
        """Add the counts of another redrive."""
        self.sent.update(other.sent)
        self.skipped.update(other.skipped)
        self.failed.update(other.failed)
        self.may_be_duplicates += other.may_be_duplicates

    def __str__(self) -> str:
        return f"{self.sent.total()} sent, {self.skipped.total()} skipped, {self.failed.total()} failed"


def open_redriver(
    config: Mapping[str, str], control_topic: str | None, rate: float | None = None, dry_run: bool = False
) -> Redriver:
    """A redriver that sends at most ``rate`` letters a second; None does not limit it.

    Raises:
        TopicError: Kafka does not answer, or there is no such control topic.
    """
    with topic_errors("redrive"):
        writer = TopicWriter(config)
        topics = writer.topics()
    if control_topic is not None and control_topic not in topics:
        raise TopicError(f"control topic {control_topic!r} does not exist")
    return Redriver(writer, topics, control_topic, Pace(rate), dry_run)


class Redriver:
    """Sends letters again, or with ``dry_run`` only counts them; ``result`` counts what the broker has taken so far.

    ``topics`` has the number of partitions of each existing topic.
    """

    def __init__(
        self, writer: TopicWriter, topics: Mapping[str, int], control_topic: str | None, pace: Pace, dry_run: bool
    ) -> None:
        self._writer = writer
        self._topics = topics
        self._control_topic = control_topic
        self._pace = pace
        self._dry_run = dry_run
        self.result = RedriveResult()

    def send(self, letter: DeadLetter) -> None:
        """Send a letter. It is counted when the broker has answered, after ``flush`` at the latest."""
        try:
            target = route(letter, self._control_topic, self._topics)
        except SkippedError as error:
            self.result.skipped[str(error)] += 1
            return
        count = partial(self._count, target.kind, letter.stage == RULE)
        if self._dry_run:
            count(None)
            return
        self._pace.wait()
        self._writer.write(target.topic, target.key, target.value, target.partition, count)

    def _count(self, kind: str, may_be_duplicate: bool, error: str | None) -> None:
        if error is not None:
            self.result.failed[error] += 1
            return
        self.result.sent[kind] += 1
        self.result.may_be_duplicates += may_be_duplicate

    def flush(self) -> None:
        """Wait for the broker's answers."""
        unanswered = self._writer.flush()
        if unanswered:
            self.result.failed["the broker did not answer"] += unanswered
