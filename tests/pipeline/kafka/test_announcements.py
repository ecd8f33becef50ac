"""What a job announces, and what publishers of rules make of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.cli.rules import announced
from pipeline.cli.rules.announced import check_announced
from pipeline.cli.rules.command import History
from pipeline.job import publishing
from pipeline.kafka.announcements import MEANING, Announcement, announce
from pipeline.kafka.topics import TopicError
from pipeline.launch import run
from pipeline.launch.options import parse
from tests.builders import rule
from transforms.domain.rules.model import RuleError

JOB = Announcement("event-trigger", "rules", ("crm",), {"history_size": 100}, 1_704_067_200_000)
WEBHOOK = rule("r", "true", actions=[{"type": "webhook", "destination": "crm"}])
OTHER = rule("o", "true", actions=[{"type": "webhook", "destination": "shop"}])
PLAIN = rule("p", "true")
GIVE = "give the same to see what it does"


def test_an_announcement_survives_its_record() -> None:
    assert Announcement.of_json(JOB.to_json()) == JOB


@pytest.mark.parametrize(
    "change",
    [
        {"audit": "rules"},
        {"job": 1},
        {"rules_topic": None},
        {"destinations": "crm"},
        {"destinations": [1]},
        {"options": []},
        {"time": "now"},
        {"time": True},
    ],
)
def test_a_record_of_another_kind_is_none(change: dict[str, Any]) -> None:
    assert Announcement.of_json(orjson.dumps(orjson.loads(JOB.to_json()) | change)) is None
    assert Announcement.of_json(b"no JSON") is None
    assert Announcement.of_json(b"[1]") is None


def checked(
    monkeypatch: pytest.MonkeyPatch, job: Announcement | TopicError | None, *rules: Any, **history: Any
) -> list[str]:
    """The warnings of a check."""

    def newest(*_: Any) -> Announcement | None:
        if isinstance(job, TopicError):
            raise job
        return job

    warnings: list[str] = []
    monkeypatch.setattr(publishing, "newest_announcement", newest)
    monkeypatch.setattr(announced, "warn", warnings.append)
    check_announced({}, "audit", "rules", rules, History(**history))
    return warnings


def test_a_destination_that_the_job_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(monkeypatch, JOB, WEBHOOK, PLAIN) == []
    with pytest.raises(
        RuleError,
        match=r"^rule 'o': destination is 'shop', allowed: crm, of job 'event-trigger', launched 2024-01-01T00:00:00",
    ):
        checked(monkeypatch, JOB, WEBHOOK, OTHER)


@pytest.mark.parametrize(
    ("job", "warning"),
    [
        (None, "destinations are not checked: no job has announced them on audit"),
        (
            TopicError("audit topic 'audit' does not exist"),
            "destinations are not checked: audit topic 'audit' does not",
        ),
    ],
)
def test_what_nobody_has_announced_is_said(
    monkeypatch: pytest.MonkeyPatch, job: TopicError | None, warning: str
) -> None:
    (shown,) = checked(monkeypatch, job, OTHER)
    assert shown.startswith(warning)
    assert checked(monkeypatch, job, PLAIN) == []


def test_other_options_than_the_jobs_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"state_ttl_seconds": 3600.0, "history_fields": ["a", "b"], "profile_max_age_seconds": None, "new": 1}
    job = Announcement("j", "rules", (), options, 5)
    assert checked(monkeypatch, job, PLAIN, history_fields=("b", "c", "a"), state_ttl_seconds="3600") == []
    assert checked(monkeypatch, job, PLAIN, profile_max_age_seconds="60") == [
        f"the job runs with --history_fields=a --history_fields=b, the tests here with none: {GIVE}",
        f"the job runs with --state_ttl_seconds=3600.0, the tests here with 600.0: {GIVE}",
        f"the job runs without --profile_max_age_seconds, the tests here with 60.0: {GIVE}",
    ]


def test_a_launch_announces_what_the_job_has(monkeypatch: pytest.MonkeyPatch) -> None:
    announcements: list[tuple[str, Announcement]] = []
    monkeypatch.setattr(run, "announce", lambda _, topic, announcement: announcements.append((topic, announcement)))
    flags = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--flink_master=f:8081", "--rules=examples/rules"]
    run.announce_job(parse(flags), [])
    assert announcements == []
    run.announce_job(parse([*flags, "--rules_topic=rules", "--state_ttl_seconds=60", "--history_fields=x"]), [])
    ((topic, announcement),) = announcements
    assert (topic, announcement.rules_topic, announcement.destinations) == ("event-audit", "rules", ())
    assert tuple(announcement.options) == MEANING
    assert announcement.options["state_ttl_seconds"] == 60
    assert Announcement.of_json(announcement.to_json()) is not None


def test_a_launch_goes_on_if_kafka_does_not_take_the_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise TopicError("audit topic 'event-audit': not authorized")

    warnings: list[str] = []
    monkeypatch.setattr(run, "announce", refused)
    monkeypatch.setattr(run, "warn", warnings.append)
    flags = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--flink_master=f:8081", "--rules=examples/rules"]
    run.announce_job(parse([*flags, "--rules_topic=rules"]), [])
    assert warnings == [
        "audit topic 'event-audit': not authorized; publishers of rules do not know which destinations this job has"
    ]


def test_a_secret_that_cannot_be_read_is_named() -> None:
    config = {"bootstrap.servers": "localhost:1", "sasl.password": "env:EVENT_TRIGGER_NO_SUCH_VARIABLE"}
    with pytest.raises(TopicError, match=r"^audit topic 'audit': .*EVENT_TRIGGER_NO_SUCH_VARIABLE"):
        announce(config, "audit", JOB)
