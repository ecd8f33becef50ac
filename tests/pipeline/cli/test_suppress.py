"""``event-trigger suppress``, ``unsuppress`` and ``suppressed``; the job's side is tested with the domain."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.cli import suppress as commands
from pipeline.cli.main import main
from pipeline.kafka.rules_topic import PublishedSets, RulesTopic
from tests.builders import grouped, rule
from transforms.domain.rules.sets import RuleSet

WHERE = ["--control_topic=control", "--bootstrap_servers=b:9092"]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Topic, key and record of what a command writes."""
    sent: list[Any] = []
    monkeypatch.setattr(
        commands,
        "send_control_record",
        lambda config, topic, key, value: sent.append((topic, key, json.loads(value))),
    )
    return sent


@pytest.mark.parametrize(
    ("arguments", "record"),
    [
        (["suppress", "ü", "--group=mail"], {"suppress": "ü", "group": "mail", "until": None}),
        (["suppress", "ü", "--group=*"], {"suppress": "ü", "group": "*", "until": None}),
        (
            ["suppress", "ü", "--group=mail", "--until=2999-01-01T00:00:00Z"],
            {"suppress": "ü", "group": "mail", "until": 32_472_144_000_000},
        ),
        (["unsuppress", "ü", "--group=mail"], {"unsuppress": "ü", "group": "mail"}),
    ],
)
def test_a_command_writes_the_control_record(
    arguments: list[str], record: Any, written: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *WHERE]) == 0
    assert written == [("control", "ü".encode(), record)]
    assert capsys.readouterr().out.startswith("ü ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["suppress", "u", "--group=Mail"], "--group is 'Mail', allowed: 1 to 64 of a-z, 0-9, _ and -, or *"),
        (["suppress", "u", "--group=mail", "--until=2020-01-01"], "--until is '2020-01-01', allowed: a time after now"),
        (["suppress", "u", "--group=mail", "--until=soon"], "--until is 'soon', allowed: a time like"),
        (["suppress", "", "--group=mail"], "USER_ID is empty"),
        (["unsuppress", "u", "--group=a b"], "--group is 'a b'"),
        (["suppressed", "u", "--timeout_seconds=0"], "--timeout_seconds is 0"),
        (["suppress", "u"], "--group"),
    ],
)
def test_a_wrong_argument_is_one_error(
    arguments: list[str], error: str, written: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *WHERE]) == 2
    assert error in capsys.readouterr().err
    assert written == []


@pytest.mark.parametrize(
    ("group", "live", "warning"),
    [
        ("mail", True, None),
        ("*", True, None),
        ("mial", True, "no rule of the live set 7 is in group 'mial'; its groups: mail; did you mean mail?"),
        ("mail", False, "topic 'rules' has no rule set"),
    ],
)
def test_a_group_that_the_live_set_does_not_have_is_a_warning(
    group: str,
    live: bool,
    warning: str | None,
    written: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rules = grouped({"mail": {}}, rule("a", group="mail"), rule("b"))
    sets = PublishedSets((RuleSet(7, rules),) if live else ())
    monkeypatch.setattr(RulesTopic, "read", lambda _: sets)
    assert main(["suppress", "u", f"--group={group}", "--rules_topic=rules", *WHERE]) == 0
    assert len(written) == 1
    shown = capsys.readouterr().err
    assert shown == "" if warning is None else warning in shown


@pytest.mark.parametrize(
    ("suppressed", "code", "text"),
    [
        ([], 1, "u: nothing is suppressed\n"),
        ([{"group": "mail", "until": None}], 0, "mail  for good\n"),
        ([{"group": "*", "until": 32_472_144_000_000}], 0, "*  until 2999-01-01T00:00:00.000Z (in "),
    ],
)
def test_what_the_job_has_is_shown(
    suppressed: Any, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = {"ruleState": {"suppressed": suppressed} if suppressed else {}}
    monkeypatch.setattr(commands, "inspect_user", lambda *_: state)
    assert main(["suppressed", "u", *WHERE]) == code
    assert capsys.readouterr().out.startswith(text)
    assert main(["suppressed", "u", "--json", *WHERE]) == code
    assert json.loads(capsys.readouterr().out) == suppressed
