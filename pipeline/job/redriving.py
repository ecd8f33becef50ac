"""Sending dead letters again: which, where to, and what has to be true before (docs/dead-letters.md).

A redrive writes to the events topic and the control topic only, whatever a letter says, and beside each letter a marker
in the same transaction. All redrives of a dead letter topic share a transactional id: the broker refuses the one that
began first, so that two at the same time cannot send a letter twice.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.errors import PipelineError
from pipeline.job.pace import Pace
from pipeline.job.stored_letters import LetterFilter, StoredLetter, redriven_ids, redriven_marker, stored_letters
from pipeline.kafka.topics import TopicError, TopicWriter, existing_topic, topic_errors
from pipeline.kafka.transactional_writer import TopicRecord, TransactionalWriter
from transforms.domain.events.dead_letter import CONTROL, FAILS_AGAIN, INPUT, RULE, DeadLetter
from transforms.domain.events.letter_signature import SIGNED, LetterSigner, letter_id
from transforms.domain.webhooks.redrive import read_redrive, redrive_record

ACTIONS: Final = "actions"
EVENTS: Final = "events"
NEEDS_CONTROL_TOPIC: Final = "actions, which need --control_topic"

_SAMPLES: Final = 3
_BATCH: Final = 100  # letters in a transaction


@dataclass(frozen=True, slots=True)
class RedriveSettings:
    """Where a job's letters are and go, and what an operator allows; a ``rate`` of None [letters/s] is no limit."""

    dead_letters_topic: str
    events_topic: str
    control_topic: str | None
    signer: LetterSigner = field(default_factory=LetterSigner)
    accept_unsigned: bool = False
    again: bool = False
    rate: float | None = None


class SkippedError(PipelineError, ValueError):
    """A letter that is not sent again; the message is the same for all letters with that cause."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a letter is sent again: as ``ACTIONS`` or ``EVENTS``, and the record that does it."""

    kind: str
    record: TopicRecord


def route(letter: DeadLetter, settings: RedriveSettings, partitions: int) -> Route:
    """How a letter is sent again, whoever wrote it.

    Args:
        letter: the dead letter.
        settings: the topics.
        partitions: the number of partitions of the events topic.

    Raises:
        SkippedError: the letter cannot be sent again; causes name nothing of the letter, so that there are few.
    """
    if letter.stage == CONTROL:
        raise SkippedError("control records, which are not redriven")
    if letter.reason in FAILS_AGAIN:
        raise SkippedError(f"reason {letter.reason}: the same bytes would fail again")
    if letter.cut:
        raise SkippedError("too long to be in a dead letter as a whole")
    action = letter.action
    if action is not None:
        if letter.rule is None:
            raise SkippedError("actions of an unknown rule")
        if settings.control_topic is None:
            raise SkippedError(NEEDS_CONTROL_TOPIC)
        record = redrive_record(action, letter.rule, settings.signer)
        try:
            read_redrive(record, 0, LetterSigner())
        except ValueError:
            raise SkippedError("actions that no job would take: a field has a value that it cannot have") from None
        return Route(ACTIONS, TopicRecord(settings.control_topic, None, action.user_id.encode(), record))
    if letter.stage not in (INPUT, RULE):
        raise SkippedError("of a reason that this release does not know how to redrive")
    if not letter.topic:
        raise SkippedError("decided by a timer: there is no record to send again")
    if letter.topic != settings.events_topic:
        raise SkippedError(f"of another topic than the events topic {settings.events_topic!r}")
    if letter.partition not in range(partitions):
        raise SkippedError(f"of a partition that the events topic {settings.events_topic!r} does not have")
    # The same partition as before, because a user's events are in order only within a partition.
    return Route(EVENTS, TopicRecord(letter.topic, letter.partition, letter.key, letter.value))


class _Chooser:
    """Decides letter by letter what is sent; of copies of a letter only the first is."""

    def __init__(self, settings: RedriveSettings, partitions: int, redriven: Mapping[str, int]) -> None:
        self._settings = settings
        self._partitions = partitions
        self._redriven = redriven
        self._seen: set[str] = set()

    def route(self, letter: DeadLetter) -> Route:
        """How the letter is sent again.

        Raises:
            SkippedError: it is not.
        """
        target = route(letter, self._settings, self._partitions)
        identity = letter_id(letter)
        if identity in self._redriven and not self._settings.again:
            raise SkippedError("redriven before")
        if identity in self._seen:
            raise SkippedError("copies of a letter that is sent")
        origin = self._settings.signer.origin(letter)
        if origin != SIGNED and not self._settings.accept_unsigned:
            raise SkippedError(f"{origin}: the job may not have written it")
        self._seen.add(identity)
        return target


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """Letters that are sent in the same way; ``destination`` is that of their webhooks."""

    kind: str
    topic: str
    reason: str
    destination: str | None
    origin: str


@dataclass(slots=True)
class Plan:
    """What a redrive would do.

    Attributes:
        counts: the letters that would be sent.
        samples: the first letters of each group.
        skipped: the letters that would not be sent, by cause; ``skipped_first`` has a letter of each.
        may_be_duplicates: events that only a rule failed on: they may still be in their user's history.
        unreadable: a message for each record that is no letter.
        ends: by partition, the last letter that was looked at.
    """

    counts: Counter[PlanGroup] = field(default_factory=Counter)
    samples: dict[PlanGroup, list[StoredLetter]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_first: dict[str, StoredLetter] = field(default_factory=dict)
    may_be_duplicates: int = 0
    unreadable: list[str] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def of_kind(self, kind: str) -> int:
        """How many letters would be sent as ``ACTIONS`` or ``EVENTS``."""
        return sum(count for group, count in self.counts.items() if group.kind == kind)

    def add(self, stored: StoredLetter, target: Route, origin: str) -> None:
        """Add a letter that would be sent."""
        group = PlanGroup(target.kind, target.record.topic, stored.letter.reason, stored.destination, origin)
        self.counts[group] += 1
        self.may_be_duplicates += stored.letter.stage == RULE
        samples = self.samples.setdefault(group, [])
        if len(samples) < _SAMPLES:
            samples.append(stored)

    def skip(self, stored: StoredLetter, cause: str) -> None:
        """Add a letter that would not be sent."""
        self.skipped[cause] += 1
        self.skipped_first.setdefault(cause, stored)


@dataclass(slots=True)
class RedriveResult:
    """Counts of a redrive: ``sent`` by kind, ``failed`` by cause; it was ``stopped`` by an error, which is its text."""

    sent: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    stopped: str | None = None

    def __str__(self) -> str:
        return f"{self.sent.total()} sent, {self.failed.total()} failed"


class Writer(Protocol):
    """As ``TransactionalWriter``."""

    def write(self, records: Sequence[TopicRecord]) -> str | None:  # noqa: D102 - as there
        ...


class Redrive:
    """One redrive of selected letters: ``plan``, then ``send``, with a writer that was opened before this.

    Args:
        config: librdkafka's properties.
        settings: of the redrive.
        selected: the letters; ``limit`` are the first so many of them.

    Raises:
        TopicError: Kafka does not answer, or a topic does not exist.
    """

    def __init__(
        self,
        config: Mapping[str, str],
        settings: RedriveSettings,
        selected: LetterFilter,
        limit: int | None = None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._selected = selected
        self._limit = limit
        self._partitions = _partitions(config, settings)
        self._redriven = self._read_markers()

    def _chooser(self) -> _Chooser:
        return _Chooser(self._settings, self._partitions, self._redriven)

    def _read_markers(self) -> dict[str, int]:
        topic = self._settings.dead_letters_topic
        # A marker is written after its letter and to the same partition.
        with existing_topic(self._config, topic, _description(topic), self._selected.since_ms) as reader:
            return redriven_ids(reader.records())

    def _letters(self, unreadable: list[str], progress: Callable[[float], None]) -> Iterator[StoredLetter]:
        topic = self._settings.dead_letters_topic
        with existing_topic(self._config, topic, _description(topic), self._selected.since_ms) as reader:
            letters = filter(self._selected.matches, stored_letters(reader.records(), unreadable))
            for stored in itertools.islice(letters, self._limit):
                progress(reader.share_read)
                yield stored

    def plan(self) -> Plan:
        """What would be sent where."""
        plan, chooser = Plan(), self._chooser()
        for stored in self._letters(plan.unreadable, lambda _: None):
            plan.ends[stored.partition] = stored.offset
            try:
                target = chooser.route(stored.letter)
            except SkippedError as error:
                plan.skip(stored, str(error))
            else:
                plan.add(stored, target, self._settings.signer.origin(stored.letter))
        return plan

    def send(
        self, plan: Plan, writer: Writer, progress: Callable[[float, RedriveResult], None] = lambda *_: None
    ) -> RedriveResult:
        """Send what the plan has; later letters are not looked at. An error or Ctrl-C in between is in the result."""
        result = RedriveResult()
        sender = _Sender(writer, self._settings, result)
        chooser = self._chooser()
        try:
            for stored in self._letters([], lambda share: progress(share, result)):
                if stored.offset > plan.ends.get(stored.partition, -1):
                    continue
                try:
                    target = chooser.route(stored.letter)
                except SkippedError:
                    continue
                sender.add(stored, target)
            sender.flush()
        except TopicError as error:
            result.stopped = str(error)
        except KeyboardInterrupt:
            result.stopped = "interrupted"
        return result


class _Sender:
    """Writes letters and their markers in transactions, and counts them once they are committed."""

    def __init__(self, writer: Writer, settings: RedriveSettings, result: RedriveResult) -> None:
        self._writer = writer
        self._topic = settings.dead_letters_topic
        self._result = result
        self._pace = Pace(settings.rate)
        # With a rate a transaction is open for a second at most.
        self._size = _BATCH if settings.rate is None else max(1, min(_BATCH, int(settings.rate)))
        self._batch: list[tuple[StoredLetter, Route]] = []

    def add(self, stored: StoredLetter, target: Route) -> None:
        """Send a letter, with others that follow."""
        self._pace.wait()
        self._batch.append((stored, target))
        if len(self._batch) >= self._size:
            self.flush()

    def flush(self) -> None:
        """Send what was added."""
        batch, self._batch = self._batch, []
        if batch:
            self._write(batch)

    def _write(self, batch: Sequence[tuple[StoredLetter, Route]]) -> None:
        error = self._writer.write([record for stored, target in batch for record in self._records(stored, target)])
        if error is None:
            self._result.sent.update(target.kind for _, target in batch)
        elif len(batch) == 1:
            self._result.failed[error] += 1
        else:  # one of them is no good, as one that is too large: each for itself, in the same order
            for letter in batch:
                self._write([letter])

    def _records(self, stored: StoredLetter, target: Route) -> tuple[TopicRecord, TopicRecord]:
        identity = letter_id(stored.letter).encode()
        marker = redriven_marker(stored, round(time.time() * 1000))
        return target.record, TopicRecord(self._topic, stored.partition, identity, marker)


def open_writer(config: Mapping[str, str], settings: RedriveSettings) -> TransactionalWriter:
    """The writer of a redrive; other redrives of the dead letter topic that run are stopped.

    Raises:
        TopicError: Kafka does not answer or refuses.
    """
    return TransactionalWriter(config, f"event-trigger-redrive-{settings.dead_letters_topic}", "redrive")


def _partitions(config: Mapping[str, str], settings: RedriveSettings) -> int:
    """The number of partitions of the events topic, 0 if there is none; checks that the control topic exists."""
    with topic_errors("redrive"):
        topics = TopicWriter(config).topics()
    if settings.control_topic is not None and settings.control_topic not in topics:
        raise TopicError(f"control topic {settings.control_topic!r} does not exist")
    return topics.get(settings.events_topic, 0)


def _description(topic: str) -> str:
    return f"dead letters topic {topic!r}"
