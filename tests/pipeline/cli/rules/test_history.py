"""``event-trigger rules history``: what it shows of the sets of a topic."""

from __future__ import annotations

import json

import pytest

from pipeline.cli.main import main
from pipeline.kafka.rules_topic import PublishedSets, RulesTopic
from tests.builders import rule
from transforms.domain.rules.sets import RuleSet

SETS = (
    RuleSet(1, (rule("first", filter="event.a == 1"),), 1_704_096_000_000, "ada@laptop", "why"),
    RuleSet(2, (rule("first", filter="event.a == 1"), rule("second")), 1_704_096_001_000, "bob@laptop"),
    RuleSet(5, (rule("first", filter="event.a == 2", version=2),), 1_704_096_002_000, "ada@laptop", "a\nb"),
)
COMMAND = ["rules", "history", "--rules_topic=event-rules", "--bootstrap_servers=b:1"]


@pytest.fixture(autouse=True)
def _topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RulesTopic, "read", lambda topic: PublishedSets(SETS, ("set 9: nonsense",), 5))


def test_each_set_says_what_it_changed_against_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "set 5  2024-01-01T08:00:02Z  ada@laptop  (a\\nb)",
        "  ~ first  version 1 -> 2",
        "  - second  version 1",
        "set 2  2024-01-01T08:00:01Z  bob@laptop",
        "  + second  version 1",
        "set 1  2024-01-01T08:00:00Z  ada@laptop  (why)  the oldest that is kept",
        "  + first  version 1",
    ]
    assert shown.err == "warning: set 9: nonsense\n"


def test_of_a_rule_its_own_sets_are_shown_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--rule=first"]) == 0
    shown = capsys.readouterr().out
    assert "set 2" not in shown
    assert "      - event.a == 1\n" in shown
    assert "      + event.a == 2\n" in shown
    assert main([*COMMAND, "--rule=frist"]) == 2
    assert capsys.readouterr().err.endswith("error: --rule is 'frist', did you mean first?\n")


def test_programs_get_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unreadable"] == ["set 9: nonsense"]
    assert document["sets"][2] == {
        "number": 5,
        "published": 1_704_096_002_000,
        "by": "ada@laptop",
        "note": "a\nb",
        "rules": {"first": 2},
        "added": [],
        "changed": ["first"],
        "removed": ["second"],
    }
