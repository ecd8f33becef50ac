"""``config`` and ``init``, and commands that take their flags from the configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main as command_line
from pipeline.cli.commands import parser
from pipeline.errors import OptionError
from pipeline.launch.options import parse
from pipeline.launch.options.resolving import SOURCES, Sources


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    token = SOURCES.set(Sources())
    yield
    SOURCES.reset(token)


def run(*arguments: str) -> int:
    return command_line.main(arguments)


def test_init_writes_a_file_without_problems_and_never_over_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init") == 0
    assert run("config", "check") == 0
    assert capsys.readouterr().out.endswith("ok  event-trigger.yaml\n")
    for profile in ("local", "staging", "production"):
        assert run("config", "show", f"--profile={profile}", "--given") == 0
    before = Path("event-trigger.yaml").read_text()
    assert run("init") == 2
    assert "event-trigger.yaml is there already" in capsys.readouterr().err
    assert Path("event-trigger.yaml").read_text() == before


def test_show_says_where_each_value_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("event-trigger.yaml").write_text(
        "job_name: a\nkafka_property: {sasl.password: env:P}\nprofiles:\n  p: {parallelism: 1}\n"
    )
    monkeypatch.setenv("EVENT_TRIGGER_BUNDLE_SIZE", "7")
    monkeypatch.setenv("EVENT_TRIGGER_PRODUCER_PROPERTY", "ssl.key.password=s3cr3t")
    monkeypatch.setenv("EVENT_TRIGGER_PROFILE", "p")
    assert run("config", "show", "--given") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["event-trigger.yaml,", "profile", "p"],
        ["kafka_property.sasl.password", "env:P", "(file", "event-trigger.yaml:2)"],
        ["producer_property.ssl.key.password", "[hidden]", "(environment", "EVENT_TRIGGER_PRODUCER_PROPERTY)"],
        ["job_name", "a", "(file", "event-trigger.yaml:1)"],
        ["parallelism", "1", "(profile", "p", "event-trigger.yaml:4)"],
        ["bundle_size", "7", "(environment", "EVENT_TRIGGER_BUNDLE_SIZE)"],
    ]
    assert run("config", "show", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["file"], document["profile"]) == ("event-trigger.yaml", "p")
    options = document["options"]
    assert options["parallelism"] == {"value": 1, "source": "profile p", "place": "event-trigger.yaml:4"}
    assert options["bundle_time_ms"] == {"value": 6, "source": "default", "place": None}
    assert "s3cr3t" not in str(document)


def test_a_token_given_as_itself_is_hidden(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENT_TRIGGER_USER_API_TOKEN", "s3cr3t")
    monkeypatch.setenv("EVENT_TRIGGER_USER_API_URL", "https://ann:s3cr3t@a")
    assert run("config", "show") == 0
    assert "s3cr3t" not in capsys.readouterr().out


def test_check_shows_every_problem_of_file_and_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.yaml").write_text("user_shard: 1\nparallelism: x\n")
    monkeypatch.setenv("EVENT_TRIGGER_USER_SHARD", "1")
    assert run("--config=other.yaml", "config", "check") == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: variable EVENT_TRIGGER_USER_SHARD is no option: did you mean EVENT_TRIGGER_USER_SHARDS?",
        "error: other.yaml:1: user_shard: no such option; did you mean user_shards?",
        "error: other.yaml:2: parallelism is 'x', allowed: a whole number, 1 to 32768 slots",
    ]
    assert run("config", "check", "--config", "other.yaml", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["file"], len(document["problems"])) == ("other.yaml", 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=none.yaml", "status"], "error: none.yaml: there is no such file"),
        (["status", "--config=none.yaml"], "error: none.yaml: there is no such file"),
        (["status", "--profile=p"], "error: --profile is 'p', but there is no configuration file"),
        (["status", "--config="], "error: --config is empty"),
        (["status", "--profile"], "error: --profile lacks its value"),
        (
            ["rules", "rollback", "--config=bad.yaml"],
            "error: bad.yaml:1: a: no such option (and 1 more: `config check`",
        ),
        (["inspect", "user", "u"], "error: --control_topic is missing: give the pipeline's, which is how a job is"),
        (["why", "--user=u"], "error: --decisions_topic is missing: give the pipeline's, or --decisions_file"),
        (
            ["dead-letters", "list"],
            "error: --bootstrap_servers is missing: give HOST:PORT of a broker, here or in event",
        ),
        (["rules", "rollback"], "error: --rules_topic is missing"),
        (["savepoint"], "error: --flink_master is missing"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.yaml").write_text("a: 1\nb: 2\n")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


COMMAND = (
    "bootstrap_servers: b:1\nkafka_property: {client.id: a, acks: all}\nflink_master: f:1\ndecisions_topic: d\n"
    "job_name: j\nhistory_fields: [x]\n"
)


def filled(*line: str) -> dict[str, Any]:
    """The arguments that a command is called with; those of groups by their names."""
    _, bound, _ = parser(line).parse_args(command_line.command_line(line))
    values: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        values |= vars(value) if is_dataclass(value) else {name: value}
    return values


def test_a_command_takes_from_the_configuration_what_its_flags_do_not_give() -> None:
    Path("event-trigger.yaml").write_text(COMMAND)
    why = filled("why", "--user=u", "--kafka_property=client.id=flag")
    assert why["bootstrap_servers"] == "b:1"
    assert set(why["kafka_property"]) == {"client.id=flag", "acks=all"}
    assert (why["decisions_topic"], why["user"]) == ("d", "u")
    assert filled("rules", "test", "r/")["history_fields"] == ("x",)
    assert filled("savepoint") == {"flink_master": "f:1", "terraform": None, "job": "j"}
    assert filled("savepoint", "--flink_master=g:1", "--job=k") == {
        "flink_master": "g:1",
        "terraform": None,
        "job": "k",
    }
    assert filled("savepoint", "--terraform=t")["flink_master"] is None
    assert filled("why", "--user=u", "--decisions_file=f").get("decisions_topic") is None


def test_a_launch_takes_the_file_and_a_flag_counts_before_it() -> None:
    Path("event-trigger.yaml").write_text(COMMAND + "rules: r\nrunner: FlinkRunner\ndetached: true\n")
    SOURCES.set(Sources(file=Path("event-trigger.yaml")))
    settings = parse(["--job_name=flag", "--detached=false"])
    assert (settings.runner, settings.job_name, settings.detached, settings.rules) == (
        "FlinkRunner",
        "flag",
        False,
        Path("r"),
    )


def test_without_sources_flags_are_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("event-trigger.yaml").write_text("user_shards: 5\n")
    monkeypatch.setenv("EVENT_TRIGGER_USER_SHARDS", "6")
    assert parse([]).user_shards == 16


def test_a_broken_file_does_not_keep_commands_without_options_from_running(capsys: pytest.CaptureFixture[str]) -> None:
    Path("event-trigger.yaml").write_text("a: 1\n")
    assert run("rules", "schema") == 0
    assert run("config", "schema", "decision") == 0
    assert run("savepoint", "--help") == 0
    with pytest.raises(OptionError, match="no such option"):
        SOURCES.get().resolve()


def test_a_launch_says_which_file_it_uses_and_which_variable_is_misspelt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("event-trigger.yaml").write_text("rules: none\nprofiles: {p: {log_format: text}}\n")
    monkeypatch.setenv("EVENT_TRIGGER_USER_SHARD", "1")
    assert run("--profile=p") == 2
    assert capsys.readouterr().err.splitlines()[:2] == [
        "options: event-trigger.yaml, profile p",
        "warning: variable EVENT_TRIGGER_USER_SHARD is no option: did you mean EVENT_TRIGGER_USER_SHARDS?",
    ]
