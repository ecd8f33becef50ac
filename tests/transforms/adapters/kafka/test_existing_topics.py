from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from tests.waiting import eventually
from transforms.adapters.kafka import existing_topics
from transforms.adapters.kafka.existing_topics import ExistingTopics


class Cluster:
    """Answers as the brokers of a test say; ``answering`` holds an answer back until it is set."""

    def __init__(self) -> None:
        self.topics = {"here"}
        self.creates: str | Exception = "false"
        self.down = False
        self.questions = 0
        self.answering = threading.Event()
        self.answering.set()

    def list_topics(self, timeout: float) -> Any:
        topics = {name: SimpleNamespace(error=None) for name in self.topics}
        self.answering.wait(timeout)
        self.questions += 1
        if self.down:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics=topics, brokers={1: None, 2: None})

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        if isinstance(self.creates, Exception):
            answer.set_exception(self.creates)
        else:
            answer.set_result({"auto.create.topics.enable": SimpleNamespace(value=self.creates)})
        return dict.fromkeys(resources, answer)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(existing_topics, "AdminClient", lambda _: cluster)
    return cluster


def watch(*expected: str) -> ExistingTopics:
    topics = ExistingTopics({}, every_s=0.02, soon_s=0.01)
    topics.expect(expected)
    return topics


def asked_again(cluster: Cluster) -> None:
    """Wait until two more questions were answered: the first may have been on its way."""
    questions = cluster.questions
    eventually(lambda: cluster.questions >= questions + 3, "Kafka is asked again")


def test_a_topic_that_is_not_there_is_missing_until_it_is_made(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    topics = watch("here", "gone")
    eventually(lambda: topics.is_missing("gone"), "the answer is known")
    assert not topics.is_missing("here")
    cluster.topics.add("gone")
    eventually(lambda: not topics.is_missing("gone"), "the topic is there")
    cluster.topics.clear()
    eventually(lambda: topics.is_missing("here"), "the topic is gone")
    assert "topic 'gone' of Kafka actions does not exist" in caplog.text


def test_before_an_answer_no_topic_is_missing_and_no_call_waits(cluster: Cluster) -> None:
    cluster.answering.clear()
    topics = watch("gone")
    assert not topics.is_missing("gone")
    # Made after Kafka was asked: that answer says nothing about it.
    cluster.topics.add("new")
    assert not topics.is_missing("new")
    cluster.answering.set()
    eventually(lambda: topics.is_missing("gone"), "the answer is known")
    asked_again(cluster)
    assert not topics.is_missing("new")


def test_a_topic_that_nobody_announced_is_asked_for_when_it_is_first_used(cluster: Cluster) -> None:
    topics = watch("here")
    eventually(lambda: topics.is_missing("of-a-held-action"), "the answer is known")


@pytest.mark.parametrize("creates", ["true", KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED))])
def test_where_brokers_create_topics_or_do_not_say_so_none_is_missing(
    cluster: Cluster, creates: str | Exception
) -> None:
    cluster.creates = creates
    topics = watch("gone")
    asked_again(cluster)
    assert not topics.is_missing("gone")


def test_while_brokers_are_away_no_topic_is_missing(cluster: Cluster) -> None:
    topics = watch("gone")
    eventually(lambda: topics.is_missing("gone"), "the answer is known")
    cluster.down = True
    eventually(lambda: not topics.is_missing("gone"), "the answer is forgotten")
    cluster.down = False
    eventually(lambda: topics.is_missing("gone"), "the answer is known again")


def test_a_client_that_cannot_be_made_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refuse(_: Any) -> Any:
        tries.append(1)
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG))

    monkeypatch.setattr(existing_topics, "AdminClient", refuse)
    topics = watch("gone")
    eventually(lambda: len(tries) > 2, "it is tried again")
    assert not topics.is_missing("gone")


def test_without_topics_kafka_is_not_asked(cluster: Cluster) -> None:
    before = threading.active_count()
    watch()
    assert threading.active_count() == before
    assert cluster.questions == 0


def test_a_secret_that_is_not_there_is_logged_once_and_no_topic_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    topics = ExistingTopics({"sasl.password": "env:NO_SUCH_SECRET"}, every_s=3600, soon_s=0.001)
    topics.expect(["orders"])
    eventually(lambda: "not watched" in caplog.text, "a warning")
    assert not topics.is_missing("orders")
    assert "--kafka_password is env:NO_SUCH_SECRET: no such environment variable" in caplog.text
