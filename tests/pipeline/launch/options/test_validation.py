"""Combinations of options that are refused."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from pipeline.errors import OptionError
from pipeline.launch.options import EXACTLY_ONCE, Settings, parse
from pipeline.launch.options.fields import AT_LEAST_ONCE

FLINK = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--rules=rules"]


BAD_URLS = [
    "users.internal",
    "ftp://a",
    "file:///etc/passwd",
    "http://",
    "http://:80",
    "http://a:port",
    "http://a:99999",
    "http://name:s3cr3t@a",
    "http://a?key=s3cr3t",
    "http://a#b",
    "http://a b",
    "http://[::1",
]


@pytest.mark.parametrize("url", ["http://a", "https://a:8443/base/", "http://127.0.0.1:1", "http://[::1]:80/x"])
def test_a_base_url_is_a_host_with_or_without_port_and_path(url: str) -> None:
    assert parse([f"--user_api_url={url}"]).user_api_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("https://a", "https://10.0.0.1:8443/base/", "HTTPS://a", "http://localhost:80", "http://LOCALHOST/x"),
        *("http://127.0.0.1:1", "http://127.255.0.9", "http://[::1]:80/x", "http://[0:0:0:0:0:0:0:1]"),
    ],
)
def test_a_token_goes_over_https_or_to_this_machine(url: str) -> None:
    settings = parse([f"--user_api_url={url}", "--user_api_token=file:/run/secrets/token"])
    assert (settings.user_api_url, settings.user_api_token) == (url, "file:/run/secrets/token")


CLEAR_TEXT_URLS = [
    "http://a",
    "http://a:443",
    "http://10.0.0.1",
    "http://0.0.0.0",
    "http://128.0.0.1",
    "http://127.1",
    "http://2130706433",
    "http://localhost.example.org",
    "http://127.0.0.1.example.org",
    "http://[::2]",
    "http://[::ffff:10.0.0.1]",
]


@pytest.mark.parametrize("url", CLEAR_TEXT_URLS)
def test_a_token_is_not_sent_in_clear_text_to_another_machine(url: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([f"--user_api_url={url}", "--user_api_token=env:A"])
    assert str(caught.value) == (
        "--user_api_token would travel in clear text, allowed with it: --user_api_url=https://…, or http:// to "
        "localhost, 127.0.0.0/8 or [::1]"
    )


CA_FILE = certifi.where()
AT_HTTPS = "--user_api_url=https://a"


@pytest.mark.parametrize("runner", [[], FLINK])
def test_an_existing_ca_file_is_checked(tmp_path: Path, runner: list[str]) -> None:
    assert parse([*runner, AT_HTTPS, f"--user_api_ca_file={CA_FILE}"]).user_api_ca_file == Path(CA_FILE)
    bad = tmp_path / "ca.pem"
    bad.write_text("no certificate")
    with pytest.raises(OptionError) as caught:
        parse([*runner, AT_HTTPS, f"--user_api_ca_file={bad}"])
    assert str(caught.value) == f"--user_api_ca_file is {bad}: no certificates as PEM"


def test_a_ca_file_of_flink_s_workers_need_not_be_on_the_launcher(tmp_path: Path) -> None:
    missing = tmp_path / "ca.pem"
    assert parse([*FLINK, AT_HTTPS, f"--user_api_ca_file={missing}"]).user_api_ca_file == missing
    with pytest.raises(OptionError, match=f"--user_api_ca_file is {missing}: No such file or directory"):
        parse([AT_HTTPS, f"--user_api_ca_file={missing}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--events_topic="], "--events_topic is empty"),
        (["--rules="], "--rules is empty"),
        (["--history_fields="], "--history_fields is empty"),
        (["--events_topic"], "--events_topic lacks its value"),
        (["--detached=maybe"], "--detached is 'maybe', allowed: true or false"),
        (["--runner=FlinkRunner"], "--bootstrap_servers is missing: FlinkRunner reads from Kafka, give HOST:PORT"),
        (["--bootstrap_servers=b:1"], "--rules is missing: give a rule file or a directory"),
        (["--bootstrap_servers=broker", "--rules=r"], "--bootstrap_servers is 'broker', allowed: HOST:PORT"),
        (["--bootstrap_servers=b:1,c:x", "--rules=r"], "--bootstrap_servers is 'c:x', allowed: HOST:PORT"),
        (["--bootstrap_servers=b:70000", "--rules=r"], "--bootstrap_servers is 'b:70000', allowed: HOST:PORT"),
        (["--bootstrap_servers=:9092", "--rules=r"], "--bootstrap_servers is ':9092', allowed: HOST:PORT"),
        ([*FLINK, "--flink_master=here"], "--flink_master is 'here', allowed: HOST:PORT"),
        *(([f"--user_api_url={url}"], "--user_api_url is no base URL, allowed: http(s)://HOST") for url in BAD_URLS),
        *(
            (
                ["--user_api_url=http://a", f"--user_api_token={token}"],
                "--user_api_token is no reference, allowed: env:",
            )
            for token in ("s3cr3t", "env:", "env:A B", "file:relative", "file:", "http://a")
        ),
        (["--user_api_token=env:A"], "--user_api_token is of no use without --user_api_url"),
        (
            [AT_HTTPS, "--user_api_ca_file=ca.pem"],
            "--user_api_ca_file is 'ca.pem', allowed: an absolute path, the same on every worker",
        ),
        *(
            (
                [*url, f"--user_api_ca_file={CA_FILE}"],
                "--user_api_ca_file is of no use without --user_api_url=https://…",
            )
            for url in ([], ["--user_api_url=http://a"])
        ),
        ([*FLINK, "--actions_file=a"], "--actions_file is 'a', allowed: on DirectRunner"),
        ([*FLINK, "--decisions_file=d"], "--decisions_file is 'd', allowed: on DirectRunner"),
        (
            ["--decisions_topic=t"],
            "--decisions_topic is 't', but the bundled stream has no Kafka: use --decisions_file",
        ),
        (
            ["--bootstrap_servers=b:1", "--rules=r", "--decisions_topic=t", "--decisions_file=d"],
            "--decisions_topic and --decisions_file are both given, allowed: one decision log",
        ),
        *(
            (
                [*FLINK, f"--{name}=t", "--decisions_topic=t"],
                f"--decisions_topic and --{name} are both 't', allowed: a topic of its own",
            )
            for name in ("events_topic", "control_topic", "rules_topic", "actions_topic", "dead_letters_topic")
        ),
        (["--decision_sample=0.5"], "--decision_sample is of no use without --decisions_topic or --decisions_file"),
        (["--decisions_file=x", "--actions_file=x"], "--decisions_file and --actions_file are both 'x'"),
        (["--dead_letters_file=x", "--actions_file=x"], "--actions_file and --dead_letters_file are both 'x'"),
        (
            ["--bootstrap_servers=b:1", "--rules=r", "--dead_letters_file=x"],
            "--dead_letters_file is 'x', allowed: for the bundled stream, which has no Kafka; use --dead_letters_topic",
        ),
        (["--decisions_file=x", "--decision_sample=1.1"], "--decision_sample is 1.1, allowed: 0 to 1"),
        (["--cloudevents_source=a b"], "--cloudevents_source is 'a b', allowed: a URI reference"),
        (["--starting_offsets=timestamp"], "--starting_timestamp_ms and --starting_offsets=timestamp belong together"),
        (["--skip_dead_partitions=-1"], "--skip_dead_partitions is '-1', allowed: a partition's number, from 0"),
        (["--skip_dead_partitions=3,7"], "--skip_dead_partitions is '3,7', allowed: a partition's number, from 0"),
        (["--skip_dead_partitions=²"], "--skip_dead_partitions is '²', allowed: a partition's number, from 0"),
        (["--starting_timestamp_ms=1"], "--starting_timestamp_ms and --starting_offsets=timestamp belong together"),
        (["--parallelism=129"], "--parallelism is 129, allowed: up to --max_parallelism, 128"),
        (
            ["--parallelism=9", "--user_shards=8"],
            "--parallelism is 9, allowed: up to --user_shards, 8; further subtasks would have no shard",
        ),
        (["--kafka_property=novalue"], "--kafka_property is 'novalue', allowed: NAME=VALUE"),
        (["--consumer_property==x"], "--consumer_property is '=x', allowed: NAME=VALUE"),
        (["--producer_property=a b=c"], "--producer_property is 'a b=c', allowed: NAME=VALUE"),
        (
            ["--consumer_property=max.pol.records=5"],
            "--consumer_property sets 'max.pol.records', which no Kafka client has: did you mean 'max.poll.records'?",
        ),
        (
            ["--kafka_property=no.such=x"],
            "--kafka_property sets 'no.such', which no Kafka client has: allowed: those of Java's clients and "
            "librdkafka",
        ),
        (
            [*FLINK, "--kafka_property=sasl.password=aws-secret:kafka"],
            "--kafka_property sets 'sasl.password' to 'aws-secret:kafka', allowed on FlinkRunner: env:NAME or file:",
        ),
        (["--kafka_property=group.id=x"], "--kafka_property sets 'group.id': use --group_id"),
        (
            ["--consumer_property=auto.offset.reset=latest"],
            "--consumer_property sets 'auto.offset.reset': use --starting_offsets",
        ),
        (
            ["--consumer_property=enable.auto.commit=true"],
            "--consumer_property sets 'enable.auto.commit': use nothing: offsets are committed with the checkpoint",
        ),
        (
            ["--delivery_guarantee=EXACTLY_ONCE"],
            "--delivery_guarantee is EXACTLY_ONCE, allowed on DirectRunner: AT_LEAST_ONCE",
        ),
        (
            [*FLINK, "--delivery_guarantee=EXACTLY_ONCE", "--transaction_timeout_ms=199999"],
            "--transaction_timeout_ms is 199999, allowed: at least 200000",
        ),
        (
            [*FLINK, "--delivery_guarantee=EXACTLY_ONCE", "--checkpointing_interval_ms=410001"],
            "--transaction_timeout_ms is 900000, allowed: at least 900002",
        ),
        (
            [*FLINK, "--allow_non_restored_state"],
            "--allow_non_restored_state is of no use without --savepoint_path",
        ),
        (
            [*FLINK, "--savepoint_path=s", "--start_without_state"],
            "--savepoint_path and --start_without_state are both given, allowed: one of them",
        ),
    ],
)
def test_options_that_cannot_be_combined_are_refused_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_without_user_shards_parallelism_is_not_limited_by_them() -> None:
    assert parse(["--parallelism=100", "--user_shards=0"]).parallelism == 100


def test_exactly_once_is_allowed_with_a_timeout_that_outlives_a_restart() -> None:
    settings = parse([*FLINK, "--delivery_guarantee=EXACTLY_ONCE", "--transaction_timeout_ms=200000"])
    assert settings.delivery_guarantee == EXACTLY_ONCE
    assert Settings().delivery_guarantee == AT_LEAST_ONCE


def test_a_rules_topic_takes_the_place_of_rule_files() -> None:
    settings = parse(["--bootstrap_servers=b:1", "--rules_topic=rule-sets"])
    assert settings.rules_topic == "rule-sets"
    assert settings.rules is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules_topic=t"], "--rules_topic is 't', but the bundled stream has no Kafka: give --bootstrap_servers"),
        ([*FLINK, "--rules_topic=t", "--user_shards=0"], "--rules_topic is 't', allowed with --user_shards from 1 on"),
        (
            [*FLINK, "--rules_topic=t", "--isolation_level=read_uncommitted"],
            "--rules_topic is 't', allowed with --isolation_level=read_committed",
        ),
        ([*FLINK, "--rules_topic=t", "--control_topic=t"], "--rules_topic and --control_topic are both 't'"),
        ([*FLINK, "--rules_topic=event-audit"], "--rules_topic and --audit_topic are both 'event-audit'"),
        ([*FLINK, "--rules_topic="], "--rules_topic is empty"),
    ],
)
def test_an_unusable_rules_topic_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert message in str(caught.value)
