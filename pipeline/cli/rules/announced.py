"""Checks rules against what the job that will take them has announced on its audit topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.rules.command import History
from pipeline.console import warn
from pipeline.kafka.announcements import MEANING, newest_announcement
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings
from pipeline.timestamps import shown_time
from transforms.domain.rules.model import Rule, RuleError, WebhookAction, check_destinations


def check_announced(
    config: Mapping[str, str], audit_topic: str, rules_topic: str, rules: tuple[Rule, ...], history: History
) -> None:
    """Check rules against what the job that takes rules from the topic has announced; warns if there is none.

    Raises:
        RuleError: a webhook goes to a destination that the job does not have.
    """
    has_webhooks = any(isinstance(action, WebhookAction) for rule in rules for action in rule.actions)
    try:
        job = newest_announcement(config, audit_topic, rules_topic)
    except TopicError as error:
        if has_webhooks:
            warn(f"destinations are not checked: {error}")
        return
    if job is None:
        if has_webhooks:
            warn(f"destinations are not checked: no job has announced them on {audit_topic}")
        return
    for rule in rules:
        try:
            check_destinations(rule, job.destinations)
        except RuleError as error:
            launched = f"job {job.job!r}, launched {shown_time(job.at_ms)}"
            raise RuleError(f"{error}, of {launched}: every such action would become destination_unknown") from None
    for line in _other_options(job.options, Settings(**history.given())):
        warn(line)


def _other_options(of_job: Mapping[str, Any], used: Settings) -> Iterator[str]:
    """A line for each option that changes what rules do and that the job has another value of."""
    for name in MEANING:
        if name not in of_job:
            continue
        value, own = of_job[name], getattr(used, name)
        value = tuple(value) if isinstance(value, list) else value
        if value == own or (isinstance(value, tuple) and isinstance(own, tuple) and all(item in own for item in value)):
            continue
        given = [f"--{name}={item}" for item in (value if isinstance(value, tuple) else [value])]
        flags = f"without --{name}" if value in (None, ()) else f"with {' '.join(given)}"
        yield f"the job runs {flags}, the tests here with {own or 'none'}: give the same to see what it does"
