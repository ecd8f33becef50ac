"""Flags over environment over profile over file over default."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import OptionError
from pipeline.launch.options import Settings
from pipeline.launch.options.resolving import Origin, Sources, find_sources, resolve, unknown_variables

FILE = """\
user_shards: 2
bundle_size: 2
parallelism: 2
job_name: two
kafka_property:
  client.id: file
  linger.ms: 1
profiles:
  p:
    user_shards: 3
    bundle_size: 3
    parallelism: 1
    kafka_property: {linger.ms: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "event-trigger.yaml"
    path.write_text(FILE, "utf-8")
    return path


def test_the_nearest_value_counts_and_its_origin_is_known(file: Path) -> None:
    environment = {"EVENT_TRIGGER_USER_SHARDS": "4", "EVENT_TRIGGER_BUNDLE_SIZE": "4", "HOME": "/root"}
    resolved = resolve({"user_shards": "5"}, environment, "p", file)
    names = ("user_shards", "bundle_size", "parallelism", "job_name", "events_topic")
    assert {name: (resolved.values[name], resolved.origins[name]) for name in names} == {
        "user_shards": (5, Origin("flag", "--user_shards")),
        "bundle_size": (4, Origin("environment", "EVENT_TRIGGER_BUNDLE_SIZE")),
        "parallelism": (1, Origin("profile p", f"{file}:12")),
        "job_name": ("two", Origin("file", f"{file}:4")),
        "events_topic": ("user-tracking-events", Origin("default")),
    }


def test_each_property_counts_on_its_own(file: Path) -> None:
    environment = {"EVENT_TRIGGER_KAFKA_PROPERTY": '["acks=all", "client.id=environment"]'}
    resolved = resolve({"kafka_property": ["retries=3"]}, environment, "p", file)
    assert resolved.settings().client_config() == {
        "bootstrap.servers": "",
        "client.id": "environment",
        "linger.ms": "2",
        "acks": "all",
        "retries": "3",
    }
    assert resolved.origins["kafka_property.linger.ms"] == Origin("profile p", f"{file}:13")


def test_null_takes_back_what_is_below(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "job_name: x\nkafka_property: {client.id: a, acks: all}\nprofiles:\n  p:\n    job_name: null\n"
        "    kafka_property: {acks: null}\n  q: {kafka_property: null}\n"
    )
    values = resolve({}, {}, "p", file).values
    assert (values["job_name"], values["kafka_property"]) == ("event-trigger", ("client.id=a",))
    assert resolve({}, {}, "q", file).values["kafka_property"] == ()


def test_without_sources_it_is_the_default() -> None:
    assert resolve({}, {}, None, None).settings() == Settings()
    assert Sources().resolve().settings() == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("HISTORY_FIELDS", "platform, app", ("platform", "app")),
        ("HISTORY_FIELDS", '["a,b"]', ("a,b",)),
        ("CONSUMER_PROPERTY", "sasl.jaas.config=a,b", ("sasl.jaas.config=a,b",)),
        ("DETACHED", "true", True),
        ("DETACHED", "0", False),
        ("STATE_TTL_SECONDS", "1.5", 1.5),
        ("RULES", "rules", Path("rules")),
    ],
)
def test_variables_have_the_types_of_their_options(variable: str, text: str, value: object) -> None:
    assert resolve({}, {f"EVENT_TRIGGER_{variable}": text}, None, None).values[variable.lower()] == value


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("USER_SHARDS", "many", "EVENT_TRIGGER_USER_SHARDS is 'many', allowed: a whole number, 0 to 32768 shards"),
        ("USER_SHARDS", "-1", "EVENT_TRIGGER_USER_SHARDS is -1, allowed: 0 to 32768 shards"),
        ("RULES_TOPIC", "", "EVENT_TRIGGER_RULES_TOPIC is empty"),
        ("HISTORY_FIELDS", "", "EVENT_TRIGGER_HISTORY_FIELDS is empty"),
        ("HISTORY_FIELDS", "a,,b", "EVENT_TRIGGER_HISTORY_FIELDS is empty"),
        ("HISTORY_FIELDS", "[1]", "EVENT_TRIGGER_HISTORY_FIELDS is no JSON array of texts"),
        ("DETACHED", "maybe", "EVENT_TRIGGER_DETACHED is 'maybe', allowed: true or false"),
        ("KAFKA_PROPERTY", "linger.ms", "EVENT_TRIGGER_KAFKA_PROPERTY is 'linger.ms', allowed: NAME=VALUE"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        resolve({}, {f"EVENT_TRIGGER_{variable}": text}, None, None)
    assert str(caught.value) == message


def test_a_flag_turns_off_what_a_file_turns_on(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("detached: true\n")
    assert resolve({}, {}, None, file).values["detached"]
    assert not resolve({"detached": "false"}, {}, None, file).values["detached"]


def test_a_misspelt_variable_is_found_and_those_of_the_machine_are_not() -> None:
    machine = ("CONNECTORS", "CACHE", "CONFIG", "PROFILE", "WORKER_LOG_DIR", "LOG_LEVEL", "LOG_USERS", "BEAM_OVERRIDES")
    environment = dict.fromkeys((f"EVENT_TRIGGER_{name}" for name in (*machine, "USER_SHARD")), "x")
    assert unknown_variables(environment) == [
        "variable EVENT_TRIGGER_USER_SHARD is no option: did you mean EVENT_TRIGGER_USER_SHARDS?"
    ]


def test_where_the_file_is_looked_for(file: Path, tmp_path: Path) -> None:
    variables = {"EVENT_TRIGGER_CONFIG": "/v.yaml", "EVENT_TRIGGER_PROFILE": "v"}
    assert find_sources("c.yaml", "c", variables, tmp_path) == Sources(variables, "c", Path("c.yaml"))
    assert find_sources(None, None, variables, tmp_path) == Sources(variables, "v", Path("/v.yaml"))
    assert find_sources(None, None, {}, tmp_path).file == file
    assert find_sources(None, None, {}, tmp_path / "empty").file is None
    for given, variable in ((("", None), {}), ((None, ""), {}), ((None, None), {"EVENT_TRIGGER_PROFILE": ""})):
        with pytest.raises(OptionError, match="is empty"):
            find_sources(given[0], given[1], variable, tmp_path)


def test_a_profile_needs_a_file_and_has_to_be_there(file: Path) -> None:
    with pytest.raises(OptionError, match="--profile is 'p', but there is no configuration file: give --config=FILE"):
        resolve({}, {}, "p", None)
    with pytest.raises(OptionError, match="there is no profile 'prod': there is p"):
        resolve({}, {}, "prod", file)


def test_what_cannot_be_combined_says_where_it_comes_from(file: Path) -> None:
    resolved = resolve({"user_shards": "1"}, {}, None, file)
    with pytest.raises(OptionError) as caught:
        resolved.settings()
    assert str(caught.value) == (
        f"--parallelism is 2, allowed: up to --user_shards, 1; further subtasks would have no shard "
        f"(parallelism from {file}:3)"
    )
