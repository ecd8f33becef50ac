from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from transforms.domain.rule_files import read_rule_files
from transforms.domain.rule_tests import dry_call, run_cases, untested
from transforms.domain.steps import ShardSettings

RULE: dict[str, Any] = {
    "name": "r",
    "version": 1,
    "filter": "event.go",
    "actions": [{"type": "debug", "name": "first"}, {"type": "kafka", "name": "second"}],
}


def differences(folder: Path, case: dict[str, Any], filter_: str = "event.go", **settings: Any) -> list[str]:
    """Of one case of a rule; the place of the files is left out of messages."""
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(RULE | {"filter": filter_, "tests": [{"name": "case"} | case]}, sort_keys=False))
    found = read_rule_files(path)
    assert [str(problem) for problem in found.problems] == []
    (result,) = run_cases(found.rules[0], ShardSettings(**settings))
    assert result.passed is not result.differences
    return [line.replace(f"{folder}/", "") for line in result.differences]


GO = {"go": True}


@pytest.mark.parametrize(
    ("case", "filter_"),
    [
        ({"events": [GO], "expect": ["first", "second"]}, "event.go"),
        ({"events": [{}], "expect": "nothing"}, "event.go"),
        ({"events": [{}], "expect": []}, "event.go"),
        ({"events": [{}], "expect": {"error": "index field 'a'"}}, "event.a.b"),
        ({"events": [{}, GO], "expect": [{"action": "first", "event": 2}, "second"]}, "event.go"),
        ({"profile": {"country": "US"}, "events": [GO], "expect": ["first", "second"]}, "user.country == 'US'"),
        ({"profile": "unknown", "events": [GO], "expect": ["first", "second"]}, "user.enrichment == 'unknown'"),
        ({"profile": "unavailable", "events": [GO], "expect": ["first", "second"]}, "user.enrichment == 'unavailable'"),
        (
            {
                "visit": {"page_count": 4, "is_first_visit": True},
                "events": [{"event_type": "pageview"}],
                "expect": ["first", "second"],
            },
            "visit.page_count == 5 and visit.is_first_visit and visit.start_time == event.timestamp - 60000",
        ),
        (
            {
                "now": "2024-05-06T07:08:09+02:00",
                "history": [{"event_name": "a", "ago": "1h"}, {"event_name": "b"}, {"event_name": "c"}],
                "events": [{"after": "9m"}],
                "expect": ["first", "second"],
            },
            "event.timestamp == 1714972089000 + 540000 and #history == 3 and history[1].timestamp == "
            "1714972089000 - 3600000 and history[2].event_name == 'b' and history[3].timestamp == 1714972089000 - 1000",
        ),
        ({"events": [{"user_id": "me"}], "expect": ["first", "second"]}, "event.user_id == 'me'"),
        # An hour later the user has expired and is loaded again, as the user API knows them.
        (
            {
                "profile": {"country": "US"},
                "events": [{}, {"after": "1h", "go": True}],
                "expect": [{"action": "first", "event": 2}, {"action": "second", "event": 2}],
            },
            "event.go and user.country == 'US' and #history == 0",
        ),
        (
            {"events": [GO], "expect": [{"action": "first", "body": {"event": {"go": True}}}, {"action": "second"}]},
            "event.go",
        ),
    ],
)
def test_a_case_that_holds(tmp_path: Path, case: dict[str, Any], filter_: str) -> None:
    assert differences(tmp_path, case, filter_) == []


@pytest.mark.parametrize(
    ("case", "filter_", "shown"),
    [
        (
            {"events": [{}], "expect": ["first", "second"]},
            "event.go",
            ["expected  first, second", "but fired nothing"],
        ),
        (
            {"events": [GO], "expect": "nothing"},
            "event.go",
            ["expected  nothing", "but fired first for event 1, second for event 1"],
        ),
        (
            {"events": [GO], "expect": ["second", "first"]},
            "event.go",
            ["expected  second, first", "but fired first for event 1, second for event 1"],
        ),
        (
            {"events": [{}, GO], "expect": [{"action": "first", "event": 1}, "second"]},
            "event.go",
            ["expected  first for event 1, second", "but fired first for event 2, second for event 2"],
        ),
        (
            {"events": [{}], "expect": {"error": "no such"}},
            "event.go",
            ["expected the error 'no such'", "there was none"],
        ),
        (
            {"events": [{}], "expect": {"error": "no such"}},
            "event.a.b",
            ["expected the error 'no such'", "r.yaml:3: attempt to index field 'a' (a nil value)"],
        ),
        (
            {"events": [{}], "expect": "nothing"},
            "event.a.b",
            ["error at r.yaml:3: attempt to index field 'a' (a nil value)"],
        ),
        (
            {"events": [{"event_name": 5}], "expect": "nothing"},
            "event.go",
            ["event 1 is refused: wrong_type: event_name is a int, allowed is str"],
        ),
        (
            {"history": [{"platform": "ios"}], "events": [{}], "expect": "nothing"},
            "event.go",
            ["history has the field 'platform': the pipeline keeps it only with --history_fields=platform"],
        ),
        (
            {"events": [GO], "expect": [{"action": "first", "body": {"event": {"go": False}, "x": 1}}, "second"]},
            "event.go",
            [
                "body of first for event 1:",
                "--- expected",
                "+++ fired",
                "@@ -1,6 +1,5 @@",
                " {",
                '   "event": {',
                '-    "go": false',
                "-  },",
                '-  "x": 1',
                '+    "go": true',
                "+  }",
                " }",
            ],
        ),
    ],
)
def test_a_case_that_does_not_hold_says_what_differs(
    tmp_path: Path, case: dict[str, Any], filter_: str, shown: list[str]
) -> None:
    assert differences(tmp_path, case, filter_) == shown


def test_history_fields_are_there_where_the_pipeline_keeps_them(tmp_path: Path) -> None:
    case = {"history": [{"platform": "ios"}], "events": [{"platform": "web"}, {}], "expect": ["first", "second"]}
    filter_ = "#history == 2 and history[1].platform == 'ios' and history[2].platform == 'web'"
    assert differences(tmp_path, case, filter_, history_fields=("platform",)) == []


def test_events_of_two_users_are_no_case(tmp_path: Path) -> None:
    case = {"name": "c", "events": [{"user_id": "a"}, {"user_id": "b"}], "expect": "nothing"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RULE | {"tests": [case]}, sort_keys=False))
    (problem,) = read_rule_files(tmp_path).problems
    assert problem.detail == "tests.0: events are of one user, these are of ['a', 'b']"


@pytest.mark.parametrize(
    ("filter_", "message"),
    [
        ("event.event_name == 'x'", None),
        ("event.parameters.deep.er", "attempt to index field 'deep' (a nil value)"),
        ("while true do end return true", "over budget: more than 50 ms of CPU"),
    ],
)
def test_a_dry_call(tmp_path: Path, filter_: str, message: str | None) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RULE | {"filter": filter_}, sort_keys=False))
    said = dry_call(read_rule_files(tmp_path).rules[0])
    assert said == message or (said is not None and message is not None and said.endswith(f": {message}"))


def test_rules_without_a_case_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RULE))
    assert [rule.name for rule in untested(read_rule_files(tmp_path).rules)] == ["r"]
