"""``event-trigger topics create``: makes the topics that a launch's options name, and compares those that exist."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import Parameter

from pipeline.cli.parameters import Launch
from pipeline.console import one_line, out, say, warn
from pipeline.errors import OptionError
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.topic_creation import DIFFERS, EXISTS, WRONG, Outcome, TopicCreator
from pipeline.launch.options import FLINK_RUNNER, parse
from pipeline.launch.wanted_topics import wanted_topics
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.base.durations import Duration
from transforms.domain.rules.files import load_rules

Number = Annotated[int | None, Parameter(metavar="NUMBER")]
_MOST_PARTITIONS: Final = 10_000
_SHORTEST_RETENTION_MS: Final = 3_600_000


def create(
    *,
    partitions: Number = None,
    replicas: Number = None,
    retention: Annotated[str | None, Parameter(metavar="DURATION")] = None,
    dry_run: bool = False,
    options: Launch = Launch(),
) -> int:
    """Create the topics that a job with these options needs, and compare those that exist with what it needs.

    Give it the options of the launch (`event-trigger run --help`), with --rules also the topics that Kafka actions
    name. It prints a line for each topic, and changes none that exists.

    0: all topics are there, or with --dry_run could be created; 1: one was refused, or is such that the job would not
    work or lose data, or Kafka does not answer; 2: an option cannot be used.

    Args:
        partitions: of the events topic and those as large; default: the parallelism, at least 4.
        replicas: of each partition; default: 3, or as many as there are brokers.
        retention: of topics with that many partitions, for example 36h; default: 7 days.
        dry_run: only ask whether the brokers would create them.
    """
    # As of resume: the options of a launch need not name the runner. A runner among them counts.
    settings = parse([f"--runner={FLINK_RUNNER}", *options.flags], rules_required=False)
    if settings.bootstrap_servers is None:
        raise OptionError("--bootstrap_servers is missing: give HOST:PORT of a broker, here or in event-trigger.yaml")
    for name, value, most in (("partitions", partitions, _MOST_PARTITIONS), ("replicas", replicas, 100)):
        if value is not None and not 1 <= value <= most:
            raise OptionError(f"--{name} is {value}, allowed: 1 to {most}")
    rules = () if settings.rules is None else load_rules(settings.rules, LuaEngines())
    wanted = wanted_topics(settings, rules, partitions, _kept_ms(retention))
    creator = TopicCreator(for_librdkafka(settings.client_config(), settings.kafka_access()), replicas)
    if creator.replicas < min(3, creator.brokers + 1):
        warn(f"{creator.replicas} replicas of each partition: a broker that is lost takes records along")
    outcomes = []
    for outcome in creator.create(wanted, dry_run):
        outcomes.append(outcome)
        out(_line(outcome, creator))
    wrong = sum(outcome.is_wrong for outcome in outcomes)
    say(f"{len(outcomes)} topics, {wrong} of them cannot be used like this")
    return 1 if wrong else 0


def _kept_ms(retention: str | None) -> int | None:
    if retention is None:
        return None
    try:
        kept_ms = Duration.parse(retention).ms
    except ValueError as error:
        raise OptionError(f"--retention is {retention!r}, allowed: {error}") from None
    if kept_ms < _SHORTEST_RETENTION_MS:
        raise OptionError(f"--retention is {retention!r}, allowed: from 1h on; a job that stands longer loses events")
    return kept_ms


def _line(outcome: Outcome, creator: TopicCreator) -> str:
    topic = outcome.topic
    if outcome.state in (EXISTS, DIFFERS, WRONG):
        text = "; ".join(outcome.notes) or "as it should be"
    else:
        settings = [f"{name}={value}" for name, value in sorted(creator.settings(topic).items())]
        text = ", ".join([f"{topic.partitions} partitions", f"{creator.replicas} replicas", *settings, *outcome.notes])
    return f"{outcome.state:<12}  {topic.name}  {one_line(text)}  ({topic.option})"
