"""What a launch is refused for: every row of docs/operations.md's table is shown to be so."""

from __future__ import annotations

import re
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from pipeline.errors import OptionError
from pipeline.kafka.cluster_settings import KafkaAdminError, broker_settings, topic_settings
from pipeline.launch import preflight as start_checks
from pipeline.launch.flink import beam_options
from pipeline.launch.options import Settings, parse
from runners.flink.errors import LocalStackError
from runners.flink.local.broker import LocalKafka
from runners.flink.local.processes import free_ports
from runners.flink.overrides import BEAM_VERSION
from runners.flink.rest import FlinkRest
from tests.builders import rule

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"
A = "a" * 32
OLD_RUNNER = "beam-runners-flink-1.19-2.69.0.jar"
FLINK = ["--runner=FlinkRunner", "--bootstrap_servers=b:1", "--rules=r", "--job_name=a"]
LEDGER = ["--deliveries_topic=ledger", "--destinations=d"]
EXACTLY_ONCE = "--delivery_guarantee=EXACTLY_ONCE"
IN_ORDER: dict[str, Any] = {
    "/overview": {"flink-version": "1.19.1", "slots-available": 4, "taskmanagers": 2},
    "/jobmanager/config": [{"key": "state.checkpoints.dir", "value": "s3://bucket/checkpoints"}],
    "/jobmanager/environment": {
        "classpath": ["event-trigger-connectors.jar", f"beam-runners-flink-1.19-{BEAM_VERSION}.jar"]
    },
    "/taskmanagers": {"taskmanagers": [{"path": f"pekko.tcp://flink@10.0.0.{n}:6122/user/rpc/tm"} for n in (1, 2)]},
    "/jobs/overview": {"jobs": []},
}
FILE = {"/jobmanager/config": [{"key": "state.checkpoints.dir", "value": "file:///c"}]}


def with_job(state: str) -> dict[str, Any]:
    """A job of the same name that has left a savepoint."""
    saved = {"external_path": "s3://s/1", "trigger_timestamp": 1, "is_savepoint": True}
    return {
        "/jobs/overview": {"jobs": [{"jid": A, "name": "a", "state": state, "start-time": 1}]},
        f"/jobs/{A}/checkpoints": {"latest": {"savepoint": saved}},
    }


# Row of the table -> options, what is so on the cluster or on Kafka, what is said; then options that are allowed.
CASES: dict[str, tuple[list[str], dict[str, Any], str, list[str]]] = {
    "transaction timeout": (
        [EXACTLY_ONCE, "--transaction_timeout_ms=199999"],
        {},
        "--transaction_timeout_ms is 199999, allowed: at least 200000",
        [EXACTLY_ONCE, "--transaction_timeout_ms=200000"],
    ),
    "brokers' longest transaction": (
        [EXACTLY_ONCE, "--transaction_timeout_ms=900001"],
        {"brokers": ["900000", "1000000"]},
        "--transaction_timeout_ms is 900001, allowed: up to 900000",
        [EXACTLY_ONCE],
    ),
    "exactly once elsewhere": (
        ["--runner=DirectRunner", EXACTLY_ONCE],
        {},
        "--delivery_guarantee is EXACTLY_ONCE, allowed on DirectRunner: AT_LEAST_ONCE",
        [EXACTLY_ONCE],
    ),
    "acknowledgements": (
        ["--producer_property=acks=1"],
        {},
        "--producer_property sets 'acks' to '1', allowed: all or -1",
        ["--producer_property=acks=all"],
    ),
    "idempotent producers": (
        ["--kafka_property=enable.idempotence=false"],
        {},
        "--kafka_property sets 'enable.idempotence' to 'false', allowed: true",
        ["--kafka_property=enable.idempotence=true"],
    ),
    "properties with an option of their own": (
        ["--consumer_property=enable.auto.commit=true"],
        {},
        "--consumer_property sets 'enable.auto.commit': use nothing: offsets are committed with the checkpoint",
        ["--consumer_property=fetch.min.bytes=1"],
    ),
    "compacted topics": (
        ["--events_topic=e"],
        {"policies": {"e": "compact,delete"}},
        "--events_topic is 'e', whose cleanup.policy is compact,delete, allowed: delete",
        ["--events_topic=f"],
    ),
    "a ledger with too few partitions": (
        [*LEDGER, "--user_shards=17"],
        {},
        "--deliveries_topic is 'ledger' with 16 partitions, allowed: at least 17, one for each of --user_shards",
        LEDGER,
    ),
    "a ledger that is deleted too soon": (
        [*LEDGER, "--checkpointing_interval_ms=600000"],
        {"retention": {"ledger": "5999999"}},
        "--deliveries_topic is 'ledger', whose retention.ms is 5999999, allowed: at least 6000000",
        LEDGER,
    ),
    "a ledger without shards": (
        [*LEDGER, "--user_shards=0"],
        {},
        "--deliveries_topic is 'ledger', allowed with --user_shards from 1 on",
        LEDGER,
    ),
    "a ledger elsewhere": (
        [*LEDGER, "--runner=DirectRunner"],
        {},
        "--deliveries_topic is 'ledger', allowed: on FlinkRunner",
        LEDGER,
    ),
    "a dead partition that is not there": (
        ["--skip_dead_partitions=4"],
        {},
        "--skip_dead_partitions is 4, allowed: up to 3",
        ["--skip_dead_partitions=3"],
    ),
    "a topic that is not there": (
        ["--decisions_topic=event-decisons"],
        {},
        "--decisions_topic is 'event-decisons' (did you mean event-decisions?), allowed: a topic that exists at b:1",
        ["--decisions_topic=event-decisions"],
    ),
    "key groups": (
        ["--parallelism=9", "--max_parallelism=8", "--user_shards=0"],
        {},
        "--parallelism is 9, allowed: up to --max_parallelism, 8",
        ["--parallelism=8", "--max_parallelism=8", "--user_shards=0"],
    ),
    "user shards": (
        ["--parallelism=9", "--user_shards=8"],
        {},
        "--parallelism is 9, allowed: up to --user_shards, 8",
        ["--parallelism=8", "--user_shards=8"],
    ),
    "state that is left": ([], with_job("FINISHED"), "--savepoint_path is missing", ["--start_without_state"]),
    "a second job": (
        ["--start_without_state"],
        with_job("RESTARTING"),
        f"--job_name is 'a', and job {A} of that name is RESTARTING",
        ["--job_name=b"],
    ),
    "state for a runner without any": (
        ["--runner=DirectRunner", "--savepoint_path=s"],
        {},
        "--savepoint_path is 's', allowed: on FlinkRunner",
        ["--savepoint_path=s"],
    ),
    "checkpoints in memory": ([], {"/jobmanager/config": []}, "state.checkpoints.dir is not set", []),
    "checkpoints on one machine's disk": (
        [],
        FILE,
        "state.checkpoints.dir is file:///c, and TaskManagers are on 2 machines",
        ["--checkpoint_dir_is_shared"],
    ),
    "another Flink": (
        [],
        {"/overview": {"flink-version": "1.20.0", "slots-available": 4, "taskmanagers": 2}},
        "is 1.20.0, allowed: 1.19",
        [],
    ),
    "another Beam on the cluster": (
        [],
        {"/jobmanager/environment": {"classpath": ["event-trigger-connectors.jar", OLD_RUNNER]}},
        "has beam-runners-flink-1.19-2.69.0.jar, allowed: Beam 2.70.0",
        [],
    ),
    "another Beam here": ([], {"beam": "2.71.0"}, "2.71.0 is installed, the runner is 2.70.0", []),
}


class Surroundings:
    """A cluster and a Kafka where everything is in order but what a case changes."""

    def __init__(self, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self._httpserver, self._monkeypatch = httpserver, monkeypatch

    def are(self, changed: dict[str, Any]) -> None:
        self._httpserver.clear()
        for path, answer in (IN_ORDER | changed).items():
            if path.startswith("/"):
                self._httpserver.expect_request(path).respond_with_json(answer)
        policies, brokers = changed.get("policies", {}), changed.get("brokers", ["900000"])
        retention = changed.get("retention", {})
        self._monkeypatch.setattr(
            start_checks,
            "topic_settings",
            lambda config, topics, setting: retention if setting == "retention.ms" else policies,
        )
        self._monkeypatch.setattr(start_checks, "broker_settings", lambda *_: brokers)
        self._monkeypatch.setattr(
            start_checks, "topic_partitions", lambda *_: {"user-tracking-events": 4, "ledger": 16}
        )
        topics = ("user-tracking-events", "ledger", "e", "f", "event-dead-letters", "event-decisions")
        Brokers(self._monkeypatch, *topics)
        self._monkeypatch.setattr("importlib.metadata.version", lambda _: changed.get("beam", BEAM_VERSION))

    def launch(self, options: list[str]) -> None:
        """All that is asked before the job is submitted."""
        settings = parse([*FLINK, *options])
        start_checks.check_kafka(settings)
        start_checks.check_topics(settings, [])
        start_checks.check_cluster(settings, FlinkRest(self._httpserver.url_for("/")))


@pytest.fixture
def surroundings(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Surroundings:
    return Surroundings(httpserver, monkeypatch)


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_that_loses_data_is_refused(name: str, surroundings: Surroundings) -> None:
    options, changed, message, allowed = CASES[name]
    surroundings.are(changed)
    with pytest.raises((OptionError, LocalStackError)) as caught:
        surroundings.launch(options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if not allowed:
        surroundings.are({})
    surroundings.launch(allowed)


def test_the_table_of_refusals_has_every_one_of_them_and_no_other() -> None:
    part = PAGE.read_text().partition("<!-- refusals -->")[2].partition("<!-- /refusals -->")[0]
    assert re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)[1:] == [*CASES, *FOUND_LATER]


# Refused by the job itself or by Flink: tests/integration/test_operating.py and test_steering.py.
FOUND_LATER = ["other user shards than the state's", "a savepoint that is not there", "state of removed parts"]


def test_task_managers_on_one_machine_may_share_its_disk(surroundings: Surroundings) -> None:
    here = [{"path": f"pekko.tcp://flink@127.0.0.1:{port}/user/rpc/tm"} for port in (1, 2)]
    surroundings.are(FILE | {"/taskmanagers": {"taskmanagers": here}})
    surroundings.launch([])


# What the options name -> the option of a topic that is not there.
TOPICS = ["--control_topic=c", "--rules_topic=rs", "--decisions_topic=d", "--dead_letters_topic=l", "--audit_topic=au"]
TOPICS += ["--events_topic=e", "--actions_topic=ac", "--inspections_topic=i", "--deliveries_topic=dl"]
NAMED = {option.partition("=")[0].removeprefix("--"): option.partition("=")[2] for option in TOPICS}
WRITES = rule("r", actions=[{"type": "kafka"}, {"type": "kafka", "name": "more", "topic": "alerts"}])


@pytest.mark.parametrize("option", NAMED)
def test_every_topic_that_an_option_names_has_to_exist(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Brokers(monkeypatch, *({*NAMED.values(), "alerts"} - {NAMED[option]}), f"{NAMED[option]}-2")
    with pytest.raises(OptionError) as caught:
        start_checks.check_topics(parse([*FLINK, "--destinations=f", *TOPICS]), [WRITES])
    assert str(caught.value).startswith(f"--{option} is {NAMED[option]!r}")
    assert str(caught.value).endswith("allowed: a topic that exists at b:1")


def test_topics_that_exist_or_that_nothing_needs_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    Brokers(monkeypatch, *NAMED.values(), "alerts")
    monkeypatch.setattr(start_checks, "topic_partitions", lambda _: {"dl": 16})
    start_checks.check_topics(parse([*FLINK, "--destinations=f", *TOPICS]), [WRITES])
    Brokers(monkeypatch, "e", "l")
    start_checks.check_topics(parse([*FLINK, "--events_topic=e", "--dead_letters_topic=l"]), [rule("r")])


def test_a_typo_is_answered_with_the_topic_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    Brokers(monkeypatch, *NAMED.values(), "alerts", "event-decisions")
    with pytest.raises(OptionError, match=r"--decisions_topic is 'event-decisons' \(did you mean event-decisions\?\)"):
        start_checks.check_topics(parse([*FLINK, "--destinations=f", *TOPICS, "--decisions_topic=event-decisons"]), [])


def test_brokers_that_create_topics_create_what_is_written_but_not_what_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(start_checks, "topic_partitions", lambda _: {"dl": 16})
    Brokers(monkeypatch, "e", "c", "rs", "dl", creates=True)
    start_checks.check_topics(parse([*FLINK, "--destinations=f", *TOPICS]), [WRITES])
    Brokers(monkeypatch, "e", "rs", "dl", creates=True)
    with pytest.raises(OptionError, match=r"^--control_topic is 'c', allowed"):
        start_checks.check_topics(parse([*FLINK, "--destinations=f", *TOPICS]), [WRITES])


def test_a_topic_that_only_a_rule_names_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checks, "topic_partitions", lambda _: {"dl": 16})
    Brokers(monkeypatch, *NAMED.values())
    with pytest.raises(OptionError, match="Kafka actions of rules: topic 'alerts' does not exist"):
        start_checks.check_topics(parse([*FLINK, "--destinations=f", *TOPICS]), [WRITES])


class Brokers:
    """Brokers with these topics."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *topics: str, creates: bool = False) -> None:
        self._topics = topics
        self._creates = creates
        monkeypatch.setattr("pipeline.kafka.cluster_settings.AdminClient", lambda _: self)

    def list_topics(self, timeout: float) -> Any:
        return SimpleNamespace(topics={name: SimpleNamespace(error=None) for name in self._topics}, brokers=[1])

    def describe_configs(self, brokers: list[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        answer: Future[Any] = Future()
        value = str(self._creates).lower()
        answer.set_result({"auto.create.topics.enable": SimpleNamespace(value=value)})
        return dict.fromkeys(brokers, answer)


@pytest.mark.slow
def test_unreachable_kafka_is_a_warning_and_does_not_stop_the_launch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (port,) = free_ports(1)
    start_checks.check_kafka(Settings(bootstrap_servers=f"127.0.0.1:{port}"))
    start_checks.check_kafka(Settings(bootstrap_servers="b:1", kafka_property=("broker.address.family=x",)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: topics and transactions were not checked, Kafka cannot be asked from here: ")
    assert "broker.address.family" in second


@pytest.mark.stack
def test_a_real_broker_tells_its_settings(kafka: LocalKafka) -> None:
    config = {"bootstrap.servers": kafka.bootstrap_servers}
    kafka.create_topic("compacted-one", config={"cleanup.policy": "compact"})
    kafka.create_topic("plain-one")
    found = topic_settings(config, ["compacted-one", "plain-one", "no-such-topic"], "cleanup.policy")
    assert found == {"compacted-one": "compact", "plain-one": "delete"}
    assert broker_settings(config, "transaction.max.timeout.ms") == ["900000"]
    with pytest.raises(KafkaAdminError):
        topic_settings({"bootstrap.servers": f"127.0.0.1:{free_ports(1)[0]}"}, ["plain-one"], "cleanup.policy")


def test_workers_are_told_to_import_the_stateful_step() -> None:
    given = beam_options(parse([*FLINK, EXACTLY_ONCE, "--worker_command=w"]), "localhost:1")
    assert "--experiments=event_trigger_import=transforms.handle_events" in given


def test_the_flag_of_beam_that_loses_elements_is_never_given() -> None:
    """Python's data plane flushes by time without a lock (notes/reliability.md, "Runner traps")."""
    given = beam_options(parse([*FLINK, EXACTLY_ONCE, "--worker_command=w"]), "localhost:1")
    assert [option for option in given if "data_buffer_time_limit" in option] == []
    with pytest.raises(OptionError, match="unknown option '--experiments=data_buffer_time_limit_ms=10'"):
        parse([*FLINK, "--experiments=data_buffer_time_limit_ms=10"])


def test_parts_of_a_savepoint_are_dropped_only_with_the_option() -> None:
    options = [*FLINK, "--worker_command=w", "--savepoint_path=s"]
    assert "--allow_non_restored_state" not in beam_options(parse(options), "localhost:1")
    assert "--allow_non_restored_state" in beam_options(parse([*options, "--allow_non_restored_state"]), "localhost:1")
