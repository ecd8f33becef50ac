from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.builders import read_rule_files
from transforms.adapters.lua.engines import LuaEngines
from transforms.domain.rules.cases import Case
from transforms.domain.shard.step_input import ShardSettings
from transforms.domain.simulation.case_runner import dry_call, run_cases

RULE: dict[str, Any] = {
    "name": "r",
    "version": 1,
    "filter": "event.go",
    "actions": [{"type": "debug", "name": "first"}, {"type": "kafka", "name": "second"}],
}


def differences(
    folder: Path, case: dict[str, Any], filter_: str = "event.go", rule: dict[str, Any] | None = None, **settings: Any
) -> list[str]:
    """Run one case of a rule and return its differences, without the folder in messages."""
    path = folder / "r.yaml"
    path.write_text(
        yaml.safe_dump(RULE | (rule or {}) | {"filter": filter_, "tests": [{"name": "case"} | case]}, sort_keys=False)
    )
    rule_files = read_rule_files(path)
    assert [str(problem) for problem in rule_files.problems] == []
    (result,) = run_cases(rule_files.rules[0], ShardSettings(**{"allowed_lateness_ms": 0} | settings), LuaEngines())
    assert result.passed is not result.differences
    return [line.replace(f"{folder}/", "") for line in result.differences]


GO = {"go": True}
NAMES = ("first", "second")


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
            {"history": [{"parameters": {"sku": 1, "cart": {"id": 1}}}], "events": [{}], "expect": "nothing"},
            "event.go",
            ["history has the field 'parameters': the pipeline keeps it only with --history_fields=parameters"],
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


def test_history_has_the_fields_that_the_pipeline_keeps(tmp_path: Path) -> None:
    case = {"history": [{"platform": "ios"}], "events": [{"platform": "web"}, {}], "expect": ["first", "second"]}
    filter_ = "#history == 2 and history[1].platform == 'ios' and history[2].platform == 'web'"
    assert differences(tmp_path, case, filter_, history_fields=("platform",)) == []


def test_history_has_the_parts_of_fields_that_the_pipeline_keeps(tmp_path: Path) -> None:
    past, live = {"parameters": {"sku": 1}}, {"parameters": {"sku": 2, "cart": {"id": 3}}}
    other = {"parameters": {"sku": 4, "cart": {"id": 5}}}
    filter_ = "#history == 2 and history[1].parameters.sku == 1 and history[2].parameters.sku == 2"
    case = {"history": [past], "events": [live, {}], "expect": ["first", "second"]}
    assert differences(tmp_path, case, filter_, history_fields=("parameters.sku",)) == []
    problem = (
        "history has the field 'parameters.cart': the pipeline keeps it only with --history_fields=parameters.cart"
    )
    assert differences(tmp_path, case | {"history": [other]}, filter_, history_fields=("parameters.sku",)) == [problem]


def test_a_case_with_events_of_two_users_is_refused(tmp_path: Path) -> None:
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
    error = dry_call(read_rule_files(tmp_path).rules[0], LuaEngines())
    assert error == message or (error is not None and message is not None and error.endswith(f": {message}"))


PENDING_RULE = "event.go and (user.enrichment or 'fetched') == event.expected"


def expecting(enrichment: str, **fields: Any) -> dict[str, Any]:
    return {"go": True, "expected": enrichment} | fields


@pytest.mark.parametrize(
    ("policy", "events", "wait", "fired"),
    [
        # Evaluated at once, by the empty profile of a user who is pending; the user API fails after 10 s.
        ("run", [expecting("pending")], None, [1]),
        (
            "run",
            [expecting("pending"), expecting("pending", after="10s"), expecting("unavailable", after="1s")],
            None,
            [1, 2, 3],
        ),
        # After the pause of 30 s the user is fetched again, which fails again: the profile stays what it is.
        ("run", [expecting("pending"), expecting("unavailable", after="1m")], None, [1, 2]),
        (
            "skip",
            [expecting("pending"), expecting("pending", after="1s"), expecting("unavailable", after="1m")],
            "1m",
            [],
        ),
        # Waits for the answer, which does not come.
        ("wait", [expecting("unavailable")], None, []),
        ("wait", [expecting("unavailable")], "9s", []),
        ("wait", [expecting("unavailable")], "10s", [1]),
        ("wait", [expecting("unavailable"), expecting("unavailable", after="9s")], "1s", [1, 2]),
        ("wait", [expecting("unavailable"), expecting("unavailable", after="11s")], None, [1, 2]),
    ],
)
def test_a_case_may_have_a_pending_user(
    tmp_path: Path, policy: str, events: list[dict[str, Any]], wait: str | None, fired: list[int]
) -> None:
    expected = [{"action": name, "event": number} for number in fired for name in ("first", "second")]
    case = {"profile": "pending", "events": events, "expect": expected} | ({"wait": wait} if wait else {})
    assert differences(tmp_path, case, PENDING_RULE, {"on_missing_profile": policy}) == []


def test_a_sequence_that_is_over_waits_for_the_user(tmp_path: Path) -> None:
    rule = {"on_missing_profile": "run", "sequence": {"not_followed_by": "event.event_name == 'b'", "within": "5s"}}
    case = {"profile": "pending", "events": [{"go": True}], "expect": "nothing"}
    fires = [{"action": name, "event": 1, "body": {"userProfile": {"enrichment": "unavailable"}}} for name in NAMES]
    assert differences(tmp_path, case | {"wait": "9s"}, "event.go", rule) == []
    assert differences(tmp_path, case | {"wait": "10s", "expect": fires}, "event.go", rule) == []


@pytest.mark.parametrize("given", [{"visit": {}}, {"history": [{}]}])
def test_a_pending_user_has_neither_visit_nor_history(given: dict[str, Any]) -> None:
    case = {"name": "n", "profile": "pending", "events": [{}], "expect": "nothing"}
    with pytest.raises(ValidationError, match="a user who is pending has neither"):
        Case.model_validate(case | given)


def test_webhooks_and_custom_bodies_are_actions_like_others(tmp_path: Path) -> None:
    webhook = {"type": "webhook", "destination": "shop", "body": {"who": "${event.user_id}"}}
    case = {
        "events": [{}, GO, {"go": True, "after": "1m"}],
        "expect": [
            {"action": "webhook", "event": 2, "body": {"who": "user"}},
            {"action": "webhook", "event": 3},
        ],
    }
    assert differences(tmp_path, case, "event.go", {"actions": [webhook]}) == []


def test_no_webhook_waits_for_others(tmp_path: Path) -> None:
    webhook = {"type": "webhook", "destination": "shop"}
    case = {"events": [dict(GO) for _ in range(150)], "expect": ["webhook"] * 150}
    assert differences(tmp_path, case, "event.go", {"actions": [webhook]}) == []


# Noon of the second, in UTC; a phone that was offline sends ten events of the day before, three minutes or hours apart.
NOON_MS = 1_704_196_800_000
OFFLINE = {"minutes": 3, "hours": 180}


@pytest.mark.parametrize("apart", OFFLINE)
@pytest.mark.parametrize(
    ("fields", "fired"),
    [
        ({"cap": {"count": 2, "window": "2h"}}, [1, 2]),
        ({"cap": {"count": 1, "per": "day"}}, [1]),
        ({"cap": {"count": 2, "per": "day"}, "time_zone": {"default": "Asia/Tokyo"}}, [1, 2]),
        ({"cap": {"count": 3, "per": "month"}}, [1, 2, 3]),
        ({"cooldown": "1h"}, [1]),
        ({"cooldown": {"time": "1h", "key": "event.parameters.sku"}}, [1, 2]),
        ({"cooldown": {"time": "1h", "key": "event.parameters.sku"}, "cap": {"count": 1, "window": "1h"}}, [1]),
        ({"cooldown": "1m", "cap": {"count": 5, "per": "week"}}, [1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_reversed", [False, True], ids=["oldest first", "newest first"])
def test_events_of_the_day_before_that_come_at_once_are_stopped_as_if_they_were_of_today(
    tmp_path: Path, fields: dict[str, Any], fired: list[int], apart: str, is_reversed: bool
) -> None:
    times = [NOON_MS - 30 * 3_600_000 + number * OFFLINE[apart] * 60_000 for number in range(10)]
    events = [
        {"go": True, "timestamp": at_ms, "parameters": {"sku": f"s{number % 2}"}}
        for number, at_ms in enumerate(reversed(times) if is_reversed else times)
    ]
    case = {
        "now": "2024-01-02T12:00:00Z",
        "events": events,
        "expect": [{"action": name, "event": number} for number in fired for name in NAMES],
    }
    assert differences(tmp_path, case, "event.go", fields) == []


def test_the_cap_of_late_events_is_over_when_the_clock_has_passed_it(tmp_path: Path) -> None:
    events = [
        {"go": True, "timestamp": NOON_MS - 86_400_000 + number, "after": after}
        for number, after in enumerate(("1s", "1s", "118m", "119s", "1s"))
    ]
    expected = [{"action": name, "event": number} for number in (1, 2, 5) for name in NAMES]
    case = {"now": "2024-01-02T12:00:00Z", "events": events, "expect": expected}
    assert differences(tmp_path, case, "event.go", {"cap": {"count": 2, "window": "2h"}}) == []


def test_sequences_of_the_day_before_that_end_at_once_are_stopped_as_if_they_were_of_today(tmp_path: Path) -> None:
    sequence = {"not_followed_by": "event.bought", "within": "30m", "match": "parameters.cart"}
    events = [
        {"go": True, "timestamp": NOON_MS - 86_400_000 + number * 3 * 3_600_000, "parameters": {"cart": number}}
        for number in range(5)
    ]
    expected = [{"action": name, "event": number} for number in (1, 2) for name in NAMES]
    case = {"now": "2024-01-02T12:00:00Z", "events": events, "wait": "1h", "expect": expected}
    fields = {"sequence": sequence, "cap": {"count": 2, "window": "2h"}}
    assert differences(tmp_path, case, "event.go", fields) == []
