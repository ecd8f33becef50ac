"""What the pages show of a job and do to it: Flink's REST API and the job's topics."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Message

from pipeline.job.redriving import FoundLetter, Pace, Redriven, Redriver, found_letters
from pipeline.job.status import Look, find_job, look
from pipeline.job.user_inspection import NoAnswerError, inspect_user
from pipeline.kafka.rules_topic import RulesTopic
from pipeline.kafka.topics import TopicError, TopicReader, TopicWriter, reading, saying
from pipeline.launch.options import Settings, kafka_properties
from runners.flink.rest import FlinkRest
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.files import load_rules
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision, decode_decision

# How far back pages look, in offsets of each partition: of letters less, as each may be a megabyte.
DECISIONS_BACK: Final = 5000
LETTERS_BACK: Final = 200
INSPECT_S: Final = 10.0


class JobError(RuntimeError):
    """Something cannot be shown or done; the message is for people."""


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except (TopicError, NoAnswerError, RuleError) as error:
        raise JobError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Asked:
    """Which decisions are meant: without a value, all."""

    user: str | None = None
    rule: str | None = None
    action: str | None = None

    def takes(self, one: Decision) -> bool:
        """Whether it is meant."""
        wanted = ((self.user, one.user_id), (self.rule, one.rule), (self.action, one.action_id))
        return all(given is None or given == value for given, value in wanted)


class RunningJob:
    """A job by the options of its launch. Everything that talks to Kafka raises JobError where that does not work."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._config: Mapping[str, str] = {
            "bootstrap.servers": settings.bootstrap_servers or "",
            **kafka_properties("kafka_property", settings.kafka_property),
        }

    @property
    def name(self) -> str:
        """The Flink job's."""
        return self.settings.job_name

    def looking(self) -> Callable[[], Look]:
        """For ``Watch``: a look at the newest job of the name."""
        rest = FlinkRest(f"http://{self.settings.flink_master}")

        def take() -> Look:
            return look(rest, find_job(rest, self.name), time.monotonic())

        return take

    def rule_set(self) -> RuleSet | None:
        """The newest published set, or the rules of the files; None if no option says where rules are."""
        with _telling():
            if self.settings.rules_topic is not None:
                live = RulesTopic(self.settings.rules_topic, self._config).read().live
                if live is not None:
                    return live
            if self.settings.rules is None:
                return None
            return RuleSet(0, load_rules(self.settings.rules, LuaEngines()))

    def decisions(self, asked: Asked, most: int) -> list[Decision] | None:
        """The latest decisions that are meant, newest first; None if the job keeps no decision log."""
        topic = self.settings.decisions_topic
        if topic is None:
            return None
        with _telling(), self._last("decisions", topic, DECISIONS_BACK) as reader:
            found = (one for one in map(_decision, reader.records()) if one is not None and asked.takes(one))
            # Of the same time the later one first: lines of a user are in order.
            placed = ((one.time, number, one) for number, one in enumerate(found))
            return [one for _, _, one in heapq.nlargest(most, placed, key=lambda place: place[:2])]

    def letters(self, most: int) -> list[FoundLetter]:
        """The latest dead letters, newest first."""
        with _telling(), self._last("dead letters", self.settings.dead_letters_topic, LETTERS_BACK) as reader:
            found = found_letters(reader.records(), [])
            return heapq.nlargest(most, found, key=lambda one: (one.at_ms, one.partition, one.offset))

    def letter(self, partition: int, offset: int) -> FoundLetter | None:
        """One dead letter, None if there is none."""
        topic = self.settings.dead_letters_topic
        with _telling(), saying(f"dead letters topic {topic!r}"), reading(self._config, topic) as reader:
            message = reader.record(partition, offset)
            return next(found_letters([] if message is None else [message], []), None)

    def redrive(self, letters: Sequence[FoundLetter]) -> Redriven:
        """Send letters again, as ``dead-letters redrive`` does."""
        with _telling(), saying("redrive"):
            writer = TopicWriter(self._config)
            topics, control_topic = writer.topics(), self.settings.control_topic
            if control_topic is not None and control_topic not in topics:
                raise TopicError(f"control topic {control_topic!r} does not exist")
            redriver = Redriver(writer, topics, control_topic, Pace(None), dry_run=False)
            for found in letters:
                redriver.send(found.letter)
            redriver.flush()
            return redriver.redriven

    def inspect(self, user_id: str) -> dict[str, Any]:
        """A user's state, as the running job answers."""
        if self.settings.control_topic is None:
            raise JobError(
                "a user's state is asked for on the control topic: start the page with the job's --control_topic"
            )
        with _telling():
            topics = self.settings.control_topic, self.settings.inspections_topic
            return inspect_user(self._config, *topics, user_id, INSPECT_S)

    @contextmanager
    def _last(self, what: str, topic: str, offsets: int) -> Iterator[TopicReader]:
        named = f"{what} topic {topic!r}"
        with saying(named), reading(self._config, topic, last=offsets) as reader:
            if not reader.partitions:
                raise TopicError(f"{named} does not exist")
            yield reader


def _decision(message: Message) -> Decision | None:
    try:
        return decode_decision(message.value() or b"")
    except ValueError:
        return None
