"""The demo with rules of one's own, without a cluster; tests/docs/long runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import demo
from pipeline.cli.demo_rules import OwnRules, checked_rules, config_file, destination_names, next_steps
from pipeline.cli.main import main
from pipeline.errors import OptionError
from pipeline.launch.options import FLINK_RUNNER, Settings, parse
from pipeline.launch.options.resolving import Sources, check_config
from tests.builders import rule
from tests.docs.commands import check, commands_of
from tests.docs.pages import ROOT
from transforms.domain.rules.model import RuleError
from transforms.domain.rules.sets import RuleSet
from transforms.domain.shard.decisions import Decision

SETTINGS = Settings(
    runner=FLINK_RUNNER,
    bootstrap_servers="127.0.0.1:9092",
    flink_master="127.0.0.1:8081",
    rules_topic="event-rules",
    decisions_topic="event-decisions",
    control_topic="event-control",
)
HOOK = rule(name="hook", actions=[{"type": "webhook", "destination": "mail"}, {"type": "kafka", "topic": "t"}])


def test_every_step_that_the_demo_suggests_is_a_command_that_there_is() -> None:
    steps = next_steps(SETTINGS, Path("demo.yaml"), "user_00000", 4711)
    suggested = [step for step in steps.values() if step.startswith("event-trigger ")]
    assert len(suggested) == 7
    for step in suggested:
        (command,) = commands_of(step)
        check(command, ROOT)
    assert steps["kill a worker"].startswith("kill -9 4711 ")
    assert "see rule sets" not in next_steps(Settings(), None, "u", 1)


def test_the_file_of_options_is_there_while_the_demo_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with config_file(SETTINGS) as path:
        assert path is not None
        values = yaml.safe_load(path.read_text())
        assert parse([f"--{name}={value}" for name, value in values.items()]) == SETTINGS
        assert check_config(path) == []
        assert Sources(file=path).resolve().settings(rules_required=False) == SETTINGS
    assert not path.exists()
    (tmp_path / ".event-trigger" / ".gitignore").unlink()
    (tmp_path / ".event-trigger").rmdir()
    (tmp_path / ".event-trigger").write_text("a file")
    with config_file(SETTINGS) as path:
        assert path is None


class Record:
    """A record of the decision log."""

    def __init__(self, decision: str, event_time: int | None = 7) -> None:
        about = {"user_id": "u1", "event_id": "e", "event_name": "checkout", "rule": "vip", "version": 1}
        self._value = Decision(decision=decision, time=9, event_time=event_time, action="kafka", **about).to_json()

    def value(self) -> bytes:
        return self._value


def test_an_action_of_one_s_own_rule_is_shown_with_the_topic_it_goes_to() -> None:
    rules = (rule(name="vip", actions=[{"type": "kafka"}]),)
    actions = demo.FiredActions(RuleSet(1, rules), "event-actions")
    line, event_ms, user_id = actions.line(Record("fired"))  # type: ignore[misc, arg-type]
    assert line.split() == ["FIRED", "vip", "u1", "checkout", "kafka", "event-actions"]
    assert (event_ms, user_id) == (7, "u1")
    assert actions.line(Record("capped")) is None  # type: ignore[arg-type]


def test_rules_that_are_not_there_or_no_good_end_the_demo_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OptionError, match=r"`event-trigger rules new .*` writes a first rule"):
        checked_rules(tmp_path / "rules")
    assert main(["demo", f"--rules={tmp_path}/rules"]) == 2
    (tmp_path / "rules").mkdir()
    assert main(["demo", f"--rules={tmp_path}/rules"]) == 1
    assert "no rule in it" in capsys.readouterr().err


def test_the_page_needs_its_packages_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise OptionError("the page needs Flask")

    monkeypatch.setattr(demo, "check_page_packages", missing)
    assert main(["demo", "--ui"]) == 2
    assert "the page needs Flask" in capsys.readouterr().err


class Broker:
    bootstrap_servers = "127.0.0.1:1"

    def __init__(self) -> None:
        self.topics: list[str] = []

    def create_topic(self, name: str, partitions: int) -> None:
        self.topics.append(name)


def test_topics_of_new_rules_are_created_and_unknown_destinations_refused(tmp_path: Path) -> None:
    kafka: Any = Broker()
    names = destination_names((HOOK,), "receiver")
    assert names == ("mail", "crm", "receiver")
    own = OwnRules(tmp_path, kafka, SETTINGS.model_copy(update={"action_topics": ("*",)}), names)
    own._make_room((HOOK, rule(name="default", actions=[{"type": "kafka"}])))
    own._make_room((HOOK,))
    assert kafka.topics == ["t"]
    with pytest.raises(RuleError, match="destination is 'sms', allowed: mail, crm, receiver"):
        own._make_room((rule(name="b", actions=[{"type": "webhook", "destination": "sms"}]),))
    with pytest.raises(RuleError, match="topic is 'user-tracking-events', a topic of the job itself"):
        own._make_room((rule(name="loop", actions=[{"type": "kafka", "topic": "user-tracking-events"}]),))
