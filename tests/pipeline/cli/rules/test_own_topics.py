from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.job import publishing
from pipeline.kafka import cluster_settings
from pipeline.kafka.cluster_settings import missing_topics
from pipeline.launch.options import Settings

RULE = "name: r\nversion: 1\nfilter: 'true'\nactions: [{{type: kafka, topic: {topic}}}]\n"
PUBLISH = ("publish", "--rules_topic=my-rules", "--bootstrap_servers=b:1")


def run(tmp_path: Path, topic: str, command: str, *options: str) -> int:
    path = tmp_path / "r.yaml"
    path.write_text(RULE.format(topic=topic))
    return main(["rules", command, str(path), *options])


@pytest.mark.parametrize("topic", ["events", "dead-letters", "__consumer_offsets"])
def test_check_refuses_topics_of_jobs_with_file_rule_and_topic(
    topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if topic != "__consumer_offsets":
        topic = Settings().own_topics[f"{topic.replace('-', '_')}_topic"]
    assert run(tmp_path, topic, "check") == 1
    error = capsys.readouterr().err
    assert "r.yaml" in error
    assert f"rule 'r': action 'kafka': topic is '{topic}'" in error


def test_publish_refuses_its_own_rules_topic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "my-rules", *PUBLISH) == 1
    assert "topic is 'my-rules', a topic of the job itself" in capsys.readouterr().err


def test_publish_refuses_a_topic_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "missing_topics", lambda _, topics: f"topic {', '.join(topics)} does not exist")
    assert run(tmp_path, "gone", *PUBLISH) == 1
    assert "Kafka actions: topic gone does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("creates", "problem"), [("false", "topic 'gone', 'lost' does not exist"), ("true", None)])
def test_topics_are_missing_unless_brokers_create_them(
    creates: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Future[Any]] = []
    for value in ("false", creates):
        answers.append(Future())
        answers[-1].set_result({"auto.create.topics.enable": SimpleNamespace(value=value)})
    admin = SimpleNamespace(
        list_topics=lambda timeout: SimpleNamespace(topics={"here": SimpleNamespace(error=None)}, brokers=(1, 2)),
        describe_configs=lambda brokers, request_timeout: dict(zip(brokers, answers, strict=True)),
    )
    monkeypatch.setattr(cluster_settings, "AdminClient", lambda _: admin)
    found = missing_topics({}, ["gone", "here", "lost"])
    assert (found is None) if problem is None else (found or "").startswith(problem)
    assert missing_topics({}, ["here"]) is None
