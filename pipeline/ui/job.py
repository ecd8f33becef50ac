"""The job behind the pages: what they read from its topics, and the redrive that they start."""

from __future__ import annotations

import heapq
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from confluent_kafka import Message

from pipeline.errors import PipelineError
from pipeline.job.decision_log import DecisionFilter
from pipeline.job.redriving import Plan, Redrive, RedriveResult, RedriveSettings, open_writer
from pipeline.job.snapshot import JobSnapshot
from pipeline.job.stored_letters import LetterFilter, StoredLetter, letter_at, redriven_ids, stored_letters
from pipeline.job.user_inspection import NoAnswerError, inspect_user
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.rules_topic import RulesTopic
from pipeline.kafka.topics import TopicError, existing_topic
from pipeline.launch.looking import look_source
from pipeline.launch.options import Settings
from pipeline.ui.rule_changes import RuleChanges
from runners.flink.redaction import without_secrets
from transforms.adapters.letter_keys import letter_signer
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.events.letter_signature import letter_id
from transforms.domain.rules.files import load_rules
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision, decode_decision

# How many offsets of each partition pages read; fewer dead letters, as each may be a megabyte.
DECISIONS_BACK: Final = 5000
MOST_DECISIONS: Final = 20_000
LETTERS_BACK: Final = 200
INSPECT_S: Final = 10.0

_GONE: Final = "there is no such letter any more"


class JobError(PipelineError, RuntimeError):
    """A page cannot show or do something; the page shows the message, which may hold text of others."""

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


@contextmanager
def job_errors() -> Iterator[None]:
    """Turn errors of Kafka, of rules and of a silent job into a JobError."""
    try:
        yield
    except (TopicError, NoAnswerError, RuleError) as error:
        raise JobError(str(error)) from None


class RunningJob:
    """A job, found by the options of its launch.

    Methods that use Kafka raise JobError if Kafka does not answer or refuses.

    Raises:
        SecretError: the key of dead letters cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._config = for_librdkafka(settings.client_config(), settings.kafka_access())
        self.redrive_settings = RedriveSettings(
            settings.dead_letters_topic,
            settings.events_topic,
            settings.control_topic,
            letter_signer(settings.dead_letters_key),
        )
        # Of two redrives at the same time, Kafka would stop the one that began first.
        self._redriving = threading.Lock()

    @property
    def name(self) -> str:
        """The Flink job's name."""
        return self.settings.job_name

    @property
    def where(self) -> tuple[str, str]:
        """Flink's address, and the job's name."""
        return self.settings.flink_master or "", self.name

    def snapshot_source(self) -> Callable[[], JobSnapshot]:
        """A function for ``Watch`` that takes a snapshot of the newest job with the name."""
        return look_source(self.settings)

    def rule_set(self) -> RuleSet | None:
        """The newest published set, otherwise the rules of the files; None if no option names either."""
        with job_errors():
            if self.settings.rules_topic is not None:
                live = RulesTopic(self.settings.rules_topic, self._config).read().live
                if live is not None:
                    return live
            if self.settings.rules is None:
                return None
            return RuleSet(0, load_rules(self.settings.rules, LuaEngines()))

    def rule_changes(self) -> RuleChanges | None:
        """What changes the live rules; None without a rules topic."""
        topic = self.settings.rules_topic
        return None if topic is None else RuleChanges(topic, self.settings, self._config)

    def now_ms(self) -> int:
        """The time that the pages show ages against."""
        return time.time_ns() // 1_000_000

    def decisions(self, selected: DecisionFilter, most: int = MOST_DECISIONS) -> list[Decision] | None:
        """The newest selected decisions, at most ``most``, the newest first; None if the job has no decision log."""
        topic = self.settings.decisions_topic
        if topic is None:
            return None
        description = f"decisions topic {topic!r}"
        with job_errors(), existing_topic(self._config, topic, description, last=DECISIONS_BACK) as reader:
            read = filter(None, map(_decision, reader.records()))
            # Among decisions of the same time the one read last comes first: a user's are in order.
            numbered = enumerate(decision for decision in read if selected.matches(decision))
            newest = heapq.nlargest(most, numbered, key=lambda entry: (entry[1].time, entry[0]))
            return [decision for _, decision in newest]

    def letters(self) -> list[tuple[StoredLetter, int | None]]:
        """The newest dead letters, the newest first, each with when [ms] it was sent again."""
        topic = self.settings.dead_letters_topic
        description = f"dead letters topic {topic!r}"
        with job_errors(), existing_topic(self._config, topic, description, last=LETTERS_BACK) as reader:
            records = list(reader.records())
        letters = stored_letters(records, [])
        newest = sorted(letters, key=lambda stored: (stored.at_ms, stored.partition, stored.offset), reverse=True)
        redriven = redriven_ids(records)
        return [(stored, redriven.get(letter_id(stored.letter))) for stored in newest]

    def letter(self, partition: int, offset: int) -> StoredLetter | None:
        """The dead letter at a place, or None if there is none."""
        with job_errors():
            return letter_at(self._config, self.settings.dead_letters_topic, (partition, offset), [])

    def redrive(
        self, places: Collection[tuple[int, int]], execute: bool, accept_unsigned: bool = False, again: bool = False
    ) -> tuple[Plan, RedriveResult | None]:
        """What sending the letters at some places again would do; with ``execute``, do it, too.

        The rules are those of ``dead-letters redrive``.
        """
        settings = replace(self.redrive_settings, accept_unsigned=accept_unsigned, again=again)
        found = [stored for stored in (self.letter(*place) for place in places) if stored is not None]
        if not found:
            return Plan(skipped=Counter({_GONE: len(places)})), None
        selected = LetterFilter(places=places, since_ms=min(stored.at_ms for stored in found))
        with job_errors(), self._redriving:
            writer = open_writer(self._config, settings) if execute else None
            redrive = Redrive(self._config, settings, selected)
            plan = redrive.plan()
            if len(found) < len(places):
                plan.skipped[_GONE] += len(places) - len(found)
            return plan, None if writer is None else redrive.send(plan, writer)

    def inspect(self, user_id: str) -> dict[str, Any]:
        """A user's state from the running job."""
        if self.settings.control_topic is None:
            raise JobError(
                "a user's state is asked for on the control topic: start the page with the job's --control_topic"
            )
        with job_errors():
            topics = self.settings.control_topic, self.settings.inspections_topic
            return inspect_user(self._config, *topics, user_id, INSPECT_S)


def _decision(message: Message) -> Decision | None:
    try:
        return decode_decision(message.value() or b"")
    except ValueError:
        return None
