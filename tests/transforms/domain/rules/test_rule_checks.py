"""What check says of rules that run, but not as their authors mean them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.builders import read_rule_files
from transforms.domain.rules.field_schema import FieldSchema
from transforms.domain.rules.rule_checks import examine

RULE = """\
name: r
version: 1
filter: FILTER
actions:
  - type: webhook
    destination: crm
    body: {a: "BODY"}
tests:
  - name: a case
    profile: {country: US, address: {city: Bonn}}
    events: [{loyalty: gold, parameters: {sku: a, cart: {total: 1}, items: [{size: 1}]}}]
    expect: nothing
"""


NO_FIELD = "the specification has no such field"
NO_TEST = "which no test gives a value"
BY = "by the specification"


def checked(
    folder: Path, lua: str = "event.triggerable", body: str = "x", schema: Any = None, more: str = ""
) -> tuple[list[str], list[str]]:
    """The warnings, and what the next release refuses, without their file."""
    path = folder / "r.yaml"
    path.write_text(RULE.replace("FILTER", lua).replace("BODY", body) + more)
    files = read_rule_files(path)
    assert files.problems == []
    examine(files, None if schema is None else FieldSchema(schema, "s.json"))
    return (
        [str(problem).removeprefix(f"{path}:") for problem in files.warnings],
        [str(problem).removeprefix(f"{path}:") for problem in files.refused_next],
    )


@pytest.mark.parametrize(
    ("lua", "warning"),
    [
        ('event.event_nam == "x"', f"3: filter reads event.event_nam: {NO_FIELD}; did you mean 'event_name'?"),
        ("event['eventName']", f"3: filter reads event.eventName: {NO_FIELD}; did you mean 'event_name'?"),
        ("event.name", f"3: filter reads event.name: {NO_FIELD}; did you mean 'event_name'?"),
        (
            "|\n  local e = history[1]\n  return e.timestmp",
            f"5: filter reads history[…].timestmp: {NO_FIELD}; did you mean 'timestamp'?",
        ),
        (
            "|\n  count{where=function(e)\n    return e.platfrm == event.platform\n  end} > 1",
            f"5: filter reads history[…].platfrm: {NO_FIELD}; did you mean 'platform'?",
        ),
        (
            'distinct{of="parmeters.sku"} > 1',
            f"3: filter reads history[…].parmeters: {NO_FIELD}; did you mean 'parameters'?",
        ),
        ("last{}.event_nam", f"3: filter reads history[…].event_nam: {NO_FIELD}; did you mean 'event_name'?"),
        (
            'local_time.weekday == "mon"',
            f'3: filter local_time.weekday == "mon" is always false: {BY} local_time.weekday is a number',
        ),
        (
            "local_time.hour == 24",
            "3: filter local_time.hour == 24 is always false: not among the values of the specification",
        ),
        ("event.zebra", f"3: filter reads event.zebra: {NO_FIELD}, and no test gives it a value"),
        ("user.contry", f"3: filter reads user.contry, {NO_TEST}; did you mean 'country'?"),
        ("user.adress and user.adress.city", f"3: filter reads user.adress, {NO_TEST}; did you mean 'address'?"),
        ("user.address.citty", f"3: filter reads user.address.citty, {NO_TEST}; did you mean 'city'?"),
        ("event.parameters.skuu", f"3: filter reads event.parameters.skuu, {NO_TEST}; did you mean 'sku'?"),
        (
            'event.triggerable == "true"',
            f'3: filter event.triggerable == "true" is always false: {BY} event.triggerable is true or false',
        ),
        ("event.platform ~= 1", f"3: filter event.platform ~= 1 is always true: {BY} event.platform is a text"),
        ('event.timestamp > "5"', f'3: filter event.timestamp > "5" fails: {BY} event.timestamp is a number'),
        (
            'event.parameters == "x"',
            f'3: filter event.parameters == "x" is always false: {BY} event.parameters is an object',
        ),
    ],
)
def test_a_name_that_no_event_has_is_a_warning(tmp_path: Path, lua: str, warning: str) -> None:
    warnings, refused = checked(tmp_path, lua)
    assert dict.fromkeys(warnings) == {warning: None}
    assert refused == []


@pytest.mark.parametrize(
    "lua",
    [
        'event.event_name == "x" and user.country == "US" and visit.page_count > 3 and event.timestamp > 5',
        'event.loyalty == "gold" and event.parameters.cart.total > 5 and event.parameters.items[1].size == 1',
        "user.enrichment and user.plan and event.parameters.whatever",
        "event.duration == 1.5 and event.platform == nil",
        "history[#history].event_name == event.event_name",
        'local_time.hour >= 9 and local_time.date ~= "2024-12-24" and local_time.weekday <= 5',
        'bucket(event.user_id, "a") < 10 and days_between(user.since, event.timestamp) > 1 and history_since < 5',
        "count{within='1h', where=function(e) return e.parameters.sku == event.parameters.sku end} == 2",
    ],
)
def test_fields_that_are_known_are_no_warning(tmp_path: Path, lua: str) -> None:
    assert checked(tmp_path, lua) == ([], [])


def test_a_field_that_can_have_no_value_is_refused(tmp_path: Path) -> None:
    assert checked(tmp_path, "visit.pages > 1", "${visit.pages}") == (
        [],
        [
            "3: filter reads visit.pages: visit has no such field; did you mean 'page_count'?",
            "7: actions.0.body.a: ${visit.pages} has no value; did you mean 'page_count'?",
        ],
    )
    assert checked(tmp_path, "event.event_name.length")[1] == [
        "3: filter reads event.event_name.length: event.event_name has no such field"
    ]


@pytest.mark.parametrize(
    ("lua", "body", "refused"),
    [
        (
            "local_time.hours > 9",
            "x",
            "3: filter reads local_time.hours: local_time has no such field; did you mean 'hour'?",
        ),
        (
            "history.length > 5",
            "x",
            "3: filter reads history.length: history has no such field",
        ),
        (
            'count{evnt="a"} > 1',
            "x",
            "3: filter: count has the option 'evnt'; did you mean 'event'?; allowed: event, within, where",
        ),
        ("event.triggerable", "${visit[1]}", "7: actions.0.body.a: ${visit[1]} has no value: visit is no list"),
        (
            "event.triggerable",
            "${action.ruel|none}",
            "7: actions.0.body.a: ${action.ruel} has no value; did you mean 'rule'?",
        ),
    ],
)
def test_what_the_language_has_not_is_refused(tmp_path: Path, lua: str, body: str, refused: str) -> None:
    assert checked(tmp_path, lua, body) == ([], [refused])


def test_every_step_both_sides_of_match_and_begun_are_checked(tmp_path: Path) -> None:
    more = """\
sequence:
  steps:
    - {followed_by: event.plattform == "a", within: 1h}
    - within: 1d
      not_followed_by: |
        event.event_name == "b" and
          visit.pages > 1
  match: {begun: parametrs.sku, followed: "parametrs.items[].sku"}
"""
    warnings, refused = checked(tmp_path, body="${begun.event_nam} ${history[-1].platfrm} ${history[1]}", more=more)
    assert warnings == [
        f"15: sequence.steps.0.followed_by reads event.plattform: {NO_FIELD}; did you mean 'platform'?",
        f"20: sequence.match.begun reads event.parametrs: {NO_FIELD}; did you mean 'parameters'?",
        f"20: sequence.match.followed reads event.parametrs: {NO_FIELD}; did you mean 'parameters'?",
        f"7: actions.0.body.a reads begun.event_nam: {NO_FIELD}; did you mean 'event_name'?",
        f"7: actions.0.body.a reads history[…].platfrm: {NO_FIELD}; did you mean 'platform'?",
    ]
    assert refused == [
        "19: sequence.steps.1.not_followed_by reads visit.pages: visit has no such field; did you mean 'page_count'?"
    ]


def test_a_schema_knows_items_that_match_and_names_that_are_counted(tmp_path: Path) -> None:
    item = {"properties": {"sku": {"type": "string"}}, "additionalProperties": False}
    parameters = {"properties": {"items": {"type": "array", "items": item}, "sku": {"type": "string"}}}
    schema = {
        "properties": {"event": {"properties": {"parameters": parameters, "event_name": {"enum": ["view", "buy"]}}}}
    }
    match = "{begun: parameters.sku, followed: 'parameters.items[].SKU'}"
    more = f"sequence: {{followed_by: 'true', within: 1h, match: {match}}}\n"
    assert checked(tmp_path, 'count{event="veiw"} > 1', "${event.parameters.items[1].skuu}", schema, more) == (
        [
            '3: filter history[…].event_name == "veiw" is always false: not among the values of s.json; '
            "did you mean 'view'?"
        ],
        [
            "13: sequence.match.followed reads event.parameters.items[…].SKU: "
            "event.parameters.items[…] has no such field; "
            "did you mean 'sku'?",
            "7: actions.0.body.a reads event.parameters.items[…].skuu: event.parameters.items[…] has no such field; "
            "did you mean 'sku'?",
        ],
    )


def test_a_cut_text_and_a_slip_in_a_step_name_the_step(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    steps = "sequence:\n  steps:\n  - {followed_by: 'true', within: 1h}\n  - within: 1h\n    not_followed_by: LUA\n"
    text = RULE.replace("FILTER", "event.triggerable").replace("BODY", "x") + steps
    path.write_text(text.replace("LUA", "event.a == 1 and (event.b or #history > 5)"))
    (problem,) = read_rule_files(path).problems
    assert str(problem).startswith(f"{path}:17: sequence.steps.1.not_followed_by does not compile: it ends before")
    assert "YAML takes '#history > 5)' for a comment" in str(problem)
    path.write_text(text.replace("LUA", "event.a && event.b"))
    (problem,) = read_rule_files(path).problems
    assert str(problem).endswith("; `&&`: Lua writes `and`")
    path.write_text(text.replace("LUA", "lcal_time.hour > 1 or conut{} > 1 or event_name or country"))
    problems = [str(problem).partition("reads ")[2] for problem in read_rule_files(path).problems]
    assert problems == [
        "'conut': there is no such name; did you mean 'count'?",
        "'country': there is no such name",
        "'event_name': there is no such name; did you mean 'event.event_name'?",
        "'lcal_time': there is no such name; did you mean 'local_time'?",
    ]


def test_names_outside_of_filters_are_checked(tmp_path: Path) -> None:
    more = (
        "sequence: {followed_by: 'event.plattform', within: 1m, match: parametrs.sku}\n"
        "cooldown: {time: 1d, key: event.user}\n"
        "time_zone: {profile_field: countri}\n"
    )
    warnings, refused = checked(tmp_path, body="${event.tmestamp}", more=more)
    assert warnings == [
        "13: sequence.followed_by reads event.plattform: the specification has no such field; did you mean 'platform'?",
        "14: cooldown.key reads event.user: the specification has no such field; did you mean 'user_id'?",
        "13: sequence.match reads event.parametrs: the specification has no such field; did you mean 'parameters'?",
        "15: time_zone.profile_field reads user.countri, which no test gives a value; did you mean 'country'?",
        "7: actions.0.body.a reads event.tmestamp: the specification has no such field; did you mean 'timestamp'?",
    ]
    assert refused == []


def test_a_name_in_a_lua_file_has_its_place(tmp_path: Path) -> None:
    (tmp_path / "f.lua").write_text("-- first\nreturn event.event_nam\n")
    path = tmp_path / "r.yaml"
    path.write_text(RULE.replace("filter: FILTER", "filter_file: f.lua"))
    files = read_rule_files(path)
    examine(files)
    assert str(files.warnings[0]).startswith(f"{tmp_path}/f.lua:2: filter reads event.event_nam: ")


SCHEMA = {
    "properties": {
        "event": {
            "properties": {
                "parameters": {"properties": {"sku": {"type": "string"}, "price": {"type": "number"}}},
            },
            "additionalProperties": False,
        },
        "user": {"properties": {"country": {"enum": ["US", "DE"]}}},
    }
}


def test_a_schema_of_a_team_knows_its_fields(tmp_path: Path) -> None:
    assert checked(tmp_path, 'event.parameters.price > 5 and user.country == "US"', schema=SCHEMA) == ([], [])
    lua = 'event.parameters.pric > 5 and event.parameters.sku == 5 and user.country == "USA" and user.age'
    assert checked(tmp_path, lua, "${user.contry}", SCHEMA) == (
        [
            "3: filter reads event.parameters.pric: s.json has no such field; did you mean 'price'?",
            "3: filter event.parameters.sku == 5 is always false: by s.json event.parameters.sku is a text",
            "3: filter user.country == \"USA\" is always false: not among the values of s.json; did you mean 'US'?",
            "3: filter reads user.age: s.json has no such field",
            "7: actions.0.body.a reads user.contry: s.json has no such field; did you mean 'country'?",
        ],
        [],
    )


def test_a_closed_schema_makes_an_unknown_field_an_error(tmp_path: Path) -> None:
    assert checked(tmp_path, "event.event_nam", schema=SCHEMA) == (
        [],
        ["3: filter reads event.event_nam: event has no such field; did you mean 'event_name'?"],
    )


def test_a_rule_without_tests_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RULE.replace("FILTER", "event.triggerable").partition("tests:")[0])
    files = read_rule_files(path)
    examine(files)
    assert [str(problem) for problem in files.warnings] == [
        f"{path}:1: r has no test: a case under tests shows that it fires where it should"
    ]


def test_what_looks_like_a_placeholder_of_another_language_is_a_warning(tmp_path: Path) -> None:
    assert checked(tmp_path, body="Hello {{user.name}}") == (
        ["7: actions.0.body.a: '{{user.name}}' is sent as it is, a placeholder is written ${event.event_name}"],
        [],
    )


COMMENT = "write the text in quotes, or below a | on lines of its own"
MEANT = "a comment that is meant begins with '# '"


def test_a_text_that_yaml_cuts_is_refused(tmp_path: Path) -> None:
    more = "description: more than one #hashtag\ntime_zone: {default: UTC} # a comment\n"
    assert checked(tmp_path, "event.triggerable #and history", more=more) == (
        [],
        [
            f"3: filter: YAML takes '#and history' for a comment: {COMMENT}; {MEANT}",
            f"13: description: YAML takes '#hashtag' for a comment: {COMMENT}; {MEANT}",
        ],
    )


@pytest.mark.parametrize(
    "lua",
    [
        "event.triggerable # a comment",
        "event.triggerable #",
        "'event.triggerable and #history > 5' #note",
        "|\n  event.triggerable and #history > 5",
        "event.triggerable and(#history > 5)",
    ],
)
def test_a_comment_that_is_meant_stays_one(tmp_path: Path, lua: str) -> None:
    assert checked(tmp_path, lua) == ([], [])


@pytest.mark.parametrize(
    ("filter_", "problem"),
    [
        (
            "event.triggerable and #history > 5",
            "3: filter does not compile: it ends before it is complete; YAML takes '#history > 5' for a comment: "
            f"{COMMENT}",
        ),
        ("#history > 5", f"3: filter: YAML takes '#history > 5' for a comment: {COMMENT}; {MEANT}"),
        (
            "event.triggerable and #history > 5\n  and event.is_https",
            f"4: not YAML: while parsing a block mapping expected <block end>, but found '<scalar>'; YAML takes "
            f"'#history > 5' for a comment: {COMMENT}",
        ),
    ],
)
def test_lua_that_yaml_cuts_is_an_error_that_says_so(tmp_path: Path, filter_: str, problem: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RULE.replace("FILTER", filter_))
    files = read_rule_files(path)
    assert problem in [str(found).removeprefix(f"{path}:") for found in (*files.problems, *files.refused_next)]
    assert files.problems


def test_traps_have_their_place(tmp_path: Path) -> None:
    warnings, _ = checked(tmp_path, '|\n  event.triggerable and\n    (event.platform == "a" or "b")')
    assert warnings == ['5: filter: `== "a" or "b"` is always true: compare with each, as `a == 1 or a == 2`']


def test_a_rule_whose_lua_does_not_compile_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(RULE.replace("FILTER", "event.event_nam != 1").replace("BODY", "${user.name"))
    files = read_rule_files(path)
    examine(files)
    assert [problem.line for problem in (*files.problems, *files.warnings, *files.refused_next)] == [3, 3, 7]
    assert files.rules == []
