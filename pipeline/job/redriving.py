"""Which dead letters are meant, and how each is sent again (docs/dead-letters.md)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Message

from pipeline.kafka.topics import TopicWriter
from transforms.domain.events.dead_letter import CONTROL, INPUT, RULE, DeadLetter
from transforms.domain.webhooks.redrive import redrive_record

ACTIONS: Final = "actions"
EVENTS: Final = "events"


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A dead letter, its place on its topic and when it was written there [ms]."""

    partition: int
    offset: int
    at_ms: int
    letter: DeadLetter

    @property
    def place(self) -> str:
        """As ``show`` takes it."""
        return f"{self.partition}/{self.offset}"

    @property
    def user(self) -> str | None:
        """The user it is about, as far as that is known."""
        if self.letter.action is not None:
            return self.letter.action.user_id
        return None if self.letter.key is None else self.letter.key.decode(errors="replace")

    @property
    def destination(self) -> str | None:
        """Where its action was to go."""
        return None if self.letter.action is None else self.letter.action.destination


def found_letters(messages: Iterable[Message], unreadable: list[str]) -> Iterator[FoundLetter]:
    """The dead letters of a topic's records; ``unreadable`` gets what is none."""
    for message in messages:
        try:
            letter = DeadLetter.of_json(message.value() or b"")
        except ValueError as error:
            unreadable.append(f"{message.partition()}/{message.offset()}: {error}")
        else:
            yield FoundLetter(message.partition(), message.offset(), message.timestamp()[1], letter)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters are meant: without a value, all. Times are when they were written, ms; ``until_ms`` is out."""

    reasons: Collection[str] = ()
    rules: Collection[str] = ()
    destinations: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None

    def takes(self, found: FoundLetter) -> bool:
        """Whether it is meant."""
        return (
            (not self.reasons or found.letter.reason in self.reasons)
            and (not self.rules or found.letter.rule in self.rules)
            and (not self.destinations or found.destination in self.destinations)
            and (self.since_ms is None or found.at_ms >= self.since_ms)
            and (self.until_ms is None or found.at_ms < self.until_ms)
        )


@dataclass(frozen=True, slots=True)
class Route:
    """How a letter is sent again: as one of ``ACTIONS`` or ``EVENTS``, and the record that does it.

    ``partition`` None is where the key belongs.
    """

    kind: str
    topic: str
    partition: int | None
    key: bytes | None
    value: bytes


class SkippedError(ValueError):
    """A letter that is not sent again; the message says why, for all such letters alike."""


def route(letter: DeadLetter, control_topic: str | None, topics: Mapping[str, int]) -> Route:
    """How a letter is sent again; ``topics`` are those that there are and their numbers of partitions.

    Raises:
        SkippedError: it is not.
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
    # Where it was, whatever placed it there: events of a user are in order within one partition only.
    return Route(EVENTS, letter.topic, letter.partition, letter.key, letter.value)


class Pace:
    """At most so many a second, evenly; None is as fast as it goes."""

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
        """Until the next one may go."""
        now_s = self._clock()
        if self._next_s > now_s:
            self._sleep(self._next_s - now_s)
        self._next_s = max(self._next_s, now_s) + self._pause_s


@dataclass(slots=True)
class Redriven:
    """What a redrive came to: ``sent`` by kind, ``skipped`` and ``failed`` by why.

    ``may_be_duplicates`` are those of the events that were handled but for a rule, and are in their user's history.
    """

    sent: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    may_be_duplicates: int = 0

    def __str__(self) -> str:
        return f"{self.sent.total()} sent, {self.skipped.total()} skipped, {self.failed.total()} failed"


class Redriver:
    """Sends letters again, or with ``dry_run`` only counts; ``redriven`` is what the broker has taken so far.

    ``topics`` are those that there are and their numbers of partitions.
    """

    def __init__(
        self, writer: TopicWriter, topics: Mapping[str, int], control_topic: str | None, pace: Pace, dry_run: bool
    ) -> None:
        self._writer = writer
        self._topics = topics
        self._control_topic = control_topic
        self._pace = pace
        self._dry_run = dry_run
        self.redriven = Redriven()

    def send(self, letter: DeadLetter) -> None:
        """Send one off; it is counted once the broker has answered, at the latest with ``flush``."""
        try:
            one = route(letter, self._control_topic, self._topics)
        except SkippedError as error:
            self.redriven.skipped[str(error)] += 1
            return
        told = self._counting(one.kind, letter.stage == RULE)
        if self._dry_run:
            told(None)
            return
        self._pace.wait()
        self._writer.write(one.topic, one.key, one.value, one.partition, told)

    def _counting(self, kind: str, may_be_duplicate: bool) -> Callable[[str | None], None]:
        def told(error: str | None) -> None:
            if error is not None:
                self.redriven.failed[error] += 1
                return
            self.redriven.sent[kind] += 1
            self.redriven.may_be_duplicates += may_be_duplicate

        return told

    def flush(self) -> None:
        """Wait for the broker's answers."""
        left = self._writer.flush()
        if left:
            self.redriven.failed["the broker did not answer"] += left
