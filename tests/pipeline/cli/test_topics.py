"""``event-trigger topics create``: on brokers that answer as a test wants, and on a real one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.cli.main import main
from pipeline.kafka import topic_creation
from runners.flink.local.broker import LocalKafka
from tests.docs.outputs import block_of, must_show

FLAGS = ("--runner=FlinkRunner", "--bootstrap_servers=b:1", "--parallelism=2")
KEPT = {"cleanup.policy": "delete", "retention.ms": "604800000", "min.insync.replicas": "2"}
EVENTS, ACTIONS, LETTERS = "user-tracking-events", "event-actions", "event-dead-letters"


def topic(partitions: int = 4, replicas: int = 3, **config: str) -> tuple[int, int, dict[str, str]]:
    return partitions, replicas, KEPT | {name.replace("_", "."): value for name, value in config.items()}


class Brokers:
    """Stands in for confluent-kafka's client of three brokers. ``errors`` are what they answer for a topic."""

    def __init__(self, topics: dict[str, tuple[int, int, dict[str, str]]], **errors: int) -> None:
        self.topics, self.errors, self.created = topics, errors, []  # type: ignore[var-annotated]
        self.count = 3

    def list_topics(self, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(
            brokers=range(self.count),
            topics={
                name: SimpleNamespace(
                    error=None,
                    partitions={number: SimpleNamespace(replicas=range(found[1])) for number in range(found[0])},
                )
                for name, found in self.topics.items()
            },
        )

    def describe_configs(self, resources: list[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        return {
            resource: self._answer(
                resource.name,
                {key: SimpleNamespace(value=value) for key, value in self.topics[resource.name][2].items()},
            )
            for resource in resources
        }

    def create_topics(self, new: list[Any], operation_timeout: float, validate_only: bool) -> dict[str, Future[Any]]:
        self.created += [(each.topic, each.num_partitions, each.replication_factor, validate_only) for each in new]
        return {each.topic: self._answer(each.topic, None) for each in new}

    def _answer(self, name: str, value: Any) -> Future[Any]:
        answer: Future[Any] = Future()
        if name in self.errors:
            answer.set_exception(KafkaException(KafkaError(self.errors[name], "brokers say no")))
        else:
            answer.set_result(value)
        return answer


@pytest.fixture
def create(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(brokers: Brokers, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(topic_creation, "AdminClient", lambda config: brokers)
        code = main(["topics", "create", *FLAGS, *flags])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


Create = Callable[..., tuple[int, str, str]]


def test_what_is_missing_is_created_and_what_is_there_stays(create: Create) -> None:
    brokers = Brokers({EVENTS: topic(12, retention_ms="-1")})
    code, out, _ = create(brokers)
    assert code == 0
    assert brokers.created == [(LETTERS, 4, 3, False), (ACTIONS, 4, 3, False)]
    assert out.splitlines() == [
        "exists        user-tracking-events  as it should be  (--events_topic)",
        f"created       {LETTERS}  4 partitions, 3 replicas, cleanup.policy=delete, min.insync.replicas=2, "
        "retention.ms=604800000  (--dead_letters_topic)",
        f"created       {ACTIONS}  4 partitions, 3 replicas, cleanup.policy=delete, min.insync.replicas=2, "
        "retention.ms=604800000  (--actions_topic)",
    ]


def test_a_shorter_retention_is_that_of_the_large_topics(create: Create) -> None:
    _, out, _ = create(Brokers({}), "--retention=36h", "--control_topic=control")
    kept = {
        line.split("  ")[1].strip() or line.split()[1]: line.split("retention.ms=")[1].split()[0]
        for line in out.splitlines()
    }
    assert {name: kept[name] for name in (EVENTS, ACTIONS, LETTERS)} == dict.fromkeys(
        (EVENTS, ACTIONS, LETTERS), "129600000"
    )


def test_the_docs_show_what_is_printed(create: Create) -> None:
    there = {EVENTS: topic(), ACTIONS: topic(2), "event-deliveries": topic(15)}
    _, out, _ = create(Brokers(there), "--deliveries_topic=event-deliveries", "--destinations=d")
    printed = {line.split()[1]: line for line in out.splitlines()}
    lines = [printed[name] for name in (EVENTS, LETTERS, ACTIONS, "event-deliveries")]
    first = "exists        user-tracking-events  as it should be  (--events_topic)"
    must_show(block_of("docs/operations.md", first), "\n".join(lines))


def test_options_of_a_launch_on_flink_need_no_runner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    brokers = Brokers({})
    monkeypatch.setattr(topic_creation, "AdminClient", lambda config: brokers)
    assert main(["topics", "create", "--bootstrap_servers=b:1", "--delivery_guarantee=EXACTLY_ONCE"]) == 0
    assert capsys.readouterr().out.count("created") == 3


def test_a_dry_run_only_asks(create: Create) -> None:
    brokers = Brokers({})
    code, out, _ = create(brokers, "--dry_run")
    assert code == 0
    assert {validated for _, _, _, validated in brokers.created} == {True}
    assert out.count("would create") == 3


@pytest.mark.parametrize(
    ("found", "flags", "code", "line"),
    [
        (topic(2), (), 0, "differs       user-tracking-events  2 partitions instead of 4"),
        (topic(replicas=1), (), 0, "differs       user-tracking-events  1 replicas instead of 3"),
        (topic(retention_ms="1000"), (), 0, "retention.ms is 1000 instead of 604800000"),
        (topic(min_insync_replicas="1"), (), 0, "min.insync.replicas is 1 instead of 2"),
        (
            topic(cleanup_policy="compact"),
            (),
            1,
            "WRONG         user-tracking-events  cleanup.policy is compact, allowed",
        ),
        (topic(cleanup_policy="compact,delete"), (), 1, "cleanup.policy is compact,delete, allowed: delete"),
    ],
)
def test_differences_are_told(
    create: Create, found: tuple[int, int, dict[str, str]], flags: tuple[str, ...], code: int, line: str
) -> None:
    brokers = Brokers({EVENTS: found, ACTIONS: topic(), LETTERS: topic()})
    answered, out, _ = create(brokers, *flags)
    assert (answered, brokers.created) == (code, [])
    assert line in out


@pytest.mark.parametrize(
    ("name", "found", "said"),
    [
        ("rules", topic(3, cleanup_policy="compact"), "3 partitions, allowed: 1"),
        ("rules", topic(1), "cleanup.policy is delete, allowed: compact"),
        ("ledger", topic(15), "15 partitions, allowed: at least 16"),
        ("ledger", topic(16, retention_ms="3599999"), "retention.ms is 3599999, allowed: from 3600000 on"),
    ],
)
def test_what_a_job_could_not_work_with_is_wrong(
    create: Create, name: str, found: tuple[int, int, dict[str, str]], said: str
) -> None:
    flags = {"rules": ["--rules_topic=rules"], "ledger": ["--deliveries_topic=ledger", "--destinations=d"]}[name]
    code, out, err = create(Brokers({name: found}), *flags)
    assert code == 1
    assert f"WRONG         {name}  {said}" in out
    assert "1 of them cannot be used" in err


def test_one_that_is_refused_does_not_stop_the_others(create: Create) -> None:
    code, out, _ = create(Brokers({}, **{LETTERS: KafkaError.POLICY_VIOLATION}))
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["created", "REFUSED", "created"]
    assert "brokers say no" in out


def test_one_that_somebody_else_creates_meanwhile_is_compared(create: Create) -> None:
    class Slow(Brokers):
        def create_topics(self, *args: Any, **more: Any) -> dict[str, Future[Any]]:
            self.topics = {EVENTS: topic(2)}
            answers = super().create_topics(*args, **more)
            answers[EVENTS] = Future()
            answers[EVENTS].set_exception(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)))
            return answers

    code, out, _ = create(Slow({}))
    assert code == 0
    assert "differs       user-tracking-events  2 partitions instead of 4" in out


def test_settings_that_may_not_be_read_are_no_error(create: Create) -> None:
    existing = {EVENTS: topic(), ACTIONS: topic(), LETTERS: topic()}
    code, out, _ = create(Brokers(existing, **{EVENTS: KafkaError.TOPIC_AUTHORIZATION_FAILED}))
    assert code == 0
    assert "its settings may not be read (DescribeConfigs)" in out


def test_one_broker_gets_one_replica_and_a_warning(create: Create) -> None:
    brokers = Brokers({})
    brokers.count = 1
    code, out, err = create(brokers)
    assert code == 0
    assert {replicas for _, _, replicas, _ in brokers.created} == {1}
    assert "min.insync.replicas=1" in out
    assert "1 replicas of each partition" in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--partitions=0",), "--partitions is 0, allowed: 1 to 10000"),
        (("--partitions=1",), "--partitions is 1, allowed: from --parallelism=2 on"),
        (("--retention=soon",), "--retention is 'soon', allowed: "),
        (("--retention=59m",), "--retention is '59m', allowed: from 1h on"),
        (("--replicas=0",), "--replicas is 0, allowed: 1 to 100"),
    ],
)
def test_numbers_that_cannot_be_are_refused(create: Create, flags: tuple[str, ...], said: str) -> None:
    code, _, err = create(Brokers({}), *flags)
    assert code == 2
    assert said in err


def test_without_brokers_there_is_nothing_to_create(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", "create"]) == 2
    assert "--bootstrap_servers is missing" in capsys.readouterr().err


@pytest.mark.stack
def test_a_real_broker_has_them_afterwards(kafka: LocalKafka, capsys: pytest.CaptureFixture[str]) -> None:
    mark = uuid.uuid4().hex[:8]
    names = ("events", "actions", "dead_letters", "control", "inspections", "audit", "rules", "decisions", "deliveries")
    flags = [f"--{name}_topic={name}-{mark}" for name in names]
    flags += [f"--bootstrap_servers={kafka.bootstrap_servers}", "--runner=FlinkRunner", "--destinations=d"]
    states = []
    for more in (["--dry_run"], [], []):
        assert main(["topics", "create", *flags, *more]) == 0
        states.append({line.split("  ")[0] for line in capsys.readouterr().out.splitlines()})
    assert states == [{"would create"}, {"created"}, {"exists"}]
    assert main(["topics", "create", *flags, "--user_shards=17"]) == 1
    assert f"WRONG         deliveries-{mark}  16 partitions, allowed: at least 17" in capsys.readouterr().out
    # More replicas than brokers: the broker refuses, and nothing else is lost by it.
    assert main(["topics", "create", *flags, f"--actions_topic=more-{mark}", "--replicas=2"]) == 1
    assert f"REFUSED       more-{mark}" in capsys.readouterr().out
