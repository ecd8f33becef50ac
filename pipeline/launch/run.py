"""The launch: flags → settings → rules and destinations → runner."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pipeline.console import log_json, one_line, say, warn
from pipeline.errors import OptionError
from pipeline.kafka.announcements import MEANING, Announcement, announce
from pipeline.kafka.client_properties import for_librdkafka
from pipeline.kafka.rules_topic import PublishedSets, RulesTopic
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import DIRECT_RUNNER, FLINK_RUNNER, Settings
from pipeline.launch.options.fields import JSON
from pipeline.launch.options.parsing import given_flags
from pipeline.launch.options.resolving import DEFAULT, FLAG, SOURCES, Sources, unknown_variables
from pipeline.launch.options.validation import OUTPUT_FILES
from runners.flink.overrides import without_cloud_clients
from transforms.adapters.letter_keys import letter_signer
from transforms.adapters.lua.engines import LuaEngines
from transforms.adapters.secrets import Token, TokenError
from transforms.adapters.user_hash_key import user_hash
from transforms.domain.base.secret_references import SecretError
from transforms.domain.rules.action_topics import check_destinations
from transforms.domain.rules.files import load_rules
from transforms.domain.rules.filters import FilterSet
from transforms.domain.rules.model import Rule, RuleError
from transforms.domain.rules.sets import RuleSet
from transforms.domain.webhooks.destinations import Destination, load_destinations
from transforms.runtime.clocks import monotonic_ms

# Where an embedded run writes what it does not print.
EMBEDDED_FOLDER: Final = Path(".event-trigger")


def launch(arguments: Sequence[str]) -> int:
    """Launch the job that the flags describe; returns the exit code: 0 done, 1 failed.

    Raises:
        OptionError: an option, a rule or a destination cannot be used.
        TopicError: the rules topic cannot be read.
        LocalStackError, SubmissionError: Flink does not answer, or refused the job.
    """
    sources = SOURCES.get()
    flags = given_flags(arguments)
    resolved = sources.resolve(flags)
    brokers = resolved.origins["bootstrap_servers"]
    if not resolved.is_given("runner") and brokers.source not in (FLAG, DEFAULT):
        # A broker that commands are to find does not make a run of the bundled stream one of real events.
        say(
            f"{one_line(brokers.place or brokers.source)} gives bootstrap_servers, but no runner is given: this is a "
            f"run of the bundled stream, with its flags only; --runner={FLINK_RUNNER} or {DIRECT_RUNNER} reads Kafka"
        )
        resolved = Sources().resolve(flags)
    settings = resolved.settings()
    if settings.log_format == JSON:
        log_json(job=settings.job_name)
    if resolved.file is not None:
        say(f"options: {one_line(resolved.where)}")
    for problem in unknown_variables(sources.environment):
        warn(problem)
    try:
        return _launch(settings)
    except RuleError as error:
        raise OptionError(str(error)) from None


def _launch(settings: Settings) -> int:
    destinations = _destinations(settings)
    rule_set = _rule_set(settings)
    if settings.destinations is not None or not settings.embedded:
        for rule in rule_set.rules:
            check_destinations(rule, [destination.name for destination in destinations])
    settings.topics_of_actions(rule_set.rules).check(rule_set.rules)
    if settings.runner == DIRECT_RUNNER:
        _check_secrets(settings)
    settings = _with_files(settings)
    _truncate_output_files(settings)
    import_beam()
    if settings.runner == FLINK_RUNNER:
        from pipeline.launch.flink import run_on_flink

        return run_on_flink(settings, rule_set, destinations, partial(announce_job, settings, destinations))
    from pipeline.launch.direct import run_direct

    return run_direct(settings, rule_set, destinations)


def _check_secrets(settings: Settings) -> None:
    """Read the secrets of a run whose worker is this process; those of a job on Flink are its workers' alone.

    Raises:
        OptionError: one cannot be read.
    """
    readers: dict[str, Callable[[str], object]] = {
        "dead_letters_key": letter_signer,
        "user_hash_key": user_hash,
        "user_api_token": lambda reference: Token(reference).value,
    }
    for name, read in readers.items():
        reference: str | None = getattr(settings, name)
        if reference is not None:
            try:
                read(reference)
            except (SecretError, TokenError) as error:
                raise OptionError(f"--{name} cannot be read: {error}") from None


def announce_job(settings: Settings, destinations: Sequence[Destination]) -> None:
    """Announce what the job has to those who publish rules for it; a job runs without that, too."""
    if settings.rules_topic is None:
        return
    announcement = Announcement(
        settings.job_name,
        settings.rules_topic,
        tuple(destination.name for destination in destinations),
        {name: getattr(settings, name) for name in MEANING},
        time.time_ns() // 1_000_000,
    )
    try:
        announce(for_librdkafka(settings.client_config(), settings.kafka_access()), settings.audit_topic, announcement)
    except TopicError as error:
        warn(f"{error}; publishers of rules do not know which destinations this job has")


def _with_files(settings: Settings) -> Settings:
    """With the files of an embedded run, unless others are named: what it prints is only the short form."""
    if not settings.embedded:
        return settings
    named = {name: getattr(settings, name) for name in OUTPUT_FILES}
    files = {name: EMBEDDED_FOLDER / f"{name.removesuffix('_file')}.jsonl" for name in named if named[name] is None}
    nowhere = Path(os.devnull)
    try:
        EMBEDDED_FOLDER.mkdir(exist_ok=True)
        (EMBEDDED_FOLDER / ".gitignore").write_text("*\n", "utf-8")
    except OSError as error:
        warn(f"{EMBEDDED_FOLDER}: {error.strerror}; nothing is written, --actions_file=FILE says where it may be")
        files = dict.fromkeys(files, nowhere)
    written: dict[str, Any] = {name: nowhere if path in named.values() else path for name, path in files.items()}
    return settings.model_copy(update=written)


def _truncate_output_files(settings: Settings) -> None:
    """Empty the files that a run on DirectRunner writes.

    Raises:
        OptionError: a file cannot be written.
    """
    for name in OUTPUT_FILES:
        path: Path | None = getattr(settings, name)
        if path is not None:
            try:
                path.write_bytes(b"")
            except OSError as error:
                raise OptionError(f"--{name} is {str(path)!r}: {error.strerror}") from None


def import_beam() -> None:
    """Import Beam without unused parts. It takes seconds, so a launch checks its options first."""
    with without_cloud_clients():
        import apache_beam  # noqa: F401


def _destinations(settings: Settings) -> tuple[Destination, ...]:
    if settings.destinations is None:
        return ()
    return load_destinations(settings.destinations, settings.egress_policy())


def _rule_set(settings: Settings) -> RuleSet:
    """The rules that the job starts with: the newest published set, or the rule files as set 0."""
    if settings.rules_topic is None:
        return RuleSet(0, _rules(settings))
    topic = RulesTopic(settings.rules_topic, for_librdkafka(settings.client_config(), settings.kafka_access()))
    published = _newest_usable_set(settings, topic.topic, topic.read())
    if published is None and settings.rules is None:
        raise OptionError(
            f"--rules_topic {topic.topic!r} has no rule set and --rules is missing: publish one with "
            "`event-trigger rules publish`, or give the rules to begin with"
        )
    if settings.plan_file is None:
        topic.prepare()  # a job does not start without its topic
    return RuleSet(0, _rules(settings)) if published is None else published


def _newest_usable_set(settings: Settings, topic: str, published: PublishedSets) -> RuleSet | None:
    """The newest set that compiles: the one that a worker takes from the topic."""
    for problem in published.unreadable:
        warn(f"rules topic {topic!r}: {problem}")
    for rule_set in reversed(published.sets):
        try:
            settings.topics_of_actions(rule_set.rules).check(rule_set.rules)
            FilterSet(rule_set.rules, LuaEngines(), monotonic_ms)
        except RuleError as error:
            warn(f"rules topic {topic!r}: set {rule_set.number}: {error}")
            continue
        say(f"rules topic {topic!r}: starting with set {rule_set.number}", rule_set=rule_set.number)
        return rule_set
    return None


def bundled_rules() -> tuple[Rule, ...]:
    """The sample rules of the embedded default."""
    with resources.as_file(resources.files("pipeline.embedded").joinpath("rules")) as folder:
        return load_rules(folder, LuaEngines())


def _rules(settings: Settings) -> tuple[Rule, ...]:
    """The rules of the files, checked here so that a bad rule ends the launch, not a worker."""
    return bundled_rules() if settings.rules is None else load_rules(settings.rules, LuaEngines())
