from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.builders import read_rule_files
from tests.transforms.domain.simulation.test_case_runner import RULE
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.cases import Case
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.explain import Explanation, explain


def explained(folder: Path, filter_: str, rule: Any = None, **given: Any) -> Explanation:
    (folder / "r.yaml").write_text(yaml.safe_dump(RULE | {"filter": filter_} | (rule or {}), sort_keys=False))
    (loaded,) = read_rule_files(folder).rules
    case = Case.model_validate({"name": "c", "events": [{}], "expect": "nothing"} | given)
    return explain(loaded, case, ShardSettings(allowed_lateness_ms=0), LuaEngines())


def test_each_condition_has_its_value_unless_lua_does_not_reach_it(tmp_path: Path) -> None:
    explanation = explained(
        tmp_path,
        'event.a == 1 and (user.country == "US" or #history > 0) and not event.b.c and event.d',
        profile={"country": "DE"},
        events=[{"a": 1.0, "b": {"c": 7}}],
    )
    assert not explanation.fires
    assert [line.strip() for line in explanation.lines] == [
        'false  event.a == 1 and (user.country == "US" or #history > 0) and…',
        "true   event.a == 1   (event.a is 1)",
        'false  user.country == "US" or #history > 0',
        'false  user.country == "US"   (user.country is "DE")',
        "false  #history > 0   (#history is 0)",
        "-      not event.b.c",
        "-      event.b.c",
        "-      event.d",
    ]


@pytest.mark.parametrize(
    ("filter_", "given", "fires", "first"),
    [
        ("event.x", {"events": [{"x": "ü %"}]}, True, '"ü %"'),
        ("event.x", {"events": [{"x": {"a": 1}}]}, True, "table"),
        ("event.x", {}, False, "nil"),
        ("event.x.y", {}, False, "error: attempt to index field 'x' (a nil value)"),
        ("visit.page_count", {"visit": {"page_count": 4}, "events": [{"event_type": "pageview"}]}, True, "5"),
        ("#history", {"history": [{}, {}], "events": [{}, {}]}, True, "3"),
    ],
)
def test_the_state_is_the_one_that_the_filter_sees(
    tmp_path: Path, filter_: str, given: dict[str, Any], fires: bool, first: str
) -> None:
    explanation = explained(tmp_path, filter_, **given)
    assert explanation.fires is fires
    assert explanation.lines[0].strip().startswith(first)


def test_a_body_is_not_split_into_conditions(tmp_path: Path) -> None:
    explanation = explained(tmp_path, "return true")
    assert (explanation.fires, explanation.lines) == (
        True,
        ["  its filter is a body with return: only expressions can be taken apart"],
    )


def test_an_event_that_is_refused_says_why(tmp_path: Path) -> None:
    explanation = explained(tmp_path, "true", events=[{"event_name": 1}])
    assert (explanation.fires, explanation.lines) == (False, [])
    assert explanation.problems == ["event 1 is refused: wrong_type: event_name is a int, allowed is str"]


@pytest.mark.parametrize(
    ("rule", "fires", "text"),
    [
        ({"cooldown": "1h"}, False, "stopped by its cooldown"),
        ({"cap": {"count": 1, "window": "1h"}}, False, "stopped by its cap"),
        ({"cap": {"count": 2, "window": "1h"}}, True, None),
        ({"quiet_hours": {"start": "11:00", "end": "13:00"}}, False, "held: it is quiet hours"),
        ({"sequence": {"not_followed_by": "false", "within": "1h"}}, False, "begins a sequence"),
        ({"sequence": {"followed_by": "true", "within": "1h"}}, True, "follows the event that began a sequence"),
    ],
)
def test_what_stops_a_rule_that_its_filter_allows(tmp_path: Path, rule: Any, fires: bool, text: str | None) -> None:
    explanation = explained(tmp_path, "event.go", rule, events=[{"go": True}, {"go": True, "after": "1m"}])
    assert explanation.fires is fires
    assert text is None or f"  {text}" in explanation.lines
    assert any("begins" in line for line in explanation.lines) is ("sequence" in rule)
    assert any(line.startswith(f"  {name}:") for line in explanation.lines for name in rule)


def test_policies_caps_keys_and_sequences_are_shown(tmp_path: Path) -> None:
    explanation = explained(
        tmp_path,
        "event.a == 1",
        {
            "on_missing_profile": "run",
            "sequence": {"not_followed_by": "event.a == 2 or user.b", "within": "30m", "match": "parameters.cart"},
            "cooldown": {"time": "1d", "key": "event.parameters.sku"},
            "cap": {"count": 2, "per": "day"},
            "quiet_hours": {"start": "22:00", "end": "08:00"},
        },
        profile={"timezone": "Europe/Berlin"},
        events=[{"a": 1, "parameters": {"cart": "c1", "sku": "s1"}}],
    )
    assert explanation.lines == [
        "  true   event.a == 1   (event.a is 1)",
        "  on_missing_profile: run, and the profile is fetched",
        '  sequence: not_followed_by within 30m, match parameters.cart is "c1"; as an event that follows:',
        "    nil    event.a == 2 or user.b",
        "      false  event.a == 2   (event.a is 1)",
        "      nil    user.b",
        '  cooldown: 1d, for each key event.parameters.sku, which is "s1"',
        "  cap: 2 a day of Europe/Berlin",
        "  quiet_hours: 22:00 to 08:00 of Europe/Berlin",
        "  begins a sequence",
    ]


def test_steps_active_hours_and_quiet_days_are_shown(tmp_path: Path) -> None:
    explanation = explained(
        tmp_path,
        "local_time.hour == 13 and event.a == 1",
        {
            "active": {"days": ["sat", "sun"], "from": "09:00"},
            "sequence": {
                "steps": [
                    {"followed_by": "event.a == 2", "within": "1h"},
                    {"not_followed_by": "local_time.hour < 9", "within": "1d"},
                ],
                "match": {"begun": "parameters.sku", "followed": "parameters.items[].sku"},
            },
            "cooldown": {"time": "1d", "key": "local_time.date"},
            "quiet_hours": {"start": "22:00", "end": "08:00", "days": ["fri", "sat"], "mode": "drop"},
        },
        profile={"timezone": "Europe/Berlin"},
        events=[{"a": 1, "parameters": {"items": [{"sku": "s1"}, {"sku": "s2"}]}}],
    )
    match = 'match parameters.sku is missing and parameters.items[].sku is "s1", "s2"'
    assert explanation.lines == [
        "  true   local_time.hour == 13 and event.a == 1",
        "    true   local_time.hour == 13   (local_time.hour is 13)",
        "    true   event.a == 1   (event.a is 1)",
        "  active: sat, sun 09:00 to 24:00 of Europe/Berlin, and the event is on mon at 13:00",
        f"  sequence: step 1 of 2: followed_by within 1h, {match}; as an event that follows:",
        "    false  event.a == 2   (event.a is 1)",
        f"  sequence: step 2 of 2: not_followed_by within 1d, {match}; as an event that follows:",
        "    false  local_time.hour < 9   (local_time.hour is 13)",
        '  cooldown: 1d, for each key local_time.date, which is "2024-01-01"',
        "  quiet_hours: fri, sat 22:00 to 08:00 of Europe/Berlin: actions are dropped",
        "  outside of its active days and hours",
    ]


def test_an_error_in_a_step_names_the_step(tmp_path: Path) -> None:
    steps = [{"followed_by": "true", "within": "1h"}, {"followed_by": "event.a.b.c", "within": "1h"}]
    explanation = explained(tmp_path, "true", {"sequence": {"steps": steps}})
    (problem,) = explanation.problems
    assert problem.endswith(": sequence.steps.1.followed_by: attempt to index field 'a' (a nil value)")


def test_a_rule_that_skips_an_event_without_a_profile_says_so(tmp_path: Path) -> None:
    explanation = explained(tmp_path, "true", {"on_missing_profile": "skip"}, profile="unavailable")
    assert not explanation.fires
    assert explanation.lines == [
        "  true   true",
        "  on_missing_profile: skip, and the profile is unavailable: this event is skipped",
    ]


def test_an_error_in_a_key_names_the_key_and_its_line(tmp_path: Path) -> None:
    for key, message in (
        ("event.parameters", "a table as value: allowed are text, numbers, true and false"),
        ("event.parameters.a.b", "attempt to index field 'a' (a nil value)"),
    ):
        explanation = explained(tmp_path, "true", {"cooldown": {"time": "1d", "key": key}})
        lines = (tmp_path / "r.yaml").read_text().split("\n")
        assert [problem.partition("r.yaml:")[2] for problem in explanation.problems] == [
            f"{lines.index('  key: ' + key) + 1}: cooldown.key: {message}"
        ]
        value = "table" if key == "event.parameters" else f"error: {message}"
        assert explanation.lines[-1] == f"  cooldown: 1d, for each key {key}, which is {value}"
