from __future__ import annotations

import dataclasses
from pathlib import Path

import certifi
import pytest

from pipeline.errors import OptionError
from pipeline.launch.options import DIRECT_RUNNER, EXACTLY_ONCE, FLINK_RUNNER, Settings, parse
from pipeline.launch.options.fields import AT_LEAST_ONCE
from pipeline.launch.options.parsing import shown_default

FLINK = ["--runner=FlinkRunner", "--bootstrap_servers=b:9092", "--rules=rules"]


def test_without_options_it_is_the_embedded_default() -> None:
    settings = parse([])
    assert settings == Settings()
    assert settings.embedded
    assert settings.runner == DIRECT_RUNNER


def test_options_become_settings_of_their_types() -> None:
    settings = parse(
        [
            *FLINK,
            "--user_shards=64",
            "--state_ttl_seconds=1.5",
            "--history_fields=platform",
            "--history_fields=duration",
            "--detached",
            "--starting_offsets=timestamp",
            "--starting_timestamp_ms=5",
            "--plan_file=plan.json",
        ]
    )
    assert not settings.embedded
    assert settings.runner == FLINK_RUNNER
    assert settings.rules == Path("rules")
    assert settings.user_shards == 64
    assert settings.state_ttl_seconds == 1.5
    assert settings.history_fields == ("platform", "duration")
    assert settings.detached
    assert settings.starting_timestamp_ms == 5
    assert settings.plan_file == Path("plan.json")


def test_an_option_may_be_two_words() -> None:
    assert parse(["--user_shards", "64"]).user_shards == 64


def test_the_embedded_default_ends_where_a_broker_is_named() -> None:
    assert not parse(["--bootstrap_servers=b:1", "--rules=r"]).embedded


NUMBERS = [one for one in dataclasses.fields(Settings) if one.type in ("int", "float", "int | None")]


@pytest.mark.parametrize("name", [one.name for one in NUMBERS])
@pytest.mark.parametrize("value", ["", "many", "-1e9", "nan", "inf", "-inf", "-1", "1,5"])
def test_a_number_that_is_not_allowed_is_named_with_what_is(name: str, value: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([f"--{name}={value}"])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith((f"--{name} is {value},", f"--{name} is {value!r},"))
    assert "allowed: " in message


@pytest.mark.parametrize("one", NUMBERS, ids=lambda one: one.name)
def test_the_ends_of_a_number_s_range_are_allowed_and_what_is_beyond_is_not(one: dataclasses.Field[int]) -> None:
    least, most = one.metadata["least"], one.metadata.get("most")
    with pytest.raises(OptionError, match=f"--{one.name} is .*, allowed: {least} to "):
        parse([f"--{one.name}={least - 1}"])
    if most is not None:
        with pytest.raises(OptionError, match=f"--{one.name} is .*, allowed: {least} to {most} "):
            parse([f"--{one.name}={most + 1}"])
    related = {
        "starting_timestamp_ms": ["--starting_offsets=timestamp"],
        "user_shards": [],
        "decision_sample": ["--decisions_file=log"],
    }
    for value in (least, most):
        # Each in reach of the options that are compared with it.
        if value is not None and one.name not in ("parallelism", "max_parallelism"):
            assert getattr(parse([f"--{one.name}={value}", *related.get(one.name, [])]), one.name) == value


CHOICES = [one for one in dataclasses.fields(Settings) if "choices" in one.metadata]


@pytest.mark.parametrize("one", CHOICES, ids=lambda one: one.name)
def test_a_choice_that_is_none_is_named_with_what_is(one: dataclasses.Field[str]) -> None:
    with pytest.raises(OptionError) as caught:
        parse([f"--{one.name}=Nonsense"])
    assert str(caught.value) == f"--{one.name} is 'Nonsense', allowed: {', '.join(one.metadata['choices'])}"


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--user_shard=8", "unknown option '--user_shard=8': did you mean --user_shards?"),
        ("--bootstrap-servers=b:1", "did you mean --bootstrap_servers?"),
        ("--rule=x", "did you mean --rules?"),
        ("--xyzzy", "unknown option '--xyzzy': --help lists all"),
        ("stray", "unknown option 'stray': --help lists all"),
    ],
)
def test_an_unknown_option_suggests_a_known_one(argument: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse([argument])
    assert hint in str(caught.value)


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(OptionError, match="unknown option '--user_sh=8'"):
        parse(["--user_sh=8"])


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
def test_a_ca_file_that_is_there_is_checked(tmp_path: Path, runner: list[str]) -> None:
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
        (["--events_topic"], "argument --events_topic: expected one argument"),
        (["--detached=yes"], "argument --detached: ignored explicit argument 'yes'"),
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
        (["--starting_timestamp_ms=1"], "--starting_timestamp_ms and --starting_offsets=timestamp belong together"),
        (["--parallelism=129"], "--parallelism is 129, allowed: up to --max_parallelism, 128"),
        (
            ["--parallelism=9", "--user_shards=8"],
            "--parallelism is 9, allowed: up to --user_shards, 8; further subtasks would have no shard",
        ),
        (["--kafka_property=novalue"], "--kafka_property is 'novalue', allowed: NAME=VALUE"),
        (["--consumer_property==x"], "--consumer_property is '=x', allowed: NAME=VALUE"),
        (["--producer_property=a b=c"], "--producer_property is 'a b=c', allowed: NAME=VALUE"),
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
def test_options_that_cannot_be_are_refused_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_any_number_of_subtasks_may_share_users_that_are_keys_of_their_own() -> None:
    assert parse(["--parallelism=100", "--user_shards=0"]).parallelism == 100


def test_exactly_once_is_allowed_with_a_timeout_that_outlives_a_restart() -> None:
    settings = parse([*FLINK, "--delivery_guarantee=EXACTLY_ONCE", "--transaction_timeout_ms=200000"])
    assert settings.delivery_guarantee == EXACTLY_ONCE
    assert Settings().delivery_guarantee == AT_LEAST_ONCE


def test_kafka_properties_reach_the_clients_they_are_for() -> None:
    settings = parse(
        [
            *FLINK,
            "--isolation_level=read_uncommitted",
            "--kafka_property=security.protocol=SASL_SSL",
            "--consumer_property=fetch.min.bytes=5",
            "--producer_property=compression.type=lz4",
            "--producer_property=linger.ms=7",
            "--kafka_property=sasl.jaas.config=a=b=c",
        ]
    )
    assert settings.consumer_config() == {
        "bootstrap.servers": "b:9092",
        "isolation.level": "read_uncommitted",
        "security.protocol": "SASL_SSL",
        "sasl.jaas.config": "a=b=c",
        "fetch.min.bytes": "5",
    }
    assert settings.producer_config() == {
        "bootstrap.servers": "b:9092",
        "linger.ms": "7",
        "security.protocol": "SASL_SSL",
        "sasl.jaas.config": "a=b=c",
        "compression.type": "lz4",
    }


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().user_shards = 1  # type: ignore[misc]


def test_every_option_says_what_it_is_and_numbers_their_unit() -> None:
    for one in dataclasses.fields(Settings):
        assert one.metadata["text"], one.name
        assert one.metadata["group"], one.name
        if one in NUMBERS:
            assert one.metadata["unit"], one.name
            assert "least" in one.metadata, one.name


def test_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # lines may be broken anywhere
    for one in dataclasses.fields(Settings):
        assert f"--{one.name}" in text
        assert f"default:{shown_default(one)}".replace(" ", "") in text


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
def test_a_rules_topic_that_cannot_be_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(arguments)
    assert message in str(caught.value)
