"""Checks rules against what the job that will take them has announced on its audit topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.rules.command import History
from pipeline.console import warn
from pipeline.job.publishing import NOT_CHECKED, announced_job, check_destinations_of, has_webhooks
from pipeline.kafka.announcements import MEANING
from pipeline.kafka.topics import TopicError
from pipeline.launch.options import Settings
from transforms.domain.rules.model import Rule


def check_announced(
    config: Mapping[str, str], audit_topic: str, rules_topic: str, rules: tuple[Rule, ...], history: History
) -> None:
    """Check rules against what the job that takes rules from the topic has announced; warns if there is none.

    Raises:
        RuleError: a webhook goes to a destination that the job does not have.
    """
    try:
        job = announced_job(config, audit_topic, rules_topic)
    except TopicError as error:
        if has_webhooks(rules):
            warn(f"{NOT_CHECKED}: {error}")
        return
    check_destinations_of(job, rules)
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
