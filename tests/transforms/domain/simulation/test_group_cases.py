"""What cases and explanations say of groups, suppression and expiry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builders import read_rule_files
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.cases import Case
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import run_cases
from transforms.domain.simulation.explain import explain

GROUPS = "groups: {mail: {cap: {count: 1, per: day}, within: 2m, unless: user.out}}\n"
RULES = """\
name: low
version: 1
filter: event.event_name == "a" or event.event_name == "both"
group: mail
priority: 1
expires: 1m
actions: [{type: debug}]
---
name: high
version: 1
filter: event.event_name == "b" or event.event_name == "both"
group: mail
priority: 2
actions: [{type: debug, name: shout}]
"""


def differences(folder: Path, name: str, **case: Any) -> list[str]:
    (folder / "groups.yaml").write_text(GROUPS)
    (folder / "rules.yaml").write_text(RULES)
    cases = {"name": "case", "events": [{"event_name": "a"}], "wait": "3m", "expect": "nothing"} | case
    Case.model_validate(cases)
    text = f"rule: {name}\ntests: [{json.dumps(cases)}]\n"
    (folder / "rules_test.yaml").write_text(text)
    files = read_rule_files(folder)
    assert files.problems == []
    (loaded,) = [loaded for loaded in files.rules if loaded.rule.name == name]
    (result,) = run_cases(loaded, ShardSettings(), LuaEngines())
    return result.differences


BOTH = [{"event_name": "both"}]
LATER = [{"event_name": "b"}, {"event_name": "b", "after": "1h"}]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("high", {"events": BOTH, "expect": ["shout"]}),
        ("high", {"events": [{"event_name": "b"}, {"event_name": "b", "after": "1d"}], "expect": ["shout", "shout"]}),
        ("high", {"events": LATER, "expect": {"actions": ["shout"], "group_capped": "mail"}}),
        ("high", {"events": LATER, "expect": {"actions": ["shout"], "group_capped": ["1 per day"]}}),
        ("high", {"events": BOTH, "profile": {"out": True}, "expect": {"suppressed": "unless"}}),
        ("high", {"events": BOTH, "suppressed": ["mail"], "expect": {"suppressed": "mail"}}),
        ("high", {"events": BOTH, "suppressed": ["*"], "expect": {"suppressed": "*"}}),
        ("high", {"events": BOTH, "suppressed": ["news"], "expect": ["shout"]}),
        # At the pick, two minutes later, it has expired.
        ("low", {"events": BOTH, "expect": {"expired": "debug"}}),
        ("low", {"events": [{"event_name": "a"}], "expect": {"expired": "since"}}),
        ("low", {"events": [{"event_name": "a"}], "expect": "nothing"}),
    ],
)
def test_a_case_may_expect_why_nothing_is_sent(name: str, case: dict[str, Any], tmp_path: Path) -> None:
    assert differences(tmp_path, name, **case) == []


@pytest.mark.parametrize(
    ("name", "case", "shown"),
    [
        ("low", {"expect": {"outranked": "high"}}, "but not sent  expired: since 2024"),
        ("low", {"expect": {"expired": "shout"}}, "expected  expired: shout"),
        ("high", {"events": LATER, "expect": {"group_capped": "mail"}}, "but fired shout for event 1"),
        ("high", {"events": BOTH, "expect": {"actions": ["shout"], "suppressed": "mail"}}, "but not sent  nothing"),
    ],
)
def test_a_case_that_expects_something_else_fails(name: str, case: dict[str, Any], shown: str, tmp_path: Path) -> None:
    assert any(line.startswith(shown) for line in differences(tmp_path, name, **case))


@pytest.mark.parametrize("expect", [{}, {"outrankd": "x"}, {"outranked": 5}, {"error": "x", "outranked": "y"}])
def test_an_expectation_that_is_wrong_is_refused(expect: Any) -> None:
    with pytest.raises(ValueError, match="expect"):
        Case.model_validate({"name": "x", "events": [{}], "expect": expect})


def test_an_explanation_shows_the_group(tmp_path: Path) -> None:
    differences(tmp_path, "low")
    (loaded,) = [loaded for loaded in read_rule_files(tmp_path).rules if loaded.rule.name == "low"]
    given = {"name": "x", "profile": {"out": True}, "events": [{"event_name": "a"}], "expect": "nothing"}
    lines = explain(loaded, Case.model_validate(given), ShardSettings(), LuaEngines()).lines
    of_group = "1 a day of UTC, picks 2m after the first, unless user.out, which is true"
    assert f"  group: mail, priority 1, {of_group}" in lines
    assert "  expires: 1m after it was decided" in lines
    assert "  suppressed: the user gets nothing of its group" in lines
