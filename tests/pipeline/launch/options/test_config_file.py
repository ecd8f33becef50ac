"""event-trigger.yaml: profiles, what they extend, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.launch.options.config_file import ConfigError, read_config
from pipeline.launch.options.resolving import check_config, resolve


def write(folder: Path, text: str | bytes, name: str = "event-trigger.yaml") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def shown(tmp_path: Path, text: str | bytes) -> list[str]:
    """The problems of a file, without its path."""
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in check_config(write(tmp_path, text))]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "event-trigger.yaml: is empty: it needs an option, as bootstrap_servers: broker-1:9092"),
        ("# nothing\n", "event-trigger.yaml: is empty"),
        ("- a\n", "event-trigger.yaml:1: is no mapping of options"),
        ("user_shards: 8\n---\nuser_shards: 9\n", "event-trigger.yaml:3: a second document begins here"),
        ("user_shards: 8\nuser_shards: 9\n", "event-trigger.yaml:2: not YAML: key 'user_shards' is given twice"),
        ("detached: yes\n", "event-trigger.yaml:1: detached is 'yes', allowed: true or false"),
        ("detached: on\n", "event-trigger.yaml:1: detached is 'on', allowed: true or false"),
        ('user_shards: "08"\n', "event-trigger.yaml:1: user_shards is '08', allowed: a whole number, 0 to 32768"),
        ("user_shards: 08\n", "event-trigger.yaml:1: user_shards is '08', allowed: a whole number, 0 to 32768"),
        ("user_shards: 8.5\n", "event-trigger.yaml:1: user_shards is 8.5, allowed: a whole number, 0 to 32768"),
        ("user_shards: true\n", "event-trigger.yaml:1: user_shards is True, allowed: a whole number, 0 to 32768"),
        ("user_shards: 99999\n", "event-trigger.yaml:1: user_shards is 99999, allowed: 0 to 32768 shards"),
        ("state_ttl_seconds: .nan\n", "event-trigger.yaml:1: state_ttl_seconds is '.nan', allowed: a number, 0.1 to"),
        ("job_name: 17\n", "event-trigger.yaml:1: job_name is 17, allowed: a text; quote it"),
        ("job_name: ''\n", "event-trigger.yaml:1: job_name is empty"),
        ("runner: flink\n", "event-trigger.yaml:1: runner is 'flink', allowed: DirectRunner, FlinkRunner"),
        ("history_fields: platform\n", "event-trigger.yaml:1: history_fields is 'platform', allowed: a list of texts"),
        ("rules: &a r\njob_name: *a\n", "event-trigger.yaml:1: not YAML: anchors and aliases are not available"),
        ("job_name: !!python/object:os.system x\n", "event-trigger.yaml:1: not YAML: tag"),
        ("\tjob_name: x\n", "event-trigger.yaml:1: not YAML: "),
        (b"job_name: \xff\n", "event-trigger.yaml: not YAML: "),
        ("job_name: a\0b\n", "event-trigger.yaml:1: not YAML: "),
        ("job_name: [\n", "event-trigger.yaml:2: not YAML: "),
        ("a: " + "[" * 1000, "event-trigger.yaml:1: not YAML: "),
        ("user_shard: 8\n", "event-trigger.yaml:1: user_shard: no such option; did you mean user_shards?"),
        ("--user-shards: 8\n", "event-trigger.yaml:1: --user-shards: no such option; did you mean user_shards?"),
        ("profile: nowhere\n", "event-trigger.yaml: there is no profile 'nowhere': the file has none"),
        ("profile: [a]\n", "event-trigger.yaml:1: profile is ['a'], allowed: a text"),
        ("profiles: [a]\n", "event-trigger.yaml:1: profiles is no mapping of names to options"),
        ("bootstrap_servers: [1]\n", "event-trigger.yaml:1: bootstrap_servers is [1], allowed: a text"),
        ("? [a]\n: b\n", "event-trigger.yaml:1: not YAML: key with parts is no text: quote it"),
        ("profile: x\nprofiles: {x: null, y: {extends: 3}}\n",
         "event-trigger.yaml:2: profiles.y.extends is 3, allowed: a text"),
        ("profiles:\n  a: 1\n", "event-trigger.yaml:2: profiles.a is no mapping of options"),
        ("profiles:\n  a:\n    profile: b\n", "event-trigger.yaml:3: profiles.a.profile: no such option"),
        ("savepoint_path: s3://b/s\n", "event-trigger.yaml:1: savepoint_path belongs to one launch: give it as a flag"),
        ("kafka_property: [a=b]\n", "event-trigger.yaml:1: kafka_property is no mapping"),
        ("kafka_property:\n  acks: [all]\n", "event-trigger.yaml:1: kafka_property.acks is neither text, number"),
        ("kafka_property:\n  linger.mss: 5\n", "event-trigger.yaml:1: kafka_property sets 'linger.mss', which no"),
        ("events_topic: t\nactions_topic: t\nrules_topic: t\nbootstrap_servers: b:1\n",
         "event-trigger.yaml: --rules_topic and --events_topic are both 't', allowed: a topic of its own (rules"),
        ("profiles:\n  a: {parallelism: 64}\n",
         "event-trigger.yaml: profile a: --parallelism is 64, allowed: up to --user_shards, 16"),
    ],
)  # fmt: skip
def test_a_problem_is_one_line_with_its_place(tmp_path: Path, text: str | bytes, problem: str) -> None:
    found = shown(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(problem)
    assert "\n" not in found[0]


def test_all_problems_are_shown_at_once(tmp_path: Path) -> None:
    assert [line.partition(" ")[0] for line in shown(tmp_path, "a: 1\nuser_shards: x\nprofiles:\n  p: {b: 2}\n")] == [
        "event-trigger.yaml:1:",
        "event-trigger.yaml:2:",
        "event-trigger.yaml:4:",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "user_api_url: https://a\nuser_api_token: s3cr3t\n",
        "user_api_url: https://a\nuser_api_token: [s3cr3t]\n",
        "user_api_url: https://ann:s3cr3t@a\n",
        "user_api_url: [s3cr3t]\n",
        "kafka_property:\n  sasl.password: s3cr3t\n",
        "producer_property:\n  ssl.key.password: s3cr3t\n",
        "consumer_property:\n  sasl.jaas.config: PlainLoginModule required password=s3cr3t;\n",
        "kafka_property:\n  sasl.password: [s3cr3t]\n",
        "password: s3cr3t\n",
        "profiles:\n  p:\n    kafka_property: {sasl.oauthbearer.client.credentials.secret: s3cr3t}\n",
    ],
)
def test_a_secret_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    found = shown(tmp_path, text)
    assert found
    assert "s3cr3t" not in "".join(found)


@pytest.mark.parametrize(
    "text", ["\ufeffuser_shards: 8\n", "user_shards: 8\r\nprofiles:\r\n  p:\r\n    parallelism: 3\r\n"]
)
def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path, text: str) -> None:
    assert resolve({}, {}, None, write(tmp_path, text)).values["user_shards"] == 8


def test_yaml_s_scalars_are_kafka_s_texts(tmp_path: Path) -> None:
    file = write(tmp_path, "kafka_property:\n  linger.ms: 5\n  enable.idempotence: true\n  client.id: a=b\n")
    values = resolve({}, {}, None, file).values
    assert values["kafka_property"] == ("linger.ms=5", "enable.idempotence=true", "client.id=a=b")


def test_brokers_may_be_a_list_and_a_profile_empty(tmp_path: Path) -> None:
    file = write(tmp_path, "bootstrap_servers: [a:1, b:2]\nprofiles: {x: null}\n")
    assert resolve({}, {}, "x", file).values["bootstrap_servers"] == "a:1,b:2"


def test_a_profile_extends_another_and_a_file_another(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    write(
        tmp_path / "shared",
        "job_name: base\nuser_shards: 32\nrules: rules\nprofiles:\n  p: {parallelism: 3}\n",
        "b.yaml",
    )
    file = write(
        tmp_path,
        "extends: shared/b.yaml\njob_name: own\nprofile: q\nprofiles:\n  p: {bundle_size: 7}\n  q:\n    extends: p\n"
        "    user_shards: null\n",
    )
    resolved = resolve({}, {}, None, file)
    values = resolved.values
    assert (values["job_name"], values["parallelism"], values["bundle_size"], values["user_shards"]) == (
        "own",
        3,
        7,
        16,
    )
    assert values["rules"] == tmp_path / "shared" / "rules"  # relative to the file that names it
    places = {name: str(resolved.origins[name].place).removeprefix(f"{tmp_path}/") for name in ("rules", "user_shards")}
    assert places == {"rules": "shared/b.yaml:3", "user_shards": "event-trigger.yaml:8"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("extends: event-trigger.yaml\n", "event-trigger.yaml:1: files extend each other"),
        ("extends: none.yaml\n", "event-trigger.yaml:1: extends"),
        ("extends: .\n", "event-trigger.yaml:1: extends"),
        ("extends: bad.yaml\n", "bad.yaml:1: user_shard: no such option"),
        ("profiles:\n  a: {extends: a}\n", "event-trigger.yaml:2: profiles extend each other: a extends a"),
        ("profiles:\n  a:\n    extends: b\n  b:\n    extends: a\n", "event-trigger.yaml:5: profiles extend each"),
        ("profiles:\n  apple:\n    extends: aple\n", "event-trigger.yaml:3: there is no profile 'aple': did you mean"),
        ("profiles:\n" + "".join(f"  p{n}: {{extends: p{n + 1}}}\n" for n in range(12)) + "  p12: {}\n",
         "event-trigger.yaml:11: more than 10 profiles extend each other"),
    ],
)  # fmt: skip
def test_what_cannot_be_extended_is_named(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path, "user_shard: 8\n", "bad.yaml")
    assert any(line.startswith(problem) for line in shown(tmp_path, text)), shown(tmp_path, text)


def test_files_extend_each_other_ten_times_at_most(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path, f"extends: f{number + 1}.yaml\n", f"f{number}.yaml")
    with pytest.raises(ConfigError, match=r"f9\.yaml:1: more than 10 files extend each other"):
        read_config(tmp_path / "f0.yaml")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file"):
        read_config(tmp_path / "none.yaml")
